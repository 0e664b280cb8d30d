//! Instructions on aarch64, under qemu: beside llama.cpp, and of tokens with experts beside the base's.

use super::{english, model};
use crate::Chunk;
use crate::report::{Report, grouped};
use peers::Result;
use peers::bars::instructions;
use peers::count::{self, Counted, ONE_THREAD};
use peers::llama::{Isa, Llama};
use peers::models;
use serde_json::json;

/// Tokens before the counted ones.
const PROMPT: usize = 8;
const TOKENS: usize = 64;
const LONG_PROMPT: usize = 128;

pub(crate) fn run(after: Option<usize>, chunk: Chunk) -> Result<Report> {
    let (plugin, ours) = (count::plugin()?, count::pleach()?);
    let file = models::base()?;
    let model = model(&file)?;
    models::xlora()?;
    models::synthetic()?;
    let mut report = Report::counted();
    report.about(format!(
        "instructions, not cycles; 1 thread; a token: (those of 64 less those of 32) / 32, after {PROMPT} tokens; a prompt \
         of {LONG_PROMPT}: those of twice less those of once"
    ));
    report.columns(&["cpu", "what", "pleach", "beside", "ratio"]);
    for isa in [Isa::CortexA76, Isa::CortexA72] {
        let llama = Llama::build(isa)?;
        let gguf = models::q8_0(&llama)?;
        let text = english(&model, PROMPT + TOKENS)?;
        let (prompt, tokens) = text.split_at(PROMPT);
        let tokens: &[u32; TOKENS] = tokens.try_into().map_err(|_| "too short a text")?;
        let long = english(&model, LONG_PROMPT)?;
        let side = |model: &str, routing: &[&str], context: usize| Counted {
            isa,
            plugin: &plugin,
            program: &ours,
            arguments: [
                "run",
                &models::path(model).display().to_string(),
                &context.to_string(),
                &chunk.tokens.to_string(),
            ]
            .map(String::from)
            .to_vec(),
            first: [&[ONE_THREAD], routing]
                .concat()
                .iter()
                .map(|c| String::from(*c))
                .collect(),
        };
        let mine = side(models::BASE, &[], LONG_PROMPT);
        let theirs = Counted::llama(&llama, &plugin, &gguf, 512);
        let decode = (mine.decode(prompt, tokens)?, theirs.decode(prompt, tokens)?);
        let prompts = (mine.prompt(&long)?, theirs.prompt(&long)?);
        for line in llama.lines() {
            report.about(format!("{}: {line}", isa.name()));
        }
        report.about(format!(
            "{}: llama.cpp's weights in {}; pleach's kernels: {}",
            isa.name(),
            decode.1.1.ready,
            decode.0.1.ready
        ));
        if isa == Isa::CortexA76 && !decode.1.1.ready.contains("REPACK") {
            return Err(format!(
                "llama.cpp for {} repacked no weights: {}",
                isa.name(),
                decode.1.1.ready
            ));
        }
        for (what, ours, peer) in [
            ("a token", decode.0.0, decode.1.0),
            ("a prompt", prompts.0, prompts.1),
        ] {
            let cells = [
                isa.name().to_owned(),
                format!("{what}, llama.cpp beside"),
                grouped(ours as u64),
                grouped(peer as u64),
            ];
            report.row(&[&cells[..], &[format!("{:.3}", ours / peer)]].concat());
            report.figure(instructions(
                &decode.0.1.ready,
                format!("{}, instructions of {what}, of llama.cpp's", isa.name()),
                ours / peer,
            ));
            report.data(
                format!("{} {what}", isa.name()),
                json!({ "pleach": ours, "llama": peer }),
            );
        }
        for name in [models::XLORA, models::SYNTHETIC] {
            let [base, routed] = ["base", "routed"].map(|routing| {
                let side = side(name, &[routing], LONG_PROMPT);
                side.decode(prompt, tokens).map(|(each, _)| each)
            });
            let (base, routed) = (base?, routed?);
            report.row(&[
                isa.name().to_owned(),
                format!("a routed token of {name}, its base beside"),
                grouped(routed as u64),
                grouped(base as u64),
                format!("{:.3}", routed / base),
            ]);
            report.data(
                format!("{} {name}", isa.name()),
                json!({ "routed": routed, "base": base }),
            );
        }
        if let Some(after) = after
            && isa == Isa::CortexA76
        {
            let text = english(&model, after + TOKENS)?;
            let (prompt, tokens) = text.split_at(after);
            let tokens = tokens.try_into().map_err(|_| "too short a text")?;
            let (each, _) = side(models::BASE, &[], text.len()).decode(prompt, tokens)?;
            let what = format!("a token after {after}");
            report.row(&[isa.name().to_owned(), what.clone(), grouped(each as u64)]);
            report.data(format!("{} {what}", isa.name()), json!({ "pleach": each }));
        }
    }
    Ok(report)
}

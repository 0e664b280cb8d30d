//! A prompt of 128 tokens.

use super::{arena, english, kernels, model, settle, three, told, turns};
use crate::How;
use crate::report::Report;
use peers::Result;
use peers::bars::Ran;
use peers::llama::Llama;
use peers::machine::Others;
use peers::models;
use peers::ours::{Ours, executor, options};
use peers::peer::Peer;
use serde_json::json;

const TOKENS: usize = 128;

pub(crate) fn run(how: &How) -> Result<Report> {
    // Said before minutes of building.
    models::checkpoint()?;
    let llama = Llama::build(how.instructions.set.isa())?;
    let gguf = models::q8_0(&llama)?;
    let file = models::base()?;
    let model = model(&file)?;
    let text = english(&model, TOKENS)?;
    let options = options(TOKENS, how.chunk.tokens);
    let mut memory = arena(&model, &options)?;
    let mut ours =
        Ours::new(model, &options, memory.bytes())?.with_kernels(kernels(how.instructions.set)?);
    let mut peer = Peer::start(&llama, &gguf, 512)?;
    ours.prompt(&text, &mut executor(1))?;
    peer.prompt(&text)?;

    let mut turns = turns(how);
    Ran::forget();
    let others = Others::since_now(&[peer.id()]);
    for round in 0..how.rounds.count {
        told(round, how.rounds.count);
        for turn in &mut turns {
            settle();
            let done = ours.prompt(&text, &mut turn.executor)?;
            turn.ours.0.push(TOKENS as f64 / done.seconds);
            settle();
            peer.threads(turn.threads)?;
            turn.other.0.push(TOKENS as f64 / peer.prompt(&text)?);
        }
    }

    let others = others.share(&[peer.id()]);
    let ran = ours.ran();

    let mut report = Report::timed(how.rounds, Some(&llama));
    report.about(format!("llama.cpp's weights in {}", peer.buffers));
    report.about(format!(
        "pleach's kernels that ran: {}; chunks of {}",
        ran.names(),
        how.chunk.tokens
    ));
    report.about(format!(
        "a prompt of {TOKENS}, the last token's logits, {} rounds",
        how.rounds.count
    ));
    report.others(others);
    report.columns(&["threads", "pleach tok/s", "llama.cpp tok/s", "ratio"]);
    for turn in &turns {
        let (threads, ratio) = (turn.threads, turn.ours.over(&turn.other));
        report.row(&[
            threads.to_string(),
            three(turn.ours.median()),
            three(turn.other.median()),
            three(ratio.median()),
        ]);
        report.figure(ran.prompt(
            format!("prompt, {threads} threads, of llama.cpp's speed"),
            ratio.median(),
        ));
        report.data(
            format!("threads_{threads}"),
            json!({
                "pleach_tokens_per_second": turn.ours.json(), "llama_tokens_per_second": turn.other.json(),
                "ratio": ratio.json(),
            }),
        );
    }
    Ok(report)
}

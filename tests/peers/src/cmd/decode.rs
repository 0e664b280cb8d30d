//! Tokens one by one.

use super::{arena, english, kernels, model, settle, three, told, turns};
use crate::How;
use crate::report::{Report, grouped};
use peers::Result;
use peers::bars::Ran;
use peers::llama::Llama;
use peers::machine::Others;
use peers::models;
use peers::ours::{Ours, executor, options};
use peers::peer::Peer;
use peers::read::Reader;
use peers::series::{Bar, Figure};
use serde_json::json;

/// Tokens of the text before the measured ones.
const PROMPT: usize = 16;
/// Measured tokens.
const TOKENS: usize = 64;

pub(crate) fn run(how: &How) -> Result<Report> {
    // Said before minutes of building.
    models::checkpoint()?;
    let llama = Llama::build(how.instructions.set.isa())?;
    let gguf = models::q8_0(&llama)?;
    let file = models::base()?;
    let model = model(&file)?;
    let text = english(&model, PROMPT + TOKENS)?;
    let (prompt, tokens) = text.split_at(PROMPT);
    let options = options(text.len(), how.chunk.tokens);
    let mut memory = arena(&model, &options)?;
    let mut ours =
        Ours::new(model, &options, memory.bytes())?.with_kernels(kernels(how.instructions.set)?);
    let mut peer = Peer::start(&llama, &gguf, 512)?;

    // Not timed. Weights that are not the same would make other texts.
    peer.threads(1)?;
    peer.prompt(prompt)?;
    ours.prompt(prompt, &mut executor(1))?;
    let (a, b) = (ours.check(tokens, &mut executor(1))?, peer.check(tokens)?);
    let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
    if same * 10 < tokens.len() * 8 {
        return Err(format!(
            "pleach and llama.cpp have the same next token at {same} of {} positions only: these are not the same weights",
            tokens.len()
        ));
    }

    ours.prompt(prompt, &mut executor(1))?;
    let bytes = ours.tokens(tokens, &mut executor(1))?.bytes() / TOKENS as u64;
    let reader = Reader::new(bytes as usize)?;
    let mut turns = turns(how);
    Ran::forget();
    let others = Others::since_now(&[peer.id()]);
    for round in 0..how.rounds.count {
        told(round, how.rounds.count);
        for turn in &mut turns {
            settle();
            ours.prompt(prompt, &mut turn.executor)?;
            let done = ours.tokens(tokens, &mut turn.executor)?;
            turn.ours.0.push(TOKENS as f64 / done.seconds);
            settle();
            peer.threads(turn.threads)?;
            peer.prompt(prompt)?;
            turn.other.0.push(TOKENS as f64 / peer.tokens(tokens)?);
            settle();
            turn.read.0.push(reader.rate(turn.threads).0);
        }
    }

    let others = others.share(&[peer.id()]);
    let ran = ours.ran();

    let mut report = Report::timed(how.rounds, Some(&llama));
    report.about(format!("llama.cpp's weights in {}", peer.buffers));
    report.about(format!("pleach's kernels that ran: {}", ran.names()));
    report.about(format!(
        "{TOKENS} tokens after {PROMPT}, {} rounds; the same next token at {same} of {TOKENS}; {} bytes a token, read by {}",
        how.rounds.count,
        grouped(bytes),
        reader.loads()
    ));
    report.others(others);
    report.columns(&[
        "threads",
        "pleach tok/s",
        "llama.cpp tok/s",
        "ratio",
        "read GB/s",
        "pleach GB/s",
        "share",
    ]);
    for turn in &turns {
        let threads = turn.threads;
        let ours_read = turn.ours.map(|rate| rate * bytes as f64);
        let (ratio, share) = (turn.ours.over(&turn.other), ours_read.over(&turn.read));
        report.row(&[
            threads.to_string(),
            three(turn.ours.median()),
            three(turn.other.median()),
            three(ratio.median()),
            three(turn.read.median() / 1e9),
            three(ours_read.median() / 1e9),
            three(share.median()),
        ]);
        let name = |what: &str| format!("decode, {threads} threads, {what}");
        report.figure(Figure::new(
            name("of llama.cpp's speed"),
            ratio.median(),
            Bar::Least(1.25),
        ));
        report.figure(Figure::new(
            name("of the read rate"),
            share.median(),
            Bar::Least(0.85),
        ));
        report.data(
            format!("threads_{threads}"),
            json!({
                "pleach_tokens_per_second": turn.ours.json(), "llama_tokens_per_second": turn.other.json(),
                "read_bytes_per_second": turn.read.json(), "ratio": ratio.json(), "share": share.json(),
            }),
        );
    }
    report.data("bytes_per_token", json!(bytes));
    Ok(report)
}

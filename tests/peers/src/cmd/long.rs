//! Tokens after a long context.

use super::{arena, english, kernels, model, settle, three, told};
use crate::report::{Report, grouped};
use crate::{Chunk, Instructions, Rounds};
use peers::Result;
use peers::bars::Ran;
use peers::llama::Llama;
use peers::machine::Others;
use peers::models;
use peers::ours::{Ours, executor, options};
use peers::peer::Peer;
use peers::read::Reader;
use peers::series::{Bar, Figure, Series};
use serde_json::json;

/// Tokens before the measured ones.
const CONTEXT: usize = 4000;
/// Measured tokens.
const TOKENS: usize = 16;

pub(crate) fn run(rounds: Rounds, instructions: Instructions, chunk: Chunk) -> Result<Report> {
    // Said before minutes of building.
    models::checkpoint()?;
    let llama = Llama::build(instructions.set.isa())?;
    let gguf = models::q8_0(&llama)?;
    let file = models::base()?;
    let model = model(&file)?;
    let text = english(&model, CONTEXT + TOKENS)?;
    let (prompt, tokens) = text.split_at(CONTEXT);
    let options = options(text.len(), chunk.tokens);
    let mut memory = arena(&model, &options)?;
    let mut ours =
        Ours::new(model, &options, memory.bytes())?.with_kernels(kernels(instructions.set)?);
    let mut peer = Peer::start(&llama, &gguf, CONTEXT + TOKENS)?;
    let mut one = executor(1);
    eprintln!("computing {CONTEXT} tokens");
    ours.prompt(prompt, &mut one)?;
    peer.threads(1)?;
    peer.prompt(prompt)?;
    let bytes = ours.tokens(tokens, &mut one)?.bytes() / TOKENS as u64;
    let reader = Reader::new(bytes as usize)?;

    let (mut mine, mut theirs, mut read) =
        (Series::default(), Series::default(), Series::default());
    Ran::forget();
    let others = Others::since_now(&[peer.id()]);
    for round in 0..rounds.count {
        told(round, rounds.count);
        ours.session
            .rewind(CONTEXT)
            .map_err(|e| format!("pleach: {e}"))?;
        mine.0
            .push(ours.tokens(tokens, &mut one)?.seconds / TOKENS as f64);
        settle();
        peer.rewind(CONTEXT)?;
        theirs.0.push(peer.tokens(tokens)? / TOKENS as f64);
        settle();
        read.0.push(bytes as f64 / reader.rate(1).0);
    }

    let others = others.share(&[peer.id()]);
    let ran = ours.ran();

    let mut report = Report::timed(rounds, Some(&llama));
    report.about(format!("pleach's kernels that ran: {}", ran.names()));
    report.about(format!(
        "{TOKENS} tokens after {CONTEXT}, 1 thread, {} rounds; {} bytes of weights, keys and values a token",
        rounds.count,
        grouped(bytes)
    ));
    report.others(others);
    report.columns(&["a token", "ms", "of the read's time"]);
    let (ours_over, theirs_over) = (mine.over(&read), theirs.over(&read));
    let row = |name: &str, time: &Series, over: f64| {
        [name.to_owned(), three(time.median() * 1e3), three(over)]
    };
    report.row(&row("pleach", &mine, ours_over.median()));
    report.row(&row("llama.cpp", &theirs, theirs_over.median()));
    report.row(&row("the read of its bytes", &read, 1.0));
    report.figure(Figure::new(
        format!("a token after {CONTEXT}, 1 thread, of the time that its bytes take"),
        ours_over.median(),
        Bar::Most(1.25),
    ));
    report.figure(Figure::new(
        "the same, of llama.cpp's speed",
        theirs.over(&mine).median(),
        Bar::None,
    ));
    report.data(
        "seconds",
        json!({ "pleach": mine.json(), "llama": theirs.json(), "read": read.json() }),
    );
    report.data("bytes_per_token", json!(bytes));
    Ok(report)
}

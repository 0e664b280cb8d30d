//! A sweep of two columns beside one of one.

use super::{arena, english, kernels, model, three, told, turns};
use crate::How;
use crate::report::Report;
use peers::Result;
use peers::bars::Ran;
use peers::machine::Others;
use peers::models;
use peers::ours::{Ours, executor, options};
use peers::series::Series;
use pleach::{LogitsKind, SessionOptions};
use pleach_linux::ThreadPool;
use serde_json::json;

/// Tokens before the measured ones.
const PROMPT: usize = 32;
/// Sweeps of each kind in a round.
const SWEEPS: usize = 16;

pub(crate) fn run(how: &How) -> Result<Report> {
    let file = models::base()?;
    let model = model(&file)?;
    let text = english(&model, PROMPT + 2)?;
    let (prompt, next) = text.split_at(PROMPT);
    // As in a speculative sweep, each column has its logits.
    let options = SessionOptions {
        logits: LogitsKind::Sweep,
        ..options(text.len(), how.chunk.tokens.max(2))
    };
    let mut memory = arena(&model, &options)?;
    let mut ours =
        Ours::new(model, &options, memory.bytes())?.with_kernels(kernels(how.instructions.set)?);
    let mut turns = turns(how);
    ours.prompt(prompt, &mut executor(1))?;
    let mut one_sweep = |columns: usize, executor: &mut ThreadPool| -> Result<f64> {
        ours.session
            .rewind(PROMPT)
            .map_err(|e| format!("pleach: {e}"))?;
        let done = ours.push(&next[..columns], executor)?;
        let counted = (done.counters.sweeps, done.counters.columns);
        match counted == (1, columns as u64) {
            true => Ok(done.seconds),
            false => Err(format!(
                "{counted:?} sweeps and columns, not (1, {columns})"
            )),
        }
    };
    Ran::forget();
    let others = Others::since_now(&[]);
    for round in 0..how.rounds.count {
        told(round, how.rounds.count);
        for turn in &mut turns {
            let (mut one, mut two) = (Series::default(), Series::default());
            for _ in 0..SWEEPS {
                one.0.push(one_sweep(1, &mut turn.executor)?);
                two.0.push(one_sweep(2, &mut turn.executor)?);
            }
            turn.other.0.push(one.median());
            turn.ours.0.push(two.median());
        }
    }

    let others = others.share(&[]);
    let ran = ours.ran();

    let mut report = Report::timed(how.rounds, None);
    report.about(format!("pleach's kernels that ran: {}", ran.names()));
    report.about(format!(
        "one token or two after {PROMPT}, each with its logits; {} rounds of {SWEEPS} sweeps",
        how.rounds.count
    ));
    report.others(others);
    report.columns(&["threads", "one column, ms", "two columns, ms", "ratio"]);
    for turn in &turns {
        let (threads, one, two) = (turn.threads, &turn.other, &turn.ours);
        let ratio = two.over(one);
        report.row(&[
            threads.to_string(),
            three(one.median() * 1e3),
            three(two.median() * 1e3),
            three(ratio.median()),
        ]);
        report.figure(ran.columns(
            format!("two columns, {threads} threads, of one column's time"),
            ratio.median(),
        ));
        report.data(
            format!("threads_{threads}"),
            json!({ "one_seconds": one.json(), "two_seconds": two.json(), "ratio": ratio.json() }),
        );
    }
    Ok(report)
}

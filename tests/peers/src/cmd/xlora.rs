//! What experts, classifier and guesses cost.

use super::{arena, english, kernels, model, settle, three, told, turns};
use crate::How;
use crate::report::{Report, grouped};
use parity::smol::{self, EXPERTS, Pair};
use peers::Result;
use peers::bars::Ran;
use peers::machine::Others;
use peers::models;
use peers::ours::{Done, Ours, executor, options};
use peers::read::Windows;
use peers::series::{Bar, Figure, Series};
use pleach::{Budget, Executor, Kernels, Model, Routing, Session, SessionOptions, Speculate, Work};
use pleach_linux::{Limits, ThreadPool, Watch, generate};
use serde_json::json;
use std::ops::ControlFlow;
use std::time::Instant;

/// Tokens before the measured ones, whose last one gives the held scalings.
const PROMPT: usize = 16;
/// Measured tokens.
const TOKENS: usize = 16;
/// Tokens of an answer, at most.
const ANSWER: usize = 32;

pub(crate) fn run(how: &How) -> Result<Report> {
    let mut report = Report::timed(how.rounds, None);
    let kernels = kernels(how.instructions.set)?;
    report.about(format!(
        "{} rounds; a routed token: the held scalings of the prompt's last token, one column; classifier: one \
         scaling pass; a whole token: greedy answers to held-out prompts",
        how.rounds.count
    ));
    report.columns(&[
        "what",
        "threads",
        "ms",
        "beside ms",
        "ratio",
        "bytes' ratio",
    ]);
    let (trained, synthetic) = (models::xlora()?, models::synthetic()?);
    let trained = model(&trained)?;
    // The synthetic model has no tokenizer of its own, and the same vocabulary.
    let text = english(&trained, PROMPT + TOKENS)?;
    Ran::forget();
    let others = Others::since_now(&[]);
    routed(how, kernels, &mut report, models::XLORA, trained, &text)?;
    let synthetic = model(&synthetic)?;
    routed(
        how,
        kernels,
        &mut report,
        "4 experts of rank 16, top-2",
        synthetic,
        &text,
    )?;
    classifier(how, kernels, &mut report, trained)?;
    whole(how, kernels, &mut report, trained)?;
    report.others(others.share(&[]));
    let ran = Ran::on(kernels);
    report.about(format!("pleach's kernels that ran: {}", ran.names()));
    Ok(report)
}

/// A routed sweep beside a sweep of the base alone.
fn routed(
    how: &How,
    kernels: Kernels,
    report: &mut Report,
    name: &str,
    model: Model<'_>,
    text: &[u32],
) -> Result<()> {
    let (prompt, tokens) = text.split_at(PROMPT);
    let options = options(text.len(), how.chunk.tokens);
    let mut memory = [arena(&model, &options)?, arena(&model, &options)?];
    let [a, b] = &mut memory;
    let mut base = Ours::new(model, &options, a.bytes())?.with_kernels(kernels);
    let mut mixed = Ours::new(model, &options, b.bytes())?.with_kernels(kernels);
    for (ours, routing) in [(&mut base, Routing::Base), (&mut mixed, Routing::Prompt)] {
        ours.session.set_routing(routing).map_err(refused)?;
        ours.prompt(prompt, &mut executor(1))?;
    }
    let again = |ours: &mut Ours<'_, '_>, executor: &mut ThreadPool| -> Result<Done> {
        ours.session.rewind(PROMPT).map_err(refused)?;
        let done = ours.tokens(tokens, executor)?;
        let counted = (done.counters.sweeps, done.counters.columns);
        match counted == (TOKENS as u64, TOKENS as u64) {
            true => Ok(done),
            false => Err(format!("{counted:?} sweeps and columns of {TOKENS} tokens")),
        }
    };
    let mut one = executor(1);
    let bytes = [&mut base, &mut mixed].map(|ours| again(ours, &mut one).map(|done| done.bytes()));
    let [base_bytes, bytes] = bytes;
    let (base_bytes, bytes) = (base_bytes?, bytes?);
    let more_bytes = bytes as f64 / base_bytes as f64;
    let mut turns = turns(how);
    for round in 0..how.rounds.count {
        told(round, how.rounds.count);
        for turn in &mut turns {
            let base = again(&mut base, &mut turn.executor)?;
            let mixed = again(&mut mixed, &mut turn.executor)?;
            turn.other.0.push(base.seconds / TOKENS as f64);
            turn.ours.0.push(mixed.seconds / TOKENS as f64);
        }
    }
    for turn in &turns {
        let (threads, a, b) = (turn.threads, &turn.other, &turn.ours);
        let more = b.over(a);
        report.row(&[
            format!("{name}, routed beside base"),
            threads.to_string(),
            three(b.median() * 1e3),
            three(a.median() * 1e3),
            format!("{:.3}", more.median()),
            format!("{more_bytes:.3}"),
        ]);
        report.figure(match name == models::XLORA {
            true => Figure::new(
                format!("{name}, {threads} threads, routed of the base's time"),
                more.median(),
                Bar::Most(1.10),
            ),
            false => Figure::new(
                format!("{name}, {threads} threads, more time over more bytes"),
                (more.median() - 1.0) / (more_bytes - 1.0),
                Bar::Most(1.3),
            ),
        });
        report.data(
            format!("{name}, {threads} threads"),
            json!({
                "base_seconds": a.json(), "routed_seconds": b.json(), "ratio": more.json(),
                "base_bytes": base_bytes, "routed_bytes": bytes,
            }),
        );
    }
    Ok(())
}

/// An executor that takes down when each work began and ended.
struct Timed {
    works: Vec<Timing>,
}

struct Timing {
    began: Instant,
    ended: Instant,
    macs: u64,
}

impl Executor for Timed {
    fn run(&mut self, work: Work<'_>) {
        let macs = work.rows() as u64 * u64::from(work.cost_per_row());
        let began = Instant::now();
        work.run();
        self.works.push(Timing {
            began,
            ended: Instant::now(),
            macs,
        });
    }
}

/// The classifier in one scaling pass.
struct Pass {
    /// What its matrices hold.
    bytes: u64,
    /// Seconds of its matrices.
    matrices: f64,
    /// Seconds up to the end of the sweep, softmax and top-k among them.
    whole: f64,
}

/// Its matrices are the last works of a scaling pass's sweep.
fn classify(session: &mut Session<'_, '_>, kernels: Kernels, token: u32) -> Result<Pass> {
    let before = session.counters();
    session.push(&[token]).map_err(refused)?;
    let mut timed = Timed { works: vec![] };
    session
        .step(kernels, &mut timed, Budget::UNLIMITED)
        .map_err(refused)?;
    let ended = Instant::now();
    let done = session.counters().since(before);
    if done.sweeps != 1 || done.classifier_macs == 0 {
        return Err(format!("not one scaling pass: {done:?}"));
    }
    let (mut macs, mut first) = (0, timed.works.len());
    while macs < done.classifier_macs && first > 0 {
        first -= 1;
        macs += timed.works[first].macs;
    }
    if macs > done.classifier_macs + done.classifier_macs / 10 {
        return Err("the last works of a scaling pass are not the classifier's".into());
    }
    let (begin, end) = match (timed.works.get(first), timed.works.last()) {
        (Some(a), Some(b)) => (a.began, b.ended),
        _ => return Err("a sweep without works".into()),
    };
    session.run(kernels, &mut executor(1)).map_err(refused)?;
    Ok(Pass {
        bytes: done.classifier_bytes,
        matrices: (end - begin).as_secs_f64(),
        whole: (ended - begin).as_secs_f64(),
    })
}

/// The classifier beside the read of its bytes.
fn classifier(how: &How, kernels: Kernels, report: &mut Report, model: Model<'_>) -> Result<()> {
    let text = english(&model, PROMPT + TOKENS)?;
    let (prompt, tokens) = text.split_at(PROMPT);
    let options = options(text.len(), how.chunk.tokens);
    let mut memory = arena(&model, &options)?;
    let mut ours = Ours::new(model, &options, memory.bytes())?.with_kernels(kernels);
    ours.prompt(prompt, &mut executor(1))?;
    // Not timed: how much a pass reads, and how much else is read before the next one.
    let before = ours.session.counters();
    let bytes = classify(&mut ours.session, kernels, tokens[0])?.bytes;
    let pass = ours.session.counters().since(before);
    let mut windows = Windows::new(bytes as usize, (pass.weight_bytes + pass.kv_bytes) as usize)?;
    let (mut matrices, mut whole, mut read) =
        (Series::default(), Series::default(), Series::default());
    for round in 0..how.rounds.count {
        told(round, how.rounds.count);
        ours.session.rewind(PROMPT).map_err(refused)?;
        let mut of_round = [(); 3].map(|()| Series::default());
        for token in tokens {
            let pass = classify(&mut ours.session, kernels, *token)?;
            if pass.bytes != bytes {
                return Err(format!(
                    "the classifier read {} bytes, and {bytes} before",
                    pass.bytes
                ));
            }
            let read = bytes as f64 / windows.rate();
            for (series, seconds) in of_round.iter_mut().zip([pass.matrices, pass.whole, read]) {
                series.0.push(seconds);
            }
        }
        for (all, of_round) in [&mut matrices, &mut whole, &mut read]
            .into_iter()
            .zip(&of_round)
        {
            all.0.push(of_round.median());
        }
    }
    let over = matrices.over(&read);
    report.row(&[
        format!("classifier beside the read of {} bytes", grouped(bytes)),
        "1".into(),
        three(matrices.median() * 1e3),
        three(read.median() * 1e3),
        format!("{:.3}", over.median()),
        String::new(),
    ]);
    report.figure(Figure::new(
        "classifier's matrices, of the time that their bytes take",
        over.median(),
        Bar::Most(1.3),
    ));
    report.figure(Figure::new(
        "the same with softmax, top-k and the end of the sweep",
        whole.over(&read).median(),
        Bar::None,
    ));
    report.data(
        "classifier",
        json!({
            "bytes": bytes, "matrices_seconds": matrices.json(), "whole_seconds": whole.json(),
            "read_seconds": read.json(),
        }),
    );
    Ok(())
}

/// Notes when the prompt was done, and when the last token was.
struct Clock {
    first: Option<Instant>,
    last: Instant,
}

impl Watch for Clock {
    fn token(&mut self, _: u32) -> ControlFlow<()> {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        ControlFlow::Continue(())
    }
}

/// Greedy answers: seconds of the tokens after the first one of each, and all tokens.
fn answer(
    session: &mut Session<'_, '_>,
    kernels: Kernels,
    executor: &mut ThreadPool,
    pairs: &[&Pair],
) -> Result<(f64, Vec<u32>)> {
    let (mut seconds, mut all) = (0.0, vec![]);
    for pair in pairs {
        session.rewind(0).map_err(refused)?;
        let mut clock = Clock {
            first: None,
            last: Instant::now(),
        };
        let limits = Limits::new(ANSWER, &[END]);
        let prompt = &pair.tokens[0];
        let done = generate(session, kernels, executor, prompt, &limits, &mut clock);
        all.extend(done.map_err(refused)?.tokens);
        let first = clock.first.ok_or("an answer without tokens")?;
        seconds += (clock.last - first).as_secs_f64();
    }
    Ok((seconds, all))
}

/// The token that ends an answer.
const END: u32 = 2;

/// Exact decoding: the held guess beside two sweeps a token.
fn whole(how: &How, kernels: Kernels, report: &mut Report, model: Model<'_>) -> Result<()> {
    let pairs = smol::heldout();
    // A round has one prompt of each domain.
    let of_round = |round: u32| -> Vec<&Pair> {
        let nth = |name: &&str| {
            let mut own = pairs.iter().filter(|p| p.domain == **name).cycle();
            own.nth(round as usize)
        };
        EXPERTS.iter().filter_map(nth).collect()
    };
    let longest = pairs.iter().map(|p| p.tokens[0].len()).max().unwrap_or(1);
    let options = |speculate| SessionOptions {
        speculate,
        ..options(longest + ANSWER, how.chunk.tokens)
    };
    let (off, held) = (options(Speculate::Off), options(Speculate::Held));
    let mut memory = [arena(&model, &off)?, arena(&model, &held)?];
    let [a, b] = &mut memory;
    let mut naive = Session::new(model, &off, a.bytes()).map_err(refused)?;
    let mut guessed = Session::new(model, &held, b.bytes()).map_err(refused)?;
    let mut turns = turns(how);
    answer(&mut naive, kernels, &mut executor(1), &of_round(0))?;
    answer(&mut guessed, kernels, &mut executor(1), &of_round(0))?;
    for round in 0..how.rounds.count {
        told(round, how.rounds.count);
        let pairs = of_round(round);
        for turn in &mut turns {
            settle();
            let (a, left) = answer(&mut naive, kernels, &mut turn.executor, &pairs)?;
            let (b, right) = answer(&mut guessed, kernels, &mut turn.executor, &pairs)?;
            if left != right {
                return Err("the held guess changed a token".into());
            }
            let tokens = (left.len() - pairs.len()) as f64;
            turn.other.0.push(a / tokens);
            turn.ours.0.push(b / tokens);
        }
    }
    for turn in &turns {
        let (threads, slow, fast) = (turn.threads, &turn.other, &turn.ours);
        let ratio = fast.over(slow);
        report.row(&[
            "xlora-smol, whole token, held guess beside naive".into(),
            threads.to_string(),
            three(fast.median() * 1e3),
            three(slow.median() * 1e3),
            format!("{:.3}", ratio.median()),
            String::new(),
        ]);
        report.figure(Figure::new(
            format!("xlora-smol, {threads} threads, whole token with the held guess of the naive one's time"),
            ratio.median(),
            Bar::Most(0.70),
        ));
        report.data(
            format!("whole token, {threads} threads"),
            json!({ "naive_seconds": slow.json(), "held_seconds": fast.json(), "ratio": ratio.json() }),
        );
    }
    Ok(())
}

fn refused(e: pleach::Error) -> String {
    format!("pleach: {e}")
}

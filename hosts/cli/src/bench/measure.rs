//! The rounds: every number of threads in turn, so that what disturbs one disturbs all.

use super::Rates;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Busy};
use indicatif::{ProgressBar, ProgressStyle};
use pleach::{Counters, Error, Kernels, Model, Session, SessionOptions};
use pleach_linux::{Arena, Bandwidth, End, Limits, Setup, ThreadPool, Watch, generate};
use std::fmt::Display;
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

/// What to measure.
pub(crate) struct Work<'w> {
    pub(crate) prompt: &'w [u32],
    /// Tokens after the prompt, each pushed.
    pub(crate) tokens: usize,
    pub(crate) rounds: usize,
    pub(crate) threads: &'w [usize],
}

/// What was measured.
pub(crate) struct Measurement {
    pub(crate) kernels: &'static str,
    /// Counters of the prompt, and of all tokens after it: the same in every round.
    pub(crate) prompt: Counted,
    pub(crate) decode: Counted,
    /// By number of threads.
    pub(crate) speeds: Vec<Speed>,
    /// Bytes that were read to measure the machine.
    pub(crate) buffer: usize,
    /// Bytes per second with 1, 2, .. streams.
    pub(crate) bandwidth: Vec<f64>,
}

/// Tokens and what they took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) tokens: usize,
    pub(crate) counters: Counters,
}

/// Tokens per second with one number of threads.
pub(crate) struct Speed {
    pub(crate) threads: usize,
    pub(crate) prompt: Rates,
    pub(crate) decode: Rates,
    /// [`ThreadPool::hand_over`].
    pub(crate) hand_over: Option<Duration>,
}

impl Measurement {
    /// What the machine reads in a second with up to `threads` streams.
    pub(crate) fn machine(&self, threads: usize) -> f64 {
        let streams = self.bandwidth.iter().take(threads.max(1));
        streams.copied().fold(0.0, f64::max)
    }

    /// The share of it that decoding reached: weights, keys and values.
    pub(crate) fn share(&self, speed: &Speed) -> f64 {
        match self.machine(speed.threads) {
            0.0 => 0.0,
            machine => self.decode.bytes_per_token() * speed.decode.median() / machine,
        }
    }

    /// Whether any figure is too uncertain.
    pub(crate) fn noisy(&self) -> bool {
        self.speeds
            .iter()
            .any(|s| s.prompt.noisy() || s.decode.noisy())
    }
}

impl Counted {
    /// A count for each token.
    pub(crate) fn each(&self, count: u64) -> f64 {
        count as f64 / self.tokens.max(1) as f64
    }

    /// Bytes of weights, keys and values that a token reads.
    pub(crate) fn bytes_per_token(&self) -> f64 {
        self.each(self.counters.weight_bytes + self.counters.kv_bytes)
    }
}

/// One round.
struct Round {
    prompt_seconds: f64,
    decode_seconds: f64,
    prompt: Counters,
    decode: Counters,
    generated: Vec<u32>,
}

/// Runs all rounds, then measures the machine.
pub(crate) fn measure(
    file: impl Display,
    model: Model<'_>,
    options: &SessionOptions,
    setup: &Setup<'_>,
    work: &Work<'_>,
) -> Result<Measurement> {
    let refused = |e: Error| Failure::core(&file, e);
    let mut arena = Arena::new(model.arena_bytes(options)).map_err(Failure::memory)?;
    let mut session = Session::new(model, options, arena.bytes()).map_err(refused)?;
    setup.apply(&mut session).map_err(refused)?;
    let kernels = Kernels::detect();
    let busy = Busy::new();
    let bar = progress(1 + work.rounds * work.threads.len());
    let mut round = |threads: usize| -> Result<Round> {
        let round = one(&mut session, kernels, threads, work);
        bar.inc(1);
        match round.map_err(refused)? {
            Some(round) => Ok(round),
            None => {
                bar.finish_and_clear();
                Err(Failure::interrupted("nothing was measured"))
            }
        }
    };
    // Not counted: it brings the file into memory.
    let first = round(work.threads.iter().copied().max().unwrap_or(1))?;
    let mut all: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); work.threads.len()];
    for _ in 0..work.rounds {
        for (threads, (prompt, decode)) in work.threads.iter().zip(&mut all) {
            let r = round(*threads)?;
            if (&r.generated, r.prompt, r.decode) != (&first.generated, first.prompt, first.decode)
            {
                return Err(Failure::machine(
                    format!("{file}: two rounds of the same text differ"),
                    "this is a mistake in pleach, or the machine's memory is bad: please report it",
                ));
            }
            prompt.push(work.prompt.len() as f64 / r.prompt_seconds);
            decode.push(work.tokens as f64 / r.decode_seconds);
        }
    }
    bar.finish_and_clear();
    let stop = || match interrupt::asked() {
        true => Err(Failure::interrupted("nothing was measured")),
        false => Ok(()),
    };
    stop()?;
    let decode = Counted {
        tokens: work.tokens,
        counters: first.decode,
    };
    let machine = Bandwidth::new(decode.bytes_per_token() as usize).map_err(Failure::memory)?;
    let streams = work.threads.iter().copied().max().unwrap_or(1);
    let mut bandwidth = Vec::new();
    for n in 1..=streams {
        bandwidth.push(machine.bytes_per_second(n));
        stop()?;
    }
    let mut speeds = Vec::new();
    for (threads, (prompt, decode)) in work.threads.iter().zip(all) {
        speeds.push(Speed {
            threads: *threads,
            prompt: Rates::new(prompt),
            decode: Rates::new(decode),
            hand_over: ThreadPool::new(*threads).hand_over(),
        });
        stop()?;
    }
    let measurement = Measurement {
        kernels: kernels.name(),
        prompt: Counted {
            tokens: work.prompt.len(),
            counters: first.prompt,
        },
        decode,
        speeds,
        buffer: machine.bytes(),
        bandwidth,
    };
    drop(busy);
    Ok(measurement)
}

/// Shown where standard error is a terminal.
fn progress(rounds: usize) -> ProgressBar {
    let bar = ProgressBar::new(rounds as u64);
    if let Ok(style) = ProgressStyle::with_template("round {pos} of {len} {wide_bar} {eta}") {
        bar.set_style(style.progress_chars("██░"));
    }
    bar
}

/// The prompt, then the tokens after it; `None` if the user asked to stop.
fn one(
    session: &mut Session<'_, '_>,
    kernels: Kernels,
    threads: usize,
    work: &Work<'_>,
) -> std::result::Result<Option<Round>, Error> {
    session.rewind(0)?;
    let mut executor = ThreadPool::new(threads);
    let start = session.counters();
    let now = Instant::now();
    let mut clock = Clock {
        began: now,
        prompt_done: None,
        ended: now,
        seen: start,
        at_prompt: start,
    };
    // The last token is drawn but not pushed.
    let limits = Limits::new(work.tokens + 1, &[]);
    let done = generate(
        session,
        kernels,
        &mut executor,
        work.prompt,
        &limits,
        &mut clock,
    )?;
    if done.end == End::Interrupted {
        return Ok(None);
    }
    let prompt_done = clock.prompt_done.unwrap_or(clock.ended);
    let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64().max(1e-9);
    Ok(Some(Round {
        prompt_seconds: seconds(clock.began, prompt_done),
        decode_seconds: seconds(prompt_done, clock.ended),
        prompt: clock.at_prompt.since(start),
        decode: clock.seen.since(clock.at_prompt),
        generated: done.tokens,
    }))
}

/// Notes when the prompt was done and when each token was.
struct Clock {
    began: Instant,
    prompt_done: Option<Instant>,
    ended: Instant,
    seen: Counters,
    at_prompt: Counters,
}

impl Watch for Clock {
    fn sweep(&mut self, session: &Session<'_, '_>, _: Range<usize>) -> ControlFlow<()> {
        self.seen = session.counters();
        match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn token(&mut self, _: u32) -> ControlFlow<()> {
        self.ended = Instant::now();
        if self.prompt_done.is_none() {
            self.prompt_done = Some(self.ended);
            self.at_prompt = self.seen;
        }
        ControlFlow::Continue(())
    }
}

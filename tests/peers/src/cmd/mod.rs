//! A file per command, and what they share.

pub(crate) mod aarch64;
pub(crate) mod columns;
pub(crate) mod decode;
pub(crate) mod long;
pub(crate) mod prompt;
pub(crate) mod read;
pub(crate) mod xlora;

use crate::{How, IsaOption};
use peers::Result;
use peers::ours::executor;
use peers::series::Series;
use pleach::{Kernels, Model};
use pleach_linux::{Arena, ModelFile, ThreadPool};
use std::time::Duration;

/// The model in a file.
fn model(file: &ModelFile) -> Result<Model<'_>> {
    file.blob()
        .and_then(Model::parse)
        .map_err(|e| format!("a packed file must parse: {e}"))
}

/// Memory for a session.
fn arena(model: &Model<'_>, options: &pleach::SessionOptions) -> Result<Arena> {
    Arena::new(model.arena_bytes(options)).map_err(|e| e.to_string())
}

/// The kernels that a command may use.
fn kernels(isa: IsaOption) -> Result<Kernels> {
    let mut all = Kernels::available();
    let found = match isa {
        IsaOption::Native => all.next(),
        IsaOption::Avx2 => all.find(|k| k.name().ends_with("avx2")),
    };
    found.ok_or_else(|| format!("this processor has no kernels for {isa:?}"))
}

/// English, as the model cuts it, over and over.
fn english(model: &Model<'_>, tokens: usize) -> Result<Vec<u32>> {
    let path = parity::fixture::root().join("english/python-reference.txt");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let all = parity::text::encode(model, &text);
    Ok(all.iter().copied().cycle().take(tokens).collect())
}

/// What was measured at one number of threads: a number a round.
struct Turn {
    threads: usize,
    executor: ThreadPool,
    /// pleach, or what is looked at.
    ours: Series,
    /// llama.cpp, or what it stands beside.
    other: Series,
    /// What the machine reads.
    read: Series,
}

/// One for each number of threads. Their pools stay: a new thread has to start before it can help.
fn turns(how: &How) -> Vec<Turn> {
    let turn = |threads: &usize| Turn {
        threads: *threads,
        executor: executor(*threads),
        ours: Series::default(),
        other: Series::default(),
        read: Series::default(),
    };
    how.threads.counts.iter().map(turn).collect()
}

/// Lets the other side's threads, which spin for a while after their work, fall asleep.
fn settle() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Says how far it is, on standard error.
fn told(round: u32, rounds: u32) {
    eprint!("\rround {} of {rounds}", round + 1);
    if round + 1 == rounds {
        eprintln!();
    }
}

/// `12.34`, three digits.
fn three(n: f64) -> String {
    match n {
        0.0..10.0 => format!("{n:.2}"),
        10.0..100.0 => format!("{n:.1}"),
        _ => format!("{n:.0}"),
    }
}

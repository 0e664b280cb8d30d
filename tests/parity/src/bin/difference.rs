//! Where the bits of another machine, or of an emulated CPU, part from this one's: the first operation, row and bits.
//!
//! ```text
//! difference FILE KV PROGRAM...       compares with PROGRAM..., which gets a number of steps as one argument more
//! difference --state FILE KV STEPS    what a run has done after so many steps: what such a program is to print
//! ```
//!
//! As in `difference m.pleach f16 qemu-aarch64 -cpu max target/aarch64-unknown-linux-gnu/release/difference --state m.pleach f16`.
//! The text follows from the vocabulary, token by token, as that of `hashes`. Exit codes: 0 done, whether there is a
//! difference or none, 1 a failure, 2 wrong usage.

use parity::lockstep::{Elsewhere, Here, Run, first_difference};
use parity::{File, Mode, Setup, Text, mode, text};
use pleach::{Kernels, KvType};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--state", file, kv, steps] => with_run(file, kv, |run| state(run, steps)),
        [file, kv, _, ..] if !file.starts_with('-') => {
            with_run(file, kv, |run| difference(run, &args[2..]))
        }
        _ => {
            eprintln!(
                "difference: a file, a KV type and a program are expected\n  difference FILE f32|f16 PROGRAM...\n  difference --state FILE f32|f16 STEPS"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("difference: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Sets a run of this process up.
fn with_run(
    path: &str,
    kv: &str,
    then: impl FnOnce(&Here<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let kv = match kv {
        "f32" => KvType::F32,
        "f16" => KvType::F16,
        other => return Err(format!("{other} is no KV type: f32 or f16")),
    };
    let file = File::new(&std::fs::read(path).map_err(|e| format!("{path}: {e}"))?);
    let model = file.model();
    let tokens = text::of_vocabulary(&model);
    let text = Text::new(&tokens, 0);
    let options = mode::options(&Mode::NAIVE, &Setup::exact(kv), &text);
    then(&Here {
        model,
        kernels: Kernels::detect(),
        options: &options,
        tokens: &tokens,
    })
}

fn state(run: &Here<'_>, steps: &str) -> Result<(), String> {
    let steps = steps.parse().map_err(|e| format!("{steps}: {e}"))?;
    let state = run.after(steps)?;
    state
        .write(&mut std::io::stdout().lock())
        .map_err(|e| format!("standard output: {e}"))
}

fn difference(run: &Here<'_>, program: &[String]) -> Result<(), String> {
    let map = run.model.arena_map(run.options);
    match first_difference(run, &Elsewhere(program), &map)? {
        Some(first) => println!("{first}"),
        None => println!("none in the vocabulary's text, token by token"),
    }
    Ok(())
}

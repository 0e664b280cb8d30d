//! The tables of ARCHITECTURE.md: what q8 costs in quality, and what each routing costs.
//!
//! ```text
//! tables q8          groups 32 to 256 on SmolLM2: bytes, perplexity, divergence from f16
//! tables routings    each routing on the intent model and on SmolLM2 with four experts
//! ```
//!
//! `PLEACH_SMOLLM2` says where SmolLM2 is (`cargo xtask tables` fetches it). Progress goes to standard error,
//! a Markdown table to standard output. Exit codes: 0 done, 1 a failure, 2 wrong usage.

mod q8;
mod routings;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["q8"] => q8::table(),
        ["routings"] => routings::tables(),
        _ => {
            eprintln!("tables: one of q8 and routings is expected\n  tables q8");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tables: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Says how far a long measurement is.
fn told(what: &str, all: usize) -> impl FnMut(usize) + '_ {
    move |done| {
        eprint!(
            "\r{what}: {done} of {all} passages{}",
            if done == all { "\n" } else { "" }
        )
    }
}

//! Every X-LoRA checkpoint of `tests/fixtures/peft` against PEFT's own f32 results: scalings before and
//! after top-k, logits, generated tokens. Tolerances as `tests/fixtures/README.md` states them.

mod against;

use against::check;
use parity::{Case, Guesses, Mode};
use pleach::Speculate;

fn every_case(mode: Mode) {
    let mut failed = Vec::new();
    for case in Case::all() {
        match check(&case, &mode) {
            Ok(line) => println!("{:<26}{line}", case.name),
            Err(e) => failed.push(format!("{}: {e}", case.name)),
        }
    }
    assert!(failed.is_empty(), "{}\n{}", mode.name(), failed.join("\n"));
}

#[test]
fn token_by_token() {
    every_case(Mode::NAIVE);
}

#[test]
fn in_chunks_of_seven() {
    every_case(Mode::whole(7));
}

#[test]
fn speculating_with_the_base_guess() {
    every_case(Mode::whole(32).speculating(Speculate::Base, Guesses::Natural));
}

#[test]
fn speculating_with_the_held_guess() {
    every_case(Mode::whole(2).speculating(Speculate::Held, Guesses::Natural));
}

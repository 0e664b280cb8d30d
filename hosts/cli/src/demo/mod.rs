//! The embedded demo: sentences in four languages in, smart-home calls out, and what the experts did to them.

mod commands;
mod engine;
mod lines;
mod screen;

use crate::failure::{Failure, Result};
use crate::options::RoutingChoice;
use crate::output::{self, say};
use commands::Next;
use engine::{Engine, Refusal};
use lines::{Line, Lines};
use pleach_linux::Arena;
use std::io::IsTerminal;

pleach::include_blob!(
    /// The intent model, packed from `tests/fixtures/xlora-intent` (`tests/demo_blob.rs` holds it to that).
    static INTENT = "../../intent.pleach"
);

/// What `pleach --help` says about it.
pub(crate) const HELP: &str = "\
Without a command:
  pleach                          sentences from the terminal, in English, German, French or Spanish
  pleach < sentences.txt          one a line; for each one line of five fields, separated by tabs:
                                  sentence, call, the base model's call, tokens of the call, sweeps

  A sentence is lower-cased, and spaces and . ! ? at its ends are dropped. The model reads BOS, the
  sentence and one newline; its answer ends at token 2; both fit 64 tokens. /help lists the commands.

Exit codes: 0 done, 1 the machine failed, 2 input or usage was refused, 130 interrupted";

/// Answers sentences until there are no more.
pub(crate) fn run() -> Result<()> {
    let mut arena = Arena::new(INTENT.arena_bytes(&engine::OPTIONS)).map_err(Failure::memory)?;
    let mut engine = Engine::new(&INTENT, arena.bytes())?;
    let input = std::io::stdin();
    let mut lines = Lines::new(input.lock());
    if input.is_terminal() && output::is_terminal() {
        converse(&mut engine, &mut lines)
    } else {
        convert(&mut engine, &mut lines)
    }
}

/// A person at a terminal.
fn converse(engine: &mut Engine<'_, '_>, lines: &mut Lines<impl std::io::BufRead>) -> Result<()> {
    output::write(format_args!(
        "{}",
        screen::welcome(&INTENT, output::width())
    ))?;
    let mut routing = RoutingChoice::Exact;
    loop {
        output::write(format_args!("{}", screen::PROMPT))?;
        let sentence = match lines.next(&INTENT)? {
            Line::End => return say!(""),
            Line::Empty => {
                say!(
                    "{}",
                    screen::hint("an empty line: type a sentence, or /help", output::width())
                )?;
                continue;
            }
            Line::Refused(refusal) => {
                say!("{}", screen::refusal(&refusal, output::width()))?;
                continue;
            }
            Line::Command(command) => {
                let width = output::width();
                match commands::run(&command, &mut routing, &INTENT, width) {
                    Next::Quit => return Ok(()),
                    Next::Show(text) => say!("{text}\n")?,
                }
                continue;
            }
            Line::Sentence(sentence) => sentence,
        };
        match engine.answer(&sentence, &routing)? {
            Ok(answer) => say!("{}", screen::answer(&INTENT, &answer, output::width()))?,
            Err(refusal) => say!("{}", screen::refusal(&refusal, output::width()))?,
        }
    }
}

/// A file or a pipe: one line per sentence, the same each time. What cannot be answered is named on standard
/// error, and makes the exit code 2 in the end.
fn convert(engine: &mut Engine<'_, '_>, lines: &mut Lines<impl std::io::BufRead>) -> Result<()> {
    let mut routing = RoutingChoice::Exact;
    let mut refused = 0;
    loop {
        let result = match lines.next(&INTENT)? {
            Line::End => break,
            Line::Empty => {
                output::note(&format!("line {}: empty", lines.number()));
                continue;
            }
            Line::Command(command) => {
                match commands::run(&command, &mut routing, &INTENT, 80) {
                    Next::Quit => break,
                    Next::Show(text) => eprintln!("{text}"),
                }
                continue;
            }
            Line::Refused(refusal) => Err(refusal),
            Line::Sentence(sentence) => engine.answer(&sentence, &routing)?.map(|a| (sentence, a)),
        };
        match result {
            Ok((sentence, a)) => say!(
                "{sentence}\t{}\t{}\t{}\t{}",
                a.call,
                a.base,
                a.tokens,
                a.sweeps
            )?,
            Err(Refusal { why, cure }) => {
                refused += 1;
                eprintln!("line {}: {why}\n  {cure}", lines.number());
            }
        }
    }
    match refused {
        0 => Ok(()),
        n => Err(Failure::refused(
            format!("{n} of {} lines got no answer", lines.number()),
            "their numbers and reasons are above",
        )),
    }
}

//! `pleach`: packs, repacks and inspects X-LoRA models, continues texts and chats with them, traces, plans and measures
//! them; without a command it shows a small one.
//!
//! Exit codes: 0 done, 1 the machine failed, 2 input or usage was refused, 130 interrupted. Standard error:
//! the cause on the first line, the cure on the second, indented.

#![deny(unsafe_code)]

mod bench;
mod chat;
mod cmd;
mod demo;
mod failure;
mod inspect;
mod interrupt;
mod lines;
mod mix;
mod model;
mod options;
mod output;
mod plan;
mod printer;
mod sampling;
mod tensors;
mod written;

use clap::Parser;
use clap::error::ErrorKind;
use failure::{Failure, Result};
use std::process::ExitCode;

/// LoRA (low-rank adaptation) experts, mixed token by token over one frozen base.
///
/// Without a command: a small smart-home model that is part of this program. It reads sentences from the
/// terminal, or from standard input, one a line.
#[derive(Parser)]
#[command(name = "pleach", version, max_term_width = 100, after_help = demo::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Option<cmd::Command>,
}

fn main() -> ExitCode {
    interrupt::install();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<()> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                return e.print().map_err(|e| Failure::output(&e));
            }
            _ => return Err(e.into()),
        },
    };
    match arguments.command {
        Some(command) => command.run(),
        None => demo::run(),
    }
}

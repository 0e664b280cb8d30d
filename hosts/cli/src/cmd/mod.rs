//! The commands, a file each.

mod bench;
mod chat;
mod inspect;
mod pack;
mod plan;
mod repack;
mod run;
mod trace;

pub(crate) use chat::Chat;

use crate::failure::Result;

/// What `pleach` can be asked to do.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Pack(pack::Pack),
    Repack(repack::Repack),
    Inspect(inspect::Inspect),
    Plan(plan::Plan),
    Bench(bench::Bench),
    Run(run::Run),
    Chat(Box<chat::Chat>),
    Trace(trace::Trace),
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Command::Pack(c) => c.run(),
            Command::Repack(c) => c.run(),
            Command::Inspect(c) => c.run(),
            Command::Plan(c) => c.run(),
            Command::Bench(c) => c.run(),
            Command::Run(c) => c.run(),
            Command::Chat(c) => c.run(),
            Command::Trace(c) => c.run(),
        }
    }
}

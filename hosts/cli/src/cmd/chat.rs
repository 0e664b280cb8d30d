//! `pleach chat`: a conversation.

use crate::chat;
use crate::failure::Result;
use crate::options::{SessionArgs, token_count};
use crate::sampling::SamplingArgs;
use std::path::PathBuf;

/// Talk to a model that knows a chat template: it remembers what was said, as far as its context goes
#[derive(clap::Args)]
#[command(
    override_usage = "pleach chat FILE [--system TEXT] [-n N] [OPTIONS]\n       \
pleach chat FILE < messages.txt",
    after_help = chat::HELP
)]
pub(crate) struct Chat {
    /// The model file
    pub(crate) file: PathBuf,
    /// What the model is told before the conversation; it stays when old messages no longer fit
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// Jinja file in the place of the model's own template; chatml: the built-in one
    #[arg(long, value_name = "FILE|chatml")]
    pub(crate) template: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(short = 'n', value_name = "N", default_value = "512", value_parser = token_count)]
    pub(crate) tokens: usize,
    /// Colour each token by the expert that was strongest where it was chosen, and show the experts' shares of each
    /// answer (as /experts does)
    #[arg(long)]
    pub(crate) show_experts: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

impl Chat {
    pub(crate) fn run(self) -> Result<()> {
        chat::run(&self)
    }
}

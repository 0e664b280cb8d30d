//! `pleach bench`: how fast a model runs on this machine.

use crate::bench::{self, Work};
use crate::cmd::run::encode;
use crate::failure::{BadValue, Failure, Result};
use crate::model::{self, Files};
use crate::options::{SessionArgs, make_room};
use crate::output::{self, say};
use pleach::Model;
use std::path::PathBuf;

/// Measure how fast a model runs on this machine, beside how fast the machine reads memory
///
/// Generating a token reads nearly all of the weights, so a machine can give no more tokens a second than it reads
/// memory. The last column of the table says how much of that was reached: of plain reads, one stream a thread.
///
/// Each number of threads takes its turn in every round; the median is printed, and how far the rounds lie apart.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pleach bench m.pleach                         with a thread for each big core
  pleach bench m.pleach --threads 1,2,4         which number is best here
  pleach bench m.pleach --speculate off         what guessing ahead saves
  pleach bench m.pleach --routing base -n 64    what the experts cost")]
pub(crate) struct Bench {
    /// The model file
    file: PathBuf,
    /// Tokens of the prompt: ids from a fixed seed [default: 64, at most half the context]
    #[arg(long, value_name = "N", value_parser = positive)]
    prompt_tokens: Option<usize>,
    /// Use the tokens of this text as the prompt
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "prompt_tokens",
        allow_hyphen_values = true
    )]
    prompt: Option<String>,
    /// Tokens to generate in each round [default: 32, at most what the context leaves]
    #[arg(short = 'n', value_name = "N", value_parser = positive)]
    tokens: Option<usize>,
    /// Rounds that count; one more before them does not
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    rounds: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionArgs,
}

/// The seed of the prompt's ids.
const SEED: u64 = 1;

fn positive(text: &str) -> std::result::Result<usize, BadValue> {
    match text.parse::<u32>() {
        Ok(n) if n > 0 => Ok(n as usize),
        _ => Err(BadValue::new(
            "not a number from 1",
            "use a whole number from 1",
        )),
    }
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        let files = Files::open(&self.file, &self.session.experts)?;
        let experts = files.experts()?;
        let model = files.model(&experts)?;
        let plan = self.session.plan_each(&self.file, &model)?;
        let context = plan.session.context as usize;
        let prompt = self.prompt(&model, context)?;
        let room = context.saturating_sub(prompt.len());
        let tokens = self.tokens.unwrap_or(room.clamp(1, 32));
        if tokens > room {
            let positions = prompt.len() + tokens;
            return Err(Failure::refused(
                format!(
                    "-n {tokens}: with a prompt of {} that is {positions} positions, and the context holds {context}",
                    prompt.len()
                ),
                make_room(positions),
            ));
        }
        let layout = model::layout_note(&self.file, &model);
        layout
            .iter()
            .chain(&plan.notes)
            .for_each(|n| output::note(n));
        let threads = self
            .session
            .thread_counts()
            .unwrap_or_else(|| vec![plan.executor.threads()]);
        let work = Work {
            prompt: &prompt,
            tokens,
            rounds: self.rounds,
            threads: &threads,
        };
        let name = self.file.display().to_string();
        let measured = bench::measure(&name, model, &plan.session, &plan.setup, &work)?;
        if self.json {
            let mut all = bench::json(&measured);
            all["file"] = name.into();
            all["rounds"] = self.rounds.into();
            all["context"] = context.into();
            return say!("{all:#}");
        }
        let width = if output::is_terminal() {
            output::width()
        } else {
            100
        };
        let about = [
            (
                "file",
                format!("{name}, {}", output::bytes(model.file_len() as u64)),
            ),
            (
                "rounds",
                format!(
                    "{} of {} tokens of prompt and {tokens} after it, in a context of {context}",
                    self.rounds,
                    prompt.len()
                ),
            ),
        ];
        output::write(format_args!("{}", bench::text(&measured, &about, width)))
    }

    /// The prompt's tokens.
    fn prompt(&self, model: &Model<'_>, context: usize) -> Result<Vec<u32>> {
        let Some(text) = &self.prompt else {
            let count = self.prompt_tokens.unwrap_or((context / 2).clamp(1, 64));
            if count >= context {
                return Err(Failure::refused(
                    format!(
                        "--prompt-tokens {count}: the context holds {context}, and one more must follow"
                    ),
                    make_room(count + 1),
                ));
            }
            return Ok(bench::ids(SEED, count, model.config().vocab));
        };
        let tokenizer = model.tokenizer().ok_or_else(|| {
            Failure::refused(
                format!("{}: the model file has no tokenizer", self.file.display()),
                "leave out --prompt: --prompt-tokens N takes ids from a fixed seed",
            )
        })?;
        let tokens = encode("--prompt", text, &tokenizer)?;
        if tokens.len() >= context {
            return Err(Failure::refused(
                format!(
                    "--prompt: {} tokens, where the context of {context} takes 1 to {}",
                    tokens.len(),
                    context - 1
                ),
                make_room(tokens.len() + 1),
            ));
        }
        Ok(tokens)
    }
}

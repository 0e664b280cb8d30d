//! `pleach run`: continues a text.

use crate::failure::{Failure, Result};
use crate::interrupt::Busy;
use crate::mix::legend;
use crate::model::{self, Files};
use crate::options::{SessionArgs, make_room, token_count};
use crate::output;
use crate::printer::{Printer, Show, says_little};
use crate::sampling::SamplingArgs;
use pleach::tokenizer::{EncodeOptions, Tokenizer};
use pleach::{Error, Kernels, Session};
use pleach_linux::{Arena, End, generate};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Continue a text. Standard output is the continuation only
#[derive(clap::Args)]
#[command(
    override_usage = "pleach run FILE --prompt TEXT [-n N] [OPTIONS]\n       \
pleach run FILE --prompt-file FILE|- [-n N] [OPTIONS]"
)]
pub(crate) struct Run {
    /// The model file
    file: PathBuf,
    /// The text to continue, as it is: no template, no escapes
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "prompt_file",
        allow_hyphen_values = true
    )]
    prompt: Option<String>,
    /// The same from a file; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Tokens to generate at most
    #[arg(short = 'n', value_name = "N", default_value = "128", value_parser = token_count)]
    tokens: usize,
    /// Colour each token by the expert that was strongest where it was chosen, with a legend on standard error;
    /// without colours (a pipe, NO_COLOR): a line per token instead, of its number, its text in JSON, the strongest
    /// expert and each expert's mean scaling, separated by tabs. Text that had to wait (part of a character, or of a
    /// stop string) has the colour of the token that released it
    #[arg(long)]
    show_experts: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    session: SessionArgs,
}

/// Bytes of a prompt: a text of a million tokens has a tenth of it.
const LONGEST_PROMPT: u64 = 64 << 20;

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        let files = Files::open(&self.file, &self.session.experts)?;
        let experts = files.experts()?;
        let model = files.model(&experts)?;
        let mut plan = self.session.plan(&self.file, &model)?;
        let drawing = self.sampling.drawing(&model)?;
        let tokenizer = model::tokenizer(&self.file, &model)?;
        let context = plan.session.context;
        let (source, prompt) = self.prompt(&tokenizer, context as usize)?;
        let layout = model::layout_note(&self.file, &model);
        let notes = layout.iter().chain(&plan.notes).chain(&drawing.notes);
        notes.for_each(|n| output::note(n));

        let mut arena = Arena::new(model.arena_bytes(&plan.session)).map_err(Failure::memory)?;
        let refused = |e| Failure::core(self.file.display(), e);
        let mut session = Session::new(model, &plan.session, arena.bytes()).map_err(refused)?;
        plan.setup.apply(&mut session).map_err(refused)?;

        let show = match self.show_experts {
            true => Show::experts(),
            false => Show::Text,
        };
        if self.show_experts {
            let little = says_little(&plan.setup, &model, "--show-experts");
            little.iter().for_each(|n| output::note(n));
        }
        let mut printer = Printer::new(&model, show);
        let start = Instant::now();
        let busy = Busy::new();
        let done = generate(
            &mut session,
            Kernels::detect(),
            &mut plan.executor,
            &prompt,
            &drawing.limits(self.tokens, &drawing.strings()),
            &mut printer,
        );
        drop(busy);
        let mix = printer.finish()?;
        if show != Show::Lines && output::is_terminal() {
            output::write(format_args!("\n"))?;
        }
        if show == Show::Colours {
            eprintln!("{}", legend(&model, &mix.shares()));
        }
        let generation = done.map_err(|e| match e {
            Error::TokenOutOfRange { .. } | Error::ContextFull { .. } => Failure::core(source, e),
            e => refused(e),
        })?;
        match generation.end {
            End::Interrupted => {
                return Err(Failure::interrupted("what was generated so far is above"));
            }
            End::Context => output::note(&format!(
                "the context of {context} tokens is full; raise --context for more"
            )),
            End::Limit | End::Stop | End::StopString => {}
        }
        summarise(&session, &prompt, &generation.tokens, start);
        Ok(())
    }

    /// Where the prompt comes from, and its tokens.
    fn prompt(&self, tokenizer: &Tokenizer<'_>, context: usize) -> Result<(String, Vec<u32>)> {
        let (source, text) = self.text()?;
        let prompt = encode(&source, &text, tokenizer)?;
        if prompt.len() > context {
            let n = prompt.len();
            return Err(Failure::refused(
                format!("{source}: {n} tokens do not fit the context of {context}"),
                make_room(n.saturating_add(self.tokens)),
            ));
        }
        Ok((source, prompt))
    }

    /// Where the prompt comes from, and the prompt as text.
    fn text(&self) -> Result<(String, String)> {
        if let Some(text) = &self.prompt {
            return Ok(("--prompt".into(), text.clone()));
        }
        let path = self.prompt_file.as_deref().unwrap_or(Path::new("-"));
        let source = format!("--prompt-file {}", path.display());
        let reader: std::io::Result<Box<dyn Read>> = match path == Path::new("-") {
            true => Ok(Box::new(std::io::stdin())),
            false => std::fs::File::open(path).map(|f| Box::new(f) as Box<dyn Read>),
        };
        let mut bytes = Vec::new();
        reader
            .and_then(|r| r.take(LONGEST_PROMPT + 1).read_to_end(&mut bytes))
            .map_err(|e| Failure::reading(path, &e))?;
        if bytes.len() as u64 > LONGEST_PROMPT {
            return Err(Failure::refused(
                format!("{source}: more than {LONGEST_PROMPT} bytes"),
                "pass a shorter text: no context holds so much",
            ));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok((source, text)),
            Err(_) => Err(Failure::reading(
                path,
                &std::io::ErrorKind::InvalidData.into(),
            )),
        }
    }
}

/// BOS as the tokenizer says, then the text.
pub(crate) fn encode(source: &str, text: &str, tokenizer: &Tokenizer<'_>) -> Result<Vec<u32>> {
    let bos = tokenizer.bos();
    let mut tokens: Vec<u32> = bos.into_iter().collect();
    let mut body = vec![0; tokenizer.tokens_for(text.len())];
    let mut scratch = vec![0; tokenizer.scratch_for(text.len())];
    let n = tokenizer
        .encode(text, EncodeOptions::DEFAULT, &mut scratch, &mut body)
        .map_err(|e| Failure::core(source, e))?;
    tokens.extend(body.iter().take(n));
    if tokens.is_empty() {
        return Err(Failure::refused(
            format!("{source}: the prompt is empty, and the tokenizer begins no text by itself"),
            "pass at least one character",
        ));
    }
    Ok(tokens)
}

/// Where a person watches: what it took.
fn summarise(session: &Session<'_, '_>, prompt: &[u32], generated: &[u32], start: Instant) {
    if !output::is_terminal() || !std::io::stderr().is_terminal() {
        return;
    }
    let seconds = start.elapsed().as_secs_f64();
    let line = format!(
        "{} + {} tokens, {} sweeps, {seconds:.2} s",
        prompt.len(),
        generated.len(),
        session.counters().sweeps
    );
    eprintln!("{}", console::style(line).dim().for_stderr());
}

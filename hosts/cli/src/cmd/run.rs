//! `pleach run`: continues a text.

use crate::failure::{Failure, Result};
use crate::interrupt::{self, Busy};
use crate::model::Files;
use crate::options::{SessionArgs, make_room, token_count};
use crate::output;
use pleach::tokenizer::{Decoder, EncodeOptions, SpecialTokens, Tokenizer};
use pleach::{Error, Kernels, Model, Session};
use pleach_linux::{Arena, End, Limits, Watch, generate};
use std::io::{IsTerminal, Read};
use std::ops::{ControlFlow, Range};
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
    #[command(flatten)]
    session: SessionArgs,
}

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        let files = Files::open(&self.file, &self.session.experts)?;
        let experts = files.experts()?;
        let model = files.model(&experts)?;
        let mut plan = self.session.plan(&self.file, &model)?;
        let tokenizer = model.tokenizer().ok_or_else(|| {
            Failure::refused(
                format!("{}: the model file has no tokenizer", self.file.display()),
                "pack the base with its tokenizer.json, or pass token ids to `pleach trace`",
            )
        })?;
        let context = plan.session.context;
        let (source, prompt) = self.prompt(&tokenizer, context as usize)?;
        plan.notes.iter().for_each(|n| output::note(n));

        let mut arena = Arena::new(model.arena_bytes(&plan.session)).map_err(Failure::memory)?;
        let refused = |e| Failure::core(self.file.display(), e);
        let mut session = Session::new(model, &plan.session, arena.bytes()).map_err(refused)?;
        plan.setup.apply(&mut session).map_err(refused)?;

        let stop = stop_tokens(&model);
        let mut printer = Printer {
            decoder: Decoder::new(tokenizer, SpecialTokens::Skip),
            failure: None,
        };
        let start = Instant::now();
        let busy = Busy::new();
        let done = generate(
            &mut session,
            Kernels::detect(),
            &mut plan.executor,
            &prompt,
            &Limits::new(self.tokens, &stop),
            &mut printer,
        );
        drop(busy);
        printer.finish()?;
        let generation = done.map_err(|e| match e {
            Error::NonFinite { .. } => refused(e),
            e => Failure::core(source, e),
        })?;
        match generation.end {
            End::Interrupted => {
                return Err(Failure::interrupted("what was generated so far is above"));
            }
            End::Context => output::note(&format!(
                "the context of {context} tokens is full; raise --context for more"
            )),
            End::Limit | End::Stop => {}
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
        let mut text = String::new();
        let read = if path == Path::new("-") {
            std::io::stdin().read_to_string(&mut text).map(|_| ())
        } else {
            std::fs::read_to_string(path).map(|t| text = t)
        };
        match read {
            Ok(()) => Ok((format!("--prompt-file {}", path.display()), text)),
            Err(e) => Err(Failure::reading(path, &e)),
        }
    }
}

/// BOS as the tokenizer says, then the text.
fn encode(source: &str, text: &str, tokenizer: &Tokenizer<'_>) -> Result<Vec<u32>> {
    let bos = tokenizer.bos();
    let mut tokens: Vec<u32> = bos.into_iter().collect();
    // At most one token a byte, and one for the space that some tokenizers put before a text.
    let mut body = vec![0; text.len() + 1];
    let mut scratch = vec![0; Tokenizer::scratch_len(text.len() + 1)];
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

/// The tokens that end a text.
pub(crate) fn stop_tokens(model: &Model<'_>) -> Vec<u32> {
    let eos = model.config().eos.into_iter();
    eos.filter(|t| *t != pleach::blob::format::NO_TOKEN)
        .collect()
}

/// Prints tokens as they come, whole characters only.
struct Printer<'b> {
    decoder: Decoder<'b>,
    failure: Option<Failure>,
}

impl Printer<'_> {
    /// Prints what a character that was not whole leaves; a person's terminal gets a line end.
    fn finish(mut self) -> Result<()> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let end = if output::is_terminal() { "\n" } else { "" };
        output::write(format_args!("{}{end}", self.decoder.finish()))
    }
}

impl Watch for Printer<'_> {
    fn sweep(&mut self, _: &Session<'_, '_>, _: Range<usize>) -> ControlFlow<()> {
        match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn token(&mut self, token: u32) -> ControlFlow<()> {
        match output::write(format_args!("{}", self.decoder.push(token))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }
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

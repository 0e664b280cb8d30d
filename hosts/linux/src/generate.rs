//! Generation: draw, push, step, until a limit is met.

use crate::text::TextStream;
use pleach::tokenizer::SpecialTokens;
use pleach::{Budget, Error, Executor, Guess, Kernels, Progress, Sampling, Session};
use std::ops::{ControlFlow, Range};

/// How tokens are chosen, when generation ends, and how large its steps are.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits<'s> {
    /// Tokens to generate; with 0 only the prompt is computed.
    pub tokens: usize,
    /// Tokens that end the text. The one that did is the last generated; it is no part of the text.
    pub stop: &'s [u32],
    /// Strings that end the text, at most 8 of 64 bytes (see [`StopStrings`](pleach::sample::StopStrings)). They may
    /// span tokens; the one that did is no part of the text.
    pub stop_strings: &'s [&'s str],
    /// How each token is drawn.
    pub sampling: Sampling,
    /// A token that the speculative pass always guesses, for tests. It never changes what is generated.
    pub force_guess: Option<u32>,
    /// What one step may compute. It never changes what is generated.
    pub budget: Budget,
}

impl<'s> Limits<'s> {
    /// This many greedy tokens, or up to one of these.
    pub const fn new(tokens: usize, stop: &'s [u32]) -> Self {
        Self {
            tokens,
            stop,
            stop_strings: &[],
            sampling: Sampling::GREEDY,
            force_guess: None,
            budget: Budget::UNLIMITED,
        }
    }

    /// The first position that will never be pushed.
    fn end(&self, prompt: usize) -> usize {
        prompt.saturating_add(self.tokens.saturating_sub(1))
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All tokens that were asked for.
    Limit,
    /// A stop token.
    Stop,
    /// A stop string.
    StopString,
    /// The context has no room for the last token.
    Context,
    /// The watcher asked for it.
    Interrupted,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The tokens, with the stop token if there was one, or with all that the stop string touched.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub end: End,
}

/// Hears what happens, and may end it.
pub trait Watch {
    /// A sweep has ended; `positions` are those that it committed (perhaps none). Their scalings and logits
    /// can be read now.
    fn sweep(&mut self, session: &Session<'_, '_>, positions: Range<usize>) -> ControlFlow<()> {
        let _ = (session, positions);
        ControlFlow::Continue(())
    }

    /// A token was chosen.
    fn token(&mut self, token: u32) -> ControlFlow<()> {
        let _ = token;
        ControlFlow::Continue(())
    }

    /// More text may be shown, never empty; if the model has a tokenizer. Special tokens and what ended the text
    /// leave no trace. What was held back as the start of a stop string that did not come is heard at the end,
    /// whatever ended it.
    fn text(&mut self, text: &str) -> ControlFlow<()> {
        let _ = text;
        ControlFlow::Continue(())
    }
}

/// A watcher that does not want to know.
impl Watch for () {}

/// Pushes `prompt`, then draws tokens until a limit is met.
///
/// The last token is not pushed: the text is then `prompt` and all generated tokens but the last.
///
/// Errors: as [`Session::push`], [`Session::step`], [`Session::sample`] and
/// [`StopStrings::new`](pleach::sample::StopStrings::new); [`Error::Refused`] for stop strings without a tokenizer.
pub fn generate(
    session: &mut Session<'_, '_>,
    kernels: Kernels,
    executor: &mut dyn Executor,
    prompt: &[u32],
    limits: &Limits<'_>,
    watch: &mut dyn Watch,
) -> Result<Generation, Error> {
    limits.sampling.check()?;
    let mut text = match session.model().tokenizer() {
        Some(t) => Some(TextStream::new(
            t,
            SpecialTokens::Skip,
            limits.stop_strings,
        )?),
        None if limits.stop_strings.is_empty() => None,
        None => {
            return Err(Error::Refused {
                why: "stop strings need a tokenizer, which the model does not have",
            });
        }
    };
    let mut guess = Guess {
        sampling: limits.sampling.clone(),
        force: limits.force_guess,
        limit: u32::try_from(limits.end(session.len() + prompt.len())).unwrap_or(u32::MAX),
        ..Guess::default()
    };
    for &token in limits.stop {
        // A stop token that finds no room only costs a column when it is guessed.
        let _ = guess.stop.push(token);
    }
    session.set_guess(guess);
    session.push(prompt)?;

    let mut tokens = Vec::new();
    let end = loop {
        let heard = match run(session, kernels, executor, limits.budget, watch) {
            Ok(heard) => heard,
            Err(e) => break Err(e),
        };
        if heard.is_break() {
            break Ok(End::Interrupted);
        }
        if tokens.len() >= limits.tokens || session.is_empty() {
            break Ok(End::Limit);
        }
        let token = match session.sample(&limits.sampling) {
            Ok(token) => token,
            Err(e) => break Err(e),
        };
        tokens.push(token);
        let mut heard = watch.token(token);
        if limits.stop.contains(&token) {
            break Ok(End::Stop);
        }
        if let Some(piece) = text.as_mut().map(|t| t.push(token)) {
            if !piece.text.is_empty() && watch.text(piece.text).is_break() {
                heard = ControlFlow::Break(());
            }
            if piece.stopped {
                break Ok(End::StopString);
            }
        }
        if tokens.len() >= limits.tokens {
            break Ok(End::Limit);
        }
        if heard.is_break() {
            break Ok(End::Interrupted);
        }
        match session.push(&[token]) {
            Ok(()) => {}
            Err(Error::ContextFull { .. }) => break Ok(End::Context),
            Err(e) => break Err(e),
        }
    };
    let rest = text.as_mut().map_or("", TextStream::finish);
    if !rest.is_empty() {
        // The text has ended: there is nothing left to break off.
        let _ = watch.text(rest);
    }
    end.map(|end| Generation { tokens, end })
}

/// Runs all that is queued, and tells the watcher of each sweep.
fn run(
    session: &mut Session<'_, '_>,
    kernels: Kernels,
    executor: &mut dyn Executor,
    budget: Budget,
    watch: &mut dyn Watch,
) -> Result<ControlFlow<()>, Error> {
    loop {
        let (before, sweeps) = (session.committed(), session.counters().sweeps);
        let progress = session.step(kernels, executor, budget)?;
        let committed = before..session.committed();
        let heard = match session.counters().sweeps == sweeps {
            true => ControlFlow::Continue(()),
            false => watch.sweep(session, committed),
        };
        if progress == Progress::Ready || heard.is_break() {
            return Ok(heard);
        }
    }
}

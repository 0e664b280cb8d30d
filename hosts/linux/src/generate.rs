//! Greedy generation.

use pleach::{Budget, Error, Executor, Guess, GuessRule, Kernels, Progress, Session, sample};
use std::ops::{ControlFlow, Range};

/// When generation ends, and how large its steps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<'s> {
    /// Tokens to generate; with 0 only the prompt is computed.
    pub tokens: usize,
    /// Tokens that end the text. The one that did is the last generated.
    pub stop: &'s [u32],
    /// How the speculative pass guesses. It never changes what is generated.
    pub guess: GuessRule,
    /// What one step may compute. It never changes what is generated.
    pub budget: Budget,
}

impl<'s> Limits<'s> {
    /// This many tokens, or up to one of these.
    pub const fn new(tokens: usize, stop: &'s [u32]) -> Self {
        Self {
            tokens,
            stop,
            guess: GuessRule::Argmax,
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
    /// The context has no room for the last token.
    Context,
    /// The watcher asked for it.
    Interrupted,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The tokens, with the stop token if there was one.
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
}

/// A watcher that does not want to know.
impl Watch for () {}

/// Pushes `prompt`, then chooses the token with the largest logit until a limit is met.
///
/// The last token is not pushed: the text is then `prompt` and all generated tokens but the last.
///
/// Errors: as [`Session::push`] and [`Session::step`].
pub fn generate(
    session: &mut Session<'_, '_>,
    kernels: Kernels,
    executor: &mut dyn Executor,
    prompt: &[u32],
    limits: &Limits<'_>,
    watch: &mut dyn Watch,
) -> Result<Generation, Error> {
    let mut guess = Guess {
        rule: limits.guess,
        limit: u32::try_from(limits.end(session.len() + prompt.len())).unwrap_or(u32::MAX),
        ..Guess::default()
    };
    for &token in limits.stop {
        // A stop token that finds no room only costs a column when it is guessed.
        let _ = guess.stop.push(token);
    }
    session.set_guess(guess);

    let mut tokens = Vec::new();
    let ended = |tokens, end| Ok(Generation { tokens, end });
    session.push(prompt)?;
    loop {
        if run(session, kernels, executor, limits.budget, watch)?.is_break() {
            return ended(tokens, End::Interrupted);
        }
        if tokens.len() >= limits.tokens {
            return ended(tokens, End::Limit);
        }
        let Some(logits) = session.logits() else {
            return ended(tokens, End::Limit);
        };
        let token = sample::argmax(logits);
        tokens.push(token);
        let heard = watch.token(token);
        if limits.stop.contains(&token) {
            return ended(tokens, End::Stop);
        }
        if tokens.len() >= limits.tokens {
            return ended(tokens, End::Limit);
        }
        if heard.is_break() {
            return ended(tokens, End::Interrupted);
        }
        match session.push(&[token]) {
            Err(Error::ContextFull { .. }) => return ended(tokens, End::Context),
            done => done?,
        }
    }
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
        let heard = match (committed.is_empty(), sweeps == session.counters().sweeps) {
            (true, true) => ControlFlow::Continue(()),
            _ => watch.sweep(session, committed),
        };
        if progress == Progress::Ready || heard.is_break() {
            return Ok(heard);
        }
    }
}

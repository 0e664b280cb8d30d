//! A session: one text, its two caches, and the calls that feed and read it.
//!
//! * [`options`]: what decides the arena's size. `arena`: its parts.
//! * `settings`: routing and X-LoRA options. `results`: the next token, logits, scalings, counters; `log`: scalings of many tokens.
//! * `schedule`: which columns the next sweep carries; the only place that knows modes.
//! * `guess`: what is guessed about the tokens after the text, and by whom.
//! * `sweep`: the only forward pass. `steps`, `gates`: its parts.
//! * `commit`: what a finished sweep leaves behind.

mod arena;
mod column;
mod commit;
pub(crate) mod cost;
mod gates;
mod guess;
mod log;
mod narrow;
pub mod options;
mod results;
mod schedule;
mod settings;
mod steps;
mod sweep;

pub use arena::{ARENA_PARTS, ArenaPart};
pub(crate) use column::Column;
#[cfg(test)]
pub(crate) use column::Gates;
pub use cost::{Cost, CostRange};
pub use guess::Guess;
pub use log::ScalingsLog;

use crate::blob::Model;
use crate::error::Error;
use crate::kernels::{Executor, Kernels};
use crate::session::arena::State;
use crate::session::column::Sweep;
use crate::session::guess::GuessState;
use crate::session::options::{Budget, Caches, Counters, Progress, Routing, SessionOptions};
use crate::session::schedule::Mode;
use crate::session::sweep::Machine;
use crate::xlora::XLoraConfig;

/// Marks the first token of a push in the arena's list of tokens.
const START: u32 = 1 << 30;
/// Marks an embedding row.
const EMBEDDING: u32 = 1 << 31;

/// One text over a model, in an arena that the caller owns.
///
/// `push` queues tokens, `step` computes until a budget is used up, `run` all that is queued; then `logits` are
/// those of the last token. After an error the session stands at its last committed position and accepts
/// `rewind` and `push`.
///
/// ```
/// use pleach::{Inline, Kernels, Model, Session, SessionOptions};
/// fn next(model: Model<'_>, prompt: &[u32], arena: &mut [u8]) -> Result<u32, pleach::Error> {
///     let mut session = Session::new(model, &SessionOptions::DEFAULT, arena)?;
///     session.push(prompt)?;
///     session.run(Kernels::of_build(), &mut Inline)?;
///     Ok(pleach::sample::argmax(session.logits().unwrap_or(&[])))
/// }
/// ```
pub struct Session<'b, 'a> {
    model: Model<'b>,
    options: SessionOptions,
    xlora: XLoraConfig,
    state: State<'a>,
    sweep: Sweep,
    counters: Counters,
    mode: Option<Mode>,
    /// Tokens in the text.
    pushed: u32,
    /// Positions whose scaling pass is done.
    scaled: u32,
    /// Positions whose routed pass is done.
    routed: u32,
    /// Tokens of the first push.
    prompt: u32,
    /// Whether the held row has the scalings of the prompt's last token (routing `prompt`).
    prompt_held: bool,
    /// The first position that the present routing served.
    mode_since: u32,
    guess: GuessState,
    /// Positions whose logits are kept: `logits_first..logits_first + logits_count`.
    logits_first: u32,
    logits_count: u32,
    next_embedding: u32,
    logging: bool,
    log_len: u32,
    log_dropped: u32,
    /// Pushes that were committed, or begun to be.
    forwards: u32,
}

impl<'b, 'a> Session<'b, 'a> {
    /// A session at length 0. With a classifier the routing is `exact` (one cache: `prompt`); without one
    /// `all-ones` for one expert, `base` for none, and for several it must be set first.
    ///
    /// Errors: [`Error::Option`], [`Error::ArenaTooSmall`] (see [`Model::arena_bytes`]),
    /// [`Error::Misaligned`] unless the arena starts at a multiple of 16.
    pub fn new(
        model: Model<'b>,
        options: &SessionOptions,
        arena: &'a mut [u8],
    ) -> Result<Self, Error> {
        options.check(&model)?;
        let state = State::carve(&model, options, arena)?;
        let mut session = Self {
            xlora: model.xlora_config(),
            model,
            options: *options,
            state,
            sweep: Sweep::default(),
            counters: Counters::default(),
            mode: None,
            pushed: 0,
            scaled: 0,
            routed: 0,
            prompt: 0,
            prompt_held: false,
            mode_since: 0,
            guess: GuessState::default(),
            logits_first: 0,
            logits_count: 0,
            next_embedding: 0,
            logging: false,
            log_len: 0,
            log_dropped: 0,
            forwards: 0,
        };
        let routing = match (model.has_classifier(), options.caches, model.n_experts()) {
            (true, Caches::Two, _) => Some(Routing::Exact),
            (true, Caches::One, _) => Some(Routing::Prompt),
            (false, _, 0) => Some(Routing::Base),
            (false, _, 1) => Some(Routing::AllOnes),
            (false, ..) => None,
        };
        if let Some(routing) = routing {
            session.set_routing(routing)?;
        }
        Ok(session)
    }

    /// The model.
    pub fn model(&self) -> &Model<'b> {
        &self.model
    }

    /// Tokens in the text, committed or queued.
    pub fn len(&self) -> usize {
        self.pushed as usize
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.pushed == 0
    }

    /// Tokens whose routed pass is done.
    pub fn committed(&self) -> usize {
        self.routed as usize
    }

    /// Queues tokens.
    ///
    /// Errors, with nothing queued: [`Error::TokenOutOfRange`], [`Error::ContextFull`],
    /// [`Error::Refused`] without a routing or while a sweep is suspended.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let vocab = self.model.config.vocab;
        if let Some(&token) = tokens.iter().find(|t| **t >= vocab) {
            return Err(Error::TokenOutOfRange { token, vocab });
        }
        self.room_for(tokens.len())?;
        self.queue(tokens.iter().copied());
        Ok(())
    }

    /// Queues embedding rows in the place of tokens (PEFT's `inputs_embeds`).
    ///
    /// Shape: `rows` `[n][hidden]`. Errors: as [`Session::push`]; [`Error::Shape`]; [`Error::Refused`] if
    /// more rows would wait than [`SessionOptions::embedding_rows`], or under a lazy routing.
    pub fn push_embeddings(&mut self, rows: &[f32]) -> Result<(), Error> {
        let hidden = self.model.config.hidden as usize;
        let count = rows.len() / hidden.max(1);
        if count * hidden != rows.len() {
            return Err(Error::Shape {
                what: "embedding rows: a multiple of hidden",
                expected: (count * hidden) as u64,
                found: rows.len() as u64,
            });
        }
        if matches!(self.mode, Some(Mode::Every(_) | Mode::Lag | Mode::Prompt)) {
            return Err(Error::Refused {
                why: "embedding rows under a lazy routing: their tokens may be needed again",
            });
        }
        self.room_for(count)?;
        let capacity = self.options.embedding_rows;
        let waiting = self.embeddings_in(self.routed, self.pushed) as usize;
        if waiting + count > capacity as usize {
            return Err(Error::Refused {
                why: "more embedding rows would wait than the option embedding_rows",
            });
        }
        let first = self.next_embedding;
        let slot = |i: usize| {
            (first as usize + i)
                .checked_rem(capacity as usize)
                .unwrap_or(0)
        };
        for (i, row) in rows.chunks_exact(hidden.max(1)).enumerate() {
            let mut slots = self.state.embeddings.chunks_exact_mut(hidden.max(1));
            if let Some(to) = slots.nth(slot(i)) {
                to.iter_mut().zip(row).for_each(|(t, v)| *t = *v);
            }
        }
        self.next_embedding = slot(count) as u32;
        self.queue((0..count).map(|i| slot(i) as u32 | EMBEDDING));
        Ok(())
    }

    fn room_for(&self, count: usize) -> Result<(), Error> {
        if self.mode.is_none() {
            return Err(Error::Refused {
                why: "several experts and no classifier: set a routing first",
            });
        }
        self.no_sweep()?;
        if count > (self.options.context - self.pushed) as usize {
            return Err(Error::ContextFull {
                context: self.options.context,
            });
        }
        Ok(())
    }

    fn no_sweep(&self) -> Result<(), Error> {
        if self.sweep.columns != 0 {
            return Err(Error::Refused {
                why: "a sweep is suspended: step until it is done, or rewind",
            });
        }
        Ok(())
    }

    fn queue(&mut self, tokens: impl Iterator<Item = u32>) {
        let before = self.pushed;
        for (i, token) in tokens.enumerate() {
            if i == 0 {
                self.meet_guess(token);
            } else {
                self.guess.forget();
            }
            if let Some(slot) = self.state.tokens.get_mut(self.pushed as usize) {
                *slot = token | if i == 0 { START } else { 0 };
                self.pushed += 1;
            }
        }
        if before == 0 {
            self.prompt = self.pushed;
        }
    }

    /// Computes until `budget` is used up, which the last unit may exceed (see [`Budget`]), never across the end
    /// of a sweep.
    ///
    /// Errors: [`Error::NonFinite`], [`Error::Corrupt`]; what was queued is dropped.
    pub fn step(
        &mut self,
        kernels: Kernels,
        executor: &mut dyn Executor,
        budget: Budget,
    ) -> Result<Progress, Error> {
        if self.sweep.columns == 0 && !self.next_sweep() {
            return Ok(Progress::Ready);
        }
        let machine = Machine {
            model: &self.model,
            options: &self.options,
            xlora: &self.xlora,
            kernels,
        };
        let done = machine
            .advance(
                &mut self.state,
                &mut self.sweep,
                &mut self.counters,
                executor,
                budget,
            )
            .and_then(|done| {
                if done {
                    self.commit().map(|()| true)
                } else {
                    Ok(false)
                }
            });
        match done {
            Ok(true) if self.routed == self.pushed => Ok(Progress::Ready),
            Ok(_) => Ok(Progress::More),
            Err(e) => {
                self.drop_queue();
                Err(e)
            }
        }
    }

    /// Computes all that is queued.
    ///
    /// Errors: as [`Session::step`].
    pub fn run(&mut self, kernels: Kernels, executor: &mut dyn Executor) -> Result<(), Error> {
        while self.step(kernels, executor, Budget::UNLIMITED)? == Progress::More {}
        Ok(())
    }

    /// Back to the last committed position.
    fn drop_queue(&mut self) {
        self.truncate(self.routed);
    }

    fn truncate(&mut self, len: u32) {
        let dropped = self.embeddings_in(len, self.pushed);
        let capacity = self.options.embedding_rows;
        self.next_embedding = (self.next_embedding + capacity)
            .saturating_sub(dropped.checked_rem(capacity).unwrap_or(0))
            .checked_rem(capacity)
            .unwrap_or(0);
        self.sweep = Sweep::default();
        self.guess.forget_text();
        self.pushed = len;
        self.routed = self.routed.min(len);
        self.scaled = self.scaled.min(len);
        self.mode_since = self.mode_since.min(len);
        self.prompt_held &= len != 0;
        if !self.prompt_held {
            self.prompt = self.prompt.min(len);
        }
    }

    /// Embedding rows among positions `from..to`.
    fn embeddings_in(&self, from: u32, to: u32) -> u32 {
        self.state
            .tokens
            .iter()
            .take(to as usize)
            .skip(from as usize)
            .filter(|t| **t & EMBEDDING != 0)
            .count() as u32
    }

    /// Shortens the text to `len` tokens; what was computed for them stays. Between sweeps, the length that the text
    /// has changes nothing.
    ///
    /// Errors: [`Error::Option`] if the text is shorter; [`Error::Refused`] if a lazy routing would then need
    /// the scaling pass of embedding rows that are gone.
    pub fn rewind(&mut self, len: usize) -> Result<(), Error> {
        if len > self.pushed as usize {
            return Err(Error::Option {
                why: "rewind to more tokens than the text has",
            });
        }
        let len = len as u32;
        if len == self.pushed && self.sweep.columns == 0 {
            return Ok(());
        }
        if let Some(mode) = self.mode
            && self.needs_gone_embeddings(mode, len)
        {
            return Err(Error::Refused {
                why: "this routing would need the scaling pass of embedding rows that are gone",
            });
        }
        self.truncate(len);
        self.logits_count = self.logits_count.min(len.saturating_sub(self.logits_first));
        self.rescale();
        Ok(())
    }
}

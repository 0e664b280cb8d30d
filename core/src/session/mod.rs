//! A session: one text, its two caches, and the calls that feed and read it.
//!
//! * [`options`]: what decides the arena's size. `arena`: its parts.
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
mod schedule;
mod steps;
mod sweep;

pub use arena::{ARENA_PARTS, ArenaPart};
pub(crate) use column::Column;
#[cfg(test)]
pub(crate) use column::Gates;
pub use cost::{Cost, CostRange};
pub use guess::Guess;
pub use log::ScalingsLog;

use crate::blob::{Model, is_signed_factor};
use crate::error::Error;
use crate::kernels::{Executor, Kernels};
use crate::sample::{History, Row, Sampling, argmax};
use crate::session::arena::{NO_POSITION, State, scalings_row};
use crate::session::column::Sweep;
use crate::session::guess::GuessState;
use crate::session::options::{
    Budget, Caches, Counters, LogitsKind, Progress, Routing, SessionOptions,
};
use crate::session::schedule::Mode;
use crate::session::sweep::Machine;
use crate::xlora::{Scalings, XLoraConfig};

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

    /// Sets which scalings the tokens from here on get.
    ///
    /// Errors: [`Error::Option`] for weights, a period or an expert out of range; [`Error::Refused`] if the
    /// routing needs a classifier or a second cache that is not there, the scaling pass of embedding rows that
    /// are gone, or (`prompt`) length 0; while a sweep is suspended.
    pub fn set_routing(&mut self, routing: Routing<'_>) -> Result<(), Error> {
        self.no_sweep()?;
        let experts = self.model.n_experts();
        let mode = match routing {
            Routing::Exact => Mode::Exact,
            Routing::Every(n) => Mode::Every(n),
            Routing::Lag => Mode::Lag,
            Routing::Prompt => Mode::Prompt,
            Routing::Static(_) => Mode::Given { global: true },
            Routing::Only(_) | Routing::AllOnes => Mode::Given { global: false },
            Routing::Base => Mode::Base,
        };
        let why = match routing {
            Routing::Every(0) => "routing every:N needs N of at least 1",
            Routing::Only(class) if class as usize >= experts => "the model has no such expert",
            Routing::Static(w) if w.len() != experts => {
                "static routing takes one weight per expert"
            }
            Routing::Static(w) if !w.iter().all(|v| is_signed_factor(*v)) => {
                "a static weight must be 0 or lie within 2^-24..=65504"
            }
            _ => "",
        };
        if !why.is_empty() {
            return Err(Error::Option { why });
        }
        let why = if mode.needs_scaling() && !self.model.has_classifier() {
            "this routing needs a classifier, which the model does not have"
        } else if mode.needs_scaling() && mode != Mode::Prompt && self.options.caches == Caches::One
        {
            "this routing needs two caches"
        } else if mode == Mode::Prompt && self.pushed != 0 {
            "routing prompt begins with the text: rewind to 0 first"
        } else if self.needs_gone_embeddings(mode, self.pushed) {
            "this routing needs the scaling pass of embedding rows that are gone"
        } else {
            ""
        };
        if !why.is_empty() {
            return Err(Error::Refused { why });
        }
        if mode.needs_scaling() && self.mode == Some(mode) {
            return Ok(());
        }
        self.prompt_held = false;
        self.prompt = self.prompt.min(self.pushed);
        self.mode_since = self.routed;
        self.mode = Some(mode);
        self.guess.forget();
        self.state.row_positions.fill(NO_POSITION);
        match routing {
            Routing::Static(w) => self.hold(|class| w.get(class).copied().unwrap_or(0.0)),
            Routing::Only(only) => self.hold(|class| (class == only as usize) as u8 as f32),
            Routing::AllOnes => self.hold(|_| 1.0),
            _ => self.hold(|_| 0.0),
        }
        self.rescale();
        Ok(())
    }

    /// Writes one weight per expert into the held row.
    fn hold(&mut self, weight: impl Fn(usize) -> f32) {
        let experts = self.model.n_experts().max(1);
        let width = self.model.scalings_width();
        for row in self.state.rows.chunks_exact_mut(width.max(1)).take(2) {
            for row in row.chunks_exact_mut(experts) {
                for (class, v) in row.iter_mut().enumerate() {
                    *v = weight(class);
                }
            }
        }
    }

    /// Draws the token after the last committed one, from its logits and the text. Nothing is pushed.
    ///
    /// A function of the logits, the text and `sampling`: the same in every mode and, after a rewind, again. With
    /// speculation, [`set_guess`](Session::set_guess) the same `sampling`, so that guesses are often right.
    ///
    /// Errors: [`Error::Option`] (see [`Sampling::check`]); [`Error::TokenOutOfRange`] for a bias on a token
    /// that is not there; [`Error::Refused`] while a sweep is suspended or tokens are queued, and where no logits
    /// are kept of the last token (an empty text, or one that was rewound).
    ///
    /// ```
    /// use pleach::sample::Sampling;
    /// use pleach::{Inline, Kernels, Session};
    /// fn next(session: &mut Session<'_, '_>, sampling: &Sampling) -> Result<u32, pleach::Error> {
    ///     let token = session.sample(sampling)?;
    ///     session.push(&[token])?;
    ///     session.run(Kernels::of_build(), &mut Inline)?;
    ///     Ok(token)
    /// }
    /// ```
    pub fn sample(&mut self, sampling: &Sampling) -> Result<u32, Error> {
        sampling.check()?;
        let vocab = self.model.config.vocab;
        if let Some(&(token, _)) = sampling.bias.iter().find(|(t, _)| *t >= vocab) {
            return Err(Error::TokenOutOfRange { token, vocab });
        }
        self.no_sweep()?;
        if self.routed != self.pushed {
            return Err(Error::Refused {
                why: "tokens are queued: run them before a token is drawn",
            });
        }
        let position = self.pushed;
        let kept = position
            .wrapping_sub(1)
            .checked_sub(self.logits_first)
            .filter(|row| *row < self.logits_count);
        let logits = kept.and_then(|row| {
            let mut rows = self.state.logits.chunks_exact((vocab as usize).max(1));
            rows.nth(row as usize)
        });
        let Some(logits) = logits else {
            return Err(Error::Refused {
                why: "no logits of the last token: push and run first",
            });
        };
        if sampling.is_argmax() {
            return Ok(argmax(logits));
        }
        // Between sweeps the outputs of matrices, which had room for these logits, are free.
        let scratch = self.state.output.get_mut(..logits.len());
        let scratch = scratch.ok_or(Error::Corrupt)?;
        scratch.iter_mut().zip(logits).for_each(|(s, l)| *s = *l);
        let history = History {
            tokens: self.state.tokens.get(..position as usize).unwrap_or(&[]),
            marks: START,
            guess: None,
        };
        Ok(sampling.draw_row(&mut Row::new(scratch), &history, position))
    }

    /// Sets what the speculative pass guesses with. The sampling is not checked: a bad one makes bad guesses, which
    /// change no answer.
    pub fn set_guess(&mut self, guess: Guess) {
        self.guess.set(guess);
    }

    fn at_start(&self) -> Result<(), Error> {
        if self.pushed != 0 {
            return Err(Error::Refused {
                why: "the caches hold the old values: rewind to 0 first",
            });
        }
        Ok(())
    }

    fn set_xlora(&mut self, xlora: XLoraConfig) -> Result<(), Error> {
        self.at_start()?;
        xlora.check(self.model.n_experts())?;
        self.xlora = xlora;
        Ok(())
    }

    /// The X-LoRA options in force.
    pub fn xlora_config(&self) -> XLoraConfig {
        self.xlora
    }

    /// Keeps the k largest scalings per token and site; at length 0.
    ///
    /// Errors: [`Error::Refused`] at another length, [`Error::Option`] for what the importer refuses too.
    pub fn set_topk_lora(&mut self, k: Option<u16>) -> Result<(), Error> {
        self.set_xlora(XLoraConfig {
            top_k_lora: k,
            ..self.xlora
        })
    }

    /// Sets the constant of pass 1, `None` for 1 / experts; at length 0.
    ///
    /// Errors: as [`Session::set_topk_lora`].
    pub fn set_scaling_pass_value(&mut self, value: Option<f32>) -> Result<(), Error> {
        let value = value.unwrap_or(1.0 / self.model.n_experts().max(1) as f32);
        self.set_xlora(XLoraConfig {
            scaling_pass_value: value,
            ..self.xlora
        })
    }

    /// Sets the factor of every expert's output; at length 0.
    ///
    /// Errors: as [`Session::set_topk_lora`].
    pub fn set_global_scaling_weight(&mut self, weight: f32) -> Result<(), Error> {
        self.set_xlora(XLoraConfig {
            global_scaling_weight: weight,
            ..self.xlora
        })
    }

    /// The factor of every expert's output.
    pub fn get_global_scaling_weight(&self) -> f32 {
        self.xlora.global_scaling_weight
    }

    /// Logits `[vocab]` of the last committed token; `None` before it.
    pub fn logits(&self) -> Option<&[f32]> {
        self.logits_at(self.committed().checked_sub(1)?)
    }

    /// Logits `[vocab]` of a position that the latest sweep committed (with [`LogitsKind::Last`]: of the
    /// last pushed token only).
    pub fn logits_at(&self, position: usize) -> Option<&[f32]> {
        let row = position.checked_sub(self.logits_first as usize)?;
        if row >= self.logits_count as usize {
            return None;
        }
        self.state
            .logits
            .chunks_exact((self.model.config.vocab as usize).max(1))
            .nth(row)
    }

    fn scalings_view(&self, position: usize, effective: bool) -> Option<Scalings<'_>> {
        if position >= self.committed() || position < self.mode_since as usize {
            return None;
        }
        let row = self.row_of(position as u32)?;
        let width = self.model.scalings_width();
        let data = scalings_row(self.state.rows, width, row as usize, effective)?;
        let shape = [1, self.model.n_sites(), self.model.n_experts()];
        Scalings::view(data, shape, !self.xlora.layerwise_scalings).ok()
    }

    /// The scalings `[1, sites, experts]` that a position of the latest sweep was routed by, before
    /// top-k; `None` if no scaling pass ran, or another routing has been set since.
    pub fn scalings_at(&self, position: usize) -> Option<Scalings<'_>> {
        if !self.mode?.needs_scaling() {
            return None;
        }
        self.scalings_view(position, false)
    }

    /// The effective scalings `[1, sites, experts]` that the gates of a position of the latest sweep used.
    pub fn effective_at(&self, position: usize) -> Option<Scalings<'_>> {
        self.scalings_view(position, true)
    }

    /// The scalings of the last committed token, before top-k. Source: PEFT, `get_latest_scalings`.
    pub fn get_latest_scalings(&self) -> Option<Scalings<'_>> {
        self.scalings_at(self.committed().checked_sub(1)?)
    }

    /// What the session has done since it was made.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The operation that the next step goes on with, its first unit, and the columns of the sweep: for tests that look
    /// for the first bit in which two backends differ.
    #[cfg(feature = "kernel-log")]
    pub fn under_way(&self) -> (impl core::fmt::Debug + use<>, u32, u16) {
        let (layers, depth) = (self.model.config.layers, self.model.classifier_depth());
        let op = crate::model::program::op(layers, depth as u32, self.sweep.pc);
        (op, self.sweep.unit, self.sweep.active)
    }

    /// Whether all logits of a sweep are kept.
    fn keeps_all_logits(&self) -> bool {
        self.options.logits == LogitsKind::Sweep
    }
}

//! What a session shows: the next token, logits, scalings, counters.

use crate::error::Error;
use crate::sample::{History, Row, Sampling, argmax};
use crate::session::arena::scalings_row;
use crate::session::options::{Counters, LogitsKind};
use crate::session::{START, Session};
use crate::xlora::Scalings;

impl Session<'_, '_> {
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
    pub(super) fn keeps_all_logits(&self) -> bool {
        self.options.logits == LogitsKind::Sweep
    }
}

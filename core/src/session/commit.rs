//! What a finished sweep leaves behind: positions, logits, log, guesses.

use crate::error::{Error, Pass};
use crate::kernels::{UNIT, elementwise};
use crate::math;
use crate::sample::{History, Row};
use crate::session::arena::scalings_row;
use crate::session::column::{Column, Sweep};
use crate::session::guess::{Guessed, Guesser};
use crate::session::narrow::widen;
use crate::session::schedule::Mode;
use crate::session::{START, Session};

impl Session<'_, '_> {
    /// Takes over the results of the sweep that has just ended.
    ///
    /// Errors: [`Error::NonFinite`] if a committed logit is not finite; nothing is committed then.
    pub(crate) fn commit(&mut self) -> Result<(), Error> {
        let n = self.sweep.columns as usize;
        let picked = self.sweep.picked as usize;
        self.check_logits(picked)?;
        let columns = self.state.columns.get_mut(..n).unwrap_or(&mut []);
        let picks = self.state.picks.get_mut(..picked).unwrap_or(&mut []);
        widen(columns, self.sweep.active as usize, picks);
        self.sweep = Sweep::default();
        self.counters.sweeps += 1;
        self.counters.columns += n as u64;
        let first = self.routed;
        let pushed = self.pushed;
        let mut scaled_guess = false;
        let (mut next, mut after) = (Guessed::default(), Guessed::default());
        for c in 0..n {
            let Some(&column) = self.state.columns.get(c) else {
                break;
            };
            if column.has(Column::DEAD) {
                continue;
            }
            let head = self
                .head_slot(c, picked)
                .filter(|_| column.has(Column::HEAD));
            if column.has(Column::GUESS) {
                scaled_guess |= column.pass() == Pass::Scaling;
            } else {
                match column.pass() {
                    Pass::Scaling => {
                        self.scaled = column.pos + 1;
                        self.prompt_held |=
                            self.mode == Some(Mode::Prompt) && self.scaled == self.prompt;
                    }
                    Pass::Routed => {
                        self.routed = column.pos + 1;
                        self.keep_log(column.pos);
                    }
                }
            }
            let Some(head) = head else { continue };
            if column.pass() == Pass::Routed && !column.has(Column::GUESS) {
                self.keep_logits(column.pos, head, picked);
            } else {
                let guessed = if column.pos < pushed {
                    (&mut next, None)
                } else {
                    (&mut after, Some(column.input))
                };
                let drawn = self.draw(head, picked, column.pos + 1, guessed.1);
                guessed.0.set(Guesser::of(column.pass()), drawn);
            }
        }
        if self.routed > first && !self.keeps_all_logits() && self.routed < pushed {
            self.logits_count = 0;
        }
        self.guess.found(scaled_guess, next, after);
        Ok(())
    }

    /// The place of column `c` among those that have logits.
    fn head_slot(&self, c: usize, picked: usize) -> Option<usize> {
        self.state
            .picks
            .iter()
            .take(picked)
            .position(|p| *p as usize == c)
    }

    fn has_finite_logits(&self, slot: usize, picked: usize) -> bool {
        let vocab = self.model.config.vocab as usize;
        let (mut vectors, rest) = elementwise::column_of(self.state.output, picked, slot, vocab);
        vectors.all(|v| math::all_finite(v)) && math::all_finite(rest)
    }

    fn check_logits(&mut self, picked: usize) -> Result<(), Error> {
        for slot in 0..picked {
            if self.has_finite_logits(slot, picked) {
                continue;
            }
            let Some(column) = self
                .state
                .picks
                .get(slot)
                .and_then(|c| self.state.columns.get_mut(*c as usize))
            else {
                return Err(Error::Corrupt);
            };
            if column.has(Column::GUESS) {
                column.kill();
            } else if column.pass() == Pass::Scaling {
                // It has a head only to guess with.
                *column = column.with(Column::HEAD, false);
            } else {
                return Err(Error::NonFinite {
                    pass: column.pass(),
                    position: column.pos,
                });
            }
        }
        Ok(())
    }

    /// The guess for `position` that a column's logits make: the draw that this position will really have, over
    /// the text, and `guess` after it. The logits are scratch then.
    fn draw(&mut self, slot: usize, picked: usize, position: u32, guess: Option<u32>) -> u32 {
        let vocab = self.model.config.vocab as usize;
        let mut row = Row::column(self.state.output, picked, slot, vocab);
        let history = History {
            tokens: self.state.tokens.get(..self.pushed as usize).unwrap_or(&[]),
            marks: START,
            guess,
        };
        self.guess.draw(&mut row, &history, position)
    }

    fn keep_logits(&mut self, position: u32, slot: usize, picked: usize) {
        let vocab = self.model.config.vocab as usize;
        let follows = position == self.logits_first + self.logits_count && self.keeps_all_logits();
        let row = if follows && self.logits_in_sweep(position) {
            self.logits_count
        } else {
            self.logits_first = position;
            self.logits_count = 0;
            0
        };
        let from = elementwise::column(self.state.output, picked, slot);
        if let Some(to) = self
            .state
            .logits
            .chunks_exact_mut(vocab.max(1))
            .nth(row as usize)
        {
            for (to, from) in to.chunks_mut(UNIT).zip(from) {
                to.iter_mut().zip(from).for_each(|(t, v)| *t = *v);
            }
            self.logits_count = row + 1;
        }
    }

    /// Whether `position` is not the first routed one of this sweep.
    fn logits_in_sweep(&self, position: u32) -> bool {
        self.state
            .columns
            .iter()
            .find(|c| c.pass() == Pass::Routed && !c.has(Column::GUESS))
            .is_some_and(|c| c.pos < position)
    }

    fn keep_log(&mut self, position: u32) {
        let token = self.state.tokens.get(position as usize).copied();
        if token.is_some_and(|t| t & START != 0) {
            self.forwards = self.forwards.wrapping_add(1);
        }
        let Some(row) = self.row_of(position) else {
            return;
        };
        if !self.logging || !self.mode.is_some_and(|m| m.needs_scaling()) {
            return;
        }
        let width = self.model.scalings_width();
        let at = self.log_len as usize;
        let slots = (
            self.state.log.chunks_exact_mut(width.max(1)).nth(at),
            self.state.log_marks.get_mut(at),
        );
        match (
            scalings_row(self.state.rows, width, row as usize, false),
            slots,
        ) {
            (Some(from), (Some(to), Some(mark))) => {
                to.iter_mut().zip(from).for_each(|(t, v)| *t = *v);
                *mark = self.forwards;
                self.log_len += 1;
            }
            _ => self.log_dropped = self.log_dropped.saturating_add(1),
        }
    }
}

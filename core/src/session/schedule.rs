//! Which columns the next sweep carries: the only place that knows modes.
//!
//! Three numbers say where a text stands: `routed <= pushed` positions have had their routed pass, `scaled`
//! their scaling pass. A position may be routed as soon as the scalings of its *source* exist; a sweep takes
//! up to a chunk of positions whose source is there, and up to a chunk of scaling passes ahead of them. From
//! that one rule follow the pipelined prefill (n/c + 1 sweeps), naive decoding (two sweeps a token), `every`,
//! `lag`, `prompt`, and the catch-up after a routing that needed no scalings.
//!
//! Speculation adds columns for the position after the text, whose token is guessed; who guesses is
//! `guess`'s choice, made anew for each sweep.

use crate::error::Pass;
use crate::session::column::{Column, Gates, Sweep};
use crate::session::guess::Guesser;
use crate::session::{EMBEDDING, START, Session, arena};

/// A [`Routing`](crate::Routing) without its data, which lie in the held row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Exact,
    Every(u32),
    Lag,
    Prompt,
    /// Static, only, all-ones: the held row.
    Given {
        global: bool,
    },
    Base,
}

impl Mode {
    /// Whether positions wait for scalings.
    pub(crate) fn needs_scaling(self) -> bool {
        !matches!(self, Mode::Given { .. } | Mode::Base)
    }
}

impl Session<'_, '_> {
    /// The position whose scalings `position` is routed by.
    fn source(&self, mode: Mode, position: u32) -> u32 {
        match mode {
            Mode::Every(n) => position - position.checked_rem(n).unwrap_or(0),
            Mode::Lag if position >= self.prompt => position.saturating_sub(1),
            Mode::Prompt => self.prompt.saturating_sub(1),
            _ => position,
        }
    }

    /// The number of a position's row among those that are ever kept.
    fn row_index(mode: Mode, position: u32) -> u32 {
        match mode {
            Mode::Every(n) => position.checked_div(n).unwrap_or(0),
            _ => position,
        }
    }

    /// The row that the scalings of `position` go to, if they are kept at all.
    fn row_for(&self, mode: Mode, position: u32) -> Option<u16> {
        match mode {
            Mode::Base | Mode::Given { .. } => None,
            Mode::Prompt => (position + 1 == self.prompt).then_some(0),
            Mode::Every(n) if position.checked_rem(n) != Some(0) => None,
            _ => {
                let ring = arena::ring_rows(&self.model, &self.options) as u32;
                Some(1 + Self::row_index(mode, position).checked_rem(ring)? as u16)
            }
        }
    }

    /// The row that routes `position`, if it still holds its source.
    pub(crate) fn row_of(&self, position: u32) -> Option<u16> {
        let mode = self.mode?;
        if !mode.needs_scaling() {
            return Some(0);
        }
        let source = self.source(mode, position);
        let row = self.row_for(mode, source)?;
        (self.state.row_positions.get(row as usize) == Some(&source)).then_some(row)
    }

    /// Whether the scalings that route `position` exist.
    fn is_ready(&self, mode: Mode, position: u32) -> bool {
        match mode {
            Mode::Prompt => self.prompt_held,
            _ => !mode.needs_scaling() || self.source(mode, position) < self.scaled,
        }
    }

    /// Moves the scaling pass back to where the next routed position needs it: its rows may be gone.
    pub(crate) fn rescale(&mut self) {
        if let Some(mode) = self.mode
            && mode.needs_scaling()
            && mode != Mode::Prompt
        {
            self.scaled = self.scaled.min(self.source(mode, self.routed));
        }
    }

    /// Whether `mode`, over the text's first `len` tokens, would need the scaling pass of embedding rows that
    /// are committed, and so gone.
    pub(crate) fn needs_gone_embeddings(&self, mode: Mode, len: u32) -> bool {
        let routed = self.routed.min(len);
        let source = match mode {
            // The prompt may be cut to `len`.
            Mode::Lag => routed.saturating_sub(1),
            _ => self.source(mode, routed),
        };
        let from = self.scaled.min(len).min(source);
        mode.needs_scaling() && mode != Mode::Prompt && self.embeddings_in(from, routed) != 0
    }

    fn routed_gates(&self, mode: Mode, position: u32) -> Gates {
        match mode {
            Mode::Base => Gates::Off,
            Mode::Given { global } => Gates::Row { row: 0, global },
            _ => match self.row_for(mode, self.source(mode, position)) {
                Some(row) => Gates::Row { row, global: true },
                None => Gates::Off,
            },
        }
    }

    fn scaling_gates(&self) -> Gates {
        match self.xlora.scaling_pass_gate(self.model.n_experts()) {
            0.0 => Gates::Off,
            value => Gates::Uniform { value },
        }
    }

    fn column(&self, pass: Pass, position: u32, gates: Gates) -> Column {
        let token = self
            .state
            .tokens
            .get(position as usize)
            .copied()
            .unwrap_or(0);
        Column::new(pass, token & !(EMBEDDING | START), position, gates)
            .with(Column::EMBEDDING, token & EMBEDDING != 0)
    }

    /// Fills the columns of the next sweep; `false` if every pushed token is committed.
    pub(crate) fn next_sweep(&mut self) -> bool {
        let Some(mode) = self.mode else { return false };
        if self.routed == self.pushed {
            return false;
        }
        let chunk = self.options.chunk;
        let guesser = self.guesser(mode);
        let mut count = 0;

        let mut routed_end = self.routed;
        while routed_end < self.pushed.min(self.routed + chunk) && self.is_ready(mode, routed_end) {
            let head = self.keeps_all_logits() || routed_end + 1 == self.pushed;
            let column = self
                .column(
                    Pass::Routed,
                    routed_end,
                    self.routed_gates(mode, routed_end),
                )
                .with(Column::HEAD, head);
            self.place(&mut count, column);
            routed_end += 1;
        }

        let mut scaled_end = self.scaled;
        let limit = match mode {
            Mode::Prompt if self.prompt_held => self.scaled,
            Mode::Prompt => self.prompt,
            _ if mode.needs_scaling() => self.pushed,
            _ => self.scaled,
        };
        let ring = arena::ring_rows(&self.model, &self.options) as u32;
        let oldest = Self::row_index(mode, self.source(mode, self.routed));
        while scaled_end < limit.min(self.scaled + chunk)
            && (mode == Mode::Prompt
                || Self::row_index(mode, scaled_end) < oldest.saturating_add(ring))
        {
            let last = scaled_end + 1 == self.pushed;
            let column = self
                .column(Pass::Scaling, scaled_end, self.scaling_gates())
                .routed_to(self.row_for(mode, scaled_end))
                .with(
                    Column::HEAD,
                    last && self.guesses_from_scaling(mode, guesser),
                );
            self.place(&mut count, column);
            scaled_end += 1;
        }
        if let Some(guesser) = guesser {
            self.place_guesses(mode, guesser, &mut count, routed_end, scaled_end);
        }
        self.sweep = Sweep {
            columns: count as u16,
            active: count as u16,
            ..Sweep::default()
        };
        count > 0
    }

    fn place(&mut self, count: &mut usize, column: Column) {
        if let Some(slot) = self.state.columns.get_mut(*count) {
            let read = column.has(Column::ROUTE | Column::HEAD);
            *slot = column.with(Column::INNER, !read && column.pos + 1 < self.pushed);
            slot.place = *count as u16;
            *count += 1;
        }
    }

    /// Who guesses in the next sweep; nobody where no guess could be pushed.
    fn guesser(&self, mode: Mode) -> Option<Guesser> {
        let room = self.options.context.min(self.guess.rule.limit);
        if mode != Mode::Exact || self.pushed >= room {
            return None;
        }
        self.guess.guesser(self.options.speculate)
    }

    /// Whether a scaling pass at `position` guesses the token after it: for the base guess always, beside a held
    /// one now and then.
    fn scaling_guesses(&self, guesser: Guesser, position: u32) -> bool {
        guesser == Guesser::Base || self.guess.observes(self.options.speculate, position)
    }

    /// The same for the last token of the text: also where the held guess cannot (at a prompt's end).
    fn guesses_from_scaling(&self, mode: Mode, guesser: Option<Guesser>) -> bool {
        guesser.is_some_and(|g| {
            self.scaling_guesses(g, self.pushed - 1) || self.row_before_last(mode).is_none()
        })
    }

    /// The row of the token before the last one, if the last one is all that is left to route: a held column
    /// then guesses along with its scaling pass.
    fn row_before_last(&self, mode: Mode) -> Option<u16> {
        if self.routed + 1 != self.pushed {
            return None;
        }
        let before = self.routed.checked_sub(1)?;
        let row = self.row_for(mode, before)?;
        (self.state.row_positions.get(row as usize) == Some(&before)).then_some(row)
    }

    /// Columns for the position after the text, and held columns.
    fn place_guesses(
        &mut self,
        mode: Mode,
        guesser: Guesser,
        count: &mut usize,
        routed_end: u32,
        scaled_end: u32,
    ) {
        if scaled_end != self.pushed {
            return;
        }
        let after = self.pushed;
        if scaled_end > self.scaled {
            // The last token's scaling pass is in this sweep.
            if guesser == Guesser::Held
                && routed_end == self.routed
                && let Some(row) = self.row_before_last(mode)
            {
                let gates = Gates::Row { row, global: true };
                let column = self
                    .column(Pass::Routed, after - 1, gates)
                    .with(Column::GUESS | Column::HEAD, true);
                self.place(count, column);
            }
            return;
        }
        if routed_end != after {
            return;
        }
        let Some(token) = self.guess.place(guesser, self.model.config.vocab) else {
            return;
        };
        let scaling = Column::new(Pass::Scaling, token, after, self.scaling_gates())
            .routed_to(self.row_for(mode, after))
            .with(Column::GUESS, true)
            .with(Column::HEAD, self.scaling_guesses(guesser, after));
        self.place(count, scaling);
        if guesser == Guesser::Held
            && let Some(row) = self.row_for(mode, after - 1)
        {
            let gates = Gates::Row { row, global: true };
            let held = Column::new(Pass::Routed, token, after, gates)
                .with(Column::GUESS | Column::HEAD, true);
            self.place(count, held);
        }
    }

    /// Compares a pushed token with the guess that a sweep already worked on.
    pub(crate) fn meet_guess(&mut self, token: u32) {
        if self.guess.meet(token, &mut self.counters) && self.scaled == self.pushed {
            self.scaled += 1;
        }
    }
}

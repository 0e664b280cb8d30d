//! The scalings log, as PEFT's users know it: an entry per forward, which here is a push.

use crate::session::Session;
use crate::xlora::Scalings;

/// A view of the log.
#[derive(Clone, Copy, Debug)]
pub struct ScalingsLog<'a> {
    rows: &'a [f32],
    marks: &'a [u32],
    width: usize,
    layers: usize,
    adapters: usize,
    shared: bool,
    dropped: u32,
}

impl<'a> ScalingsLog<'a> {
    /// Tokens in the log.
    pub fn tokens(&self) -> usize {
        self.marks.len()
    }

    /// Tokens that found no room.
    pub fn dropped(&self) -> usize {
        self.dropped as usize
    }

    /// Entries: pushes of which at least one token is in the log.
    pub fn len(&self) -> usize {
        self.forwards().count()
    }

    /// Whether the log is empty.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Entry `n`: the scalings `[tokens, sites, experts]` of one push, before top-k.
    pub fn forward(&self, n: usize) -> Option<Scalings<'a>> {
        self.forwards().nth(n)
    }

    /// All entries, oldest first.
    pub fn forwards(&self) -> impl Iterator<Item = Scalings<'a>> + use<'a> {
        let this = *self;
        let mut at = 0;
        core::iter::from_fn(move || {
            let mark = this.marks.get(at)?;
            let rest = this.marks.get(at..)?;
            let tokens = rest.iter().take_while(|m| *m == mark).count();
            let rows = this
                .rows
                .get(at.saturating_mul(this.width)..(at + tokens).saturating_mul(this.width))?;
            at += tokens;
            Scalings::view(rows, [tokens, this.layers, this.adapters], this.shared).ok()
        })
    }

    /// Entries of one length, with their numbers. Source: PEFT, `get_bucketed_scalings_log`, whose
    /// dictionary from sequence length to entries this is, one key at a time.
    pub fn bucket(&self, tokens: usize) -> impl Iterator<Item = (usize, Scalings<'a>)> + use<'a> {
        self.forwards()
            .enumerate()
            .filter(move |(_, s)| matches!(s.shape(), [t, _, _] if t == tokens))
    }
}

impl Session<'_, '_> {
    /// Begins to log the scalings of committed tokens, as far as
    /// [`log_tokens`](crate::SessionOptions::log_tokens) has room.
    pub fn enable_scalings_logging(&mut self) {
        self.logging = true;
    }

    /// Stops logging; what was logged stays.
    pub fn disable_scalings_logging(&mut self) {
        self.logging = false;
    }

    /// Empties the log.
    pub fn clear_scalings_log(&mut self) {
        self.log_len = 0;
        self.log_dropped = 0;
    }

    /// The log: values before top-k, an entry per push.
    pub fn get_scalings_log(&self) -> ScalingsLog<'_> {
        let width = self.model.scalings_width();
        let len = self.log_len as usize;
        ScalingsLog {
            rows: self
                .state
                .log
                .get(..len.saturating_mul(width))
                .unwrap_or(&[]),
            marks: self.state.log_marks.get(..len).unwrap_or(&[]),
            width,
            layers: self.model.n_sites(),
            adapters: self.model.n_experts(),
            shared: !self.xlora.layerwise_scalings,
            dropped: self.log_dropped,
        }
    }

    /// The log's entries of `tokens` tokens each, with their numbers.
    pub fn get_bucketed_scalings_log(
        &self,
        tokens: usize,
    ) -> impl Iterator<Item = (usize, Scalings<'_>)> {
        self.get_scalings_log().bucket(tokens)
    }
}

//! Finding added tokens in text, leftmost and then longest first.

use super::section::Tokenizer;

/// A part of a text.
pub(super) enum Piece<'t> {
    Text(&'t [u8]),
    Token(u32),
}

/// Cuts a text at the added tokens of some rows. Empty texts are left out.
pub(super) struct Pieces<'t, 'b> {
    tokenizer: Tokenizer<'b>,
    rows: (usize, usize),
    special: bool,
    rest: &'t [u8],
    found: Option<u32>,
}

impl<'t, 'b> Pieces<'t, 'b> {
    /// `special`: special tokens match too. A match of one that does not is text, all of it.
    pub(super) fn new(
        tokenizer: Tokenizer<'b>,
        rows: (usize, usize),
        special: bool,
        text: &'t [u8],
    ) -> Self {
        Self {
            tokenizer,
            rows,
            special,
            rest: text,
            found: None,
        }
    }
}

impl<'t> Iterator for Pieces<'t, '_> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        if let Some(id) = self.found.take() {
            return Some(Piece::Token(id));
        }
        let mut at = 0;
        while let Some(tail) = self.rest.get(at..)
            && !tail.is_empty()
        {
            let Some((id, len)) = longest(&self.tokenizer, self.rows, tail) else {
                at = at.saturating_add(1);
                continue;
            };
            if !self.special && self.tokenizer.is_special(id) {
                at = at.saturating_add(len);
                continue;
            }
            let before = self.rest.get(..at).unwrap_or(&[]);
            self.rest = tail.get(len..).unwrap_or(&[]);
            if before.is_empty() {
                return Some(Piece::Token(id));
            }
            self.found = Some(id);
            return Some(Piece::Text(before));
        }
        let text = core::mem::take(&mut self.rest);
        (!text.is_empty()).then_some(Piece::Text(text))
    }
}

/// The longest added token among `rows` that `text` begins with, and its length.
///
/// The rows are sorted, so those that share the first `depth` bytes with the text are neighbours, and one
/// of exactly that length is their first.
fn longest(tokenizer: &Tokenizer<'_>, rows: (usize, usize), text: &[u8]) -> Option<(u32, usize)> {
    let (mut low, mut high) = rows;
    let mut best = None;
    let mut rest = text;
    let mut depth = 0;
    while low < high
        && let Some((byte, tail)) = rest.split_first()
    {
        let at = |row| byte_at(tokenizer, row, depth);
        low = partition(low, high, |row| at(row) < Some(*byte));
        high = partition(low, high, |row| at(row) <= Some(*byte));
        depth += 1;
        rest = tail;
        if low < high
            && let Some(row) = tokenizer.added(low)
            && row.content.len() == depth
        {
            best = Some((row.id, depth));
            low += 1;
        }
    }
    best
}

/// Byte `depth` of a row's content; `None`, the least value, past its end.
fn byte_at(tokenizer: &Tokenizer<'_>, row: usize, depth: usize) -> Option<u8> {
    tokenizer.added(row)?.content.get(depth).copied()
}

/// The first of `low..high` for which `before` is false.
fn partition(mut low: usize, mut high: usize, before: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let mid = low.midpoint(high);
        if before(mid) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    low
}

impl Tokenizer<'_> {
    /// The added token with this content (a stop token of a chat template, say).
    ///
    /// ```
    /// # use pleach::tokenizer::{Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// assert_eq!(tokenizer.added_token("</s>"), Some(1));
    /// assert_eq!(tokenizer.added_token("</s"), None);
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn added_token(&self, content: &str) -> Option<u32> {
        let content = content.as_bytes();
        self.added_groups()
            .into_iter()
            .filter_map(|rows| longest(self, rows, content))
            .find(|(_, len)| *len == content.len())
            .map(|(id, _)| id)
    }
}

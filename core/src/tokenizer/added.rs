//! Finding added tokens in text, leftmost and then longest first.

use super::section::Tokenizer;

/// A part of a text.
pub(super) enum Piece<'t> {
    /// And where it begins in the whole text.
    Text(&'t [u8], usize),
    Token(u32),
}

/// Cuts a text at the added tokens of some rows. Empty texts are left out.
pub(super) struct Pieces<'t, 'b> {
    tokenizer: Tokenizer<'b>,
    rows: (usize, usize),
    special: Specials<'t>,
    rest: &'t [u8],
    /// Where `rest` begins in the whole text.
    start: usize,
    found: Option<u32>,
}

/// Which special tokens match. One that does not is text, all of it.
#[derive(Clone, Copy)]
pub(super) enum Specials<'t> {
    None,
    /// All but those that begin at these places of the whole text, ascending.
    But(&'t [usize]),
}

impl Specials<'_> {
    fn admit(&self, at: usize) -> bool {
        match self {
            Specials::None => false,
            Specials::But(guarded) => guarded.binary_search(&at).is_err(),
        }
    }
}

impl<'t, 'b> Pieces<'t, 'b> {
    /// The pieces of a text that begins at `start` of the whole text.
    pub(super) fn new(
        tokenizer: Tokenizer<'b>,
        rows: (usize, usize),
        special: Specials<'t>,
        text: &'t [u8],
        start: usize,
    ) -> Self {
        Self {
            tokenizer,
            rows,
            special,
            rest: text,
            start,
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
            let place = self.start.saturating_add(at);
            if self.tokenizer.is_special(id) && !self.special.admit(place) {
                at = at.saturating_add(len);
                continue;
            }
            let before = self.rest.get(..at).unwrap_or(&[]);
            let start = core::mem::replace(&mut self.start, place.saturating_add(len));
            self.rest = tail.get(len..).unwrap_or(&[]);
            if before.is_empty() {
                return Some(Piece::Token(id));
            }
            self.found = Some(id);
            return Some(Piece::Text(before, start));
        }
        let text = core::mem::take(&mut self.rest);
        (!text.is_empty()).then_some(Piece::Text(text, self.start))
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

impl<'b> Tokenizer<'b> {
    /// The added tokens and their contents, in no order that means anything.
    ///
    /// ```
    /// # use pleach::tokenizer::{Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// let all: Vec<_> = tokenizer.added_tokens().collect();
    /// assert_eq!(all, [(1, &b"</s>"[..]), (0, b"<s>")]);
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn added_tokens(&self) -> impl Iterator<Item = (u32, &'b [u8])> + use<'b> {
        let this = *self;
        let [(_, first), (_, all)] = this.added_groups();
        (0..first.max(all)).filter_map(move |row| this.added(row).map(|a| (a.id, a.content)))
    }

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

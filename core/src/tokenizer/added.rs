//! Finding added tokens in text, leftmost and then longest first.

use super::FULL;
use super::format::Normalizer;
use super::section::{Added, Tokenizer};
use super::span::Span;

/// A part of a text, and where it begins in the whole text.
pub(super) enum Piece<'t> {
    Text(Span<'t>, usize),
    Token(u32),
}

/// Which added tokens match. One that does not is text, all of it.
#[derive(Clone, Copy)]
pub(super) enum Matching<'g> {
    None,
    /// Those that are not special.
    Plain,
    /// All but those that have one of these places of the whole text (ascending) in them.
    But(&'g [usize]),
}

impl Matching<'_> {
    /// Whether an added token may be at these places.
    pub(super) fn admits(&self, special: bool, from: usize, to: usize) -> bool {
        match self {
            Matching::None => false,
            Matching::Plain => !special,
            Matching::But(guarded) => {
                let next = guarded.partition_point(|place| *place < from);
                guarded.get(next).is_none_or(|place| *place >= to)
            }
        }
    }
}

/// Some rows of the added tokens, and the bytes that their contents begin with.
#[derive(Clone, Copy)]
pub(super) struct Rows<'g> {
    from: usize,
    to: usize,
    first: [u32; 8],
    pub(super) matching: Matching<'g>,
}

impl<'g> Rows<'g> {
    pub(super) fn new(
        tokenizer: &Tokenizer<'_>,
        (from, to): (usize, usize),
        matching: Matching<'g>,
    ) -> Self {
        let mut first = [0; 8];
        for row in from..to {
            if FULL
                && let Some(byte) = byte_at(tokenizer, row, 0)
                && let Some(bits) = first.get_mut(usize::from(byte >> 5))
            {
                *bits |= 1 << (byte & 31);
            }
        }
        Self {
            from,
            to,
            first,
            matching,
        }
    }

    fn begin_with(&self, byte: u8) -> bool {
        // Firmware, which has few added tokens, does without.
        if !FULL {
            return true;
        }
        let bits = self.first.get(usize::from(byte >> 5));
        bits.is_some_and(|bits| bits >> (byte & 31) & 1 == 1)
    }
}

/// Cuts a text at the added tokens of some rows. Empty texts are left out.
pub(super) struct Pieces<'t, 'g, 'b> {
    tokenizer: Tokenizer<'b>,
    rows: Rows<'g>,
    rest: Span<'t>,
    /// Where `rest` begins in the whole text.
    start: usize,
    found: Option<u32>,
}

impl<'t, 'g, 'b> Pieces<'t, 'g, 'b> {
    /// The pieces of a text that begins at `start` of the whole text.
    pub(super) fn new(
        tokenizer: Tokenizer<'b>,
        rows: Rows<'g>,
        text: Span<'t>,
        start: usize,
    ) -> Self {
        Self {
            tokenizer,
            rows,
            rest: text,
            start,
            found: None,
        }
    }
}

impl<'t> Iterator for Pieces<'t, '_, '_> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        if let Some(id) = self.found.take() {
            return Some(Piece::Token(id));
        }
        let mut tail = self.rest;
        while !tail.is_empty() {
            let mut next = tail;
            let begins = next.next().is_some_and(|b| self.rows.begin_with(b));
            let Some((row, after)) = begins
                .then(|| longest(&self.tokenizer, &self.rows, tail))
                .flatten()
            else {
                tail = next;
                continue;
            };
            let place = |tail: &Span<'_>| {
                let passed = self.rest.text.len().saturating_sub(tail.text.len());
                self.start.saturating_add(passed)
            };
            let special = self.tokenizer.is_special(row.id);
            let (from, to) = (place(&tail), place(&after));
            if !self.rows.matching.admits(special, from, to) {
                tail = after;
                continue;
            }
            let mut before = self.rest.before(&tail);
            if FULL && row.lstrip {
                before = before.trim_end();
            }
            let rest = if FULL && row.rstrip {
                after.trim_start()
            } else {
                after
            };
            let (start, next_start) = (self.start, place(&rest));
            self.start = next_start;
            self.rest = rest;
            if before.is_empty() {
                return Some(Piece::Token(row.id));
            }
            self.found = Some(row.id);
            return Some(Piece::Text(before, start));
        }
        let span = core::mem::replace(&mut self.rest, Span::new(&[]));
        (!span.is_empty()).then_some(Piece::Text(span, self.start))
    }
}

/// The longest added token among `rows` that `text` begins with, and what is after it.
///
/// The rows are sorted, so those that share the first `depth` bytes with the text are neighbours, and one
/// of exactly that length is their first.
fn longest<'t, 'b>(
    tokenizer: &Tokenizer<'b>,
    rows: &Rows<'_>,
    text: Span<'t>,
) -> Option<(Added<'b>, Span<'t>)> {
    let (mut low, mut high) = (rows.from, rows.to);
    let mut best = None;
    let mut rest = text;
    let mut depth = 0;
    while low < high
        && let Some(byte) = rest.next()
    {
        let at = |row| byte_at(tokenizer, row, depth);
        low = partition(low, high, |row| at(row) < Some(byte));
        high = partition(low, high, |row| at(row) <= Some(byte));
        depth += 1;
        if low < high
            && let Some(row) = tokenizer.added(low)
            && row.content.len() == depth
        {
            best = Some((row, rest));
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
        (0..first.max(all)).filter_map(move |row| {
            let added = this.added(row)?;
            // The space that the normaliser put before it is not what one writes.
            let content = match this.normalizer() {
                Normalizer::Spaces if row >= first => {
                    added.content.strip_prefix(b" ").unwrap_or(added.content)
                }
                _ => added.content,
            };
            Some((added.id, content))
        })
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
        self.added_tokens()
            .find(|(_, added)| *added == content.as_bytes())
            .map(|(id, _)| id)
    }
}

//! Text as the tokenizer sees it.

use super::FULL;
use super::unicode::{Class, first_char};

/// `▁`, which SentencePiece writes for a space.
pub(super) const LOW_LINE: &[u8] = "▁".as_bytes();

/// A text, with a space before it that is not in the bytes if `space`; if `fold`, `▁` is a space too.
///
/// As an iterator: its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<'t> {
    pub(super) space: bool,
    pub(super) fold: bool,
    pub(super) text: &'t [u8],
}

impl<'t> Span<'t> {
    pub(super) const fn new(text: &'t [u8]) -> Self {
        Self {
            space: false,
            fold: false,
            text,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        !self.space && self.text.is_empty()
    }

    /// Whether it begins with a space.
    pub(super) fn spaced(&self) -> bool {
        let mut copy = *self;
        copy.next() == Some(b' ')
    }

    /// What is before `tail`, the end of this span.
    pub(super) fn before(&self, tail: &Self) -> Self {
        let len = self.text.len().saturating_sub(tail.text.len());
        Self {
            space: self.space && !tail.space,
            fold: self.fold,
            text: self.text.get(..len).unwrap_or(&[]),
        }
    }

    /// Without the white space at its end. A space that `fold` makes of `▁`, and one that `▁` stands for, is none.
    pub(super) fn trim_end(mut self) -> Self {
        while let Some((c, start)) = last_char(self.text)
            && self.is_white(c)
        {
            self.text = self.text.get(..start).unwrap_or(&[]);
        }
        self
    }

    /// Without the white space at its start.
    pub(super) fn trim_start(mut self) -> Self {
        while !self.space
            && let Some((c, len)) = first_char(self.text)
            && self.is_white(c)
        {
            self.text = self.text.get(len..).unwrap_or(&[]);
        }
        self
    }

    fn is_white(&self, c: char) -> bool {
        Class::of(c) == Class::Space && !(self.fold && c == ' ')
    }
}

impl Iterator for Span<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if core::mem::take(&mut self.space) {
            return Some(b' ');
        }
        if FULL
            && self.fold
            && let Some(rest) = self.text.strip_prefix(LOW_LINE)
        {
            self.text = rest;
            return Some(b' ');
        }
        let (byte, rest) = self.text.split_first()?;
        self.text = rest;
        Some(*byte)
    }
}

/// The last character and where it starts.
fn last_char(text: &[u8]) -> Option<(char, usize)> {
    let back = text.len().min(4);
    (1..=back).find_map(|n| {
        let start = text.len().checked_sub(n)?;
        let tail = core::str::from_utf8(text.get(start..)?).ok()?;
        tail.chars().next().map(|c| (c, start))
    })
}

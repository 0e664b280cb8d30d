//! Tokens to text, as they come.

use super::format::STRIP_SPACE;
use super::section::Tokenizer;
use super::unicode::first_char;
use super::{FULL, SpecialTokens};

/// Decodes a stream of tokens and holds back the bytes of a character that is not whole yet.
///
/// All texts together, with [`finish`](Self::finish)'s, are what `tokenizers` decodes the tokens to: bytes
/// that are not UTF-8 become U+FFFD, unknown tokens leave no trace.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'b> {
    tokenizer: Tokenizer<'b>,
    special: SpecialTokens,
    held: Held,
    /// A space would be the first character of the text, and is dropped.
    strip: bool,
}

/// At most 3 bytes: the start of a character.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: [u8; 3],
    len: u8,
}

impl Held {
    const NONE: Self = Self {
        bytes: [0; 3],
        len: 0,
    };

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn of(bytes: impl Iterator<Item = u8>) -> Self {
        let mut held = Self::NONE;
        bytes.take(3).for_each(|b| held.push(b));
        held
    }
}

impl<'b> Decoder<'b> {
    /// A decoder at the start of a text.
    pub const fn new(tokenizer: Tokenizer<'b>, special: SpecialTokens) -> Self {
        Self {
            tokenizer,
            special,
            held: Held::NONE,
            strip: FULL && tokenizer.has(STRIP_SPACE),
        }
    }

    /// The text that `token` completes: whole characters, perhaps none.
    ///
    /// ```
    /// # use pleach::tokenizer::{Decoder, SpecialTokens, Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// let mut decoder = Decoder::new(tokenizer, SpecialTokens::Skip);
    /// assert_eq!(decoder.push(0).to_string(), ""); // "<s>" is special
    /// assert_eq!(decoder.push(261).to_string(), "hello");
    /// assert_eq!(decoder.push(2 + 0xc3).to_string(), ""); // the first byte of "ß"
    /// assert_eq!(decoder.push(2 + 0x9f).to_string(), "ß");
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn push(&mut self, token: u32) -> Text<'b> {
        let skip = self.special == SpecialTokens::Skip && self.tokenizer.is_special(token);
        let body = match self.tokenizer.token_bytes(token) {
            Some(bytes) if !skip => bytes,
            _ => return Text::EMPTY,
        };
        let each = self.tokenizer.model_is_chars();
        let held = self.held.bytes();
        let total = held.len().saturating_add(body.len());
        let all = held.iter().chain(body).copied();
        // SentencePiece's bytes make characters with bytes only.
        let keep = if each && !self.tokenizer.is_byte(token) {
            0
        } else {
            (1..=total.min(3))
                .find(|k| begins_char(Held::of(all.clone().skip(total - k)).bytes()))
                .unwrap_or(0)
        };
        let head = Held::of(held.iter().copied().take(total - keep));
        let end = body.len().saturating_sub(keep);
        self.held = Held::of(all.skip(total - keep));
        let mut body = body.get(..end).unwrap_or(&[]);
        if FULL && self.strip && keep < total {
            self.strip = false;
            if head.len == 0 {
                body = body.strip_prefix(b" ").unwrap_or(body);
            }
        }
        Text { head, body, each }
    }

    /// Ends the text: U+FFFD if a character was not whole. The decoder is at the start of a text again.
    ///
    /// ```
    /// # use pleach::tokenizer::{Decoder, SpecialTokens, Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// let mut decoder = Decoder::new(tokenizer, SpecialTokens::Keep);
    /// assert_eq!(decoder.push(2 + 0xc3).to_string(), "");
    /// assert_eq!(decoder.finish().to_string(), "\u{fffd}");
    /// assert_eq!(decoder.finish().to_string(), "");
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn finish(&mut self) -> Text<'b> {
        self.strip = FULL && self.tokenizer.has(STRIP_SPACE);
        Text {
            head: core::mem::replace(&mut self.held, Held::NONE),
            body: &[],
            each: self.tokenizer.model_is_chars(),
        }
    }
}

/// Whether `bytes` are the start of one character and not the whole of it.
fn begins_char(bytes: &[u8]) -> bool {
    match core::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(e) => e.valid_up_to() == 0 && e.error_len().is_none(),
    }
}

/// A piece of text: an iterator over its characters, which also displays it.
///
/// ```
/// # use pleach::tokenizer::{Decoder, SpecialTokens, Tokenizer, example};
/// # let tokenizer = Tokenizer::parse(&example::SECTION)?;
/// let mut decoder = Decoder::new(tokenizer, SpecialTokens::Keep);
/// let mut text = String::new();
/// text.extend(decoder.push(261));
/// print!("{}", decoder.push(262));
/// assert_eq!(text, "hello");
/// # Ok::<(), pleach::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Text<'b> {
    head: Held,
    body: &'b [u8],
    /// Each byte that is not UTF-8 becomes U+FFFD, not only each start of a character.
    each: bool,
}

impl Text<'_> {
    const EMPTY: Self = Self {
        head: Held::NONE,
        body: &[],
        each: false,
    };

    fn first(&self, bytes: &[u8]) -> Option<(char, usize)> {
        let (c, len) = first_char(bytes)?;
        if !FULL {
            return Some((c, len));
        }
        let bad = c == char::REPLACEMENT_CHARACTER && !bytes.starts_with("\u{fffd}".as_bytes());
        Some((c, if bad && self.each { 1 } else { len }))
    }
}

impl Iterator for Text<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let held = self.head.bytes();
        if held.is_empty() {
            let (c, len) = self.first(self.body)?;
            self.body = self.body.get(len..).unwrap_or(&[]);
            return Some(c);
        }
        // A character that began in earlier tokens ends in this one, or never.
        let mut window = [0; 4];
        let mut n = 0;
        for (slot, byte) in window.iter_mut().zip(held.iter().chain(self.body)) {
            *slot = *byte;
            n += 1;
        }
        let (c, len) = self.first(window.get(..n).unwrap_or(&[]))?;
        let from_body = len.saturating_sub(held.len());
        self.head = Held::of(held.iter().copied().skip(len));
        self.body = self.body.get(from_body..).unwrap_or(&[]);
        Some(c)
    }
}

impl core::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        for c in *self {
            f.write_char(c)?;
        }
        Ok(())
    }
}

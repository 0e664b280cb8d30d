//! Unicode's Normalization Form C (UAX 15), without a buffer of its own.
//!
//! A *regular* character has combining class 0 and never composes with what is before it. Text between
//! regular characters stands for itself; what follows one up to the next is a segment, decomposed and
//! composed again. The canonical order of a run of marks is found by one pass over it per combining class
//! (there are 54), so that a run of any length needs no memory, and time proportional to its length.

use super::nfc_tables::{self, CLASSES, COMPOSITIONS, DECOMPOSITIONS, IRREGULAR, POOL};
use super::unicode::{first_char, within};

/// The Unicode version of NFC's tables: that of the crate which `tokenizers` uses.
pub const NFC_UNICODE_VERSION: &str = nfc_tables::UNICODE_VERSION;

/// Normalises `text` into `out` and returns the bytes written. Bytes that are not UTF-8 stay as they are.
///
/// `out` need not be longer than three times `text`.
/// Errors: the bytes that are needed, if `out` is too small; what it then holds means nothing.
///
/// ```
/// use pleach::tokenizer::nfc;
/// let mut out = [0; 8];
/// assert_eq!(nfc("e\u{301}".as_bytes(), &mut out), Ok(2));
/// assert_eq!(&out[..2], "é".as_bytes());
/// assert_eq!(nfc("e\u{323}\u{301}".as_bytes(), &mut []), Err(5));
/// ```
pub fn nfc(text: &[u8], out: &mut [u8]) -> Result<usize, usize> {
    let mut sink = Copied { out, len: 0 };
    normalise(text, &mut sink);
    if sink.len > sink.out.len() {
        return Err(sink.len);
    }
    Ok(sink.len)
}

/// Whether NFC leaves `text` as it is. Errors: the length of what it makes of it.
pub(super) fn is_nfc(text: &[u8]) -> Result<(), usize> {
    let mut sink = Compared {
        rest: text,
        equal: true,
        len: 0,
    };
    normalise(text, &mut sink);
    match sink.equal {
        true => Ok(()),
        false => Err(sink.len),
    }
}

trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

struct Copied<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl Sink for Copied<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        let slots = self.out.get_mut(self.len..).unwrap_or(&mut []);
        for (slot, byte) in slots.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        self.len = end;
    }
}

struct Compared<'t> {
    rest: &'t [u8],
    equal: bool,
    len: usize,
}

impl Sink for Compared<'_> {
    fn put(&mut self, bytes: &[u8]) {
        match self.rest.strip_prefix(bytes) {
            Some(rest) if self.equal => self.rest = rest,
            _ => self.equal = false,
        }
        self.len = self.len.saturating_add(bytes.len());
    }
}

fn normalise(text: &[u8], sink: &mut impl Sink) {
    let mut rest = text;
    while !rest.is_empty() {
        let (plain, segment, tail) = cut(rest);
        sink.put(plain);
        compose_segment(segment, sink);
        rest = tail;
    }
}

/// Text that stands for itself, a segment, and the rest, which begins with a regular character.
fn cut(text: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let mut at: usize = 0;
    let mut last: usize = 0;
    loop {
        let tail = text.get(at..).unwrap_or(&[]);
        let ascii = tail.iter().take_while(|b| **b < 0x80).count();
        if ascii > 0 {
            at = at.saturating_add(ascii);
            last = at.saturating_sub(1);
            continue;
        }
        let Some((c, len)) = first_char(tail) else {
            return (text, &[], &[]);
        };
        if is_irregular(c) {
            break;
        }
        // U+FFFD, which stands for bytes that are not UTF-8, composes with nothing.
        last = if c == char::REPLACEMENT_CHARACTER {
            at.saturating_add(len)
        } else {
            at
        };
        at = at.saturating_add(len);
    }
    let (plain, rest) = text.split_at_checked(last).unwrap_or((text, &[]));
    let mut end = at.saturating_sub(last);
    while let Some((c, len)) = rest.get(end..).and_then(first_char)
        && is_irregular(c)
    {
        end = end.saturating_add(len);
    }
    let (segment, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
    (plain, segment, tail)
}

fn is_irregular(c: char) -> bool {
    c >= '\u{300}' && within(&IRREGULAR, c)
}

/// Decomposes, orders and composes UTF-8 text.
fn compose_segment(segment: &[u8], sink: &mut impl Sink) {
    let mut put = |c: char| sink.put(c.encode_utf8(&mut [0; 4]).as_bytes());
    let mut rest = Decomposed::new(segment);
    let mut starter = None;
    loop {
        let marks = rest;
        let mut left_over = false;
        let composed = Composer::new(starter).run(marks, |_| left_over = true);
        let next = rest.find(|c| class(*c) == 0);
        if let (Some(s), Some(n), false) = (composed, next, left_over)
            && let Some(both) = compose(s, n)
        {
            starter = Some(both);
            continue;
        }
        composed.into_iter().for_each(&mut put);
        Composer::new(starter).run(marks, &mut put);
        if next.is_none() {
            return;
        }
        starter = next;
    }
}

/// Composes a starter with the marks after it, in canonical order.
struct Composer {
    starter: Option<char>,
    /// Combining class of the last mark that did not compose: it blocks those of its class.
    blocked: u8,
}

impl Composer {
    fn new(starter: Option<char>) -> Self {
        Self {
            starter,
            blocked: 0,
        }
    }

    /// Gives `left` the marks that do not compose, and returns what the starter has become.
    fn run(mut self, marks: Decomposed<'_>, mut left: impl FnMut(char)) -> Option<char> {
        for (mark, class) in Ordered::new(marks) {
            if let Some(starter) = self.starter
                && self.blocked < class
                && let Some(both) = compose(starter, mark)
            {
                self.starter = Some(both);
            } else {
                self.blocked = class;
                left(mark);
            }
        }
        self.starter
    }
}

/// The marks at the start of a text in canonical order: by class, and as they come within one.
struct Ordered<'t> {
    marks: Decomposed<'t>,
    rest: Decomposed<'t>,
    class: u8,
    /// The least class above `class` that this pass met.
    next: u8,
}

impl<'t> Ordered<'t> {
    fn new(marks: Decomposed<'t>) -> Self {
        Self {
            marks,
            rest: marks,
            class: 0,
            next: u8::MAX,
        }
    }
}

impl Iterator for Ordered<'_> {
    type Item = (char, u8);

    fn next(&mut self) -> Option<(char, u8)> {
        loop {
            match self.rest.next().map(|c| (c, class(c))) {
                Some((c, class)) if class != 0 => {
                    if class == self.class {
                        return Some((c, class));
                    }
                    if class > self.class {
                        self.next = self.next.min(class);
                    }
                }
                _ if self.next == u8::MAX => return None,
                _ => {
                    self.rest = self.marks;
                    self.class = self.next;
                    self.next = u8::MAX;
                }
            }
        }
    }
}

/// The characters of a text, each canonically decomposed.
#[derive(Clone, Copy)]
struct Decomposed<'t> {
    text: &'t [u8],
    /// What is left of the last character.
    queue: [Option<char>; 4],
}

impl<'t> Decomposed<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            queue: [None; 4],
        }
    }
}

impl Iterator for Decomposed<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let [first, rest @ ..] = self.queue;
        if let Some(c) = first {
            let [b, c1, d] = rest;
            self.queue = [b, c1, d, None];
            return Some(c);
        }
        let (c, len) = first_char(self.text)?;
        self.text = self.text.get(len..).unwrap_or(&[]);
        let [first, b, c1, d] = decompose(c);
        self.queue = [b, c1, d, None];
        first
    }
}

const HANGUL: u32 = 0xac00;
const LEADS: u32 = 0x1100;
const VOWELS: u32 = 0x1161;
const TAILS: u32 = 0x11a7;

/// The full canonical decomposition: one to four characters.
fn decompose(c: char) -> [Option<char>; 4] {
    let syllable = (c as u32).wrapping_sub(HANGUL);
    if syllable < 19 * 21 * 28 {
        let lead = char::from_u32(LEADS + syllable / (21 * 28));
        let vowel = char::from_u32(VOWELS + syllable / 28 % 21);
        let tail = match syllable % 28 {
            0 => None,
            n => char::from_u32(TAILS + n),
        };
        return [lead, vowel, tail, None];
    }
    let at = DECOMPOSITIONS.partition_point(|(key, _)| *key < c);
    let mut row = [Some(c), None, None, None];
    if let Some((key, packed)) = DECOMPOSITIONS.get(at)
        && *key == c
    {
        // Bits 0..13: where it begins in the pool, the others: its length.
        let start = usize::from(packed & 0x1fff);
        let pool = POOL.get(start..).unwrap_or(&[]);
        let mut chars = pool.iter().take(usize::from(packed >> 13)).copied();
        row.fill_with(|| chars.next());
    }
    row
}

/// The character that two compose to.
fn compose(a: char, b: char) -> Option<char> {
    let (x, y) = (a as u32, b as u32);
    let (lead, vowel) = (x.wrapping_sub(LEADS), y.wrapping_sub(VOWELS));
    if lead < 19 && vowel < 21 {
        return char::from_u32(HANGUL + (lead * 21 + vowel) * 28);
    }
    let (syllable, tail) = (x.wrapping_sub(HANGUL), y.wrapping_sub(TAILS));
    if syllable < 19 * 21 * 28 && syllable.is_multiple_of(28) && (1..28).contains(&tail) {
        return char::from_u32(x + tail);
    }
    let at = COMPOSITIONS.partition_point(|(l, r, _)| (*l, *r) < (a, b));
    match COMPOSITIONS.get(at) {
        Some((l, r, both)) if (*l, *r) == (a, b) => Some(*both),
        _ => None,
    }
}

/// The canonical combining class.
fn class(c: char) -> u8 {
    if c < '\u{300}' {
        return 0;
    }
    // Each entry: where a class begins, in the upper 24 bits, and the class.
    let at = CLASSES.partition_point(|entry| entry >> 8 <= c as u32);
    match at.checked_sub(1).and_then(|at| CLASSES.get(at)) {
        Some(entry) => *entry as u8,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{class, is_nfc};
    use crate::tokenizer::unicode::counted::read;
    use std::string::String;
    use std::vec::Vec;

    /// Two passes for each class, and a few over all.
    const MOST: u64 = 2 * 54 + 8;

    #[test]
    fn classes() {
        let mut all: Vec<u8> = ('\0'..=char::MAX).map(class).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1 + 54);
    }

    /// Runs of marks of all classes in the order that is worst, and of starters that compose.
    #[test]
    fn work_is_linear() {
        let mut marks: Vec<char> = ('\0'..=char::MAX).filter(|c| class(*c) != 0).collect();
        marks.sort_by_key(|c| core::cmp::Reverse(class(*c)));
        let texts = [
            &marks[..],
            &['e', '\u{301}'],
            &['\u{1161}'],
            &['\u{1100}', '\u{1161}', '\u{11a8}'],
        ];
        for chars in texts {
            for n in [1_000, 50_000] {
                let text: String = chars.iter().cycle().take(n).collect();
                let count = read(|| _ = is_nfc(text.as_bytes()));
                assert!(count <= MOST * n as u64, "{count} for {n}");
            }
        }
    }
}

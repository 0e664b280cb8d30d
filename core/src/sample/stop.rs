//! Ending a text at a string that may span tokens.

use crate::error::Error;

/// The most stop strings at once.
pub const MAX_STOP_STRINGS: usize = 8;
/// Bytes of the longest stop string.
pub const MAX_STOP_BYTES: usize = 64;

/// Finds the first of several strings in a text that arrives in pieces, and holds back what may become one.
///
/// The text before the match is shown, the string and what follows are not; of strings that end at the same
/// byte the one that begins first counts. At most the longest string less a byte is ever held back, and what is
/// held back begins where a string may begin: pieces of whole characters give pieces of whole characters. The
/// work is linear in the bytes (Knuth, Morris and Pratt's failure function, per string).
///
/// ```
/// use pleach::sample::StopStrings;
/// let mut stops = StopStrings::new(&["</end>", "\n\n"])?;
/// let mut text = String::new();
/// for piece in ["one <", "two", "</e", "nd> three"] {
///     let shown = stops.push(piece.as_bytes());
///     text += str::from_utf8(shown.held).unwrap();
///     text += str::from_utf8(shown.text).unwrap();
///     if shown.stopped {
///         break;
///     }
/// }
/// assert_eq!(text, "one <two");
/// assert_eq!(stops.finish(), b"");
/// # Ok::<(), pleach::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopStrings<'s> {
    strings: heapless::Vec<Pattern<'s>, MAX_STOP_STRINGS>,
    stopped: bool,
}

/// A string, and how much of it the text ends with.
#[derive(Clone, Debug)]
struct Pattern<'s> {
    bytes: &'s [u8],
    /// For each prefix, the longest shorter one that it ends with.
    failure: [u8; MAX_STOP_BYTES],
    met: u8,
}

/// What may be shown after a piece: first `held`, then `text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed<'s, 't> {
    /// From earlier pieces, no longer held back.
    pub held: &'s [u8],
    /// The beginning of this piece.
    pub text: &'t [u8],
    /// A stop string was met: nothing follows.
    pub stopped: bool,
}

impl<'s> Pattern<'s> {
    fn new(bytes: &'s [u8]) -> Self {
        let mut pattern = Self {
            bytes,
            failure: [0; MAX_STOP_BYTES],
            met: 0,
        };
        for (i, byte) in bytes.iter().enumerate().skip(1) {
            pattern.step(*byte);
            if let Some(f) = pattern.failure.get_mut(i) {
                *f = pattern.met;
            }
        }
        pattern.met = 0;
        pattern
    }

    /// Takes one byte; whether the string has been met.
    fn step(&mut self, byte: u8) -> bool {
        loop {
            if self.bytes.get(usize::from(self.met)) == Some(&byte) {
                self.met += 1;
                return usize::from(self.met) == self.bytes.len();
            }
            match usize::from(self.met).checked_sub(1) {
                None => return false,
                Some(last) => self.met = self.failure.get(last).copied().unwrap_or(0),
            }
        }
    }
}

impl<'s> StopStrings<'s> {
    /// A matcher at the start of a text.
    ///
    /// Errors: [`Error::Option`] for more than [`MAX_STOP_STRINGS`] strings, an empty one, or one of more than
    /// [`MAX_STOP_BYTES`] bytes.
    pub fn new(strings: &[&'s str]) -> Result<Self, Error> {
        let mut stops = Self {
            strings: heapless::Vec::new(),
            stopped: false,
        };
        for string in strings {
            let why = match string.len() {
                0 => "a stop string must not be empty",
                1..=MAX_STOP_BYTES => match stops.strings.push(Pattern::new(string.as_bytes())) {
                    Ok(()) => continue,
                    Err(_) => "at most 8 stop strings",
                },
                _ => "a stop string takes at most 64 bytes",
            };
            return Err(Error::Option { why });
        }
        Ok(stops)
    }

    /// Takes the next bytes of the text, whole characters or not. After a stop string nothing is shown.
    pub fn push<'t>(&mut self, text: &'t [u8]) -> Streamed<'s, 't> {
        let before = self.held();
        let mut taken = 0;
        if !self.stopped {
            for byte in text {
                taken += 1;
                for pattern in &mut self.strings {
                    self.stopped |= pattern.step(*byte);
                }
                if self.stopped {
                    break;
                }
            }
        }
        // At a match, what is held longest may be the start of another string: only what was met counts.
        let after = match self.stopped {
            true if taken == 0 => before.len(),
            true => self.met(),
            false => self.held().len(),
        };
        let shown = (before.len() + taken).saturating_sub(after);
        let streamed = Streamed {
            held: before.get(..shown.min(before.len())).unwrap_or(before),
            text: text
                .get(..shown.saturating_sub(before.len()))
                .unwrap_or(&[]),
            stopped: self.stopped,
        };
        if self.stopped {
            self.strings.iter_mut().for_each(|p| p.met = 0);
        }
        streamed
    }

    /// Ends the text: what is still held back, nothing after a stop string. The matcher is at the start of a text
    /// again.
    pub fn finish(&mut self) -> &'s [u8] {
        let held = self.held();
        self.strings.iter_mut().for_each(|p| p.met = 0);
        self.stopped = false;
        held
    }

    /// What is held back: the longest end of the text that begins a string.
    fn held(&self) -> &'s [u8] {
        let longest = self.strings.iter().max_by_key(|p| p.met);
        longest
            .and_then(|p| p.bytes.get(..usize::from(p.met)))
            .unwrap_or(&[])
    }

    /// The length of the longest string that is met.
    fn met(&self) -> usize {
        let lengths = self
            .strings
            .iter()
            .map(|p| (usize::from(p.met), p.bytes.len()));
        lengths
            .filter(|(met, len)| met == len)
            .map(|(met, _)| met)
            .max()
            .unwrap_or(0)
    }
}

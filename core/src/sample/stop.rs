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

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    /// The text before the first match (the earliest end, then the earliest start), by trying every place.
    fn naive<'t>(text: &'t str, strings: &[&str]) -> (&'t str, bool) {
        for end in 0..=text.len() {
            let ends = |s: &&&str| text.as_bytes()[..end].ends_with(s.as_bytes());
            if let Some(s) = strings.iter().filter(ends).max_by_key(|s| s.len()) {
                return (&text[..end - s.len()], true);
            }
        }
        (text, false)
    }

    /// Streams `text` in pieces; checks after each that what is held back is bounded and may become a string.
    fn stream(text: &str, strings: &[&str], mut piece: impl FnMut() -> usize) -> (String, bool) {
        let mut stops = StopStrings::new(strings).unwrap();
        let longest = strings.iter().map(|s| s.len()).max().unwrap_or(1);
        let (mut shown, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let end = (at + piece()).min(text.len());
            let streamed = stops.push(&text.as_bytes()[at..end]);
            shown.extend_from_slice(streamed.held);
            shown.extend_from_slice(streamed.text);
            at = end;
            if streamed.stopped {
                assert_eq!(
                    stops.push(b"more"),
                    Streamed {
                        held: b"",
                        text: b"",
                        stopped: true
                    }
                );
                assert_eq!(stops.finish(), b"");
                return (String::from_utf8(shown).unwrap(), true);
            }
            let held = &text.as_bytes()[shown.len()..at];
            assert!(held.len() < longest);
            assert!(held.is_empty() || strings.iter().any(|s| s.as_bytes().starts_with(held)));
        }
        shown.extend_from_slice(stops.finish());
        (String::from_utf8(shown).unwrap(), false)
    }

    #[test]
    fn every_text_and_every_cut_is_that_of_a_naive_search() {
        let sets: [&[&str]; 7] = [
            &["abab"],
            &["aab", "ab", "b"],
            &["aaaa", "ba"],
            &["abcabcabd", "bca"],
            &["ß", "äß"],
            &["c"],
            &[],
        ];
        let mut state = 1u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 33) % n
        };
        let mut met = 0;
        for _ in 0..4000 {
            let letters = ["a", "b", "c", "d", "ä", "ß"];
            let n = 1 + random(5);
            let text: String = (0..random(24))
                .map(|_| letters[random(n) as usize])
                .collect();
            for strings in sets {
                let (want, stopped) = naive(&text, strings);
                for longest in [1, 3, 40] {
                    let got = stream(&text, strings, || 1 + random(longest) as usize);
                    assert_eq!(got, (want.into(), stopped), "{text:?} {strings:?}");
                }
                met += u32::from(stopped);
            }
        }
        assert!(met > 1000);
    }

    #[test]
    fn whole_characters_in_give_whole_characters_out() {
        // The stop string shares its first byte with ä, ö and ü.
        let mut stops = StopStrings::new(&["üß"]).unwrap();
        for (piece, held, text) in [
            ("aä", "", "aä"),
            ("ü", "", ""),
            ("ü", "ü", ""),
            ("x", "ü", "x"),
        ] {
            let s = stops.push(piece.as_bytes());
            assert_eq!(
                (s.held, s.text),
                (held.as_bytes(), text.as_bytes()),
                "{piece}"
            );
        }
        assert!(stops.push("zzüß!".as_bytes()).stopped);
    }

    #[test]
    fn a_string_that_never_comes_is_released_at_the_end() {
        let string = "x".repeat(64);
        let mut stops = StopStrings::new(&[&string]).unwrap();
        let text = "x".repeat(63);
        let s = stops.push(text.as_bytes());
        assert_eq!((s.held.len(), s.text.len(), s.stopped), (0, 0, false));
        assert_eq!(stops.finish(), text.as_bytes());
        assert_eq!(stops.finish(), b"");
        assert_eq!(stops.push(b"xy").text, b"xy");
    }

    #[test]
    fn strings_that_cannot_be_are_refused() {
        let why = |strings: &[&str]| StopStrings::new(strings).unwrap_err().why();
        assert!(why(&["a", ""]).contains("empty"));
        assert!(why(&[&"x".repeat(65)]).contains("64 bytes"));
        assert!(why(&["a"; 9]).contains("8 stop strings"));
        let full: Vec<String> = (0..8).map(|i| format!("{i}").repeat(64)).collect();
        let full: Vec<&str> = full.iter().map(String::as_str).collect();
        assert!(StopStrings::new(&full).is_ok());
    }
}

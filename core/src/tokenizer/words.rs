//! GPT-2's pre-tokeniser: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
//!
//! Every character is a letter, a number, white space or other, so the words tile the text. A space joins
//! the run after it; of longer white space all but the last character is a word, or all of it at the end.

use super::unicode::{Class, first_char};

/// A word: a space that `add_prefix_space` put in, if `space`, and bytes of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'t> {
    pub(super) space: bool,
    pub(super) text: &'t [u8],
}

/// The words of a piece of text, in order. O(length) in all.
#[derive(Clone, Copy)]
pub(super) struct Words<'t> {
    space: bool,
    rest: &'t [u8],
}

impl<'t> Words<'t> {
    pub(super) fn new(text: &'t [u8], add_prefix_space: bool) -> Self {
        Self {
            space: add_prefix_space && !text.is_empty() && !text.starts_with(b" "),
            rest: text,
        }
    }
}

impl<'t> Iterator for Words<'t> {
    type Item = Word<'t>;

    fn next(&mut self) -> Option<Word<'t>> {
        let space = core::mem::take(&mut self.space);
        if self.rest.is_empty() && !space {
            return None;
        }
        let end = match contraction(self.rest) {
            Some(n) if !space => n,
            _ => end_of_word(self.rest, space),
        };
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(Word { space, text })
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

/// The other alternatives, for `text` with a space before it if `space`.
fn end_of_word(text: &[u8], space: bool) -> usize {
    let lead = usize::from(!space && text.first() == Some(&b' '));
    let after = text.get(lead..).unwrap_or(&[]);
    match first_char(after).map(|(c, _)| Class::of(c)) {
        Some(class) if class != Class::Space => lead.saturating_add(run(after, class).end),
        _ => {
            let run = run(text, Class::Space);
            let chars = run.chars.saturating_add(usize::from(space));
            if run.end < text.len() && chars > 1 {
                run.last
            } else {
                run.end
            }
        }
    }
}

/// The leading characters of one class: where they end, where the last one starts, how many they are.
struct Run {
    end: usize,
    last: usize,
    chars: usize,
}

fn run(text: &[u8], class: Class) -> Run {
    let mut run = Run {
        end: 0,
        last: 0,
        chars: 0,
    };
    let mut rest = text;
    while let Some((c, len)) = first_char(rest) {
        if Class::of(c) != class {
            break;
        }
        run.last = run.end;
        run.end = run.end.saturating_add(len);
        run.chars = run.chars.saturating_add(1);
        rest = rest.get(len..).unwrap_or(&[]);
    }
    run
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::Words;
    use std::string::String;
    use std::vec::Vec;

    fn words(text: &str, prefix: bool) -> Vec<String> {
        Words::new(text.as_bytes(), prefix)
            .map(|w| {
                let mut s = String::from(if w.space { " " } else { "" });
                s.push_str(core::str::from_utf8(w.text).unwrap());
                s
            })
            .collect()
    }

    // Worked out by hand from the expression.
    #[test]
    fn alternatives() {
        let cases: [(&str, &[&str]); 10] = [
            ("it's 42!", &["it", "'s", " 42", "!"]),
            ("a  b", &["a", " ", " b"]),
            ("a \tb", &["a", " ", "\t", "b"]),
            ("a\tb", &["a", "\t", "b"]),
            ("a  ", &["a", "  "]),
            (" 's", &[" '", "s"]),
            ("''s", &["''", "s"]),
            ("'S'll", &["'", "S", "'ll"]),
            ("x²¼", &["x", "²¼"]),
            ("e\u{301}", &["e", "\u{301}"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text, false), expected, "{text:?}");
        }
    }

    #[test]
    fn prefix_space() {
        assert_eq!(words("ab c", true), [" ab", " c"]);
        assert_eq!(words(" ab", true), [" ab"]);
        assert_eq!(words("'s", true), [" '", "s"]);
        assert_eq!(words("\nab", true), [" ", "\n", "ab"]);
        assert_eq!(words("\n", true), [" \n"]);
        assert_eq!(words("", true), [""; 0]);
    }
}

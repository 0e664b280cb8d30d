//! The pre-tokenisers: [`PreTokenizer`] has their expressions.
//!
//! Every character is a letter, a number, white space or other, so the words tile the text.

use super::FULL;
use super::format::PreTokenizer;
use super::span::{LOW_LINE, Span};
use super::unicode::{Class, first_char};

/// The words of a piece of text, in order. O(length) in all.
#[derive(Clone, Copy)]
pub(super) struct Words<'t> {
    kind: PreTokenizer,
    rest: Span<'t>,
    /// Bytes up to the next number, where each number is a word.
    stretch: usize,
}

impl<'t> Words<'t> {
    /// Only GPT-2's words and those of SentencePiece may have a space that is not in the text.
    pub(super) fn new(kind: PreTokenizer, text: Span<'t>) -> Self {
        Self {
            kind,
            rest: text,
            stretch: 0,
        }
    }

    /// Where the first word ends in the text.
    fn end(&mut self) -> usize {
        let Span { space, text, .. } = self.rest;
        if !FULL {
            return gpt2(text, space);
        }
        match self.kind {
            PreTokenizer::Gpt2 => gpt2(text, space),
            PreTokenizer::Llama3 => llama3(text, 3),
            PreTokenizer::Qwen2 => llama3(text, 1),
            PreTokenizer::Digits => self.digits(),
            PreTokenizer::Whole => text.len(),
            PreTokenizer::Spaces => {
                let first = match space {
                    true => 0,
                    false => first_char(text).map_or(0, |(_, len)| len),
                };
                let tail = text.get(first..).unwrap_or(&[]);
                first.saturating_add(to_space(tail))
            }
        }
    }

    /// A number, or the first word of what is before the next one.
    fn digits(&mut self) -> usize {
        let text = self.rest.text;
        if self.stretch == 0 {
            match first_char(text) {
                Some((c, len)) if Class::of(c) == Class::Number => return len,
                _ => self.stretch = to_number(text),
            }
        }
        let end = gpt2(text.get(..self.stretch).unwrap_or(text), false);
        self.stretch = self.stretch.saturating_sub(end);
        end
    }
}

impl<'t> Iterator for Words<'t> {
    type Item = Span<'t>;

    fn next(&mut self) -> Option<Span<'t>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.end();
        let (text, rest) = self.rest.text.split_at_checked(end)?;
        let word = Span { text, ..self.rest };
        self.rest.text = rest;
        self.rest.space = false;
        Some(word)
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

/// The same, whatever the case. `ſ` is an s.
fn contraction_of_any_case(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'\'') {
        return None;
    }
    if text.starts_with("'ſ".as_bytes()) {
        return Some(3);
    }
    let mut lower = [0; 3];
    for (slot, byte) in lower.iter_mut().zip(text) {
        *slot = byte.to_ascii_lowercase();
    }
    contraction(&lower)
}

/// GPT-2's first word, of `text` with a space before it if `space`. A space joins the run after it; of longer
/// white space all but the last character is a word, or all of it at the end.
fn gpt2(text: &[u8], space: bool) -> usize {
    if !space && let Some(end) = contraction(text) {
        return end;
    }
    let lead = usize::from(!space && text.first() == Some(&b' '));
    let after = text.get(lead..).unwrap_or(&[]);
    match first_char(after).map(|(c, _)| Class::of(c)) {
        Some(class) if class != Class::Space => lead.saturating_add(run(after, class).end),
        _ => {
            let mut run = run(text, Class::Space);
            run.chars = run.chars.saturating_add(usize::from(space));
            run.without_last(text)
        }
    }
}

/// The first word of Llama 3 and Qwen2, which differ in how many numbers make a word.
fn llama3(text: &[u8], numbers: usize) -> usize {
    if let Some(end) = contraction_of_any_case(text) {
        return end;
    }
    let Some((c, len)) = first_char(text) else {
        return 0;
    };
    let class = Class::of(c);
    let after = text.get(len..).unwrap_or(&[]);
    let second = first_char(after).map(|(c, _)| Class::of(c));
    match class {
        Class::Letter => run(text, Class::Letter).end,
        Class::Number => run_of_at_most(text, Class::Number, numbers).end,
        _ if second == Some(Class::Letter) && !matches!(c, '\r' | '\n') => {
            len.saturating_add(run(after, Class::Letter).end)
        }
        Class::Other => with_newlines(text, run(text, Class::Other).end),
        Class::Space if c == ' ' && second == Some(Class::Other) => {
            with_newlines(text, len.saturating_add(run(after, Class::Other).end))
        }
        Class::Space => {
            let run = run(text, Class::Space);
            let white = text.get(..run.end).unwrap_or(text);
            match white.iter().rposition(|b| matches!(b, b'\r' | b'\n')) {
                Some(newline) => newline.saturating_add(1),
                None => run.without_last(text),
            }
        }
    }
}

/// `end`, or where the newlines from there on end.
fn with_newlines(text: &[u8], end: usize) -> usize {
    let tail = text.get(end..).unwrap_or(&[]);
    let newlines = tail.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    end.saturating_add(newlines.count())
}

/// The leading characters of one class: where they end, where the last one starts, how many they are.
struct Run {
    end: usize,
    last: usize,
    chars: usize,
}

impl Run {
    /// `\s+(?!\S)|\s+`
    fn without_last(&self, text: &[u8]) -> usize {
        if self.end < text.len() && self.chars > 1 {
            self.last
        } else {
            self.end
        }
    }
}

fn run(text: &[u8], class: Class) -> Run {
    run_of_at_most(text, class, usize::MAX)
}

fn run_of_at_most(text: &[u8], class: Class, most: usize) -> Run {
    let mut run = Run {
        end: 0,
        last: 0,
        chars: 0,
    };
    let mut rest = text;
    while let Some((c, len)) = first_char(rest) {
        if run.chars >= most || Class::of(c) != class {
            break;
        }
        run.last = run.end;
        run.end = run.end.saturating_add(len);
        run.chars = run.chars.saturating_add(1);
        rest = rest.get(len..).unwrap_or(&[]);
    }
    run
}

/// Bytes before the first number.
fn to_number(text: &[u8]) -> usize {
    let mut at: usize = 0;
    while let Some((c, len)) = text.get(at..).and_then(first_char) {
        if Class::of(c) == Class::Number {
            break;
        }
        at = at.saturating_add(len);
    }
    at
}

/// Bytes before the first space or `▁`.
fn to_space(text: &[u8]) -> usize {
    let mut at: usize = 0;
    while let Some(tail) = text.get(at..)
        && !tail.is_empty()
        && !tail.starts_with(b" ")
        && !tail.starts_with(LOW_LINE)
    {
        at = at.saturating_add(1);
    }
    at
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{PreTokenizer, Span, Words};
    use std::string::String;
    use std::vec::Vec;

    fn words(kind: PreTokenizer, text: &str, space: bool) -> Vec<String> {
        let span = Span {
            space,
            ..Span::new(text.as_bytes())
        };
        Words::new(kind, span)
            .map(|w| String::from_utf8(w.collect()).unwrap())
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
            assert_eq!(words(PreTokenizer::Gpt2, text, false), expected, "{text:?}");
        }
    }

    #[test]
    fn prefix_space() {
        let gpt2 = |text| words(PreTokenizer::Gpt2, text, true);
        assert_eq!(gpt2("ab c"), [" ab", " c"]);
        assert_eq!(gpt2("'s"), [" '", "s"]);
        assert_eq!(gpt2("\nab"), [" ", "\n", "ab"]);
        assert_eq!(gpt2("\n"), [" \n"]);
    }

    /// Each character is read a few times, whatever the text.
    #[cfg(feature = "tokenizer-full")]
    #[test]
    fn work_is_linear() {
        use crate::tokenizer::unicode::counted::read;
        for part in [
            "a", " ", "\n ", " \n", "  a", "'", "1", "1 ", "! ", "▁", "\u{301}", "\u{a0}",
        ] {
            let text = part.repeat(20_000);
            for number in 1..=6 {
                let kind = PreTokenizer::from_number(number).unwrap();
                let words = || _ = Words::new(kind, Span::new(text.as_bytes())).count();
                let (count, n) = (read(words), text.chars().count() as u64);
                assert!(count <= 6 * n, "{kind:?} {part:?}: {count} for {n}");
            }
        }
    }

    // Worked out by hand from the expressions.
    #[cfg(feature = "tokenizer-full")]
    #[test]
    fn other_kinds() {
        let cases: [(PreTokenizer, &str, &[&str]); 13] = [
            (
                PreTokenizer::Llama3,
                "It'S 12345!",
                &["It", "'S", " ", "123", "45", "!"],
            ),
            (PreTokenizer::Llama3, "'ſ'LL'x", &["'ſ", "'LL", "'x"]),
            (
                PreTokenizer::Llama3,
                "a  b\t\tc",
                &["a", " ", " b", "\t", "\tc"],
            ),
            (
                PreTokenizer::Llama3,
                "(a) !\r\n\nx",
                &["(a", ")", " !\r\n\n", "x"],
            ),
            (PreTokenizer::Llama3, " \n \n  x", &[" \n \n", " ", " x"]),
            (PreTokenizer::Llama3, "\nx\u{a0}y", &["\n", "x", "\u{a0}y"]),
            (PreTokenizer::Qwen2, "12 3", &["1", "2", " ", "3"]),
            (
                PreTokenizer::Digits,
                "ab  12 c",
                &["ab", "  ", "1", "2", " c"],
            ),
            (PreTokenizer::Digits, "it's²x", &["it", "'s", "²", "x"]),
            (PreTokenizer::Whole, "a b", &["a b"]),
            (
                PreTokenizer::Spaces,
                "a b  c ",
                &["a", " b", " ", " c", " "],
            ),
            (PreTokenizer::Spaces, "▁a▁▁b", &["▁a", "▁", "▁b"]),
            (PreTokenizer::Spaces, "", &[]),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(words(kind, text, false), expected, "{kind:?} {text:?}");
        }
        assert_eq!(words(PreTokenizer::Spaces, "a b", true), [" a", " b"]);
    }
}

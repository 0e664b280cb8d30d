//! Lines of input, bounded, and what they are: sentences, commands, or neither.

use super::engine::Refusal;
use crate::failure::Result;
use crate::lines;
use pleach::Model;
use pleach::tokenizer::{AddedTokens, EncodeOptions, Template, Tokenizer};
use std::io::BufRead;

/// Longer lines are no sentences; they are skipped without being kept.
const LONGEST: usize = 4096;

/// One line.
pub(super) enum Line {
    End,
    Empty,
    /// What follows the slash.
    Command(String),
    /// As the model reads it.
    Sentence(String),
    Refused(Refusal),
}

/// Reads lines and counts them.
pub(super) struct Lines<R> {
    input: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    /// The number of the latest line, from 1.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The next line. Errors: standard input cannot be read.
    pub(super) fn next(&mut self, model: &Model<'_>) -> Result<Line> {
        let line = lines::next(&mut self.input, LONGEST)?;
        self.number += usize::from(line != lines::Line::End);
        let refused = |why: String, cure: &str| Ok(Line::Refused(Refusal::new(why, cure)));
        let text = match line {
            lines::Line::End => return Ok(Line::End),
            lines::Line::TooLong => {
                return refused(
                    format!("longer than {LONGEST} bytes"),
                    "write one short sentence a line",
                );
            }
            lines::Line::NotText(at) => {
                return refused(
                    format!("not UTF-8 text from byte {at} on"),
                    "save the text as UTF-8, or set the terminal to it",
                );
            }
            lines::Line::Text(text) => text,
        };
        let text = text.trim();
        if let Some(command) = text.strip_prefix('/') {
            return Ok(Line::Command(command.trim().to_owned()));
        }
        let sentence = normalise(text);
        if sentence.is_empty() {
            return Ok(Line::Empty);
        }
        Ok(match unknown(&sentence, model) {
            Some(c) => Line::Refused(Refusal::new(
                format!("the model has no token for {:?}", c),
                "write the sentence without it",
            )),
            None => Line::Sentence(sentence),
        })
    }
}

/// The form that the model was trained on: lower case, single spaces, none of `.!?` at the ends.
pub(super) fn normalise(text: &str) -> String {
    let lower = text.to_lowercase();
    let bare = lower.trim_matches(|c: char| c.is_whitespace() || ".!?".contains(c));
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A character that the tokenizer would drop: one of its bytes has no token.
fn unknown(sentence: &str, model: &Model<'_>) -> Option<char> {
    let tokenizer = model.tokenizer()?;
    let options = EncodeOptions {
        added: AddedTokens::None,
        template: Template::Omit,
    };
    sentence.chars().find(|c| {
        let mut buffer = [0; 4];
        let text = c.encode_utf8(&mut buffer);
        let (mut scratch, mut tokens) = ([0; Tokenizer::scratch_len(8)], [0; 8]);
        let n = tokenizer
            .encode(text, options, &mut scratch, &mut tokens)
            .unwrap_or(0);
        let back = tokens
            .iter()
            .take(n)
            .filter_map(|t| tokenizer.token_bytes(*t));
        !back.flatten().eq(text.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_as_the_model_reads_them() {
        assert_eq!(normalise(" Mach das\tLicht AN!? "), "mach das licht an");
        assert_eq!(normalise("stelle 21.5 Grad ein."), "stelle 21.5 grad ein");
        assert_eq!(normalise("... !"), "");
        assert_eq!(normalise("ÄPFEL"), "äpfel");
    }

    #[test]
    fn lines_are_bounded_and_counted() {
        let mut text = vec![b'a'; 3 * LONGEST];
        text.extend(b"\n\n/quit now\nHallo\n\xff\nlast");
        let mut lines = Lines::new(&text[..]);
        let mut next = || lines.next(&super::super::INTENT).unwrap();
        assert!(matches!(next(), Line::Refused(r) if r.why.contains("4096")));
        assert!(matches!(next(), Line::Empty));
        assert!(matches!(next(), Line::Command(c) if c == "quit now"));
        assert!(matches!(next(), Line::Sentence(s) if s == "hallo"));
        assert!(matches!(next(), Line::Refused(r) if r.why.contains("byte 1")));
        assert!(matches!(next(), Line::Sentence(s) if s == "last"));
        assert!(matches!(next(), Line::End));
        assert_eq!(lines.number(), 6);
    }
}

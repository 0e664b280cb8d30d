//! What a bias and the text so far do to logits.

use crate::math::flush;
use crate::sample::keep::Row;
use crate::sample::{MAX_PENALTY_TOKENS, Sampling};

/// The text that the penalties look at.
pub(crate) struct History<'h> {
    /// Its tokens, oldest first.
    pub(crate) tokens: &'h [u32],
    /// Bits of them that are no part of a token.
    pub(crate) marks: u32,
    /// A guessed token that follows them.
    pub(crate) guess: Option<u32>,
}

impl History<'_> {
    /// How often `token` stands in `part`. No branch but the compare: the compiler makes lanes of it.
    fn count(&self, part: &[u32], token: u32) -> u32 {
        part.iter()
            .fold(0, |n, t| n + u32::from(t & !self.marks == token))
    }
}

/// Bias, then penalties.
pub(crate) fn apply(sampling: &Sampling, row: &mut Row<'_>, history: &History<'_>) {
    for (token, bias) in &sampling.bias {
        if let Some(l) = row.get_mut(*token) {
            *l = flush(*l + *bias);
        }
    }
    if !sampling.penalises() {
        return;
    }
    let n = sampling.penalty_tokens.min(MAX_PENALTY_TOKENS) as usize;
    let text = history.tokens;
    let guesses = usize::from(history.guess.is_some());
    let skipped = text.len().saturating_add(guesses).saturating_sub(n);
    let last = text.get(skipped..).unwrap_or(&[]);
    if let (Some(token), true) = (history.guess, n > 0) {
        let count = 1 + history.count(last, token);
        penalise(row, token, count, sampling);
    }
    for (i, raw) in last.iter().enumerate() {
        let token = raw & !history.marks;
        let Some((before, rest)) = last.split_at_checked(i) else {
            break;
        };
        // Each token once.
        if history.guess != Some(token) && history.count(before, token) == 0 {
            penalise(row, token, history.count(rest, token), sampling);
        }
    }
}

fn penalise(row: &mut Row<'_>, token: u32, count: u32, sampling: &Sampling) {
    if let Some(l) = row.get_mut(token) {
        *l = penalised(*l, count as f32, sampling);
    }
}

/// A logit whose token stands `count` times among the last ones. Source: llama.cpp, `llama_sampler_penalties_apply`.
fn penalised(l: f32, count: f32, s: &Sampling) -> f32 {
    let r = s.repetition_penalty;
    let l = flush(if l > 0.0 { l / r } else { l * r });
    let l = flush(l - (count * s.frequency_penalty + s.presence_penalty));
    // A small r may take a logit out of range; -infinity stays "never".
    if l == f32::INFINITY { f32::MAX } else { l }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn applied(s: &Sampling, logits: &[f32], tokens: &[u32], guess: Option<u32>) -> Vec<f32> {
        let mut row = logits.to_vec();
        let history = History {
            tokens,
            marks: 1 << 30,
            guess,
        };
        apply(s, &mut Row::new(&mut row), &history);
        row
    }

    /// HF's `RepetitionPenaltyLogitsProcessor`: negative scores times the penalty, positive ones divided by it.
    #[test]
    fn repetition_divides_and_multiplies_once() {
        let s = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::GREEDY
        };
        let got = applied(&s, &[3.0, -3.0, 5.0, 0.0], &[0, 1, 0, 3, 77], None);
        assert_eq!(got, [1.5, -6.0, 5.0, 0.0]);
    }

    /// llama.cpp: `logit -= count * frequency + (count > 0) * presence`, after the repetition penalty.
    #[test]
    fn frequency_counts_and_presence_does_not() {
        let s = Sampling {
            repetition_penalty: 2.0,
            presence_penalty: 0.25,
            frequency_penalty: 0.5,
            ..Sampling::GREEDY
        };
        let got = applied(&s, &[4.0, -1.0, 1.0], &[0, 1, 0, 0], None);
        assert_eq!(got, [2.0 - 1.5 - 0.25, -2.0 - 0.75, 1.0]);
    }

    #[test]
    fn only_the_last_tokens_count_and_a_guess_is_the_last() {
        let s = Sampling {
            frequency_penalty: 1.0,
            penalty_tokens: 2,
            ..Sampling::GREEDY
        };
        let row = [0.0; 4];
        assert_eq!(
            applied(&s, &row, &[0, 0, 1, 2], None),
            [0.0, -1.0, -1.0, 0.0]
        );
        assert_eq!(
            applied(&s, &row, &[0, 0, 1, 2], Some(2)),
            [0.0, 0.0, -2.0, 0.0]
        );
        // The mark of a push is no part of the token; an embedding row is none.
        let tokens = [1 << 30 | 3, 1 << 31 | 1];
        assert_eq!(applied(&s, &row, &tokens, None), [0.0, 0.0, 0.0, -1.0]);
        let off = Sampling {
            penalty_tokens: 0,
            ..s
        };
        assert_eq!(applied(&off, &row, &[1], None), row);
    }

    /// Against a table of counts, over windows of all lengths.
    #[test]
    fn counts_are_those_of_a_table() {
        let tokens: Vec<u32> = (0..300u32).map(|i| (i * i + i / 7) % 23).collect();
        for n in [1, 2, 7, 64, 299, 300, 4096] {
            let s = Sampling {
                frequency_penalty: 0.5,
                presence_penalty: 4.0,
                penalty_tokens: n,
                ..Sampling::GREEDY
            };
            let mut want = [0.0f32; 23];
            for t in &tokens[tokens.len().saturating_sub(n as usize)..] {
                let w = &mut want[*t as usize];
                *w -= if *w == 0.0 { 4.5 } else { 0.5 };
            }
            assert_eq!(applied(&s, &[0.0; 23], &tokens, None), want, "{n}");
        }
    }

    #[test]
    fn nothing_subnormal_is_left() {
        let s = Sampling {
            repetition_penalty: 65504.0,
            ..Sampling::GREEDY
        };
        let small = 2f32.powi(-40);
        assert_eq!(applied(&s, &[small, -small], &[0], None), [0.0, -small]);
    }
}

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
    /// The last `n` tokens, newest first.
    fn last(&self, n: u32) -> impl Iterator<Item = u32> + Clone + '_ {
        let text = self.tokens.iter().rev().map(|t| *t & !self.marks);
        self.guess.into_iter().chain(text).take(n as usize)
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
    let last = history.last(sampling.penalty_tokens.min(MAX_PENALTY_TOKENS));
    for (i, token) in last.clone().enumerate() {
        // Each token once: where it stands last in the text.
        if last.clone().take(i).any(|t| t == token) {
            continue;
        }
        if let Some(l) = row.get_mut(token) {
            let count = last.clone().skip(i).filter(|t| *t == token).count();
            *l = penalised(*l, count as f32, sampling);
        }
    }
}

/// A logit whose token stands `count` times among the last ones. Source: llama.cpp, `llama_sampler_penalties_apply`.
fn penalised(l: f32, count: f32, s: &Sampling) -> f32 {
    let r = s.repetition_penalty;
    let l = flush(if l > 0.0 { l / r } else { l * r });
    flush(l - (count * s.frequency_penalty + s.presence_penalty))
}

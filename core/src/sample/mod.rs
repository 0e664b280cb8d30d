//! Choosing the next token, without a heap and with the same bits on every target.
//!
//! * [`Sampling`]: the options, and the draw from a row of logits.
//! * [`rng`]: the random bits of a draw, a function of seed and position: nothing to store, nothing to copy, and
//!   after a rewind the draws repeat.
//! * `penalties`: what a text and a bias do to logits. `keep`: which tokens may be drawn, and the draw.
//! * [`StopStrings`]: ends a text at a string, whatever the tokens are that it comes in.
//!
//! The order of a draw, to the letter in `core/ARITHMETIC.md`: bias, penalties; with temperature 0 the largest
//! logit; else top-k, weights e^((l - max)/T) as integers, top-p, min-p, and the first token, by id, at which the
//! cumulative sum exceeds the random share of the whole.
//!
//! Cost: a greedy draw without bias and penalties is one pass over the row. Otherwise there is a pass for each of:
//! copying, cleaning, maximum, and with a temperature weights, total, draw; 10 more for top-k, 10 for top-p, one for
//! min-p. Penalties compare the last [`penalty_tokens`](Sampling::penalty_tokens) with each other.

mod keep;
mod options;
mod penalties;
pub mod rng;
mod stop;

pub use options::{MAX_PENALTY_TOKENS, Sampling};
pub use stop::{MAX_STOP_BYTES, MAX_STOP_STRINGS, StopStrings, Streamed};

pub(crate) use keep::Row;
pub(crate) use penalties::History;

use crate::kernels::LANES;
use crate::math::ordered_key;

/// The index of the largest logit by ordered bits; ties go to the lowest index, an empty row gives 0.
///
/// ```
/// assert_eq!(pleach::sample::argmax(&[0.5, 2.0, 2.0, -1.0]), 1);
/// ```
pub fn argmax(logits: &[f32]) -> u32 {
    let (vectors, rest) = logits.as_chunks();
    argmax_of(vectors.iter(), rest)
}

/// [`argmax`] of vectors and of the values after them.
pub(crate) fn argmax_of<'v>(
    vectors: impl Iterator<Item = &'v [f32; LANES]> + Clone,
    rest: &[f32],
) -> u32 {
    // The largest key first, without its place: loops that vectorise.
    let mut lanes = [i32::MIN; LANES];
    for v in vectors.clone() {
        let pairs = lanes.iter_mut().zip(v);
        pairs.for_each(|(best, v)| *best = (*best).max(ordered_key(*v)));
    }
    let keys = rest.iter().map(|v| ordered_key(*v));
    let best = keys.chain(lanes).fold(i32::MIN, Ord::max);
    let is_best = |v: &f32| ordered_key(*v) == best;
    let mut at = 0;
    for v in vectors {
        if v.iter().fold(false, |any, v| any | is_best(v)) {
            return (at + v.iter().position(is_best).unwrap_or(0)) as u32;
        }
        at += LANES;
    }
    rest.iter().position(is_best).map_or(0, |i| at + i) as u32
}

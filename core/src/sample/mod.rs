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

use crate::math::ordered_key;

/// The index of the largest logit by ordered bits; ties go to the lowest index, an empty row gives 0.
///
/// ```
/// assert_eq!(pleach::sample::argmax(&[0.5, 2.0, 2.0, -1.0]), 1);
/// ```
pub fn argmax(logits: &[f32]) -> u32 {
    // The largest key first, without its place, is a loop that vectorises.
    let best = logits
        .iter()
        .fold(i32::MIN, |best, v| best.max(ordered_key(*v)));
    let first = logits.iter().position(|v| ordered_key(*v) == best);
    first.unwrap_or(0) as u32
}

pub(crate) fn argmax_of(logits: impl Iterator<Item = f32>) -> u32 {
    let first = (i32::MIN, 0);
    let best = logits.enumerate().fold(first, |best, (i, v)| {
        let key = ordered_key(v);
        if key > best.0 { (key, i as u32) } else { best }
    });
    best.1
}

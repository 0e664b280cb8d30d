//! Choosing the next token. Greedy for now.

use crate::math::ordered_key;

/// The index of the largest logit by ordered bits; ties go to the lowest index, an empty row gives 0.
///
/// ```
/// assert_eq!(pleach::sample::argmax(&[0.5, 2.0, 2.0, -1.0]), 1);
/// ```
pub fn argmax(logits: &[f32]) -> u32 {
    argmax_of(logits.iter().copied())
}

pub(crate) fn argmax_of(logits: impl Iterator<Item = f32>) -> u32 {
    let mut best = (i32::MIN, 0);
    for (i, v) in logits.enumerate() {
        let key = ordered_key(v);
        if key > best.0 {
            best = (key, i as u32);
        }
    }
    best.1
}

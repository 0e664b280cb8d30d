//! The three softmaxes: of attention scores, of the classifier's logits, and over the kept experts.
//!
//! All work in place and take finite rows. If a value is NaN or +infinity, or a quotient or difference
//! overflows to one of them, at least one NaN stands in the result (for attention: in the denominator
//! too), so the caller's check of the attention output or of the scalings finds it. -infinity counts as
//! a weight of 0 beside a finite maximum. An empty row stays empty.

use super::exp::exp_cut;
use super::{Sum16, exp, magnitude, max_of, max_row};

/// Attention weights below e^-30 are +0.
const ATTENTION_CUT: f32 = -30.0;
/// Scalings below e^-64 of the largest carry a placeholder or +0, never their quotient.
const SCALING_CUT: f32 = -64.0;
/// 2^-150 * e^64: PEFT's f32 softmax is zero below 2^-150 (half the smallest subnormal).
const PEFT_ZERO: f32 = f32::from_bits(0x22a1_2cc1);
/// 2^-110: above every placeholder, below every quotient.
const PLACEHOLDER: f32 = f32::from_bits(0x0880_0000);

/// Replaces the scores of positions 0..n by e^(s - max), +0 below e^-30, and returns their sum.
///
/// `scores` \[n\]: index = absolute position, already scaled and flushed. The weights are not divided: the
/// mix is multiplied by 1/sum at its end. The sum is >= 1 for finite scores and 0 for none.
#[inline]
pub fn softmax_attention(scores: &mut [f32]) -> f32 {
    let max = max_row(scores);
    let mut sum = Sum16::new();
    for chunk in scores.chunks_mut(16) {
        attention_weights(chunk, max);
        sum.add_slice(chunk);
    }
    sum.finish()
}

/// Replaces scores by e^(s - max), +0 below e^-30.
#[inline(always)]
pub(crate) fn attention_weights(scores: &mut [f32], max: f32) {
    for s in scores {
        *s = exp_cut(*s - max, ATTENTION_CUT);
    }
}

/// Replaces one row of classifier logits by its scalings, softmax(l / T). PEFT: `enable_softmax`.
///
/// `logits` \[experts\], flushed; `temperature` in 2^-24..=65504. With z = l/T - max(l/T):
///
/// - z >= -64: e^z / sum, where smaller terms add +0 to the sum;
/// - z < -64, and PEFT's f32 softmax would not be zero: the placeholder 2^-110 * (1 + z/128), which keeps
///   the order, is not zero and is not subnormal;
/// - else +0.
///
/// So the row alone tells what top-k and [`softmax_kept`] need: order, and which entries are zero.
/// Placeholders lie below every quotient for fewer than 2^17 experts.
#[inline]
pub fn softmax_scalings(logits: &mut [f32], temperature: f32) {
    for l in logits.iter_mut() {
        *l /= temperature;
    }
    let max = max_row(logits);
    let mut sum = Sum16::new();
    for (i, l) in logits.iter_mut().enumerate() {
        let z = *l - max;
        if z < SCALING_CUT {
            *l = z;
        } else {
            *l = exp(z);
            sum.add(i, *l);
        }
    }
    let sum = sum.finish();
    // Here an entry is z, below -64, or e^z, which is not.
    for l in logits.iter_mut() {
        *l = if *l < SCALING_CUT {
            below_cut(*l, sum)
        } else {
            *l / sum
        };
    }
}

/// What stands for the scaling of z < -64.
#[inline]
fn below_cut(z: f32, sum: f32) -> f32 {
    // PEFT's zero begins at z = -103.98 (sum >= 1); the bound keeps what a select discards normal.
    let z = if z < -104.0 { -104.0 } else { z };
    let placeholder = PLACEHOLDER * (1.0 + z / 128.0);
    if exp(z - SCALING_CUT) > sum * PEFT_ZERO {
        placeholder
    } else {
        0.0
    }
}

/// Softmax over the entries of a row that are not zero; zeros, and a row of zeros, stay. PEFT:
/// `enable_softmax_topk`, which runs after top-k has zeroed the entries that it drops.
///
/// `row` \[experts\]: scalings or raw logits of either sign; the temperature plays no part. Entries below
/// e^-64 of the largest become +0: their quotient could be subnormal, and no scale lifts it over the 2^-48
/// below which an expert's gate is flushed.
#[inline]
pub fn softmax_kept(row: &mut [f32]) {
    let max = max_of(row.iter().copied().filter(|v| magnitude(*v) != 0));
    let mut sum = Sum16::new();
    for (i, v) in row
        .iter_mut()
        .enumerate()
        .filter(|(_, v)| magnitude(**v) != 0)
    {
        *v = exp_cut(*v - max, SCALING_CUT);
        sum.add(i, *v);
    }
    let sum = sum.finish();
    for v in row.iter_mut().filter(|v| magnitude(**v) != 0) {
        *v /= sum;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{vec, vec::Vec};

    /// Softmax in f64.
    fn exact(row: &[f64]) -> Vec<f64> {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = row.iter().map(|v| (v - max).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|v| v / sum).collect()
    }

    /// Uniform numbers in 0..1 (xorshift64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 40) as f32 / (1u64 << 24) as f32
        }
    }

    #[test]
    fn attention_by_hand() {
        let ln2 = core::f32::consts::LN_2;
        let mut s = [0.0, ln2, -31.0, ln2];
        let sum = softmax_attention(&mut s);
        assert_eq!((s[1], s[2].to_bits(), s[3]), (1.0, 0, 1.0));
        assert!((s[0] - 0.5).abs() < 1e-7 && (sum - 2.5).abs() < 1e-6);
        let mut cut = [5.0, -25.0, (-25f32).next_down()];
        softmax_attention(&mut cut);
        assert!(cut[1] > 9.35e-14 && cut[1] < 9.36e-14); // e^-30 = 9.3576e-14
        assert_eq!(cut[2].to_bits(), 0);
        assert_eq!(softmax_attention(&mut []).to_bits(), 0);
        assert_eq!(softmax_attention(&mut [-7.5]), 1.0);
    }

    #[test]
    fn attention_against_f64() {
        let mut random = Random(1);
        for n in [1, 2, 15, 16, 17, 100, 1000] {
            let mut s: Vec<f32> = (0..n).map(|_| random.next() * 24.0 - 12.0).collect();
            let want = exact(&s.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
            let sum = softmax_attention(&mut s);
            for (e, w) in s.iter().zip(want) {
                assert!((f64::from(*e / sum) - w).abs() <= 4e-6 * w, "{n}");
            }
        }
    }

    #[test]
    fn scalings_by_hand() {
        let mut row = [0.0, 0.0, 0.0, 0.0];
        softmax_scalings(&mut row, 1.0);
        assert_eq!(row, [0.25; 4]);
        // One division by T: 3/0.5 - 2/0.5 = 2.
        let mut row = [3.0, 2.0];
        softmax_scalings(&mut row, 0.5);
        let e = (-2f64).exp();
        assert!((f64::from(row[0]) - 1.0 / (1.0 + e)).abs() < 1e-7);
        assert!((f64::from(row[1]) - e / (1.0 + e)).abs() < 1e-7);
    }

    #[test]
    fn scalings_beyond_the_cut() {
        let mut row = [0.0, -64.0, -65.0, -80.0, -103.9, -104.1, -1e30];
        softmax_scalings(&mut row, 1.0);
        assert_eq!(row[0], 1.0);
        assert!((row[1] / 1.603_81e-28 - 1.0).abs() < 1e-4); // e^-64
        let unit = 2f64.powi(-110);
        for (got, z) in row[2..5].iter().zip([-65.0, -80.0, f64::from(-103.9f32)]) {
            assert!((f64::from(*got) / (unit * (1.0 + z / 128.0)) - 1.0).abs() < 1e-6);
        }
        assert_eq!([row[5].to_bits(), row[6].to_bits()], [0, 0]);
        assert!(row.windows(2).all(|w| w[0] >= w[1]));
        assert!(row.iter().all(|v| *v == 0.0 || v.is_normal()));
    }

    #[test]
    fn constants_are_the_numbers_that_they_name() {
        let zero = (64.0 - 150.0 * core::f64::consts::LN_2).exp();
        assert_eq!(PEFT_ZERO.to_bits(), (zero as f32).to_bits());
        assert_eq!(PLACEHOLDER, 2f32.powi(-110));
    }

    #[test]
    fn kept_by_hand() {
        // xlora-semantics: softmax really is applied twice, [.5,.3,.2] with k = 2.
        let mut row = [0.5, 0.3, 0.0];
        softmax_kept(&mut row);
        assert!((row[0] - 0.5498).abs() < 5e-5 && (row[1] - 0.4502).abs() < 5e-5);
        assert_eq!(row[2].to_bits(), 0);
        // Raw logits may all be negative: the dropped zero is not the maximum.
        let mut row = [-4.0, 0.0, -4.0];
        softmax_kept(&mut row);
        assert_eq!(row, [0.5, 0.0, 0.5]);
        let mut row = [0.0, -0.0, 0.0];
        softmax_kept(&mut row);
        assert_eq!(row, [0.0; 3]);
        let mut row = [0.0, 2f32.powi(-112)];
        softmax_kept(&mut row);
        assert_eq!(row, [0.0, 1.0]);
        // Without the cut, e^-87 / 3 would be subnormal.
        let mut row = [87.5, 87.5, 87.5, 0.5];
        softmax_kept(&mut row);
        assert_eq!(row[3].to_bits(), 0);
        softmax_kept(&mut []);
    }

    #[test]
    fn kept_against_f64() {
        let mut random = Random(2);
        for n in [1, 2, 7, 16, 33] {
            let mut row: Vec<f32> = (0..n)
                .map(|i| {
                    if i % 3 == 1 {
                        0.0
                    } else {
                        random.next() * 40.0 - 20.0
                    }
                })
                .collect();
            let before = row.clone();
            let want = exact(
                &before
                    .iter()
                    .filter(|v| **v != 0.0)
                    .map(|v| f64::from(*v))
                    .collect::<Vec<_>>(),
            );
            softmax_kept(&mut row);
            assert!(row.iter().zip(&before).all(|(a, b)| *b != 0.0 || *a == 0.0));
            let kept = row
                .iter()
                .zip(&before)
                .filter(|(_, b)| **b != 0.0)
                .map(|(a, _)| f64::from(*a));
            for (got, want) in kept.zip(want) {
                assert!((got - want).abs() <= 4e-6 * want, "{n}");
            }
        }
    }

    #[test]
    fn not_finite_is_passed_on() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            for at in 0..3 {
                let mut row = [1.0, 2.0, 3.0];
                row[at] = bad;
                let (mut a, mut s, mut k) = (row, row, row);
                assert!(softmax_attention(&mut a).is_nan());
                softmax_scalings(&mut s, 1.0);
                softmax_kept(&mut k);
                for row in [a, s, k] {
                    assert!(row.iter().any(|v| v.is_nan()), "{bad} at {at}");
                }
            }
        }
        let mut row = [f32::MAX, 0.0];
        softmax_scalings(&mut row, 0.5);
        assert!(row[0].is_nan());
        let mut row = [1.0, f32::NEG_INFINITY];
        softmax_scalings(&mut row, 1.0);
        assert_eq!(row, [1.0, 0.0]);
    }

    /// The k largest, ties to the lowest index; the others become 0.
    fn top_k(row: &mut [f32], k: usize) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        for &i in &order[k..] {
            row[i] = 0.0;
        }
    }

    /// PEFT's softmax, top-k and softmax in f32 with subnormals, from f64's exp.
    fn peft(logits: &[f32], k: usize) -> Vec<f32> {
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let e: Vec<f32> = logits
            .iter()
            .map(|l| f64::from(l - max).exp() as f32)
            .collect();
        let sum: f32 = e.iter().sum();
        let mut row: Vec<f32> = e.iter().map(|e| e / sum).collect();
        top_k(&mut row, k);
        let kept: Vec<usize> = (0..row.len()).filter(|&i| row[i] != 0.0).collect();
        let mut out = vec![0.0; row.len()];
        let want = exact(&kept.iter().map(|&i| f64::from(row[i])).collect::<Vec<_>>());
        for (i, w) in kept.iter().zip(want) {
            out[*i] = w as f32;
        }
        out
    }

    #[test]
    fn wide_rows_agree_with_peft_through_top_k() {
        let mut random = Random(88_172_645_463_325_252);
        let mut subnormal = 0;
        for (n, k) in [(4, 2), (4, 3), (6, 3), (64, 8)] {
            for span in [50.0, 90.0, 120.0] {
                for _ in 0..20_000 {
                    let logits: Vec<f32> = (0..n).map(|_| random.next() * span).collect();
                    let mut row = logits.clone();
                    softmax_scalings(&mut row, 1.0);
                    assert!(row.iter().all(|v| *v == 0.0 || v.is_normal()));
                    top_k(&mut row, k);
                    let want = peft(&logits, k);
                    softmax_kept(&mut row);
                    for (got, want) in row.iter().zip(&want) {
                        assert!((got - want).abs() <= 1e-5, "{logits:?}: {row:?} {want:?}");
                    }
                    let max = logits.iter().copied().fold(f32::MIN, f32::max);
                    subnormal += logits
                        .iter()
                        .filter(|l| (-103.9..-88.0).contains(&(**l - max)))
                        .count();
                }
            }
        }
        assert!(
            subnormal > 10_000,
            "the rows must reach PEFT's subnormals: {subnormal}"
        );
    }

    #[test]
    fn ties_stay_ties() {
        let mut row = [2.0, -70.0, 2.0, -70.0, 2.0];
        softmax_scalings(&mut row, 1.0);
        assert_eq!((row[0], row[2], row[1]), (row[2], row[4], row[3]));
        assert!(row[1] > 0.0 && row[1] < row[0]);
    }
}

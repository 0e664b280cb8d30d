//! Which tokens may be drawn, and the draw.
//!
//! No sort: the k-th largest key, or the key at which a sum of shares reaches a target, is found digit by digit,
//! 4 bits a pass from the highest, so in 8 passes over the row, whatever the values are.

use crate::math::{exp, flush, is_finite, magnitude, max_ordered, ordered_key};
use crate::sample::{Sampling, argmax_of, rng};

/// Bits after the point of a weight: the largest is 2^40, so 2^23 of them do not overflow.
const WEIGHT_BITS: i32 = 40;
/// Below this, e^z * 2^40 is below 1: the weight is 0 without computing it.
const LOWEST: f32 = -28.0;

/// A row of logits; later, of the kept tokens' e^z, 0 for the others. Its cells may be a column of `[row][column]`.
pub(crate) struct Row<'r> {
    cells: &'r mut [f32],
    stride: usize,
    len: usize,
}

impl<'r> Row<'r> {
    pub(crate) fn new(cells: &'r mut [f32]) -> Self {
        let len = cells.len();
        Self::strided(cells, 1, len)
    }

    /// `len` cells, `stride` apart.
    pub(crate) fn strided(cells: &'r mut [f32], stride: usize, len: usize) -> Self {
        Self {
            cells,
            stride: stride.max(1),
            len,
        }
    }

    fn iter(&self) -> impl Iterator<Item = f32> + Clone + '_ {
        let cells = self.cells.iter().copied();
        cells.step_by(self.stride.max(1)).take(self.len)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        let cells = self.cells.iter_mut();
        cells.step_by(self.stride.max(1)).take(self.len)
    }

    pub(crate) fn get_mut(&mut self, i: u32) -> Option<&mut f32> {
        let i = i as usize;
        (i < self.len)
            .then_some(i.checked_mul(self.stride)?)
            .and_then(|at| self.cells.get_mut(at))
    }

    /// Flushes, and makes what is not finite -infinity.
    pub(crate) fn clean(&mut self) {
        for l in self.iter_mut() {
            *l = if is_finite(*l) {
                flush(*l)
            } else {
                f32::NEG_INFINITY
            };
        }
    }

    /// Draws from cleaned logits after bias and penalties.
    pub(crate) fn draw(&mut self, sampling: &Sampling, position: u32) -> u32 {
        let finite = self.iter().filter(|l| is_finite(*l));
        let max = finite.fold(f32::NEG_INFINITY, max_ordered);
        if !is_finite(max) || magnitude(sampling.temperature) == 0 {
            return argmax_of(self.iter().map(finite_or_lowest));
        }
        self.keep_top_k(sampling.top_k);
        self.weigh(max, sampling.temperature, sampling.min_p);
        self.keep_top_p(sampling.top_p);
        let total = self.total();
        let at = share(rng::draw_bits(sampling.seed, position), total, 0);
        let mut sum = 0u64;
        for (i, e) in self.iter().enumerate() {
            sum = sum.saturating_add(weight(e));
            if sum > at {
                return i as u32;
            }
        }
        0
    }

    /// Leaves the k largest; the others become -infinity.
    fn keep_top_k(&mut self, k: u32) {
        let finite = self.iter().filter(|l| is_finite(*l));
        if k == 0 || finite.clone().count() <= k as usize {
            return;
        }
        let key = |l: f32| ordered_key(l).cast_unsigned() ^ 1 << 31;
        let mut cut = Cut::at(finite.map(|l| (key(l), 1)), u64::from(k));
        for l in self.iter_mut().filter(|l| is_finite(**l)) {
            if !cut.keeps(key(*l), 1) {
                *l = f32::NEG_INFINITY;
            }
        }
    }

    /// Logits become e^((l - max)/T), which is 0 where it is below `min_p`.
    fn weigh(&mut self, max: f32, temperature: f32, min_p: f32) {
        for l in self.iter_mut() {
            let z = (*l - max) / temperature;
            // Also where l is -infinity.
            let e = if z >= LOWEST { exp(z) } else { 0.0 };
            // Not negative, so their bits order them.
            *l = if magnitude(e) < magnitude(min_p) {
                0.0
            } else {
                e
            };
        }
    }

    /// Leaves the largest weights that together reach `p` of all; the others become 0.
    fn keep_top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let target = share(fixed(p, 64), self.total(), u64::MAX).max(1);
        let mut cut = Cut::at(self.iter().map(|e| (magnitude(e), weight(e))), target);
        for e in self.iter_mut() {
            if !cut.keeps(magnitude(*e), weight(*e)) {
                *e = 0.0;
            }
        }
    }

    fn total(&self) -> u64 {
        self.iter().fold(0, |sum, e| sum.saturating_add(weight(e)))
    }
}

fn finite_or_lowest(l: f32) -> f32 {
    if is_finite(l) { l } else { f32::NEG_INFINITY }
}

/// The weight of e^z, in integers: sums of them are exact in any order.
fn weight(e: f32) -> u64 {
    fixed(e, WEIGHT_BITS)
}

/// floor(x * 2^bits) for 0 <= x <= 1, by integers; x = 1 takes up to 63 bits.
fn fixed(x: f32, bits: i32) -> u64 {
    let exponent = (magnitude(x) >> 23) as i32;
    let mantissa = u64::from(x.to_bits() & 0x007f_ffff | 0x0080_0000);
    let shift = exponent - 150 + bits;
    match exponent {
        0 => 0,
        _ if shift >= 0 => mantissa.checked_shl(shift.cast_unsigned()).unwrap_or(0),
        _ => mantissa.checked_shr(shift.unsigned_abs()).unwrap_or(0),
    }
}

/// (fraction * of + rounding) / 2^64.
fn share(fraction: u64, of: u64, rounding: u64) -> u64 {
    ((u128::from(fraction) * u128::from(of) + u128::from(rounding)) >> 64) as u64
}

/// Where to cut cells with a key and a share, so that those with the largest keys are kept.
struct Cut {
    /// The lowest key that is kept.
    key: u32,
    /// How much is still wanted from cells of exactly this key.
    left: u64,
}

impl Cut {
    /// The cut at which the sum of shares, from the largest key down, reaches `target`: at least 1, and at most
    /// the sum of all.
    fn at(cells: impl Iterator<Item = (u32, u64)> + Clone, target: u64) -> Self {
        let mut cut = Self {
            key: 0,
            left: target,
        };
        for shift in [28, 24, 20, 16, 12, 8, 4, 0] {
            let mut sums = [0u64; 16];
            for (key, share) in cells.clone() {
                // Below 16 if the digits above are those found so far; the key's other digits are still 0.
                let digit = (key ^ cut.key) >> shift;
                if let Some(sum) = sums.get_mut(digit as usize) {
                    *sum = sum.saturating_add(share);
                }
            }
            let mut digit = 0;
            for (d, sum) in sums.iter().enumerate().rev() {
                digit = d as u32;
                if *sum >= cut.left {
                    break;
                }
                cut.left -= *sum;
            }
            cut.key |= digit << shift;
        }
        cut
    }

    /// Whether a cell is kept; cells of equal keys come in the order in which they win.
    fn keeps(&mut self, key: u32, share: u64) -> bool {
        if key != self.key {
            return key > self.key;
        }
        let keeps = self.left > 0;
        self.left = self.left.saturating_sub(share);
        keeps
    }
}

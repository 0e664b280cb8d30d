//! Which tokens may be drawn, and the draw.
//!
//! No sort: the k-th largest key, or the key at which a sum of shares reaches a target, is found digit by digit,
//! 4 bits a pass from the highest, so in 8 passes over the row, whatever the values are.

use crate::kernels::LANES;
use crate::kernels::elementwise::{column_of, place};
use crate::math::{exp, flush, is_finite, magnitude, max_ordered, ordered_key};
use crate::sample::{Sampling, argmax_of, rng};

/// Bits after the point of a weight: the largest is 2^40, so 2^23 of them do not overflow.
const WEIGHT_BITS: i32 = 40;
/// Below this, e^z * 2^40 is below 1: the weight is 0 without computing it.
const LOWEST: f32 = -28.0;

/// A row of logits; later, of the kept tokens' e^z, 0 for the others. Its cells may be a column of a sweep's outputs,
/// `[row / 16][column][16]`.
pub(crate) struct Row<'r> {
    cells: &'r mut [f32],
    columns: usize,
    column: usize,
    len: usize,
}

impl<'r> Row<'r> {
    pub(crate) fn new(cells: &'r mut [f32]) -> Self {
        let len = cells.len();
        Self::column(cells, 1, 0, len)
    }

    /// The first `len` rows of a column.
    pub(crate) fn column(cells: &'r mut [f32], columns: usize, column: usize, len: usize) -> Self {
        Self {
            cells,
            columns: columns.max(1),
            column,
            len,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = f32> + Clone + '_ {
        let (vectors, rest) = self.vectors();
        vectors.flatten().chain(rest).copied()
    }

    /// [`argmax`](crate::sample::argmax).
    pub(crate) fn argmax(&self) -> u32 {
        let (vectors, rest) = self.vectors();
        argmax_of(vectors, rest)
    }

    fn vectors(&self) -> (impl Iterator<Item = &[f32; LANES]> + Clone, &[f32]) {
        column_of(self.cells, self.columns, self.column, self.len)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        let vectors = self.cells.chunks_mut(LANES).skip(self.column);
        let cells = vectors.step_by(self.columns.max(1)).flatten();
        cells.take(self.len)
    }

    pub(crate) fn get_mut(&mut self, i: u32) -> Option<&mut f32> {
        let i = i as usize;
        (i < self.len)
            .then(|| place(i, self.columns, self.column))
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
        if magnitude(sampling.temperature) == 0 || !self.keep(sampling) {
            return self.argmax();
        }
        let at = share(rng::draw_bits(sampling.seed, position), self.total(), 0);
        let mut sum = 0u64;
        for (i, e) in self.iter().enumerate() {
            sum = sum.saturating_add(weight(e));
            if sum > at {
                return i as u32;
            }
        }
        0
    }

    /// Replaces logits by e^z, 0 for tokens that must not be drawn; `false` if there is no other.
    fn keep(&mut self, sampling: &Sampling) -> bool {
        let max = self.iter().fold(f32::NEG_INFINITY, max_ordered);
        if !is_finite(max) {
            return false;
        }
        self.keep_top_k(sampling.top_k);
        self.weigh(max, sampling.temperature);
        self.keep_top_p(sampling.top_p);
        self.keep_min_p(sampling.min_p);
        true
    }

    /// Leaves the k largest; the others become -infinity.
    fn keep_top_k(&mut self, k: u32) {
        if k == 0 || self.iter().filter(|l| is_finite(*l)).count() <= k as usize {
            return;
        }
        let key = |l: f32| ordered_key(l).cast_unsigned() ^ 1 << 31;
        // Those at -infinity have the lowest key, which so many finite ones keep the cut from.
        let mut cut = Cut::at(self.iter(), key, |_| 1, u64::from(k));
        for l in self.iter_mut() {
            if !cut.keeps(key(*l), 1) {
                *l = f32::NEG_INFINITY;
            }
        }
    }

    /// Logits become e^((l - max)/T): 1 for the largest.
    fn weigh(&mut self, max: f32, temperature: f32) {
        for l in self.iter_mut() {
            let z = (*l - max) / temperature;
            // Also 0 where l is -infinity.
            *l = if z >= LOWEST { exp(z) } else { 0.0 };
        }
    }

    /// Leaves what is at least `p` times the largest; the others become 0.
    fn keep_min_p(&mut self, p: f32) {
        for e in self.iter_mut() {
            // Not negative, so their bits order them.
            if magnitude(*e) < magnitude(p) {
                *e = 0.0;
            }
        }
    }

    /// Leaves the largest weights that together reach `p` of all; the others become 0.
    fn keep_top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let target = share(fixed(p, 64), self.total(), u64::MAX).max(1);
        let mut cut = Cut::at(self.iter(), magnitude, weight, target);
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
    fn at<T: Copy>(
        cells: impl Iterator<Item = T> + Clone,
        key: impl Fn(T) -> u32,
        share: impl Fn(T) -> u64,
        target: u64,
    ) -> Self {
        let mut cut = Self {
            key: 0,
            left: target,
        };
        for shift in [28, 24, 20, 16, 12, 8, 4, 0] {
            let mut sums = [0u64; 16];
            for cell in cells.clone() {
                // Below 16 if the digits above are those found so far; the key's other digits are still 0.
                let digit = (key(cell) ^ cut.key) >> shift;
                if let Some(sum) = sums.get_mut(digit as usize) {
                    *sum = sum.saturating_add(share(cell));
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

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// Numbers from a seed, through Philox: uniform in 0..1.
    struct Random(u32);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 += 1;
            rng::draw_bits(99, self.0) as f64 / 2f64.powi(64)
        }

        fn below(&mut self, n: usize) -> usize {
            (self.next() * n as f64) as usize
        }

        /// Spread out, or on a grid so coarse that there are many ties.
        fn logits(&mut self, n: usize, ties: bool) -> Vec<f32> {
            let mut one = || (self.next() * 12.0 - 4.0) as f32;
            let grid = |v: f32| if ties { (v * 0.5).floor() } else { v };
            (0..n).map(|_| grid(one())).collect()
        }
    }

    /// A whole number of vectors or not, ties within a vector and across vectors, beside other columns.
    #[test]
    fn the_largest_of_a_column_is_the_first_of_them() {
        let mut random = Random(7);
        for len in [0, 1, 15, 16, 17, 48, 100] {
            for columns in 1..4 {
                for column in 0..columns {
                    let logits = random.logits(len, true);
                    let units = len.div_ceil(LANES);
                    let mut cells = std::vec![9.0; units * columns * LANES];
                    for (i, l) in logits.iter().enumerate() {
                        cells[place(i, columns, column)] = *l;
                    }
                    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let first = logits.iter().position(|l| *l == largest).unwrap_or(0);
                    let row = Row::column(&mut cells, columns, column, len);
                    assert_eq!(row.argmax() as usize, first, "{len} {columns} {column}");
                }
            }
        }
    }

    /// Sorts, in f64: (token, probability) of the kept tokens, most probable first; and how close the closest
    /// decision was.
    fn reference(logits: &[f32], s: &Sampling) -> (Vec<(usize, f64)>, f64) {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        if s.top_k > 0 {
            order.truncate(s.top_k as usize);
        }
        let z = |i: usize| f64::from(logits[i] - logits[order[0]]) / f64::from(s.temperature);
        let mut kept: Vec<(usize, f64)> = order.iter().map(|i| (*i, z(*i).exp())).collect();
        let mut margin = f64::MAX;
        let total: f64 = kept.iter().map(|(_, e)| e).sum();
        let (mut sum, mut n) = (0.0, 0);
        for (_, e) in &kept {
            n += 1;
            sum += e / total;
            margin = margin.min((sum - f64::from(s.top_p)).abs());
            if s.top_p < 1.0 && sum >= f64::from(s.top_p) {
                break;
            }
        }
        kept.truncate(n);
        for (_, e) in &kept {
            margin = margin.min((e - f64::from(s.min_p)).abs());
        }
        kept.retain(|(_, e)| *e >= f64::from(s.min_p));
        let total: f64 = kept.iter().map(|(_, e)| e).sum();
        kept.iter_mut().for_each(|(_, e)| *e /= total);
        (kept, margin)
    }

    fn sampling(random: &mut Random, n: usize) -> Sampling {
        Sampling {
            temperature: [0.3, 0.8, 1.0, 1.5][random.below(4)],
            top_k: [0, 1, 2, 5, 40, n as u32, n as u32 + 1][random.below(7)],
            top_p: [1.0, 0.999, 0.95, 0.9, 0.5, 0.1, 0.0][random.below(7)],
            min_p: [0.0, 0.0, 0.01, 0.05, 0.3, 1.0][random.below(6)],
            ..Sampling::GREEDY
        }
    }

    /// The kept tokens and their weights are the reference's, in rows that lie alone or among columns.
    #[test]
    fn kept_sets_are_those_of_a_sort_in_f64() {
        let mut random = Random(0);
        let (mut compared, mut ambiguous) = (0, 0);
        for round in 0..6000 {
            let n = 1 + random.below(90);
            let ties = round % 2 == 0;
            let logits = random.logits(n, ties);
            let s = sampling(&mut random, n);
            let (mut want, margin) = reference(&logits, &s);
            // f32's exp and the integers are within 2^-22 of f64; with ties min_p 1 and top_p are exact.
            let exact = s.min_p == 0.0 || s.min_p == 1.0;
            if margin < 1e-6 && !(exact && margin == 0.0 && s.top_p == 1.0) {
                ambiguous += 1;
                continue;
            }
            compared += 1;
            want.sort_by_key(|(i, _)| *i);
            let (columns, column) = (1 + round % 3, round % 2 % (1 + round % 3));
            let mut cells: Vec<f32> = std::vec![7.0; n.next_multiple_of(LANES) * columns];
            for (i, l) in logits.iter().enumerate() {
                cells[place(i, columns, column)] = *l;
            }
            let mut row = Row::column(&mut cells, columns, column, n);
            assert!(row.keep(&s));
            let total = row.total() as f64;
            // Weights below 2^-40 are 0: the reference's must then be tiny too.
            let got: Vec<(usize, f64)> = row
                .iter()
                .enumerate()
                .filter(|(_, e)| weight(*e) > 0)
                .map(|(i, e)| (i, weight(e) as f64 / total))
                .collect();
            want.retain(|(i, p)| *p > 1e-11 || got.iter().any(|(g, _)| g == i));
            let tokens = |kept: &[(usize, f64)]| kept.iter().map(|(i, _)| *i).collect::<Vec<_>>();
            assert_eq!(tokens(&got), tokens(&want), "{s:?} {logits:?}");
            for ((_, got), (_, want)) in got.iter().zip(&want) {
                assert!((got - want).abs() < 1e-6, "{got} {want} {s:?}");
            }
            let others = (0..columns).filter(|c| *c != column);
            let mut others = others.flat_map(|c| (0..n).map(move |i| place(i, columns, c)));
            assert!(others.all(|at| cells[at] == 7.0));
        }
        assert!(
            compared > 4000,
            "{compared} compared, {ambiguous} ambiguous"
        );
    }

    /// Chi-square over 40,000 positions against f64's probabilities. The bound is the quantile at 1 - 1e-6
    /// (Wilson and Hilferty): one run in a million of a true generator would exceed it, and the positions are fixed.
    #[test]
    fn draws_are_distributed_as_f64_says() {
        let mut random = Random(1 << 20);
        for seed in 0..24u64 {
            let n = 2 + random.below(30);
            let logits = random.logits(n, seed % 3 == 0);
            let s = Sampling {
                seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                ..sampling(&mut random, n)
            };
            let (want, margin) = reference(&logits, &s);
            if margin < 1e-6 && s.top_p < 1.0 {
                continue;
            }
            let draws = 40_000u32;
            let mut counts = std::vec![0u32; n];
            for position in 0..draws {
                counts[s.draw(&mut logits.clone(), &[], position) as usize] += 1;
            }
            let (mut chi2, mut cells, mut rare) = (0.0, 0, (0.0, 0));
            let mut add = |expected: f64, count: u32| {
                chi2 += (f64::from(count) - expected).powi(2) / expected;
                cells += 1;
            };
            for (i, p) in &want {
                let expected = p * f64::from(draws);
                if expected < 10.0 {
                    rare = (rare.0 + expected, rare.1 + counts[*i]);
                } else {
                    add(expected, counts[*i]);
                }
                counts[*i] = 0;
            }
            if rare.0 >= 1.0 {
                add(rare.0, rare.1);
            }
            assert!(counts.iter().all(|c| *c == 0), "only kept tokens are drawn");
            let d = f64::from((cells - 1).max(1));
            let bound = d * (1.0 - 2.0 / (9.0 * d) + 4.753 * (2.0 / (9.0 * d)).sqrt()).powi(3);
            assert!(
                chi2 <= bound,
                "seed {seed}: {chi2} > {bound} at {cells} cells: {s:?}"
            );
        }
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        let keep = |s: Sampling, logits: &[f32]| {
            let mut cells = logits.to_vec();
            assert!(Row::new(&mut cells).keep(&s));
            cells.iter().map(|e| *e > 0.0).collect::<Vec<_>>()
        };
        let warm = Sampling {
            temperature: 1.0,
            ..Sampling::GREEDY
        };
        let (t, f) = (true, false);
        let k = |top_k| Sampling {
            top_k,
            ..warm.clone()
        };
        let logits = [1.0, 2.0, 1.0, 2.0, 1.0];
        assert_eq!(keep(k(1), &logits), [f, t, f, f, f]);
        assert_eq!(keep(k(3), &logits), [t, t, f, t, f]);
        assert_eq!(keep(k(4), &logits), [t, t, t, t, f]);
        assert_eq!(keep(k(2), &[0.0, -0.0, 0.0]), [t, t, f]);
        let p = |top_p| Sampling {
            top_p,
            ..warm.clone()
        };
        // Four equal tokens of a quarter each: exactly a half is reached by two.
        assert_eq!(keep(p(0.5), &[3.0; 4]), [t, t, f, f]);
        assert_eq!(keep(p(0.5f32.next_up()), &[3.0; 4]), [t, t, t, f]);
        assert_eq!(keep(p(0.25), &[3.0; 4]), [t, f, f, f]);
        assert_eq!(keep(p(0.0), &[3.0, 4.0]), [f, t]);
        assert_eq!(
            keep(
                Sampling {
                    min_p: 1.0,
                    ..warm.clone()
                },
                &logits
            ),
            [f, t, f, t, f]
        );
        // Top-p is of what top-k and min-p have left: 2 of 3 equal tokens are 0.67 of them.
        let both = Sampling {
            top_k: 3,
            top_p: 0.6,
            ..warm.clone()
        };
        assert_eq!(keep(both, &[3.0; 9]), [t, t, f, f, f, f, f, f, f]);
    }

    #[test]
    fn integers_are_floors() {
        let mut random = Random(7);
        for bits in [40, 64] {
            for _ in 0..20_000 {
                let x = (random.next() * 2f64.powi(-(random.below(140) as i32))) as f32;
                let want = if x.is_normal() && x < 1.0 {
                    (f64::from(x) * 2f64.powi(bits)) as u64
                } else {
                    continue;
                };
                assert_eq!(fixed(x, bits), want, "{x:e}");
            }
        }
        assert_eq!(
            (fixed(1.0, 40), fixed(0.0, 40), fixed(1e-45, 64)),
            (1 << 40, 0, 0)
        );
        assert_eq!(share(1 << 63, 10, 0), 5);
        assert_eq!(share(u64::MAX, 10, 0), 9);
        assert_eq!((share(1, 1, u64::MAX), share(0, 1, u64::MAX)), (1, 0));
        // Below this no weight is lost.
        assert_eq!(weight(exp(LOWEST)), 0);
        assert_eq!(weight(exp(0.0)), 1 << WEIGHT_BITS);
    }

    #[test]
    fn cuts_are_those_of_a_sort() {
        let mut random = Random(1 << 10);
        for _ in 0..3000 {
            let n = 1 + random.below(40);
            let spread = [4, 1 << 9, usize::MAX >> 33][random.below(3)];
            let cells: Vec<(u32, u64)> = (0..n)
                .map(|_| (random.below(spread) as u32, random.below(5) as u64))
                .collect();
            let all: u64 = cells.iter().map(|c| c.1).sum();
            if all == 0 {
                continue;
            }
            let target = 1 + random.below(all as usize) as u64;
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| cells[*b].0.cmp(&cells[*a].0).then(a.cmp(b)));
            let (mut kept, mut sum) = (std::vec![false; n], 0);
            for i in order {
                kept[i] = sum < target;
                sum += cells[i].1;
            }
            let mut cut = Cut::at(cells.iter().copied(), |c| c.0, |c| c.1, target);
            let got: Vec<bool> = cells.iter().map(|c| cut.keeps(c.0, c.1)).collect();
            assert_eq!(got, kept, "{cells:?} {target}");
        }
    }
}

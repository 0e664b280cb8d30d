//! int8 with one f16 scale per group, and one power of two per tensor that keeps the scales normal.

use super::{LARGEST, Loss};
use half::f16;

/// The smallest normal f16, 2^-14.
const SMALLEST_NORMAL: f64 = 6.103_515_625e-5;
/// The range of `scale_exp` that a file may state.
const MIN_EXP: i8 = -10;

/// A matrix in int8.
#[derive(Debug)]
pub struct Q8 {
    /// `[rows][cols]` values: in -127..=127 where they were quantised here.
    pub q: Vec<i8>,
    /// `[rows][groups]` scales, bits of f16.
    pub scales: Vec<u16>,
    /// Power of two on every scale: effective scale = f16 * 2^scale_exp.
    pub scale_exp: i8,
    /// What it cost.
    pub loss: Loss,
    group: usize,
}

impl Q8 {
    /// What a file holds, as it is: nothing is rounded, lifted or counted.
    pub(crate) fn stored(q: Vec<i8>, scales: Vec<u16>, scale_exp: i8, group: usize) -> Self {
        Self {
            q,
            scales,
            scale_exp,
            loss: Loss::default(),
            group: group.max(1),
        }
    }

    /// Takes int8 values and the f16 scale of each `group` of them as they are. Scales that are subnormal in
    /// f16 are lifted exactly by `scale_exp`; where larger ones leave no room for that they are flushed and
    /// counted.
    ///
    /// ```
    /// // The smallest subnormal, 2^-24, is 2^-14 * 2^-10.
    /// let t = pleach_pack::quant::Q8::of_blocks(vec![-128, 7], vec![1], 2);
    /// assert_eq!((t.scales[0], t.scale_exp), (0x0400, -10));
    /// assert_eq!(t.values().collect::<Vec<_>>(), [-128.0 / 16_777_216.0, 7.0 / 16_777_216.0]);
    /// ```
    pub fn of_blocks(q: Vec<i8>, scales: Vec<u16>, group: usize) -> Self {
        let group = group.max(1);
        let value = |s: &u16| f16::from_bits(*s).to_f64();
        let steps: Vec<f64> = scales.iter().map(|s| value(s).abs()).collect();
        let scale_exp = scale_exp(&steps);
        let lift = pow2(-scale_exp);
        let mut loss = Loss::default();
        let lifted = scales.iter().zip(q.chunks(group)).map(|(s, q)| {
            let effective = value(s);
            let scale = f16::from_f64(effective * lift);
            let flushed = scale.to_f64().abs() < SMALLEST_NORMAL;
            for q in q.iter().filter(|q| **q != 0) {
                let v = (effective * f64::from(*q)) as f32;
                loss.count(v, if flushed { 0.0 } else { v });
                loss.flushed += u64::from(flushed && v != 0.0);
            }
            if flushed { 0 } else { scale.to_bits() }
        });
        let scales = lifted.collect();
        Self {
            q,
            scales,
            scale_exp,
            loss,
            group,
        }
    }

    /// The values that are stored, row by row, where every group is full.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        let unit = pow2(self.scale_exp);
        let groups = self.scales.iter().zip(self.q.chunks(self.group));
        groups.flat_map(move |(s, q)| {
            let scale = f16::from_bits(*s).to_f64() * unit;
            q.iter().map(move |q| (scale * f64::from(*q)) as f32)
        })
    }

    /// Quantises `[rows][cols]` values within ±65504, one scale per row and `group` columns; the last group
    /// of a row may be short.
    ///
    /// Quotients are taken in f64, in which the quotient of an f32 and an effective scale rounds to the
    /// same integer as the exact one.
    ///
    /// ```
    /// // 254 / 127 = 2: one scale of 2.0, bits 0x4000; 3 / 2 and 1 / 2 are ties and go to even.
    /// let t = pleach_pack::quant::Q8::new(&[254.0, 3.0, 1.0], 3, 32);
    /// assert_eq!((t.q, t.scales, t.scale_exp), (vec![127, 2, 0], vec![0x4000], 0));
    /// ```
    pub fn new(values: &[f32], cols: usize, group: usize) -> Self {
        let (cols, group) = (cols.max(1), group.max(1));
        let groups = || values.chunks_exact(cols).flat_map(|row| row.chunks(group));
        let steps: Vec<f64> = groups()
            .map(|g| f64::from(g.iter().fold(0.0f32, |m, v| m.max(v.abs()))) / 127.0)
            .collect();
        let scale_exp = scale_exp(&steps);
        let lift = pow2(-scale_exp);
        let mut loss = Loss::default();
        let mut q = Vec::with_capacity(values.len());
        let mut scales = Vec::with_capacity(steps.len());
        for (g, step) in groups().zip(&steps) {
            let mut scale = f16::from_f64(step * lift);
            if scale.to_f64() < SMALLEST_NORMAL {
                scale = f16::ZERO;
                loss.flushed += g.iter().filter(|v| **v != 0.0).count() as u64;
            }
            scales.push(scale.to_bits());
            let effective = scale.to_f64() / lift;
            for &v in g {
                let n = if effective == 0.0 {
                    0.0
                } else {
                    (f64::from(v) / effective)
                        .round_ties_even()
                        .clamp(-127.0, 127.0)
                };
                loss.count(v, (n * effective) as f32);
                q.push(n as i8);
            }
        }
        Self {
            q,
            scales,
            scale_exp,
            loss,
            group,
        }
    }
}

fn pow2(e: i8) -> f64 {
    libm::ldexp(1.0, i32::from(e))
}

/// The exponent nearest 0 for which no scale but 0 is subnormal in f16, else the most negative one that
/// keeps every scale within f16. Each step is absmax / 127 of a group.
fn scale_exp(steps: &[f64]) -> i8 {
    let largest = steps.iter().fold(0.0f64, |m, s| m.max(*s));
    let smallest = steps
        .iter()
        .filter(|s| **s > 0.0)
        .fold(f64::INFINITY, |m, s| m.min(*s));
    let fits = |e: i8| f16::from_f64(largest * pow2(-e)).to_f32() <= LARGEST;
    let normal = |e: i8| f16::from_f64(smallest * pow2(-e)).to_f64() >= SMALLEST_NORMAL;
    (MIN_EXP..=0)
        .rev()
        .take_while(|e| fits(*e))
        .find(|e| normal(*e))
        .or_else(|| (MIN_EXP..=0).find(|e| fits(*e)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // absmax 127: scale 1. A row of zeros has scale 0 and asks for nothing.
        let t = Q8::new(&[127.0, -1.5, 2.5, 0.4, 0.0, 0.0, 0.0, 0.0], 4, 32);
        assert_eq!(t.q, [127, -2, 2, 0, 0, 0, 0, 0]);
        assert_eq!(t.scales, [0x3c00, 0]);
        assert_eq!((t.scale_exp, t.loss.flushed), (0, 0));
    }

    #[test]
    fn a_short_last_group_has_a_scale_of_its_own() {
        let mut row = vec![1.0f32; 33];
        row[32] = 254.0;
        let t = Q8::new(&row, 33, 32);
        assert_eq!(t.scales.len(), 2);
        assert_eq!(t.scales[1], 0x4000);
        assert_eq!(t.q[32], 127);
    }

    #[test]
    fn the_exponent_lifts_small_scales_out_of_the_subnormals() {
        // 127 * 2^-14 needs no lift; 127 * 2^-15 needs one step.
        let at = |e: i32| Q8::new(&[libm::ldexpf(127.0, e)], 1, 32).scale_exp;
        assert_eq!((at(-14), at(-15), at(-24)), (0, -1, -10));
        // Too small even so: flushed, and counted.
        let t = Q8::new(&[libm::ldexpf(127.0, -26), 0.0], 2, 32);
        assert_eq!(
            (t.q[0], t.scales[0], t.scale_exp, t.loss.flushed),
            (0, 0, -10, 1)
        );
    }

    #[test]
    fn the_exponent_does_not_lift_large_scales_out_of_range() {
        // 65504 / 127 = 515.78; times 2^6 is 33010, times 2^7 would be 66020.
        let t = Q8::new(&[65504.0, 1e-7], 1, 32);
        assert_eq!(t.scale_exp, -6);
        assert_eq!((t.q[0], t.q[1], t.loss.flushed), (127, 0, 1));
    }
}

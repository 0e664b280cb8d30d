//! Activations as kernels read them: each column contiguous, in f32 and quantised by group.

use crate::kernels::SMALL;
use crate::kernels::layout::{K_PAD, K_STEP, round_up};
use crate::math::{self, INFINITE_FROM, ROUND};

/// amax below 2^-40: the group is 0.
const FLOOR: u32 = 0x2b80_0000;
/// 2^-100.
const TINY: u32 = 0x0d80_0000;
/// 2^-20.
const RELATIVE: f32 = 9.536_743e-7;
/// The f32 nearest 1/127.
const INV_127: u32 = 0x3c01_0204;

/// One column of quantised activations.
///
/// `q` is `[K_pad]` with zeros from `K` on; `sx` and `sum` have an entry per group: its scale, and the sum
/// of its `q` (the start value of kernels whose instruction takes one operand unsigned).
#[derive(Clone, Copy, Debug)]
pub struct PanelColumn<'a> {
    /// Quantised values; twice as many bytes if they are expanded.
    pub q: &'a [i8],
    /// Scale per group.
    pub sx: &'a [f32],
    /// Sum of `q` per group.
    pub sum: &'a [i32],
    /// Whether [`expand`] was called on `q`.
    pub expanded: bool,
}

impl PanelColumn<'_> {
    /// No column.
    pub const EMPTY: Self = Self {
        q: &[],
        sx: &[],
        sum: &[],
        expanded: false,
    };

    /// Value `k`; 0 behind the end.
    #[inline(always)]
    pub(crate) fn value(&self, k: usize) -> i32 {
        if self.expanded {
            return self.expanded_value(k).unwrap_or(0);
        }
        self.q.get(k).map_or(0, |q| *q as i32)
    }

    fn expanded_value(&self, k: usize) -> Option<i32> {
        let step = self.q.as_chunks::<EXPANDED_STEP>().0.get(k / K_STEP)?;
        let halves = step.as_chunks::<2>().0;
        let half = |at: usize| {
            let [low, high] = halves.get(at)?.map(|b| b as u8);
            Some(i16::from_le_bytes([low, high]) as i32)
        };
        let odd = half((k % K_STEP) / 2)?;
        if k % 2 == 1 {
            return Some(odd);
        }
        Some((half(2 + (k % K_STEP) / 2)? + odd) >> 8)
    }
}

/// Inputs of one operation for all columns of a sweep.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) k: usize,
    /// `[column][k]`.
    pub(crate) x: &'a [f32],
    /// Strides of the panel's parts.
    pub(crate) q_stride: usize,
    pub(crate) s_stride: usize,
    pub(crate) q: &'a [i8],
    pub(crate) sx: &'a [f32],
    pub(crate) sum: &'a [i32],
    /// Whether the panel is expanded; `q_stride` is in bytes.
    pub(crate) expanded: bool,
    /// The columns that take part; `None` for all.
    pub(crate) picks: Option<&'a [u16]>,
}

impl<'a> Input<'a> {
    /// Columns `[column][k]` that no quantised row reads.
    pub(crate) fn floats_only(k: usize, x: &'a [f32]) -> Self {
        Self {
            k,
            x,
            q_stride: 0,
            s_stride: 0,
            q: &[],
            sx: &[],
            sum: &[],
            expanded: false,
            picks: None,
        }
    }

    #[inline(always)]
    fn index(&self, column: usize) -> usize {
        match self.picks {
            Some(p) => p.get(column).map_or(usize::MAX, |&c| c as usize),
            None => column,
        }
    }

    /// Column `c` in f32.
    #[inline(always)]
    pub(crate) fn floats(&self, c: usize) -> &'a [f32] {
        part(self.x, self.index(c), self.k, self.k)
    }

    /// Column `c` quantised.
    #[inline(always)]
    pub(crate) fn panel(&self, c: usize) -> PanelColumn<'a> {
        let i = self.index(c);
        PanelColumn {
            q: part(self.q, i, self.q_stride, self.q_stride),
            sx: part(self.sx, i, self.s_stride, self.s_stride),
            sum: part(self.sum, i, self.s_stride, self.s_stride),
            expanded: self.expanded,
        }
    }
}

/// Bytes of one column of a panel of `k` values.
pub(crate) const fn panel_stride(k: usize, expanded: bool) -> usize {
    round_up(k, K_PAD).saturating_mul(if expanded { EXPANSION } else { 1 })
}

/// Bytes that an expanded value takes.
pub(crate) const EXPANSION: usize = 2;

/// Bytes of an expanded step of four values.
const EXPANDED_STEP: usize = K_STEP * EXPANSION;

/// Expands a quantised column for kernels of the layout `m4`: of every four values, the halfwords `x1`, `x3`,
/// `256 x0 - x1`, `256 x2 - x3`, little-endian. With halfwords of weights `h = 256 w1 + w0`, `h * x1 + w0 * (256 x0 - x1)`
/// is 256 times `w0 x0 + w1 x1`.
///
/// `q` holds the values in its first half, each within -127..=127 as [`quantise`] writes them.
#[inline(always)]
pub fn expand(q: &mut [i8]) {
    // From the end: a step's place lies behind all values that are still to be read, or on itself.
    for step in (0..q.len() / EXPANDED_STEP).rev() {
        let from = q
            .get(step * K_STEP..)
            .and_then(|q| q.first_chunk::<K_STEP>());
        let Some([x0, x1, x2, x3]) = from.map(|x| x.map(|x| x as i16)) else {
            return;
        };
        let (y0, y2) = ((x0 << 8).wrapping_sub(x1), (x2 << 8).wrapping_sub(x3));
        // By words: byte by byte it takes twice as long.
        let word = |low: i16, high: i16| (low as u16 as u32 | (high as u32) << 16).to_le();
        let to = q.get_mut(step * EXPANDED_STEP..);
        let Some(to) = to.and_then(|q| q.first_chunk_mut::<EXPANDED_STEP>()) else {
            return;
        };
        *to = zerocopy::transmute!([word(x1, x3), word(y0, y2)]);
    }
}

#[inline(always)]
fn part<T>(all: &[T], index: usize, stride: usize, len: usize) -> &[T] {
    let at = index.saturating_mul(stride);
    all.get(at..at.saturating_add(len)).unwrap_or(&[])
}

/// Quantises one column: per group amax, scale, values, sum (ARITHMETIC.md, *Activation panel*).
///
/// Shapes: `x` `[K]`; `q` `[K padded to 16]`, or longer to be expanded, written; `sx`, `sum` `[groups]`, written. Returns
/// `false` if a value is not finite; the outputs are then unspecified.
#[must_use]
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
pub fn quantise(x: &[f32], group: usize, q: &mut [i8], sx: &mut [f32], sum: &mut [i32]) -> bool {
    let group = group.max(K_STEP);
    let whole = match group {
        USUAL if !SMALL => x.len() / USUAL,
        _ => 0,
    };
    let mut outs = sx.iter_mut().zip(sum);
    let usual = x.as_chunks::<USUAL>().0.iter().zip(q.as_chunks_mut().0);
    for ((x, q), out) in usual.take(whole).zip(&mut outs) {
        if !quantise_group(x, q as &mut [i8; USUAL], out) {
            return false;
        }
    }
    let parts = x.chunks(group).zip(q.chunks_mut(group));
    parts
        .skip(whole)
        .zip(outs)
        .all(|((x, q), out)| quantise_group(x, q, out))
}

/// The group whose length the compiler is told.
const USUAL: usize = 64;

/// Writes the integers of a group, zeros behind them, its scale and their sum; `false` if a value is not finite.
#[inline(always)]
fn quantise_group(x: &[f32], q: &mut [i8], (sx, sum): (&mut f32, &mut i32)) -> bool {
    let amax = x.iter().fold(0, |m, v| math::magnitude(*v).max(m));
    if amax >= INFINITE_FROM {
        return false;
    }
    if amax < FLOOR {
        q.fill(0);
        (*sx, *sum) = (0.0, 0);
        return true;
    }
    let (q, padding) = q.split_at_mut(x.len().min(q.len()));
    padding.fill(0);
    let amax = f32::from_bits(amax);
    let inv = 127.0 / amax;
    let cut = math::magnitude(amax * RELATIVE).max(TINY);
    // Of the bits: each is its integer plus the bits of `ROUND`.
    let mut total = 0u32;
    for (x, q) in x.iter().zip(q) {
        let v = if math::magnitude(*x) < cut { 0.0 } else { *x };
        let bits = (v * inv + ROUND).to_bits();
        // The integer stands in the low bits, in two's complement.
        *q = bits as i8;
        total = total.wrapping_add(bits);
    }
    let offsets = ROUND.to_bits().wrapping_mul(x.len() as u32);
    *sum = total.wrapping_sub(offsets).cast_signed();
    *sx = amax * f32::from_bits(INV_127);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Group 1: amax 2 gives inv 63.5; 1 is exactly between 63 and 64 and goes to the even one.
        let mut x = [0.0f32; 6];
        x[..4].copy_from_slice(&[2.0, 1.0, -2.0, 0.5]);
        let (mut q, mut sx, mut sum) = ([9i8; 8], [9.0; 2], [9; 2]);
        assert!(quantise(&x, 4, &mut q, &mut sx, &mut sum));
        assert_eq!(q, [127, 64, -127, 32, 0, 0, 0, 0]);
        assert_eq!(sum, [96, 0]);
        assert_eq!(sx[0], 2.0 * f32::from_bits(INV_127));
        assert_eq!(sx[1], 0.0);
    }

    /// Every pair of values, wherever it stands in a step: the halfwords by the formula, and the values back.
    #[test]
    fn expansion() {
        let (mut q, mut all) = ([0i8; 32], 0);
        for even in -127..=127i8 {
            for odd in -127..=127i8 {
                q = [0; 32];
                q[..8].copy_from_slice(&[even, odd, odd, even, -even, odd, 0, -1]);
                let plain = q;
                expand(&mut q);
                let half = |i: usize| i16::from_le_bytes([q[2 * i] as u8, q[2 * i + 1] as u8]);
                assert_eq!([half(0), half(1)], [odd as i16, even as i16]);
                assert_eq!(half(2), 256 * even as i16 - odd as i16);
                assert_eq!(half(3), 256 * odd as i16 - even as i16);
                let column = PanelColumn {
                    q: &q,
                    expanded: true,
                    ..PanelColumn::EMPTY
                };
                for (k, x) in plain[..16].iter().enumerate() {
                    assert_eq!(column.value(k), *x as i32);
                    all += 1;
                }
                assert_eq!(column.value(16), 0);
            }
        }
        assert_eq!((all, q[31]), (255 * 255 * 16, 0));
    }

    #[test]
    fn floor_and_non_finite() {
        let floor = f32::from_bits(FLOOR);
        let below = f32::from_bits(FLOOR - 1);
        let (mut q, mut sx, mut sum) = ([0i8; 4], [0.0; 1], [0; 1]);
        assert!(quantise(
            &[below, -below, 0.0, 0.0],
            32,
            &mut q,
            &mut sx,
            &mut sum
        ));
        assert_eq!((q, sx), ([0; 4], [0.0]));
        assert!(quantise(
            &[floor, 0.0, -floor, 0.0],
            32,
            &mut q,
            &mut sx,
            &mut sum
        ));
        assert_eq!(q, [127, 0, -127, 0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!quantise(&[0.0, bad], 32, &mut q, &mut sx, &mut sum));
        }
    }

    #[test]
    fn error_is_at_most_half_a_step() {
        let x: [f32; 64] = core::array::from_fn(|i| ((i * 37 % 64) as f32 - 31.5) * 0.173);
        let (mut q, mut sx, mut sum) = ([0i8; 64], [0.0; 2], [0; 2]);
        assert!(quantise(&x, 32, &mut q, &mut sx, &mut sum));
        for (i, (x, q)) in x.iter().zip(&q).enumerate() {
            let s = sx[i / 32];
            // Half a step, plus the rounding of inv and sx (2^-23 of 127 steps each).
            assert!((x - *q as f32 * s).abs() <= s * (0.5 + 127.0 * 4.0 / 8_388_608.0));
        }
    }
}

//! `f16` and `f32` rows: one chain of multiply and add per row, k ascending.

use crate::kernels::BLOCK;
use crate::kernels::scalar::Acc;
use crate::math;

/// A stored float.
pub trait Element {
    /// Bytes of one.
    const BYTES: usize;
    /// The value of the first bytes of `b`; 0 if they are not there.
    fn read(b: &[u8]) -> f32;
}

/// IEEE half, little-endian.
pub struct F16;
/// IEEE single, little-endian.
pub struct F32;

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn read(b: &[u8]) -> f32 {
        b.first_chunk::<2>()
            .map_or(0.0, |b| math::from_f16(u16::from_le_bytes(*b)))
    }
}

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn read(b: &[u8]) -> f32 {
        b.first_chunk::<4>().map_or(0.0, |b| f32::from_le_bytes(*b))
    }
}

/// `gemv_f16_scalar`, `gemv_f32_scalar`: `R` rows of a tile of `lanes` rows times up to 8 columns.
///
/// Shapes: `tile` `[k][lanes]`, of which lanes `lane..lane + R` are read; `columns` at most 8 of K floats
/// each; `acc[r][c]` is written. Order per row: acc = +0; for k ascending, `acc = acc + w*x`.
#[inline(always)]
pub fn gemv_float_scalar<E: Element, const R: usize>(
    tile: &[u8],
    lanes: usize,
    lane: usize,
    columns: &[&[f32]],
    acc: &mut Acc<R>,
) {
    let mut sums = [[0.0f32; R]; BLOCK];
    let step = lanes.saturating_mul(E::BYTES).max(1);
    let skip = lane.saturating_mul(E::BYTES);
    for (k, row) in tile.chunks_exact(step).enumerate() {
        let Some(row) = row.get(skip..) else { return };
        let mut w = [0.0f32; R];
        for (w, bytes) in w.iter_mut().zip(row.chunks_exact(E::BYTES)) {
            *w = E::read(bytes);
        }
        for (sums, column) in sums.iter_mut().zip(columns) {
            let x = column.get(k).copied().unwrap_or(0.0);
            for (sum, w) in sums.iter_mut().zip(&w) {
                *sum += w * x;
            }
        }
    }
    for (r, acc) in acc.iter_mut().enumerate() {
        for (acc, sums) in acc.iter_mut().zip(&sums) {
            *acc = sums.get(r).copied().unwrap_or(0.0);
        }
    }
}

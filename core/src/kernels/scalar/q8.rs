//! `q8` rows: exact integer dots per group, three rounded f32 operations each.

use crate::kernels::BLOCK;
use crate::kernels::layout::{K_STEP, scale_bytes};
use crate::kernels::panel::PanelColumn;
use crate::kernels::scalar::Acc;
use crate::math;
use crate::pairs::pairs;

/// `gemv_q8_scalar`: a tile of `R` rows times up to 8 columns.
///
/// Shapes: `tile` as packed (scales, then vectors of `[R][4]`); `columns` at most 8 of K each; `acc[r][c]`
/// is written. Order per row: acc = +0; for g ascending, d = the exact integer sum of q*x, then
/// `acc = acc + (f32(d) * (sw * sx))`, with 2^scale_exp applied to sx, exactly.
#[inline(always)]
pub fn gemv_q8_scalar<const R: usize>(
    tile: &[u8],
    k: usize,
    group: usize,
    scale_exp: i8,
    columns: &[PanelColumn<'_>],
    acc: &mut Acc<R>,
) {
    let Some((scales, vectors)) = tile.split_at_checked(scale_bytes(R, k, group)) else {
        return;
    };
    let pow = math::pow2(scale_exp);
    let vectors = vectors.as_chunks::<K_STEP>().0;
    let group = group.max(K_STEP);
    for (c, column) in columns.iter().enumerate().take(BLOCK) {
        let mut sums = [0.0f32; R];
        let steps = (group / K_STEP).saturating_mul(R).max(1);
        let tiles = pairs(vectors.chunks(steps), column.q.chunks(group));
        for ((w, x), (sw, sx)) in
            tiles.zip(scales.as_chunks::<2>().0.chunks_exact(R).zip(column.sx))
        {
            let mut d = [0i32; R];
            for (w, x) in w.chunks_exact(R).zip(x.as_chunks::<K_STEP>().0) {
                for (d, w) in d.iter_mut().zip(w) {
                    *d += dot4(w, x);
                }
            }
            let sx = *sx * pow;
            for ((sum, d), sw) in sums.iter_mut().zip(&d).zip(sw) {
                let sw = math::from_f16(u16::from_le_bytes(*sw));
                *sum += *d as f32 * (sw * sx);
            }
        }
        for (row, sum) in acc.iter_mut().zip(sums) {
            if let Some(v) = row.get_mut(c) {
                *v = sum;
            }
        }
    }
}

/// |sum| <= 4 * 128 * 127, and a group's is below 2^24: i32 never overflows.
#[inline(always)]
fn dot4(w: &[u8; K_STEP], x: &[i8; K_STEP]) -> i32 {
    w.iter()
        .zip(x)
        .map(|(w, x)| (*w as i8 as i32) * (*x as i32))
        .sum()
}

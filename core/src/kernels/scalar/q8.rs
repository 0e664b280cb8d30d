//! `q8` rows: exact integer dots per group, three rounded f32 operations each.

use crate::blob::Tensor;
use crate::kernels::SMALL;
use crate::kernels::isa::{BLOCK, LANES};
use crate::kernels::layout::{K_STEP, Layout, q8_weight};
use crate::kernels::log::{key, ran_q8};
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::Q8Tile;
use crate::math;
use crate::pairs::pairs;

/// Its name in tables and the log.
pub(crate) const NAME: &str = "gemv_q8_scalar";

/// `gemv_q8_scalar`: tiles times up to 8 columns, as [`Isa::q8`](crate::kernels::isa::Isa::q8) says.
#[inline(always)]
pub(crate) fn gemv_q8_scalar(
    w: &Tensor<'_>,
    (first, count): (usize, usize),
    columns: &[PanelColumn<'_>],
    lane: usize,
    acc: &mut [[f32; LANES]],
) {
    ran_q8(w.layout, const { key(NAME) });
    for (i, acc) in acc.chunks_mut(columns.len().max(1)).take(count).enumerate() {
        if let Some(tile) = w.q8_tile(first + i) {
            tile_times(&tile, columns, lane, acc);
        }
    }
}

#[inline(always)]
fn tile_times(
    tile: &Q8Tile<'_>,
    columns: &[PanelColumn<'_>],
    lane: usize,
    acc: &mut [[f32; LANES]],
) {
    match tile.layout {
        // The panel is another kernel's: of the same model, whose other tensors are `m4`.
        _ if columns.iter().any(|c| c.expanded) => decoded(tile, columns, lane, acc),
        // Flash is scarce where these are other targets' layouts.
        Layout::R16K4 | Layout::R4K4 if SMALL => {
            decoded(tile, columns, lane, acc);
        }
        Layout::R16K4 => interleaved::<16>(tile, columns, lane, acc),
        Layout::R4K4 => interleaved::<4>(tile, columns, lane, acc),
        Layout::Rows => interleaved::<1>(tile, columns, lane, acc),
        Layout::M4 | Layout::R4K16 => decoded(tile, columns, lane, acc),
    }
}

/// Tiles whose vectors are `[R][4]`; plain rows are tiles of one row.
#[inline(always)]
fn interleaved<const R: usize>(
    tile: &Q8Tile<'_>,
    columns: &[PanelColumn<'_>],
    lane: usize,
    acc: &mut [[f32; LANES]],
) {
    let vectors = tile.vectors.as_chunks::<K_STEP>().0;
    let group = tile.group.max(K_STEP);
    let steps = (group / K_STEP).saturating_mul(R).max(1);
    for (column, acc) in columns.iter().zip(acc).take(BLOCK) {
        let mut sums = [0.0f32; R];
        let tiles = pairs(vectors.chunks(steps), column.q.chunks(group));
        let scales = tile.scales.as_chunks::<2>().0.chunks_exact(R);
        for ((w, x), (sw, sx)) in tiles.zip(scales.zip(column.sx)) {
            let mut d = [0i32; R];
            for (w, x) in w.chunks_exact(R).zip(x.as_chunks::<K_STEP>().0) {
                for (d, w) in d.iter_mut().zip(w) {
                    *d += dot4(w, x);
                }
            }
            let sx = *sx * tile.pow;
            for ((sum, d), sw) in sums.iter_mut().zip(&d).zip(sw) {
                let sw = math::from_f16(u16::from_le_bytes(*sw));
                *sum += *d as f32 * (sw * sx);
            }
        }
        for (out, sum) in acc.iter_mut().skip(lane.min(LANES)).zip(sums) {
            *out = sum;
        }
    }
}

/// Tiles of any layout, weight by weight: where a file is laid out for other targets.
fn decoded(tile: &Q8Tile<'_>, columns: &[PanelColumn<'_>], lane: usize, acc: &mut [[f32; LANES]]) {
    let (rows, step) = (tile.layout.tile_rows(), tile.layout.k_step());
    let bytes = rows.saturating_mul(step).max(1);
    let (step, group) = (step.max(1), tile.group.max(K_STEP));
    for (column, acc) in columns.iter().zip(acc) {
        for (row, out) in acc.iter_mut().skip(lane).enumerate().take(rows) {
            let halves = tile.scales.as_chunks::<2>().0.iter().skip(row);
            let mut sum = 0.0f32;
            for (g, (sw, sx)) in halves.step_by(rows.max(1)).zip(column.sx).enumerate() {
                let mut d = 0;
                for k in (g * group..tile.k).take(group) {
                    let vector = tile.vectors.chunks_exact(bytes).nth(k / step);
                    let w = vector.and_then(|v| q8_weight(tile.layout, v, row, k % step));
                    d += w.unwrap_or(0) * column.value(k);
                }
                let sw = math::from_f16(u16::from_le_bytes(*sw));
                sum += d as f32 * (sw * (*sx * tile.pow));
            }
            *out = sum;
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

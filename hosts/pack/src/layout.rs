//! Interleaves rows into the tiles of [`pleach::kernels::layout`].

use crate::import::Matrix;
use crate::quant::{F16, F32, Loss, Q8};
use pleach::kernels::layout::{
    B_TILE, Dtype, K_STEP, Layout, b_scale_bytes, groups, packed_b_size, packed_size, scale_bytes,
};

/// A tensor as it will lie in the file.
#[derive(Debug)]
pub struct Packed {
    /// The bytes: [`packed_size`], or [`packed_b_size`] for a B panel.
    pub bytes: Vec<u8>,
    /// How a number is stored.
    pub dtype: Dtype,
    /// How rows are interleaved.
    pub layout: Layout,
    /// Power of two on every scale.
    pub scale_exp: i8,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub cols: usize,
    /// What storage cost.
    pub loss: Loss,
}

/// Packs a `[rows][cols]` matrix.
///
/// ```
/// use pleach::kernels::layout::{Dtype, Layout};
///
/// // Two rows of two in a tile of four rows: column by column, the missing rows are 0.
/// let m = pleach_pack::Matrix { rows: 2, cols: 2, data: vec![1.0, 2.0, 3.0, 4.0] };
/// let p = pleach_pack::layout::pack(&m, Dtype::F16, Layout::R4K4, 64);
/// let halves: Vec<u16> = p.bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
/// assert_eq!(halves, [0x3c00, 0x4200, 0, 0, 0x4000, 0x4400, 0, 0]);
/// ```
pub fn pack(m: &Matrix, dtype: Dtype, layout: Layout, group: usize) -> Packed {
    let (rows, cols, lanes) = (m.rows, m.cols, layout.tile_rows());
    if dtype == Dtype::Q8 {
        return pack_q8(&Q8::new(&m.data, cols, group), (rows, cols), layout, group);
    }
    let mut bytes = Vec::with_capacity(packed_size(dtype, layout, rows, cols, group));
    let (scale_exp, loss) = match dtype {
        Dtype::F16 => {
            let t = F16::new(&m.data);
            float_tiles(&t.bits, cols, lanes, u16::to_le_bytes, &mut bytes);
            (0, t.loss)
        }
        _ => {
            let t = F32::new(&m.data);
            float_tiles(&t.values, cols, lanes, f32::to_le_bytes, &mut bytes);
            (0, t.loss)
        }
    };
    Packed {
        bytes,
        dtype,
        layout,
        scale_exp,
        rows,
        cols,
        loss,
    }
}

/// Packs a `[rows][cols]` matrix that is in int8 already.
pub(crate) fn pack_q8(
    t: &Q8,
    (rows, cols): (usize, usize),
    layout: Layout,
    group: usize,
) -> Packed {
    let mut bytes = Vec::with_capacity(packed_size(Dtype::Q8, layout, rows, cols, group));
    q8_tiles(t, rows, cols, group, layout.tile_rows(), &mut bytes);
    Packed {
        bytes,
        dtype: Dtype::Q8,
        layout,
        scale_exp: t.scale_exp,
        rows,
        cols,
        loss: t.loss,
    }
}

/// Packs B `[outputs][rank]` as a panel: tiles `[j][16 rows]`, for `q8` after one scale per `j`.
///
/// ```
/// use pleach::kernels::layout::{Dtype, packed_b_size};
///
/// let m = pleach_pack::Matrix { rows: 17, cols: 3, data: vec![1.0; 51] };
/// let p = pleach_pack::layout::pack_b(&m, Dtype::Q8);
/// assert_eq!(p.bytes.len(), packed_b_size(Dtype::Q8, 17, 3));
/// ```
pub fn pack_b(m: &Matrix, dtype: Dtype) -> Packed {
    let (rows, rank) = (m.rows, m.cols);
    let mut bytes = Vec::with_capacity(packed_b_size(dtype, rows, rank));
    let (scale_exp, loss) = match dtype {
        Dtype::Q8 => {
            let columns = m.transposed();
            let t = Q8::new(&columns.data, rows, rows);
            for s in &t.scales {
                bytes.extend_from_slice(&s.to_le_bytes());
            }
            bytes.resize(b_scale_bytes(dtype, rank), 0);
            let by_row: Vec<i8> = (0..rows)
                .flat_map(|r| (0..rank).map(move |j| j * rows + r))
                .filter_map(|i| t.q.get(i).copied())
                .collect();
            float_tiles(&by_row, rank, B_TILE, i8::to_le_bytes, &mut bytes);
            (t.scale_exp, t.loss)
        }
        Dtype::F16 => {
            let t = F16::new(&m.data);
            float_tiles(&t.bits, rank, B_TILE, u16::to_le_bytes, &mut bytes);
            (0, t.loss)
        }
        Dtype::F32 => {
            let t = F32::new(&m.data);
            float_tiles(&t.values, rank, B_TILE, f32::to_le_bytes, &mut bytes);
            (0, t.loss)
        }
    };
    Packed {
        bytes,
        dtype,
        layout: Layout::Rows,
        scale_exp,
        rows,
        cols: rank,
        loss,
    }
}

/// Tiles `[k][lanes]` of a `[rows][cols]` matrix; missing rows of the last tile are 0.
fn float_tiles<T: Copy + Default, const N: usize>(
    values: &[T],
    cols: usize,
    lanes: usize,
    bytes_of: fn(T) -> [u8; N],
    out: &mut Vec<u8>,
) {
    for tile in values.chunks((cols * lanes).max(1)) {
        for k in 0..cols {
            for lane in 0..lanes {
                let v = tile.get(lane * cols + k).copied().unwrap_or_default();
                out.extend_from_slice(&bytes_of(v));
            }
        }
    }
}

/// Tiles of scales `[group][lanes]`, padded, then vectors `[lanes][4]` per four columns.
fn q8_tiles(t: &Q8, rows: usize, cols: usize, group: usize, lanes: usize, out: &mut Vec<u8>) {
    let n_groups = groups(cols, group);
    let scales_len = scale_bytes(lanes, cols, group);
    for first in (0..rows).step_by(lanes) {
        let start = out.len();
        for g in 0..n_groups {
            for row in first..first + lanes {
                let s = if row < rows {
                    t.scales.get(row * n_groups + g).copied().unwrap_or(0)
                } else {
                    0
                };
                out.extend_from_slice(&s.to_le_bytes());
            }
        }
        out.resize(start + scales_len, 0);
        for k in (0..cols).step_by(K_STEP) {
            for row in first..first + lanes {
                for k in k..k + K_STEP {
                    let q = if row < rows && k < cols {
                        t.q.get(row * cols + k).copied().unwrap_or(0)
                    } else {
                        0
                    };
                    out.push(q as u8);
                }
            }
        }
    }
}

//! Interleaves rows into the tiles of [`pleach::kernels::layout`].

use crate::import::Matrix;
use crate::quant::{F16, F32, Loss, Q8};
use pleach::kernels::layout::{
    B_TILE, Dtype, Layout, b_scale_bytes, groups, packed_b_size, packed_size, q8_weight,
    scale_bytes, tile_bytes,
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

/// Packs a `[rows][cols]` matrix. Where `layout` does not hold the dtype, or a weight, the matrix lies in plain
/// rows: floats in `m4` and `r4k16`, and in `m4` an int8 of -128 at an odd column beside a negative one.
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
    let (rows, cols) = (m.rows, m.cols);
    if dtype == Dtype::Q8 {
        return pack_q8(&Q8::new(&m.data, cols, group), (rows, cols), layout, group);
    }
    let layout = held(layout, dtype);
    let lanes = layout.tile_rows();
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
    let layout = match layout == Layout::M4 && !fits_m4(&t.q, cols) {
        true => Layout::Rows,
        false => layout,
    };
    let mut bytes = Vec::with_capacity(packed_size(Dtype::Q8, layout, rows, cols, group));
    q8_tiles(t, rows, cols, group, layout, &mut bytes);
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

/// The layout, or plain rows if it does not hold the dtype.
fn held(layout: Layout, dtype: Dtype) -> Layout {
    match layout.holds(dtype) {
        true => layout,
        false => Layout::Rows,
    }
}

/// Tiles `[k][lanes]` of a `[rows][cols]` matrix; missing rows of the last tile are 0.
fn float_tiles<T: Copy, const N: usize>(
    values: &[T],
    cols: usize,
    lanes: usize,
    bytes_of: fn(T) -> [u8; N],
    out: &mut Vec<u8>,
) {
    for tile in values.chunks((cols * lanes).max(1)) {
        for k in 0..cols {
            for lane in 0..lanes {
                let v = tile.get(lane * cols + k).map_or([0; N], |v| bytes_of(*v));
                out.extend_from_slice(&v);
            }
        }
    }
}

/// Tiles of scales `[group][lanes]`, padded, then vectors `[lanes][k_step]` of weights.
fn q8_tiles(t: &Q8, rows: usize, cols: usize, group: usize, layout: Layout, out: &mut Vec<u8>) {
    let (lanes, step) = (layout.tile_rows(), layout.k_step());
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
        for k in (0..cols).step_by(step) {
            for row in first..first + lanes {
                let weights = match row < rows {
                    true => t.q.get(row * cols + k..row * cols + (k + step).min(cols)),
                    false => None,
                };
                let end = out.len() + step;
                vector(weights.unwrap_or_default(), layout, out);
                out.resize(end, 0);
            }
        }
    }
}

/// The weights of one row of a vector.
fn vector(weights: &[i8], layout: Layout, out: &mut Vec<u8>) {
    match layout {
        Layout::M4 => {
            for pair in weights.chunks(2) {
                let [even, odd] = [0, 1].map(|i| pair.get(i).map_or(0, |w| i32::from(*w)));
                out.extend_from_slice(&((256 * odd + even) as i16).to_le_bytes());
            }
        }
        _ => out.extend(weights.iter().map(|w| *w as u8)),
    }
}

/// Whether the halfwords of `m4` give every weight of a `[rows][cols]` matrix back.
fn fits_m4(q: &[i8], cols: usize) -> bool {
    let mut pairs = q.chunks(cols.max(1)).flat_map(|row| row.chunks_exact(2));
    pairs.all(|p| !matches!(p, [even, i8::MIN] if *even < 0))
}

/// The numbers of a packed `q8` matrix, as they were given; `None` if the bytes are too few, or if a weight is
/// 128, which only `m4` can hold and no packer writes.
///
/// ```
/// use pleach::kernels::layout::{Dtype, Layout};
/// use pleach_pack::layout::{pack, unpack_q8};
///
/// let m = pleach_pack::Matrix { rows: 2, cols: 3, data: vec![127.0, -2.0, 3.0, 0.0, -127.0, 5.0] };
/// for layout in Layout::ALL {
///     let p = pack(&m, Dtype::Q8, layout, 64);
///     let t = unpack_q8(&p.bytes, layout, (2, 3), p.scale_exp, 64).expect("a matrix");
///     assert_eq!(t.q, [127, -2, 3, 0, -127, 5]);
/// }
/// ```
pub fn unpack_q8(
    bytes: &[u8],
    layout: Layout,
    (rows, cols): (usize, usize),
    scale_exp: i8,
    group: usize,
) -> Option<Q8> {
    let (lanes, step) = (layout.tile_rows(), layout.k_step());
    let n_groups = groups(cols, group);
    let mut q = Vec::with_capacity(rows * cols);
    let mut scales = Vec::with_capacity(rows * n_groups);
    let mut tiles = bytes.chunks_exact(tile_bytes(Dtype::Q8, layout, cols, group).max(1));
    for first in (0..rows).step_by(lanes) {
        let (head, vectors) = tiles
            .next()?
            .split_at_checked(scale_bytes(lanes, cols, group))?;
        let halves = head.as_chunks::<2>().0;
        for lane in 0..lanes.min(rows - first) {
            for g in 0..n_groups {
                scales.push(u16::from_le_bytes(*halves.get(g * lanes + lane)?));
            }
            let row = vectors.chunks_exact(lanes * step).flat_map(|v| {
                (0..step).map(move |k| i8::try_from(q8_weight(layout, v, lane, k)?).ok())
            });
            let end = q.len() + cols;
            for w in row.take(cols) {
                q.push(w?);
            }
            if q.len() != end {
                return None;
            }
        }
    }
    Some(Q8::stored(q, scales, scale_exp, group))
}

/// A packed matrix of floats in another layout: the same numbers, byte for byte. `None` if the bytes are too few.
pub(crate) fn move_floats(
    bytes: &[u8],
    dtype: Dtype,
    (from, to): (Layout, Layout),
    (rows, cols): (usize, usize),
) -> Option<Packed> {
    let layout = held(to, dtype);
    let (old, new) = (from.tile_rows(), layout.tile_rows());
    let mut out = Vec::with_capacity(packed_size(dtype, layout, rows, cols, 0));
    let moved = match dtype {
        Dtype::F16 => regroup::<2>(bytes, (rows, cols), (old, new), &mut out),
        _ => regroup::<4>(bytes, (rows, cols), (old, new), &mut out),
    };
    moved.map(|()| Packed {
        bytes: out,
        dtype,
        layout,
        scale_exp: 0,
        rows,
        cols,
        loss: Loss::default(),
    })
}

/// Numbers of N bytes from tiles of `old` rows to tiles of `new` rows.
fn regroup<const N: usize>(
    bytes: &[u8],
    (rows, cols): (usize, usize),
    (old, new): (usize, usize),
    out: &mut Vec<u8>,
) -> Option<()> {
    let numbers = bytes.as_chunks::<N>().0;
    let by_row: Vec<[u8; N]> = (0..rows)
        .flat_map(|row| (0..cols).map(move |k| (row / old * cols + k) * old + row % old))
        .map(|at| numbers.get(at).copied())
        .collect::<Option<_>>()?;
    float_tiles(&by_row, cols, new, |v| v, out);
    Some(())
}

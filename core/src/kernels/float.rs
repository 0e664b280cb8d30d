//! `f16` and `f32` rows: one chain of multiply and add per row, k ascending.

use crate::blob::Tensor;
use crate::kernels::isa::{BLOCK, Isa, LANES, LINE, Lanes, next_of};
use crate::kernels::{A_UNIT, SMALL};
use crate::math;
use core::ops::Range;

/// A stored float.
pub(crate) trait Element {
    /// Bytes of one.
    const BYTES: usize;
    /// The value of the first bytes of `b`; 0 if they are not there.
    fn read(b: &[u8]) -> f32;
    /// The first 16 values of `b`. Where it holds fewer: 0 for all, but f32 gives those that are there and 0 behind them.
    fn lanes<I: Isa>(isa: I, b: &[u8]) -> I::Lanes;
}

/// A stored float by vectors: of the KV caches, or of B.
pub(crate) trait Vectors: Element + Sized {
    /// 16 of them.
    type Vector;
    /// The whole vectors of `b`.
    fn vectors(b: &[u8]) -> &[Self::Vector];
    /// The values of one.
    fn load<I: Isa>(isa: I, vector: &Self::Vector) -> I::Lanes;
    /// `sums[c] = sums[c] + x[c][t] * vectors[t]`, for t from 0 to 3.
    #[inline(always)]
    fn add_four<I: Isa, const C: usize>(
        isa: I,
        vectors: [&Self::Vector; 4],
        x: [&[f32; 4]; C],
        sums: &mut [I::Lanes; C],
    ) {
        add_four::<I, Self, C>(isa, vectors, x, sums);
    }
}

/// [`Vectors::add_four`], product by product.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
pub(crate) fn add_four<I: Isa, E: Vectors, const C: usize>(
    isa: I,
    vectors: [&E::Vector; 4],
    x: [&[f32; 4]; C],
    sums: &mut [I::Lanes; C],
) {
    for (t, vector) in vectors.into_iter().enumerate() {
        let vector = E::load(isa, vector);
        for (sum, x) in sums.iter_mut().zip(x) {
            let x = x.get(t).copied().unwrap_or(0.0);
            *sum = *sum + isa.splat(x) * vector;
        }
    }
}

impl Vectors for F16 {
    type Vector = [u8; 2 * LANES];
    #[inline(always)]
    fn vectors(b: &[u8]) -> &[Self::Vector] {
        b.as_chunks().0
    }
    #[inline(always)]
    fn load<I: Isa>(isa: I, vector: &Self::Vector) -> I::Lanes {
        isa.load_f16(vector)
    }
    #[inline(always)]
    fn add_four<I: Isa, const C: usize>(
        isa: I,
        vectors: [&Self::Vector; 4],
        x: [&[f32; 4]; C],
        sums: &mut [I::Lanes; C],
    ) {
        isa.add_four_f16(vectors, x, sums);
    }
}

impl Vectors for F32 {
    type Vector = [u8; 4 * LANES];
    #[inline(always)]
    fn vectors(b: &[u8]) -> &[Self::Vector] {
        b.as_chunks().0
    }
    #[inline(always)]
    fn load<I: Isa>(isa: I, vector: &Self::Vector) -> I::Lanes {
        F32::lanes(isa, vector)
    }
}

impl Vectors for I8 {
    type Vector = [u8; LANES];
    #[inline(always)]
    fn vectors(b: &[u8]) -> &[Self::Vector] {
        b.as_chunks().0
    }
    #[inline(always)]
    fn load<I: Isa>(isa: I, vector: &Self::Vector) -> I::Lanes {
        isa.load_i8(vector)
    }
    #[inline(always)]
    fn add_four<I: Isa, const C: usize>(
        isa: I,
        vectors: [&Self::Vector; 4],
        x: [&[f32; 4]; C],
        sums: &mut [I::Lanes; C],
    ) {
        isa.add_four_i8(vectors, x, sums);
    }
}

/// IEEE half, little-endian.
pub(crate) struct F16;
/// IEEE single, little-endian.
pub(crate) struct F32;
/// An integer that a scale elsewhere belongs to.
pub(crate) struct I8;

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    fn read(b: &[u8]) -> f32 {
        b.first_chunk::<2>()
            .map_or(0.0, |b| math::from_f16(u16::from_le_bytes(*b)))
    }
    #[inline(always)]
    fn lanes<I: Isa>(isa: I, b: &[u8]) -> I::Lanes {
        match b.first_chunk::<{ 2 * LANES }>() {
            Some(b) => isa.load_f16(b),
            None => isa.splat(0.0),
        }
    }
}

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    fn read(b: &[u8]) -> f32 {
        b.first_chunk::<4>().map_or(0.0, |b| f32::from_le_bytes(*b))
    }
    #[inline(always)]
    fn lanes<I: Isa>(isa: I, b: &[u8]) -> I::Lanes {
        let mut lanes = [0.0; LANES];
        // Whole vectors by a length that is known: the other loop may be a call of memcpy.
        match b.first_chunk::<{ 4 * LANES }>() {
            Some(b) => read_all(b.as_chunks().0, &mut lanes),
            None => read_all(b.as_chunks().0, &mut lanes),
        }
        isa.load(&lanes)
    }
}

#[inline(always)]
fn read_all(from: &[[u8; 4]], to: &mut [f32; LANES]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_le_bytes(*from);
    }
}

impl Element for I8 {
    const BYTES: usize = 1;
    #[inline(always)]
    fn read(b: &[u8]) -> f32 {
        b.first().map_or(0.0, |b| *b as i8 as f32)
    }
    #[inline(always)]
    fn lanes<I: Isa>(isa: I, b: &[u8]) -> I::Lanes {
        match b.first_chunk::<LANES>() {
            Some(b) => isa.load_i8(b),
            None => isa.splat(0.0),
        }
    }
}

/// The first `L` vectors of each tile, if all have so many.
#[inline(always)]
pub(crate) fn whole<V, const T: usize, const L: usize>(tiles: [&[V]; T]) -> Option<[&[V; L]; T]> {
    let mut all = [tiles.first()?.first_chunk()?; T];
    for (to, tile) in all.iter_mut().zip(tiles) {
        *to = tile.first_chunk()?;
    }
    Some(all)
}

/// The same part of each slice, if all have it: a loop over its length then needs no checks.
#[inline(always)]
pub(crate) fn cut<V, const N: usize>(slices: [&[V]; N], part: Range<usize>) -> Option<[&[V]; N]> {
    let mut all = slices;
    for slice in &mut all {
        *slice = slice.get(part.clone())?;
    }
    Some(all)
}

/// Chains of additions that [`one_column`] interleaves, to hide how long one addition takes. Firmware computes one by one: its
/// flash is scarce, and its additions take a cycle.
const CHAINS: usize = if SMALL { 1 } else { 4 };

/// Units `unit..` of `w` times one column, several at once; `false` if that is not what there is to do.
#[inline(always)]
pub(crate) fn one_column<I: Isa, E: Vectors>(
    isa: I,
    w: &Tensor<'_>,
    unit: usize,
    columns: &[&[f32]],
    acc: &mut [[f32; LANES]],
) -> bool {
    let [x] = columns else { return false };
    if w.lanes != LANES || CHAINS == 1 {
        return false;
    }
    let (mut unit, mut acc) = (unit, acc);
    loop {
        let taken = match acc.len() {
            0 => return true,
            1 => tiles::<I, E, 1>(isa, w, unit, x, acc),
            2 | 3 => tiles::<I, E, 2>(isa, w, unit, x, acc),
            _ => tiles::<I, E, CHAINS>(isa, w, unit, x, acc),
        };
        unit += taken;
        acc = acc.get_mut(taken..).unwrap_or(&mut []);
    }
}

/// Values of a row between two answers to what a tile asks for next.
const STRETCH: usize = 32;

/// `U` tiles `[k][16]` times a column.
#[inline(always)]
fn tiles<I: Isa, E: Vectors, const U: usize>(
    isa: I,
    w: &Tensor<'_>,
    unit: usize,
    x: &[f32],
    acc: &mut [[f32; LANES]],
) -> usize {
    let mut tiles = [&[][..]; U];
    for (i, tile) in tiles.iter_mut().enumerate() {
        *tile = E::vectors(w.tile(unit + i).unwrap_or(&[]));
    }
    let mut sums = [isa.splat(0.0); U];
    let vector = size_of::<E::Vector>();
    let jump = w.tile_bytes().saturating_mul(U - 1);
    let x = x.get(..w.cols).unwrap_or(x);
    for (i, x) in x.chunks(STRETCH).enumerate() {
        let first = i * STRETCH;
        let Some(tiles) = cut(tiles, first..first + x.len()) else {
            break;
        };
        let ahead = next_of(w.tile_bytes().saturating_sub(first * vector), jump);
        for (k, x) in x.iter().enumerate() {
            let x = isa.splat(*x);
            for (sum, tile) in sums.iter_mut().zip(tiles) {
                if let Some(values) = tile.get(k) {
                    if I::PREFETCHES && k.is_multiple_of(LINE / vector) {
                        isa.prefetch(values, ahead);
                    }
                    *sum = *sum + E::load(isa, values) * x;
                }
            }
        }
    }
    for (acc, sum) in acc.iter_mut().zip(sums) {
        *acc = sum.array();
    }
    U
}

/// Rows `first..first + rows` of `w` times up to 8 columns: `acc = acc + w*x`, k ascending from +0.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
pub(crate) fn gemv_float<I: Isa, E: Element>(
    isa: I,
    w: &Tensor<'_>,
    first: usize,
    rows: usize,
    columns: &[&[f32]],
    acc: &mut [[f32; LANES]],
) {
    let lanes = w.lanes.max(1);
    if lanes == LANES && rows == LANES {
        if let Some(tile) = w.tile(first / LANES) {
            by_columns::<I, E>(isa, tile, columns, acc);
        }
        return;
    }
    if lanes == A_UNIT && !SMALL {
        rows_by_four::<E>(w, first, rows, columns, acc);
    } else {
        // Also a tile wider than the unit: a transposed matrix.
        row_by_row::<I, E>(isa, w, first, rows, columns, acc);
    }
}

#[inline(always)]
fn by_columns<I: Isa, E: Element>(
    isa: I,
    tile: &[u8],
    columns: &[&[f32]],
    acc: &mut [[f32; LANES]],
) {
    let (mut columns, mut acc) = (columns, acc);
    loop {
        let taken = match columns.len() {
            0 => return,
            // One width where flash is scarce.
            n if n == 1 || SMALL => tile_of_16::<I, E, 1>(isa, tile, columns, acc),
            2 => tile_of_16::<I, E, 2>(isa, tile, columns, acc),
            3 => tile_of_16::<I, E, 3>(isa, tile, columns, acc),
            // As many as there are registers for.
            n if n >= 8 && I::SIXTEEN_SUMS => tile_of_16::<I, E, 8>(isa, tile, columns, acc),
            _ => tile_of_16::<I, E, 4>(isa, tile, columns, acc),
        };
        let (Some(rest), Some(more)) = (columns.get(taken..), acc.get_mut(taken..)) else {
            return;
        };
        (columns, acc) = (rest, more);
    }
}

/// Lanes are rows: a tile is `[k][16]`.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn tile_of_16<I: Isa, E: Element, const C: usize>(
    isa: I,
    tile: &[u8],
    columns: &[&[f32]],
    acc: &mut [[f32; LANES]],
) -> usize {
    let Some(columns) = columns.first_chunk::<C>() else {
        return C;
    };
    let mut rows = tile.chunks_exact(LANES * E::BYTES);
    let steps = rows.len();
    let Some(x) = cut(*columns, 0..steps) else {
        return C;
    };
    let mut sums = [isa.splat(0.0); C];
    for k in 0..steps {
        let Some(row) = rows.next() else { break };
        let w = E::lanes(isa, row);
        for (sum, x) in sums.iter_mut().zip(x) {
            let x = x.get(k).copied().unwrap_or(0.0);
            *sum = *sum + w * isa.splat(x);
        }
    }
    for (acc, sum) in acc.iter_mut().zip(sums) {
        *acc = sum.array();
    }
    C
}

/// One row after the other: 16 values are converted, at once where they lie side by side, and added one by one.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn row_by_row<I: Isa, E: Element>(
    isa: I,
    w: &Tensor<'_>,
    first: usize,
    rows: usize,
    columns: &[&[f32]],
    acc: &mut [[f32; LANES]],
) {
    let lanes = w.lanes.max(1);
    let (step, end) = (lanes.saturating_mul(E::BYTES).max(1), first + rows);
    for row in first..end.min(w.rows) {
        let skip = (row % lanes).saturating_mul(E::BYTES);
        let Some(values) = w.tile(row / lanes).and_then(|tile| tile.get(skip..)) else {
            return;
        };
        let mut sums = [0.0f32; BLOCK];
        for (i, values) in values.chunks(step.saturating_mul(LANES)).enumerate() {
            let side_by_side = lanes == 1 && values.len() == LANES * E::BYTES;
            let w = if side_by_side && E::BYTES < F32::BYTES {
                E::lanes(isa, values).array()
            } else {
                let mut w = [0.0; LANES];
                let values = values.chunks(step);
                w.iter_mut().zip(values).for_each(|(w, b)| *w = E::read(b));
                w
            };
            for (sum, column) in sums.iter_mut().zip(columns) {
                let x = column.get(i * LANES..).unwrap_or(&[]);
                w.iter().zip(x).for_each(|(w, x)| *sum += w * x);
            }
        }
        for (acc, sum) in acc.iter_mut().zip(sums).take(columns.len()) {
            if let Some(value) = acc.get_mut(row - first) {
                *value = sum;
            }
        }
    }
}

/// Four rows at once, of tiles of four. Firmware has no flash for it.
#[inline(always)]
fn rows_by_four<E: Element>(
    w: &Tensor<'_>,
    first: usize,
    rows: usize,
    columns: &[&[f32]],
    acc: &mut [[f32; LANES]],
) {
    for row in (first..(first + rows).min(w.rows)).step_by(A_UNIT) {
        let Some(tile) = w.tile(row / A_UNIT) else {
            return;
        };
        let mut sums = [[0.0f32; A_UNIT]; BLOCK];
        for (k, values) in tile.chunks(A_UNIT * E::BYTES).enumerate() {
            let mut w = [0.0f32; A_UNIT];
            let values = values.chunks_exact(E::BYTES);
            w.iter_mut().zip(values).for_each(|(w, b)| *w = E::read(b));
            for (sums, column) in sums.iter_mut().zip(columns) {
                let x = column.get(k).copied().unwrap_or(0.0);
                sums.iter_mut().zip(&w).for_each(|(sum, w)| *sum += w * x);
            }
        }
        for (acc, sums) in acc.iter_mut().zip(&sums).take(columns.len()) {
            let to = acc.iter_mut().skip(row - first);
            to.zip(sums).for_each(|(v, sum)| *v = *sum);
        }
    }
}

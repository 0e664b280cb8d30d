//! Scores: lanes are positions, d ascending in one chain from +0.

use super::groups::{Groups, Query};
use super::{AttentionJob, KvType, LANES, Unit};
use crate::kernels::elementwise::place;
use crate::kernels::float::{Element, F16, F32, Vectors, whole};
use crate::kernels::isa::{Isa, LINE, Lanes, next_of};
use crate::kernels::log::{Operation, ran};
use crate::kernels::work::Operator;

/// How far ahead of a single tile of keys to prefetch, in bytes. At 8192 bytes, in bursts, 4,000 positions took 6 % more time a
/// token (`cargo xtask peers long`).
const AHEAD: usize = 16384;

/// Tiles of keys that are read side by side.
#[derive(Clone, Copy)]
struct Tiles {
    first: usize,
    /// Tiles from one to the next of them, and from each to where the next one's begin.
    stride: usize,
    /// From the end of the last bytes that a stream reads of this unit to the first ones that it reads of the next, in bytes.
    jump: usize,
}

/// `scores[t] = flush((q . k_t) * scale)`; outputs are `[sharing][column][slots]`.
pub(crate) struct Score<'a>(pub(crate) &'a AttentionJob<'a>);

impl Operator for Score<'_> {
    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn compute<I: Isa>(&self, isa: I, first: usize, floats: usize, out: &mut [f32]) {
        for (unit, out) in self.0.units(first, floats, out) {
            ran::<I>(Operation::Score);
            match self.0.kv {
                KvType::F32 => self::unit::<I, F32>(isa, self.0, unit, out),
                KvType::F16 => self::unit::<I, F16>(isa, self.0, unit, out),
            }
        }
    }
}

/// The scores of one unit, `[sharing][column][slots]`. Lanes beyond a column's position hold anything.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn unit<I: Isa, E: Vectors>(isa: I, job: &AttentionJob<'_>, unit: Unit, out: &mut [f32]) {
    let mut groups = Groups::new(job, unit);
    while let Some(group) = groups.next(I::QUERIES) {
        let keys = E::vectors(job.part(job.cache(group.pass).keys, unit));
        match group.queries() {
            [a] => tiles::<I, E, 1>(isa, job, unit, keys, [*a], out),
            [a, b] if I::QUERIES > 1 => tiles::<I, E, 2>(isa, job, unit, keys, [*a, *b], out),
            [a, b, c] if I::QUERIES > 2 => {
                tiles::<I, E, 3>(isa, job, unit, keys, [*a, *b, *c], out)
            }
            [a, b, c, d] if I::QUERIES > 3 => {
                tiles::<I, E, 4>(isa, job, unit, keys, [*a, *b, *c, *d], out);
            }
            _ => {}
        }
    }
}

#[inline(always)]
fn tiles<I: Isa, E: Vectors, const Q: usize>(
    isa: I,
    job: &AttentionJob<'_>,
    unit: Unit,
    keys: &[E::Vector],
    queries: [Query; Q],
    out: &mut [f32],
) {
    let longest = queries.iter().map(|q| q.used).max().unwrap_or(0);
    let end = longest.div_ceil(LANES);
    // Four quarters side by side are four streams of memory.
    let quarter = if I::SIXTEEN_SUMS { end / 4 } else { 0 };
    let bytes = quarter.saturating_mul(job.shape.head_dim * size_of::<E::Vector>());
    let jump = unit.jump.wrapping_sub(bytes);
    for first in 0..quarter {
        let tiles = Tiles {
            first,
            stride: quarter,
            jump,
        };
        block::<I, E, Q, 4>(isa, job, keys, &queries, tiles, out);
    }
    for first in 4 * quarter..end {
        let tiles = Tiles {
            first,
            stride: 0,
            jump: 0,
        };
        block::<I, E, Q, 1>(isa, job, keys, &queries, tiles, out);
    }
}

#[inline(always)]
fn block<I: Isa, E: Vectors, const Q: usize, const T: usize>(
    isa: I,
    job: &AttentionJob<'_>,
    keys: &[E::Vector],
    queries: &[Query; Q],
    Tiles {
        first,
        stride,
        jump,
    }: Tiles,
    out: &mut [f32],
) {
    let dim = job.shape.head_dim;
    let mut acc = [[isa.splat(0.0); T]; Q];
    let (mut own, none) = ([[0.0; LANES]; Q], [0.0; LANES]);
    for at in (0..dim).step_by(LANES) {
        let mut q = [&none; Q];
        for ((q, query), own) in q.iter_mut().zip(queries).zip(&mut own) {
            *q = query_lanes(job, query, at, own);
        }
        let mut tiles: [&[E::Vector]; T] = [&[]; T];
        for (t, tile) in tiles.iter_mut().enumerate() {
            let start = (first + t * stride).saturating_mul(dim);
            let end = start.saturating_add(dim);
            *tile = keys.get(start.saturating_add(at)..end).unwrap_or(&[]);
        }
        let left = stride
            .saturating_sub(first)
            .saturating_mul(dim)
            .saturating_sub(at);
        let ahead = match T {
            1 => AHEAD,
            _ => next_of(left.saturating_mul(size_of::<E::Vector>()), jump),
        };
        // The compiler knows the length of whole ones.
        match whole::<_, T, LANES>(tiles) {
            Some(tiles) => {
                let tiles = tiles.map(|tile| tile.as_slice());
                add_products::<I, E, Q, T>(isa, tiles, q, ahead, &mut acc);
            }
            None => add_products::<I, E, Q, T>(isa, tiles, q, ahead, &mut acc),
        }
    }
    let scale = isa.splat(job.scale);
    for (query, acc) in queries.iter().zip(acc) {
        let at = query.row.saturating_mul(job.shape.slots());
        let to = out.get_mut(at.saturating_add(first * LANES)..);
        let to = to.unwrap_or(&mut []).as_chunks_mut::<LANES>().0;
        for (to, acc) in to.iter_mut().step_by(stride.max(1)).zip(acc) {
            *to = (acc * scale).flush().array();
        }
    }
}

/// Adds `x[c][k]` times vector `k` of tile `t` to `sums[c][t]`, k ascending, as far as the tiles reach: a vector is converted
/// once, and an x spread once. Of each line of a tile, the one `ahead` bytes behind it is asked for.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn add_products<I: Isa, E: Vectors, const C: usize, const T: usize>(
    isa: I,
    tiles: [&[E::Vector]; T],
    x: [&[f32; LANES]; C],
    ahead: usize,
    sums: &mut [[I::Lanes; T]; C],
) {
    if I::BY_FOUR
        && E::BYTES < F32::BYTES
        && C == I::QUERIES
        && let Some(tiles) = whole::<_, T, LANES>(tiles)
        && let [tile] = tiles.as_slice()
        && let Some(sums) = sums.as_flattened_mut().as_mut_array()
    {
        for (k, vectors) in tile.as_chunks().0.iter().enumerate() {
            let x = x.map(|x| x.get(4 * k..).unwrap_or(&[]));
            if let Some(x) = whole(x) {
                E::add_four(isa, vectors.each_ref(), x, sums);
            }
        }
        return;
    }
    for k in 0..LANES {
        let mut vectors = [isa.splat(0.0); T];
        for (lanes, tile) in vectors.iter_mut().zip(tiles) {
            let Some(vector) = tile.get(k) else { return };
            *lanes = E::load(isa, vector);
            if k.is_multiple_of(LINE / size_of::<E::Vector>().clamp(1, LINE)) {
                isa.prefetch(vector, ahead);
            }
        }
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = isa.splat(x.get(k).copied().unwrap_or(0.0));
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = *sum + x * vector;
            }
        }
    }
}

/// 16 values of a query from dimension `at` on, in `own` if they are not a vector; those beyond its last are not its own.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn query_lanes<'a>(
    job: &AttentionJob<'a>,
    query: &Query,
    at: usize,
    own: &'a mut [f32; LANES],
) -> &'a [f32; LANES] {
    let n = job.columns.len();
    let first = query.head.saturating_mul(job.shape.head_dim) + at;
    if first.is_multiple_of(LANES)
        && let Some(vector) = job.q.as_chunks().0.get(first / LANES * n + query.column)
    {
        return vector;
    }
    for (i, lane) in own.iter_mut().enumerate() {
        let value = job.q.get(place(first + i, n, query.column));
        *lane = value.copied().unwrap_or(0.0);
    }
    own
}

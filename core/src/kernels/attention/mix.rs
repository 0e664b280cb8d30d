//! Mix: lanes are dimensions, t ascending inside a segment; segments are added in order.

use super::groups::{Groups, Query};
use super::{Ahead, AttentionJob, KvType, LANES, SEGMENT, Shape, Unit};
use crate::kernels::elementwise::put;
use crate::kernels::float::{Element, F16, F32, Vectors, cut, whole};
use crate::kernels::isa::{Isa, LINE, Lanes, Task};
use crate::kernels::log::{Operation, ran};
use crate::kernels::work::Operator;
use crate::math::flush;
use crate::pairs::pairs;
use crate::session::Column;

/// `out[d] = sum of scores[t] * v_t[d]` over a segment; outputs are `[sharing][column][head_dim]`.
pub(crate) struct Mix<'a>(pub(crate) &'a AttentionJob<'a>);

impl Operator for Mix<'_> {
    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn compute<I: Isa>(&self, isa: I, first: usize, floats: usize, out: &mut [f32]) {
        for (unit, out) in self.0.units(first, floats, out) {
            ran::<I>(Operation::Mix);
            match self.0.kv {
                KvType::F32 => self::unit::<I, F32>(isa, self.0, unit, out),
                KvType::F16 => self::unit::<I, F16>(isa, self.0, unit, out),
            }
        }
    }
}

/// The sums of one unit, `[sharing][column][head_dim]`; nothing is written for columns that end before its segment.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn unit<I: Isa, E: Vectors>(isa: I, job: &AttentionJob<'_>, unit: Unit, out: &mut [f32]) {
    let n = job.columns.len();
    let rows = job.shape.sharing.saturating_mul(n);
    let slots = job.shape.slots();
    let at = unit.segment.saturating_mul(job.shape.kv_heads) + unit.kv_head;
    let at = at.saturating_mul(rows).saturating_mul(slots);
    let weights = job.scores.get(at..).unwrap_or(&[]);
    let mut groups = Groups::new(job, unit);
    while let Some(group) = groups.next(I::QUERIES) {
        let mix = Mixing {
            dim: job.shape.head_dim,
            slots,
            weights,
            values: job.part(job.cache(group.pass).values, unit),
            ahead: job.ahead(unit),
        };
        match group.queries() {
            [a] => mix.dimensions::<I, E, 1>(isa, [*a], out),
            [a, b] if I::QUERIES > 1 => mix.dimensions::<I, E, 2>(isa, [*a, *b], out),
            [a, b, c] if I::QUERIES > 2 => mix.dimensions::<I, E, 3>(isa, [*a, *b, *c], out),
            [a, b, c, d] if I::QUERIES > 3 => {
                mix.dimensions::<I, E, 4>(isa, [*a, *b, *c, *d], out);
            }
            _ => {}
        }
    }
}

/// Weights and values of a unit.
#[derive(Clone, Copy)]
struct Mixing<'a> {
    dim: usize,
    slots: usize,
    weights: &'a [f32],
    values: &'a [u8],
    ahead: Ahead,
}

impl<'a> Mixing<'a> {
    #[inline(always)]
    fn dimensions<I: Isa, E: Vectors, const Q: usize>(
        self,
        isa: I,
        queries: [Query; Q],
        out: &mut [f32],
    ) {
        let mut d = 0;
        while d < self.dim {
            d += if I::SIXTEEN_SUMS && self.dim - d >= 4 * LANES {
                self.block::<I, E, Q, 4>(isa, &queries, d, out)
            } else {
                self.block::<I, E, Q, 1>(isa, &queries, d, out)
            };
        }
    }

    /// `D` vectors of dimensions from `d` on; returns how many dimensions that is.
    #[inline(always)]
    fn block<I: Isa, E: Vectors, const Q: usize, const D: usize>(
        self,
        isa: I,
        queries: &[Query; Q],
        d: usize,
        out: &mut [f32],
    ) -> usize {
        let common = queries.iter().map(|q| q.used).min().unwrap_or(0);
        let mut weights: [&[f32]; Q] = [&[]; Q];
        for (weights, query) in weights.iter_mut().zip(queries) {
            let at = query.row.saturating_mul(self.slots);
            let row = self.weights.get(at..at.saturating_add(query.used));
            *weights = row.unwrap_or(&[]);
        }
        let mut acc = [[isa.splat(0.0); D]; Q];
        self.positions::<I, E, Q, D>(isa, weights, 0, common, d, &mut acc);
        for ((query, weights), acc) in queries.iter().zip(weights).zip(acc) {
            let mut acc = [acc];
            if Q > 1 && query.used > common {
                let (from, to) = (common, query.used);
                self.positions::<I, E, 1, D>(isa, [weights], from, to, d, &mut acc);
            }
            let [acc] = acc;
            let row = query.row.saturating_mul(self.dim);
            let to = out.get_mut(row.saturating_add(d)..row.saturating_add(self.dim));
            for (to, acc) in pairs(to.unwrap_or(&mut []).chunks_mut(LANES), acc.into_iter()) {
                put(to, acc.array());
            }
        }
        D * LANES
    }

    /// Adds weight times value for positions `from..to`.
    #[cfg_attr(not(pleach_small), inline(always))]
    #[cfg_attr(pleach_small, inline(never))]
    fn positions<I: Isa, E: Vectors, const Q: usize, const D: usize>(
        self,
        isa: I,
        weights: [&[f32]; Q],
        from: usize,
        to: usize,
        d: usize,
        acc: &mut [[I::Lanes; D]; Q],
    ) {
        let from = self.by_four::<I, E, Q, D>(isa, &weights, (from, to), d, acc);
        let Some(own) = cut(weights, from..to) else {
            return;
        };
        let (step, skip) = (
            self.dim.saturating_mul(E::BYTES),
            d.saturating_mul(E::BYTES),
        );
        let mut at = from.saturating_mul(step).saturating_add(skip);
        for i in 0..to - from {
            let Some(row) = self.values.get(at..) else {
                return;
            };
            let values = if self.dim - d >= D * LANES {
                let Some(vectors) = E::vectors(row).first_chunk::<D>() else {
                    return;
                };
                self.ask(isa, vectors, from + i, skip);
                let mut values = [isa.splat(0.0); D];
                for (value, vector) in values.iter_mut().zip(vectors) {
                    *value = E::load(isa, vector);
                }
                values
            } else {
                // What lies behind a row's dimensions may be a position that was never written.
                [partial::<I, E>(isa, row.get(..step - skip).unwrap_or(row)); D]
            };
            for (acc, weights) in acc.iter_mut().zip(own) {
                let weight = isa.splat(weights.get(i).copied().unwrap_or(0.0));
                for (acc, value) in acc.iter_mut().zip(values) {
                    *acc = *acc + weight * value;
                }
            }
            at += step;
        }
    }

    /// Asks for the values of the next unit that `vectors` of a position, `skip` bytes behind its first, stand for: those of
    /// four positions at every fourth, and a line once.
    #[inline(always)]
    fn ask<I: Isa, V>(self, isa: I, vectors: &[V], position: usize, skip: usize) {
        if position.is_multiple_of(4) && skip.is_multiple_of(LINE) {
            for ahead in self.ahead.of(position) {
                isa.prefetch_lines(vectors, ahead);
            }
        }
    }

    /// [`Mixing::positions`] as far as that can be done four by four; returns the first position that is left.
    #[inline(always)]
    fn by_four<I: Isa, E: Vectors, const Q: usize, const D: usize>(
        self,
        isa: I,
        weights: &[&[f32]; Q],
        (from, to): (usize, usize),
        d: usize,
        acc: &mut [[I::Lanes; D]; Q],
    ) -> usize {
        let mut first = from;
        if I::BY_FOUR
            && E::BYTES < F32::BYTES
            && self.dim.is_multiple_of(LANES)
            && let Some(acc) = acc.as_flattened_mut().as_mut_array()
        {
            let (all, row, skip) = (E::vectors(self.values), self.dim / LANES, d / LANES);
            while let Some(weights) = whole(weights.map(|w| w.get(first..to).unwrap_or(&[])))
                && let Some(rows) = all.get(first.saturating_mul(row).saturating_add(skip)..)
                && let (Some(v0), Some(v1)) = (rows.first(), rows.get(row))
                && let (Some(v2), Some(v3)) = (rows.get(2 * row), rows.get(3 * row))
            {
                E::add_four(isa, [v0, v1, v2, v3], weights, acc);
                first += 4;
            }
        }
        first
    }
}

/// The last dimensions, where they do not fill a vector.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn partial<I: Isa, E: Vectors>(isa: I, values: &[u8]) -> I::Lanes {
    let mut lanes = [0.0; LANES];
    for (lane, value) in lanes.iter_mut().zip(values.chunks_exact(E::BYTES)) {
        *lane = E::read(value);
    }
    isa.load(&lanes)
}

/// Adds the segments of each head's sums, times 1 / denominator, flushed, into the input `[column][head * head_dim]`
/// of the next matrix.
pub(crate) struct Gather<'a> {
    pub(crate) shape: Shape,
    pub(crate) columns: &'a [Column],
    /// `[segment][head][column][head_dim]`
    pub(crate) sums: &'a [f32],
    /// `[head][column]`
    pub(crate) inverses: &'a [f32],
    pub(crate) input: &'a mut [f32],
}

impl Task for Gather<'_> {
    type Output = ();

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let n = self.columns.len();
        let (dim, heads) = (self.shape.head_dim.max(1), self.shape.heads());
        let rows = heads.saturating_mul(n).max(1);
        let inputs = self
            .input
            .chunks_exact_mut(heads.saturating_mul(dim).max(1));
        for ((c, column), input) in pairs(self.columns.iter().enumerate(), inputs) {
            let used = column.position() / SEGMENT + 1;
            let inverses = self.inverses.iter().skip(c).step_by(n.max(1));
            let outs = pairs(input.chunks_exact_mut(dim), inverses);
            for (head, (out, inverse)) in outs.enumerate() {
                let row = head.saturating_mul(n) + c;
                let segments = self.sums.chunks_exact(dim).skip(row).step_by(rows);
                out.fill(0.0);
                for sums in segments.take(used) {
                    out.iter_mut().zip(sums).for_each(|(o, s)| *o += *s);
                }
                out.iter_mut().for_each(|o| *o = flush(*o * *inverse));
            }
        }
    }
}

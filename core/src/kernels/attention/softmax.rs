//! Softmax: the maximum over all segments, exp segment by segment, the denominator over all segments.

use super::{AttentionJob, LANES, Shape, Unit, used};
use crate::kernels::isa::{Isa, Lanes, Task};
use crate::kernels::log::{Operation, ran};
use crate::kernels::work::Operator;
use crate::math::{self, Sum16};
use crate::pairs::pairs;
use crate::session::Column;

/// `scores[t] = exp(scores[t] - max)`, in place: `[sharing][column][slots]`.
pub(crate) struct Softmax<'a>(pub(crate) &'a AttentionJob<'a>);

impl Operator for Softmax<'_> {
    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn compute<I: Isa>(&self, _: I, first: usize, floats: usize, out: &mut [f32]) {
        for (unit, out) in self.0.units(first, floats, out) {
            ran::<I>(Operation::Softmax);
            self::unit(self.0, unit, out);
        }
    }
}

/// The weights of one unit in the place of its scores; +0 from a column's position to the end of its tile.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn unit(job: &AttentionJob<'_>, unit: Unit, out: &mut [f32]) {
    let n = job.columns.len();
    let first = unit.kv_head.saturating_mul(job.shape.sharing);
    let maxima = job.maxima.get(first.saturating_mul(n)..).unwrap_or(&[]);
    let rows = out.chunks_exact_mut(job.shape.slots().max(1));
    let columns = job.columns.iter().cycle();
    for ((row, max), column) in pairs(pairs(rows, maxima.iter()), columns) {
        let used = used(column, unit.segment);
        let (tiles, _) = row.as_chunks_mut::<LANES>();
        let (whole, last) = tiles
            .split_at_mut_checked(used / LANES)
            .unwrap_or((&mut [], &mut []));
        for tile in whole {
            math::attention_weights(tile, *max);
        }
        if let (Some(tile), beyond @ 1..) = (last.first_mut(), used % LANES) {
            tile.iter_mut().skip(beyond).for_each(|s| *s = *max);
            math::attention_weights(tile, *max);
            tile.iter_mut().skip(beyond).for_each(|s| *s = 0.0);
        }
    }
}

/// The segments of row `row` of `[segment][head][column][floats]`, as far as `column` uses them, and how many
/// positions each has for it.
fn segments<'a>(
    values: &'a [f32],
    floats: usize,
    row: usize,
    rows: usize,
    column: &'a Column,
) -> impl Iterator<Item = (&'a [f32], usize)> {
    values
        .chunks_exact(floats.max(1))
        .skip(row)
        .step_by(rows.max(1))
        .enumerate()
        .map(|(segment, values)| (values, used(column, segment)))
        .take_while(|(_, used)| *used > 0)
}

/// The largest score of each head and column, `[head][column]`: the same in any order.
pub(crate) struct Maxima<'a> {
    pub(crate) shape: Shape,
    pub(crate) columns: &'a [Column],
    pub(crate) scores: &'a [f32],
    pub(crate) out: &'a mut [f32],
}

impl Task for Maxima<'_> {
    type Output = ();

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let rows = self.shape.stats(self.columns.len());
        let outs = self.out.iter_mut().take(rows).enumerate();
        for ((row, out), column) in outs.zip(self.columns.iter().cycle()) {
            let mut max = f32::NEG_INFINITY;
            for (scores, used) in segments(self.scores, self.shape.slots(), row, rows, column) {
                let scores = scores.get(..used).unwrap_or(&[]);
                max = math::max_ordered(max, math::max_row(scores));
            }
            *out = max;
        }
    }
}

/// 1 / the sum of the weights of each head and column, `[head][column]`: 16 partials by absolute position.
pub(crate) struct Denominators<'a> {
    pub(crate) shape: Shape,
    pub(crate) columns: &'a [Column],
    pub(crate) weights: &'a [f32],
    pub(crate) out: &'a mut [f32],
}

impl Task for Denominators<'_> {
    type Output = ();

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let rows = self.shape.stats(self.columns.len());
        let outs = self.out.iter_mut().take(rows).enumerate();
        for ((row, out), column) in outs.zip(self.columns.iter().cycle()) {
            let mut partials = isa.splat(0.0);
            for (weights, used) in segments(self.weights, self.shape.slots(), row, rows, column) {
                let tiles = weights.as_chunks::<LANES>().0.iter();
                // Weights beyond the position are +0, and a partial is never -0: adding them changes nothing.
                for tile in tiles.take(used.div_ceil(LANES)) {
                    partials = partials + isa.load(tile);
                }
            }
            *out = 1.0 / Sum16::from_partials(partials.array()).finish();
        }
    }
}

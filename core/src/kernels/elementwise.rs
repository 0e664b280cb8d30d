//! Operations over one column at a time: norm, activation, quantised panel.

use crate::kernels::Task;
use crate::kernels::float::{Element, F32};
use crate::kernels::isa::{Isa, LANES, Lanes};
use crate::kernels::log::{Operation, ran};
use crate::kernels::panel;
use crate::math::{self, Sum16, flush};

/// A column of outputs `[unit][column][16 rows]`: its vectors, in the order of the rows.
#[inline(always)]
pub(crate) fn column(
    outputs: &[f32],
    columns: usize,
    column: usize,
) -> impl Iterator<Item = &[f32; LANES]> + Clone {
    let vectors = outputs.as_chunks::<LANES>().0;
    let own = vectors.get(column..).unwrap_or(&[]);
    own.iter().step_by(columns.max(1))
}

/// The first `len` rows of a [`column`]: whole vectors, and what is left.
pub(crate) fn column_of(
    outputs: &[f32],
    columns: usize,
    index: usize,
    len: usize,
) -> (impl Iterator<Item = &[f32; LANES]> + Clone, &[f32]) {
    let whole = len / LANES;
    let vectors = column(outputs, columns, index).take(whole);
    let at = place(whole * LANES, columns, index);
    let rest = outputs.get(at..).and_then(|v| v.get(..len % LANES));
    (vectors, rest.unwrap_or(&[]))
}

/// [`column`], to be written.
#[inline(always)]
pub(crate) fn column_mut(
    outputs: &mut [f32],
    columns: usize,
    column: usize,
) -> impl Iterator<Item = &mut [f32; LANES]> {
    outputs
        .as_chunks_mut::<LANES>()
        .0
        .iter_mut()
        .skip(column)
        .step_by(columns.max(1))
}

/// Where row `row` of column `column` lies among outputs of `columns` columns.
pub(crate) const fn place(row: usize, columns: usize, column: usize) -> usize {
    let vector = (row / LANES).saturating_mul(columns).saturating_add(column);
    vector.saturating_mul(LANES).saturating_add(row % LANES)
}

/// At most 16 values as a vector; the others are 0.
#[inline(always)]
fn padded(x: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.iter_mut().zip(x).for_each(|(l, x)| *l = *x);
    lanes
}

/// Writes the first of 16 values, as many as `out` has room for.
#[inline(always)]
pub(crate) fn put(out: &mut [f32], values: [f32; LANES]) {
    match out.as_mut_array() {
        // Four stores, not a call of memcpy.
        Some(out) => *out = values,
        None => out.iter_mut().zip(values).for_each(|(o, v)| *o = v),
    }
}

/// RMSNorm: `(x * inv) * w`, flushed, into `out`. Returns whether the sum of squares is finite.
pub(crate) struct Norm<'a, X> {
    /// The column's vectors.
    pub(crate) x: X,
    /// f32, little-endian.
    pub(crate) weight: &'a [u8],
    pub(crate) eps: f32,
    pub(crate) out: &'a mut [f32],
}

impl<'a, X: Iterator<Item = &'a [f32; LANES]>> Task for Norm<'a, X> {
    type Output = bool;

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        ran::<I>(Operation::Norm);
        let n = self.out.len();
        let mut squares = isa.splat(0.0);
        for (out, x) in self.out.chunks_mut(LANES).zip(self.x) {
            let x = match out.len() {
                LANES => isa.load(x),
                len => isa.load(&padded(x.get(..len).unwrap_or(&[]))),
            }
            .flush();
            squares = squares + x * x;
            put(out, x.array());
        }
        let sum = Sum16::from_partials(squares.array()).finish();
        let inv = isa.splat(1.0 / math::sqrt(sum / n as f32 + self.eps));
        let weights = self.weight.chunks(4 * LANES);
        for (out, w) in self.out.chunks_mut(LANES).zip(weights) {
            let w = F32::lanes(isa, w);
            let x = match out.as_array() {
                Some(x) => isa.load(x),
                None => isa.load(&padded(out)),
            };
            put(out, (x * inv * w).flush().array());
        }
        math::is_finite(sum)
    }
}

/// SwiGLU: `(g * sigmoid(g)) * up`, flushed.
pub(crate) struct Act<'a, G, U> {
    pub(crate) gate: G,
    pub(crate) up: U,
    pub(crate) out: &'a mut [f32],
}

impl<'a, G, U> Task for Act<'_, G, U>
where
    G: Iterator<Item = &'a [f32; LANES]>,
    U: Iterator<Item = &'a [f32; LANES]>,
{
    type Output = ();

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        ran::<I>(Operation::Act);
        let vectors = self.gate.zip(self.up);
        for (out, (gate, up)) in self.out.chunks_mut(LANES).zip(vectors) {
            // Whole vectors, also where the output is shorter: their length is known.
            let mut y = [0.0; LANES];
            for (y, (g, up)) in y.iter_mut().zip(gate.iter().zip(up)) {
                *y = flush((*g * math::sigmoid(*g)) * *up);
            }
            put(out, y);
        }
    }
}

/// [`panel::quantise`] of one column.
pub(crate) struct Quantise<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) group: usize,
    /// Twice the bytes if the panel is to be expanded.
    pub(crate) q: &'a mut [i8],
    pub(crate) expand: bool,
    pub(crate) sx: &'a mut [f32],
    pub(crate) sum: &'a mut [i32],
}

impl Task for Quantise<'_> {
    type Output = bool;

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> bool {
        ran::<I>(Operation::Quantise);
        let finite = panel::quantise(self.x, self.group, self.q, self.sx, self.sum);
        if I::EXPANDS && self.expand {
            panel::expand(self.q);
        }
        finite
    }
}

//! A range of rows of one operation, and where threads plug in.

use crate::kernels::Kernels;
use crate::kernels::attention::{AttentionJob, Mix, Score, Softmax};
use crate::kernels::isa::{Isa, Task};
use crate::kernels::linear::LinearJob;
use crate::kernels::lora::LoraAJob;

/// What one operation computes; shared by all pieces of it.
#[derive(Clone, Copy)]
pub(crate) enum Job<'a> {
    /// The rows of A of the selected experts.
    LoraA(&'a LoraAJob<'a>),
    /// Rows of weight matrices, with bias, LoRA and residual.
    Linear(&'a LinearJob<'a>),
    /// `scores[t] = flush((q . k_t) * scale)`.
    Score(&'a AttentionJob<'a>),
    /// `scores[t] = exp(scores[t] - max)`.
    Softmax(&'a AttentionJob<'a>),
    /// `out[d] = sum of scores[t] * v_t[d]` over a segment.
    Mix(&'a AttentionJob<'a>),
}

/// A range of rows of one operation. It owns the outputs of exactly those rows and runs once, so that
/// splitting it among threads is safe code.
///
/// Outputs lie unit by unit: a range of rows is one contiguous slice.
pub struct Work<'a> {
    job: Job<'a>,
    /// First unit of the range.
    first: usize,
    out: &'a mut [f32],
    /// Floats of one unit's outputs, at least 1.
    unit: usize,
    /// Rows in a unit.
    tile: usize,
    /// Multiply-accumulates of a row over all columns.
    cost: u32,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        job: Job<'a>,
        first: usize,
        out: &'a mut [f32],
        unit: usize,
        tile: usize,
        cost: u32,
    ) -> Self {
        Self {
            job,
            first,
            out,
            unit: unit.max(1),
            tile,
            cost,
        }
    }

    /// Rows in the range.
    pub fn rows(&self) -> usize {
        (self.out.len() / self.unit.max(1)).saturating_mul(self.tile)
    }

    /// Rows that must stay together; ranges begin and end at multiples of it.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// Multiply-accumulates that a row costs, over all columns.
    pub fn cost_per_row(&self) -> u32 {
        self.cost
    }

    /// The first `row` rows, rounded down to a multiple of [`Work::tile`], and the rest.
    pub fn split_at(self, row: usize) -> (Work<'a>, Work<'a>) {
        let units = (row / self.tile.max(1)).min(self.out.len() / self.unit.max(1));
        let (head, tail) = self
            .out
            .split_at_mut_checked(units.saturating_mul(self.unit))
            .unwrap_or((&mut [], &mut []));
        let (job, unit, tile, cost) = (self.job, self.unit, self.tile, self.cost);
        (
            Work::new(job, self.first, head, unit, tile, cost),
            Work::new(job, self.first + units, tail, unit, tile, cost),
        )
    }

    /// Computes the rows.
    pub fn run(self) {
        match self.job {
            Job::LoraA(job) => self.of(job.kernels, job),
            Job::Linear(job) => self.of(job.kernels, job),
            Job::Score(job) => self.of(job.kernels, &Score(job)),
            Job::Softmax(job) => self.of(job.kernels, &Softmax(job)),
            Job::Mix(job) => self.of(job.kernels, &Mix(job)),
        }
    }

    /// Runs one operation. Each is compiled by itself: together they would be one large function.
    #[inline(always)]
    fn of<O: Operator>(self, kernels: Kernels, job: &O) {
        kernels.run(Piece {
            job,
            first: self.first,
            floats: self.unit.max(1),
            out: self.out,
        });
    }
}

/// An operation whose outputs lie unit by unit.
pub(crate) trait Operator {
    /// [`Task::WITHOUT_Q8`].
    const WITHOUT_Q8: bool = false;

    /// Units `first..`, `floats` of `out` each.
    fn compute<I: Isa>(&self, isa: I, first: usize, floats: usize, out: &mut [f32]);
}

/// Units of one operation.
pub(crate) struct Piece<'a, O> {
    pub(crate) job: &'a O,
    pub(crate) first: usize,
    pub(crate) floats: usize,
    pub(crate) out: &'a mut [f32],
}

impl<O: Operator> Task for Piece<'_, O> {
    type Output = ();

    const WITHOUT_Q8: bool = O::WITHOUT_Q8;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.job.compute(isa, self.first, self.floats, self.out);
    }
}

/// Runs a [`Work`], whole or split; the order of the pieces is free and never changes a bit.
pub trait Executor {
    /// Runs all rows of `work` before it returns.
    fn run(&mut self, work: Work<'_>);
}

/// Runs work where it is called.
///
/// ```
/// use pleach::{Executor, Inline};
/// let mut here = Inline;
/// let _: &mut dyn Executor = &mut here;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Executor for Inline {
    fn run(&mut self, work: Work<'_>) {
        work.run();
    }
}

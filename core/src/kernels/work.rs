//! A range of rows of one operation, and where threads plug in.

use crate::kernels::attention::AttentionJob;
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
    /// Scores, softmax or mix of attention.
    Attention(&'a AttentionJob<'a>),
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
        let kernels = match self.job {
            Job::LoraA(job) => job.kernels,
            Job::Linear(job) => job.kernels,
            Job::Attention(job) => job.kernels,
        };
        kernels.run(self);
    }
}

impl Task for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (first, unit) = (self.first, self.unit.max(1));
        match self.job {
            Job::Linear(job) => job.run(isa, first, unit, self.out),
            Job::LoraA(job) => job.run(isa, first, self.out),
            Job::Attention(job) => {
                for (i, out) in self.out.chunks_exact_mut(unit).enumerate() {
                    job.unit(isa, first + i, out);
                }
            }
        }
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

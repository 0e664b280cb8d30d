//! Single operations, by a backend or by the specification: for the kernels' own tests and counts.
//!
//! Outputs lie as everywhere, `[unit][column][16 rows]`; rows behind the last one of a matrix are not
//! specified.

use crate::blob::{Lora, Tensor};
use crate::kernels::elementwise::Quantise;
use crate::kernels::embedding::AddDeltas;
use crate::kernels::isa::{Acc, Isa, LANES, Lanes};
use crate::kernels::layout::{groups, round_up};
use crate::kernels::linear::{Block, LinearJob, Part, gemv};
use crate::kernels::lora::{Choice, LoraAJob, LoraSource, LoraTerm};
use crate::kernels::panel::{Input, PanelColumn, panel_stride};
use crate::kernels::scalar::Scalar;
use crate::kernels::work::Piece;
use crate::kernels::{A_UNIT, BLOCK, Kernels, Task, UNIT};

/// Who computes.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// A backend.
    Backend(Kernels),
    /// The scalar code, also where no [`Kernels`] offer it.
    Specification,
}

impl By {
    /// Whether its panels are expanded where a tensor in `m4` reads them.
    pub fn expands(self) -> bool {
        match self {
            By::Backend(kernels) => kernels.expands(),
            By::Specification => false,
        }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        match self {
            By::Backend(kernels) => kernels.run(task),
            By::Specification => task.run(Scalar),
        }
    }
}

/// Activations of `n` columns, `[column][k]`, and their panel.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Values of a column.
    pub k: usize,
    /// Values of a group.
    pub group: usize,
    /// Number of columns.
    pub n: usize,
    /// For `f16` and `f32` rows.
    pub x: &'a [f32],
    /// `[column]` of [`q_bytes`].
    pub q: &'a [i8],
    /// `[column][group]`
    pub sx: &'a [f32],
    /// `[column][group]`
    pub sum: &'a [i32],
    /// Whether `q` is expanded.
    pub expanded: bool,
}

/// Bytes of one column of `k` quantised values.
pub const fn q_bytes(k: usize, expanded: bool) -> usize {
    panel_stride(k, expanded)
}

impl<'a> Columns<'a> {
    /// The panel of column `c`.
    pub fn column(&self, c: usize) -> PanelColumn<'a> {
        self.input().panel(c)
    }

    fn input(&self) -> Input<'a> {
        Input {
            k: self.k,
            x: self.x,
            q_stride: panel_stride(self.k, self.expanded),
            s_stride: groups(self.k, self.group),
            q: self.q,
            sx: self.sx,
            sum: self.sum,
            expanded: self.expanded,
            picks: None,
        }
    }
}

/// Quantises one column, and expands it if `expand` and the backend wants it; `false` if a value is not finite.
pub fn quantise(
    by: By,
    (x, group): (&[f32], usize),
    expand: bool,
    (q, sx, sum): (&mut [i8], &mut [f32], &mut [i32]),
) -> bool {
    by.run(Quantise {
        x,
        group,
        q,
        expand,
        sx,
        sum,
    })
}

/// Rows of `w` times the columns, nothing else: what a micro-kernel computes. `unit` is 16, or 4 as for an A panel.
pub fn rows(by: By, w: &Tensor<'_>, columns: &Columns<'_>, unit: usize, out: &mut [f32]) {
    by.run(Rows {
        w,
        columns,
        unit: if unit == A_UNIT { A_UNIT } else { UNIT },
        out,
    });
}

/// All rows of `w` times one column in one call of a micro-kernel; `false` if the backend has none that does that.
pub fn one_call(by: By, w: &Tensor<'_>, column: &PanelColumn<'_>, out: &mut [f32]) -> bool {
    by.run(OneCall { w, column, out })
}

struct OneCall<'a, 'o> {
    w: &'a Tensor<'a>,
    column: &'a PanelColumn<'a>,
    out: &'o mut [f32],
}

impl Task for OneCall<'_, '_> {
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> bool {
        let out = self.out.as_chunks_mut::<LANES>().0;
        let rows = (0, self.w.rows);
        I::RANGES > 0 && isa.q8_range(self.w, rows, self.column, 0, out)
    }
}

struct Rows<'a> {
    w: &'a Tensor<'a>,
    columns: &'a Columns<'a>,
    unit: usize,
    out: &'a mut [f32],
}

impl Task for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (input, n) = (self.columns.input(), self.columns.n.max(1));
        let mut acc: Acc = [[0.0; LANES]; BLOCK];
        let mut block = Block::EMPTY;
        for start in (0..n).step_by(BLOCK) {
            let columns = start..n.min(start + BLOCK);
            block.take(&input, self.w.dtype, columns);
            let units = self.out.as_chunks_mut::<LANES>().0.chunks_exact_mut(n);
            for (unit, out) in units.enumerate() {
                let rows = (unit * self.unit, self.unit);
                gemv(isa, self.w, rows, &block, 0, &mut acc);
                out.iter_mut()
                    .skip(start)
                    .zip(&acc)
                    .for_each(|(out, acc)| *out = *acc);
            }
        }
    }
}

/// A linear layer without experts: rows, and the flush.
pub fn linear(by: By, w: &Tensor<'_>, columns: &Columns<'_>, out: &mut [f32]) {
    let part = Part::of(*w, None);
    let job = LinearJob::plain(Kernels::of_build(), &part, columns.input());
    let floats = columns.n.saturating_mul(LANES);
    by.run(Piece {
        job: &job,
        first: 0,
        floats,
        out,
    });
}

/// Columns that an expert is tried with, at most.
const COLUMNS: usize = 8;

/// One expert, selected by every column with gate `h`.
struct Selected<'a> {
    lora: [Option<Lora<'a>>; 1],
    choice: [Choice; 1],
    h: [f32; COLUMNS],
    n: usize,
}

impl<'a> Selected<'a> {
    fn new(lora: &Lora<'a>, n: usize, h: f32) -> Self {
        let choice = Choice {
            part: 0,
            class: 0,
            rank: lora.b.rank() as u16,
            reserved: 0,
            row: 0,
        };
        Self {
            lora: [Some(*lora)],
            choice: [choice],
            h: [h; COLUMNS],
            n: n.clamp(1, COLUMNS),
        }
    }

    fn term(&'a self) -> LoraTerm<'a> {
        LoraTerm {
            source: LoraSource::Adapters(&self.lora),
            selected: &self.choice,
            h: &self.h,
            columns: self.n,
            held: &[],
        }
    }
}

/// r-vectors `[unit of 4 rows][column][4]` of one expert with gate `h`, for at most 8 columns.
pub fn lora_a(by: By, lora: &Lora<'_>, columns: &Columns<'_>, h: f32, u: &mut [f32]) {
    let selected = Selected::new(lora, columns.n, h);
    let job = LoraAJob {
        kernels: Kernels::of_build(),
        input: columns.input(),
        term: selected.term(),
        next: &[],
    };
    let floats = A_UNIT * selected.n;
    by.run(Piece {
        job: &job,
        first: 0,
        floats,
        out: u,
    });
}

/// Floats of the r-vectors of `n` columns.
pub const fn rank_floats(rank: usize, n: usize) -> usize {
    round_up(rank, A_UNIT).saturating_mul(n)
}

/// The deltas that B makes of r-vectors, for at most 8 columns; `out` is written.
pub fn lora_b(by: By, lora: &Lora<'_>, n: usize, u: &[f32], out: &mut [f32]) {
    let selected = Selected::new(lora, n, 1.0);
    out.fill(0.0);
    by.run(AddDeltas {
        term: selected.term(),
        ranks: u,
        out,
    });
}

/// 16 halves as a backend reads them.
pub fn halves(by: By, bytes: &[u8; 2 * LANES]) -> [f32; LANES] {
    by.run(Halves(bytes))
}

struct Halves<'a>(&'a [u8; 2 * LANES]);

impl Task for Halves<'_> {
    type Output = [f32; LANES];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f32; LANES] {
        isa.load_f16(self.0).array()
    }
}

//! Linear layers for a sweep's columns: base rows, bias, the selected experts' deltas, residual.
//!
//! Outputs lie as `[unit][column][16 rows]`: a unit's are contiguous, and a column of it is one vector.

use crate::blob::Tensor;
use crate::kernels::float::{Element, F16, F32, gemv_float, one_column};
use crate::kernels::isa::{Acc, Isa, LANES, Lanes};
use crate::kernels::layout::Dtype;
use crate::kernels::log::{Operation, ran};
use crate::kernels::lora::{self, LoraTerm, add_deltas};
use crate::kernels::panel::{Input, PanelColumn};
use crate::kernels::work::Operator;
use crate::kernels::{BLOCK, Kernels, SMALL, UNIT};
use core::slice;

/// Units that a block of columns is taken for: its values then stay in the nearest cache, and the rows of so many units in
/// the next one.
const SHARING: usize = 8;

/// Vectors of outputs that are under way at once: 8 columns of several units, or fewer columns of at most 8 units. On bare
/// metal they are stack.
const UNDER_WAY: usize = if SMALL { BLOCK } else { SHARING * BLOCK };

/// A block of at most 8 columns of an operation's input.
pub(crate) struct Block<'a> {
    panels: [PanelColumn<'a>; BLOCK],
    floats: [&'a [f32]; BLOCK],
    columns: [usize; BLOCK],
    len: usize,
}

impl<'a> Block<'a> {
    /// No columns.
    pub(crate) const EMPTY: Self = Self {
        panels: [PanelColumn::EMPTY; BLOCK],
        floats: [&[]; BLOCK],
        columns: [0; BLOCK],
        len: 0,
    };

    /// Takes the next columns of `columns`, at most 8.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        input: &Input<'a>,
        dtype: Dtype,
        columns: impl Iterator<Item = usize>,
    ) {
        self.len = 0;
        let slots = self.panels.iter_mut().zip(&mut self.floats);
        for (((panel, floats), slot), column) in slots.zip(&mut self.columns).zip(columns) {
            match dtype {
                Dtype::Q8 => *panel = input.panel(column),
                _ => *floats = input.floats(column),
            }
            *slot = column;
            self.len += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which columns they are.
    pub(crate) fn columns(&self) -> &[usize] {
        self.columns.get(..self.len).unwrap_or(&[])
    }

    fn panels(&self) -> &[PanelColumn<'a>] {
        self.panels.get(..self.len).unwrap_or(&[])
    }

    fn floats(&self) -> &[&'a [f32]] {
        self.floats.get(..self.len).unwrap_or(&[])
    }
}

/// Notes who computes rows of floats; the micro-kernels of `q8` rows note themselves.
#[inline(always)]
fn ran_rows<I: Isa>(w: &Tensor<'_>) {
    match w.dtype {
        Dtype::Q8 => {}
        Dtype::F16 => ran::<I>(Operation::GemvF16),
        Dtype::F32 => ran::<I>(Operation::GemvF32),
    }
}

/// `acc[c][i]` = row `first + i` of `w` times column `c` of the block, for `rows` rows: 16, or up to 16 of an A panel, by 4; of
/// `q8` tiles of 16 rows also several times 16, and then `acc` is `[unit][column]`. `ahead` is that of [`Isa::q8_range`].
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
pub(crate) fn gemv<I: Isa>(
    isa: I,
    w: &Tensor<'_>,
    (first, rows): (usize, usize),
    block: &Block<'_>,
    ahead: usize,
    acc: &mut [[f32; LANES]],
) {
    ran_rows::<I>(w);
    match w.dtype {
        Dtype::Q8 if w.lanes > rows => part_of_a_tile(isa, w, first, rows, block, acc),
        Dtype::Q8 => {
            let mut columns = block.panels().iter().zip(acc.iter_mut());
            if w.lanes < UNIT
                && block.len <= I::RANGES
                && columns
                    .all(|(c, acc)| isa.q8_range(w, (first, rows), c, ahead, slice::from_mut(acc)))
            {
                return;
            }
            let lanes = w.lanes.clamp(1, UNIT);
            let tiles = if lanes == UNIT { rows / UNIT } else { 1 };
            for lane in (0..rows.min(UNIT)).step_by(lanes) {
                let tiles = ((first + lane) / lanes, tiles);
                isa.q8(w, tiles, block.panels(), lane, acc);
            }
        }
        Dtype::F16 => gemv_float::<I, F16>(isa, w, first, rows, block.floats(), acc),
        Dtype::F32 => gemv_float::<I, F32>(isa, w, first, rows, block.floats(), acc),
    }
}

/// [`gemv`] where a tile has more rows than are asked for.
#[inline(never)]
fn part_of_a_tile<I: Isa>(
    isa: I,
    w: &Tensor<'_>,
    first: usize,
    rows: usize,
    block: &Block<'_>,
    acc: &mut [[f32; LANES]],
) {
    let lanes = w.lanes.max(1);
    let mut tile: Acc = [[0.0; LANES]; BLOCK];
    isa.q8(w, (first / lanes, 1), block.panels(), 0, &mut tile);
    for (acc, tile) in acc.iter_mut().zip(&tile) {
        let from = tile.iter().skip(first % lanes).take(rows);
        acc.iter_mut().zip(from).for_each(|(a, t)| *a = *t);
    }
}

/// Units `unit..` of `w` times the block's columns, as many as `acc` `[unit][column]` has room for: in one call where there is a
/// kernel for that.
#[inline(always)]
fn gemv_units<I: Isa>(
    isa: I,
    w: &Tensor<'_>,
    unit: usize,
    block: &Block<'_>,
    acc: &mut [[f32; LANES]],
) {
    let n = block.len.max(1);
    let done = match w.dtype {
        Dtype::Q8 if block.len <= I::RANGES && w.lanes < UNIT => ranges(isa, w, unit, block, acc),
        Dtype::Q8 => false,
        Dtype::F16 => one_column::<I, F16>(isa, w, unit, block.floats(), acc),
        Dtype::F32 => one_column::<I, F32>(isa, w, unit, block.floats(), acc),
    };
    if done {
        ran_rows::<I>(w);
        return;
    }
    // Wide tiles of q8 go all at once.
    let at_once = match w.dtype {
        Dtype::Q8 if w.lanes == UNIT && !SMALL => acc.len() / n,
        _ => 1,
    };
    for (i, acc) in acc.chunks_mut(at_once.saturating_mul(n).max(1)).enumerate() {
        let first = (unit + i).saturating_mul(UNIT);
        gemv(isa, w, (first, at_once.saturating_mul(UNIT)), block, 0, acc);
    }
}

/// All units of a column in one call, column by column; `false` if the backend has no kernel for that.
#[inline(always)]
fn ranges<I: Isa>(
    isa: I,
    w: &Tensor<'_>,
    unit: usize,
    block: &Block<'_>,
    acc: &mut [[f32; LANES]],
) -> bool {
    let n = block.len.max(1);
    let count = acc.len() / n;
    let rows = (unit.saturating_mul(UNIT), count.saturating_mul(UNIT));
    if let [column] = block.panels() {
        return isa.q8_range(w, rows, column, 0, acc);
    }
    let mut units: Acc = [[0.0; LANES]; BLOCK];
    for (c, column) in block.panels().iter().enumerate() {
        let units = units.get_mut(..count).unwrap_or(&mut []);
        if !isa.q8_range(w, rows, column, 0, units) {
            return false;
        }
        let to = acc.iter_mut().skip(c).step_by(n);
        to.zip(units).for_each(|(to, unit)| *to = *unit);
    }
    true
}

/// One matrix of an operation.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) weight: Tensor<'a>,
    /// f32, little-endian, one per row.
    pub(crate) bias: Option<&'a [u8]>,
}

impl<'a> Part<'a> {
    /// A matrix that is alone in its operation.
    pub(crate) const fn of(weight: Tensor<'a>, bias: Option<&'a [u8]>) -> Option<Self> {
        Some(Self { weight, bias })
    }

    /// Units of 16 rows that the matrix takes.
    pub(crate) const fn units(&self) -> usize {
        self.weight.rows.div_ceil(UNIT)
    }

    /// The biases of a unit.
    #[inline(always)]
    pub(crate) fn bias<I: Isa>(&self, isa: I, unit: usize) -> Option<I::Lanes> {
        let at = unit.saturating_mul(UNIT * 4);
        let bias = self.bias?.get(at..).unwrap_or(&[]);
        Some(F32::lanes(isa, bias))
    }
}

/// Rows of matrices that read the same input: `flush((W x + bias) + d)`, written, or added to
/// what is there times a residual scale.
#[derive(Clone, Copy)]
pub(crate) struct LinearJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) parts: &'a [Option<Part<'a>>],
    pub(crate) input: Input<'a>,
    /// No term: no expert takes part.
    pub(crate) term: Option<LoraTerm<'a>>,
    /// `[unit of 4 rows][column][4]`, by `LoraAJob`.
    pub(crate) u: &'a [f32],
    pub(crate) residual: Option<f32>,
}

impl<'a> LinearJob<'a> {
    /// One matrix that has no experts: the head, or a layer of the classifier.
    pub(crate) fn plain(kernels: Kernels, part: &'a Option<Part<'a>>, input: Input<'a>) -> Self {
        Self {
            kernels,
            parts: slice::from_ref(part),
            input,
            term: None,
            u: &[],
            residual: None,
        }
    }

    /// Units of all matrices.
    pub(crate) fn units(&self) -> usize {
        self.parts.iter().flatten().map(Part::units).sum()
    }

    /// Units `unit..` of one matrix for the block's columns, which are columns `start..` of the `n` of `out` `[unit][n][16]`:
    /// rows, bias, deltas, residual.
    #[cfg_attr(not(pleach_small), inline(always))]
    #[cfg_attr(pleach_small, inline(never))]
    fn part_units<I: Isa>(
        &self,
        isa: I,
        (number, part): (usize, &Part<'_>),
        (unit, start): (usize, usize),
        block: &Block<'_>,
        [acc, d]: &mut [[[f32; LANES]; UNDER_WAY]; 2],
        (n, out): (usize, &mut [[f32; LANES]]),
    ) {
        let columns = block.len.max(1);
        let units = out.len() / n.max(1);
        let acc = acc.get_mut(..units.saturating_mul(columns));
        let acc = acc.unwrap_or(&mut []);
        gemv_units(isa, &part.weight, unit, block, acc);
        // Asked once, not for each unit.
        if part.bias.is_some() {
            for (i, acc) in acc.chunks_mut(columns).enumerate() {
                if let Some(bias) = part.bias(isa, unit + i) {
                    for acc in acc {
                        *acc = (isa.load(acc) + bias).array();
                    }
                }
            }
        }
        if let Some(term) = &self.term {
            add_deltas(isa, term, self.u, (number, unit), (start, columns), acc, d);
        }
        // Where one block has all columns, all units are one piece, and one loop.
        let whole = acc.len().max(1);
        let (of_out, of_acc) = if n == columns {
            (whole, whole)
        } else {
            (n.max(1), columns)
        };
        for (out, acc) in out.chunks_mut(of_out).zip(acc.chunks(of_acc)) {
            let out = out.get_mut(start..).unwrap_or(&mut []);
            let rows = out.iter_mut().zip(acc);
            match self.residual {
                Some(scale) => {
                    for (out, acc) in rows {
                        let y = isa.load(acc).flush() * isa.splat(scale);
                        *out = (isa.load(out) + y).array();
                    }
                }
                None => {
                    for (out, acc) in rows {
                        *out = isa.load(acc).flush().array();
                    }
                }
            }
        }
    }
}

impl Operator for LinearJob<'_> {
    /// `out` is `[unit][column][16 rows]`.
    #[inline(always)]
    fn compute<I: Isa>(&self, isa: I, first: usize, floats: usize, out: &mut [f32]) {
        let n = (floats / LANES).max(1);
        let most = (UNDER_WAY / n.min(BLOCK)).clamp(1, BLOCK);
        let sharing = SHARING * BLOCK / n.min(BLOCK);
        let mut vectors = [[[0.0; LANES]; UNDER_WAY]; 2];
        let mut block = Block::EMPTY;
        let (mut unit, mut out) = (first, out.as_chunks_mut::<LANES>().0);
        for (number, part) in self.parts.iter().flatten().enumerate() {
            if out.is_empty() {
                return;
            }
            let Some(after) = part.units().checked_sub(unit) else {
                unit -= part.units();
                continue;
            };
            let here = after.saturating_mul(n).min(out.len());
            let Some((now, rest)) = out.split_at_mut_checked(here) else {
                return;
            };
            if let Some(term) = &self.term {
                lora::prefetch(isa, term, (number, unit), most.min(after));
            }
            for out in now.chunks_mut(n.saturating_mul(sharing).max(1)) {
                for start in (0..n).step_by(BLOCK) {
                    let columns = start..n.min(start + BLOCK);
                    block.take(&self.input, part.weight.dtype, columns);
                    for (i, out) in out.chunks_mut(n.saturating_mul(most).max(1)).enumerate() {
                        let at = (unit + i * most, start);
                        self.part_units(isa, (number, part), at, &block, &mut vectors, (n, out));
                    }
                }
                unit += sharing;
            }
            (unit, out) = (0, rest);
        }
    }
}

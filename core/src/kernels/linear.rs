//! Linear layers for a sweep's columns: base rows, bias, the selected experts' deltas, residual.
//!
//! Outputs lie as `[unit][column][16 rows]`: a unit's are contiguous, and a column of it is one vector.

use crate::blob::Tensor;
use crate::kernels::float::{Element, F16, F32, gemv_float};
use crate::kernels::isa::{Acc, Isa, LANES, Lanes};
use crate::kernels::layout::Dtype;
use crate::kernels::log::{Operation, ran};
use crate::kernels::lora::{LoraTerm, add_deltas};
use crate::kernels::panel::{Input, PanelColumn};
use crate::kernels::{BLOCK, Kernels, UNIT};
use core::slice;

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

/// `acc[c][i]` = row `first + i` of `w` times column `c` of the block, for `rows` rows: 16, or 4 of an A panel.
#[inline(always)]
pub(crate) fn gemv<I: Isa>(
    isa: I,
    w: &Tensor<'_>,
    first: usize,
    rows: usize,
    block: &Block<'_>,
    acc: &mut Acc,
) {
    ran(match w.dtype {
        Dtype::Q8 => Operation::GemvQ8(w.layout),
        Dtype::F16 => Operation::GemvF16,
        Dtype::F32 => Operation::GemvF32,
    });
    match w.dtype {
        Dtype::Q8 => {
            let mut columns = block.panels().iter().zip(acc.iter_mut());
            if block.len <= I::RANGES
                && columns.all(|(c, acc)| isa.q8_range(w, (first, rows), c, slice::from_mut(acc)))
            {
                return;
            }
            let lanes = w.lanes.clamp(1, UNIT);
            for lane in (0..rows).step_by(lanes) {
                if let Some(tile) = w.q8_tile((first + lane) / lanes) {
                    isa.q8(&tile, block.panels(), lane, acc);
                }
            }
        }
        Dtype::F16 => gemv_float::<I, F16>(isa, w, first, rows, block.floats(), acc),
        Dtype::F32 => gemv_float::<I, F32>(isa, w, first, rows, block.floats(), acc),
    }
}

/// One matrix of an operation.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) weight: Tensor<'a>,
    /// f32, little-endian, one per row.
    pub(crate) bias: Option<&'a [u8]>,
}

impl Part<'_> {
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

/// Rows of up to three matrices that read the same input: `flush((W x + bias) + d)`, written, or added to
/// what is there times a residual scale.
#[derive(Clone, Copy)]
pub(crate) struct LinearJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) parts: [Option<Part<'a>>; 3],
    pub(crate) input: Input<'a>,
    /// No term: no expert takes part.
    pub(crate) term: Option<LoraTerm<'a>>,
    /// `[row][column]`, by `LoraAJob`.
    pub(crate) u: &'a [f32],
    pub(crate) residual: Option<f32>,
}

impl<'a> LinearJob<'a> {
    /// One matrix that has no experts: the head, or a layer of the classifier.
    pub(crate) fn plain(
        kernels: Kernels,
        weight: Tensor<'a>,
        bias: Option<&'a [u8]>,
        input: Input<'a>,
    ) -> Self {
        Self {
            kernels,
            parts: [Some(Part { weight, bias }), None, None],
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

    /// 16 rows; `out` is `[column][16]`, `block` is scratch.
    #[inline(always)]
    pub(crate) fn unit<I: Isa>(&self, isa: I, unit: usize, out: &mut [f32], block: &mut Block<'a>) {
        let mut unit = unit;
        for (number, part) in self.parts.iter().enumerate() {
            let Some(part) = part else { return };
            if unit < part.units() {
                return self.part_unit(isa, number, part, unit, out, block);
            }
            unit -= part.units();
        }
    }

    #[inline(always)]
    pub(crate) fn part_unit<I: Isa>(
        &self,
        isa: I,
        number: usize,
        part: &Part<'_>,
        unit: usize,
        out: &mut [f32],
        block: &mut Block<'a>,
    ) {
        let first = unit * UNIT;
        let bias = part.bias(isa, unit);
        let blocks = out.as_chunks_mut::<LANES>().0.chunks_mut(BLOCK);
        for (i, out) in blocks.enumerate() {
            let (start, len) = (i * BLOCK, out.len());
            let columns = start..start + len;
            block.take(&self.input, part.weight.dtype, columns);
            let mut acc: Acc = [[0.0; LANES]; BLOCK];
            gemv(isa, &part.weight, first, UNIT, block, &mut acc);
            self.finish(isa, (number, unit), bias, start, &mut acc, out);
        }
    }

    /// What follows the rows of a unit for columns `start..`, of which `out` has all: bias, deltas, residual.
    #[inline(always)]
    pub(crate) fn finish<I: Isa>(
        &self,
        isa: I,
        (number, unit): (usize, usize),
        bias: Option<I::Lanes>,
        start: usize,
        acc: &mut [[f32; LANES]],
        out: &mut [[f32; LANES]],
    ) {
        if let Some(bias) = bias {
            for acc in acc.iter_mut() {
                *acc = (isa.load(acc) + bias).array();
            }
        }
        if let Some(term) = &self.term {
            add_deltas(isa, term, self.u, (number, unit), (start, out.len()), acc);
        }
        for (out, acc) in out.iter_mut().zip(&*acc) {
            let y = isa.load(acc).flush();
            *out = match self.residual {
                Some(scale) => isa.load(out) + y * isa.splat(scale),
                None => y,
            }
            .array();
        }
    }
}

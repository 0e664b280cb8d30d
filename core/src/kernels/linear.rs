//! Linear layers for a sweep's columns: base rows, bias, the selected experts' deltas, residual.
//!
//! Two operations. `LoraAJob` makes the r-vectors of the selected experts; `LinearJob` makes the base
//! rows and adds B while the output tile is hot. Only the panels of experts that some column selected
//! are read.

use crate::blob::{BPanel, Lora, Model, Site, Tensor};
use crate::error::Error;
use crate::kernels::layout::{Dtype, round_up};
use crate::kernels::panel::{Input, PanelColumn};
use crate::kernels::scalar::Acc;
use crate::kernels::scalar::float::{Element, F16, F32, gemv_float_scalar};
use crate::kernels::scalar::q8::gemv_q8_scalar;
use crate::kernels::{A_UNIT, BLOCK, Backend, Kernels, UNIT};
use crate::math::flush;
use crate::pairs::pairs;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An expert that at least one column selected at one site of an operation.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Choice {
    /// Which of the operation's matrices the site belongs to.
    pub(crate) part: u16,
    pub(crate) class: u16,
    pub(crate) rank: u16,
    pub(crate) reserved: u16,
    /// First row in the operation's r-vectors.
    pub(crate) row: u32,
}

/// Where the panels of an expert come from.
#[derive(Clone, Copy)]
pub(crate) enum LoraSource<'a> {
    /// A blob: one site per matrix of the operation.
    Model(&'a Model<'a>, [Option<Site>; 3]),
    /// Borrowed adapters by class index, of one matrix.
    Adapters(&'a [Option<Lora<'a>>]),
}

impl<'a> LoraSource<'a> {
    /// Matrices that may have experts.
    fn parts(&self) -> usize {
        match self {
            LoraSource::Model(_, sites) => sites.len(),
            LoraSource::Adapters(_) => 1,
        }
    }

    /// The panels of `class` at matrix `part`.
    pub(crate) fn get(&self, part: usize, class: usize) -> Option<Lora<'a>> {
        match self {
            LoraSource::Model(model, sites) => {
                let site = sites.get(part).copied().flatten()?;
                model.expert(class)?.lora(&site)
            }
            LoraSource::Adapters(list) => list.get(class).copied().flatten(),
        }
    }

    /// Rank and scale of `class` at matrix `part`, if it targets the site.
    pub(crate) fn rank_scale(&self, part: usize, class: usize) -> Option<(usize, f32)> {
        match self {
            LoraSource::Model(model, sites) => {
                let site = sites.get(part).copied().flatten()?;
                let record = model.expert(class)?.record(site.number)?;
                Some((record.rank as usize, record.scale))
            }
            LoraSource::Adapters(list) => {
                let lora = list.get(class).copied().flatten()?;
                Some((lora.b.rank(), lora.scale))
            }
        }
    }
}

/// Lists the experts of up to three matrices that at least one of `n` columns selected, ascending by
/// matrix, then class, with their h (by `h(part, class, column, scale)`). Returns their number and the rows
/// of their r-vectors.
pub(crate) fn choose(
    source: &LoraSource<'_>,
    experts: usize,
    n: usize,
    h: impl Fn(usize, usize, usize, f32) -> f32,
    choices: &mut [Choice],
    gates: &mut [f32],
) -> Result<(u32, u32), Error> {
    let mut slots = choices.iter_mut().zip(gates.chunks_exact_mut(n.max(1)));
    let mut next = slots.next();
    let (mut count, mut row) = (0, 0);
    for part in 0..source.parts() {
        for class in 0..experts {
            let Some((rank, scale)) = source.rank_scale(part, class) else {
                continue;
            };
            let Some((choice, gates)) = next.as_mut() else {
                return Err(Error::Corrupt);
            };
            let mut any = false;
            for (column, gate) in gates.iter_mut().enumerate() {
                *gate = h(part, class, column, scale);
                any |= *gate != 0.0;
            }
            if any {
                **choice = Choice {
                    part: part as u16,
                    class: class as u16,
                    rank: rank as u16,
                    reserved: 0,
                    row,
                };
                row += round_up(rank, A_UNIT) as u32;
                count += 1;
                next = slots.next();
            }
        }
    }
    Ok((count, row))
}

/// The gates of one operation.
#[derive(Clone, Copy)]
pub(crate) struct LoraTerm<'a> {
    pub(crate) source: LoraSource<'a>,
    /// Ascending by part, then class.
    pub(crate) selected: &'a [Choice],
    /// `[selected][column]`: h = (scaling * scale) * global weight; a column takes part iff it is not 0.
    pub(crate) h: &'a [f32],
    pub(crate) columns: usize,
}

impl<'a> LoraTerm<'a> {
    fn gates(&self, selected: usize, first: usize, len: usize) -> &'a [f32] {
        let at = selected.saturating_mul(self.columns).saturating_add(first);
        self.h.get(at..at.saturating_add(len)).unwrap_or(&[])
    }
}

/// A block of at most 8 columns of an operation's input.
pub(crate) struct Block<'a> {
    panels: [PanelColumn<'a>; BLOCK],
    floats: [&'a [f32]; BLOCK],
    len: usize,
}

impl<'a> Block<'a> {
    pub(crate) fn new(input: &Input<'a>, dtype: Dtype, first: usize, columns: usize) -> Self {
        let mut block = Self {
            panels: [PanelColumn {
                q: &[],
                sx: &[],
                sum: &[],
            }; BLOCK],
            floats: [&[]; BLOCK],
            len: columns.saturating_sub(first).min(BLOCK),
        };
        let slots = block.panels.iter_mut().zip(block.floats.iter_mut());
        for (c, (panel, floats)) in slots.enumerate().take(block.len) {
            match dtype {
                Dtype::Q8 => *panel = input.panel(first + c),
                _ => *floats = input.floats(first + c),
            }
        }
        block
    }

    fn panels(&self) -> &[PanelColumn<'a>] {
        self.panels.get(..self.len).unwrap_or(&[])
    }

    fn floats(&self) -> &[&'a [f32]] {
        self.floats.get(..self.len).unwrap_or(&[])
    }
}

/// `acc[i][c]` = row `first + i` of `w` times column `c`. `first` is a multiple of `acc.len()`.
#[inline(never)]
fn gemv(
    kernels: Kernels,
    w: &Tensor<'_>,
    first: usize,
    block: &Block<'_>,
    acc: &mut [[f32; BLOCK]],
) {
    match kernels.backend {
        Backend::Scalar => gemv_scalar(w, first, block, acc),
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Backend::Avx2(avx2) => avx2.gemv(w, first, block, acc),
    }
}

#[inline(always)]
pub(crate) fn gemv_scalar(
    w: &Tensor<'_>,
    first: usize,
    block: &Block<'_>,
    acc: &mut [[f32; BLOCK]],
) {
    // A tile wider than the unit (a transposed matrix) is read row by row.
    let lanes = if w.lanes <= acc.len() { w.lanes } else { 1 };
    match (w.dtype, lanes) {
        (Dtype::Q8, 16) => q8_tiles::<16>(w, first, block, acc),
        (Dtype::Q8, 4) => q8_tiles::<4>(w, first, block, acc),
        (Dtype::Q8, _) => q8_tiles::<1>(w, first, block, acc),
        (Dtype::F16, 16) => float_tiles::<F16, 16>(w, first, block, acc),
        (Dtype::F16, 4) => float_tiles::<F16, 4>(w, first, block, acc),
        (Dtype::F16, _) => float_tiles::<F16, 1>(w, first, block, acc),
        (Dtype::F32, 16) => float_tiles::<F32, 16>(w, first, block, acc),
        (Dtype::F32, 4) => float_tiles::<F32, 4>(w, first, block, acc),
        (Dtype::F32, _) => float_tiles::<F32, 1>(w, first, block, acc),
    }
}

#[inline(always)]
fn q8_tiles<const R: usize>(
    w: &Tensor<'_>,
    first: usize,
    block: &Block<'_>,
    acc: &mut [[f32; BLOCK]],
) {
    for (i, acc) in acc.as_chunks_mut::<R>().0.iter_mut().enumerate() {
        if let Some(tile) = w.tile(first / R + i) {
            gemv_q8_scalar(tile, w.cols, w.group, w.scale_exp, block.panels(), acc);
        }
    }
}

#[inline(always)]
fn float_tiles<E: Element, const R: usize>(
    w: &Tensor<'_>,
    first: usize,
    block: &Block<'_>,
    acc: &mut [[f32; BLOCK]],
) {
    let lanes = w.lanes.max(1);
    for (i, acc) in acc.as_chunks_mut::<R>().0.iter_mut().enumerate() {
        let row = first + i * R;
        if row < w.rows
            && let Some(tile) = w.tile(row / lanes)
        {
            gemv_float_scalar::<E, R>(tile, lanes, row % lanes, block.floats(), acc);
        }
    }
}

/// The r-vectors of the selected experts: `u[j] = flush(flush(A[j] x) * h)`, times B's scale of `j`.
#[derive(Clone, Copy)]
pub(crate) struct LoraAJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) input: Input<'a>,
    pub(crate) term: LoraTerm<'a>,
}

impl LoraAJob<'_> {
    /// Rows `4 * unit..` of the r-vectors; `out` is `[4][column]`.
    pub(crate) fn unit(&self, unit: usize, out: &mut [f32]) {
        let row = unit.saturating_mul(A_UNIT);
        let after = self
            .term
            .selected
            .partition_point(|s| s.row as usize <= row);
        let Some((index, s)) = after
            .checked_sub(1)
            .and_then(|i| Some((i, self.term.selected.get(i)?)))
        else {
            return;
        };
        let Some(lora) = self.term.source.get(s.part as usize, s.class as usize) else {
            return;
        };
        let first = row.saturating_sub(s.row as usize);
        let columns = self.term.columns;
        for start in (0..columns).step_by(BLOCK) {
            let gates = self.term.gates(index, start, (columns - start).min(BLOCK));
            let mut acc: Acc<A_UNIT> = [[0.0; BLOCK]; A_UNIT];
            if gates.iter().any(|h| *h != 0.0) {
                let block = Block::new(&self.input, lora.a.dtype, start, columns);
                gemv(self.kernels, &lora.a, first, &block, &mut acc);
            }
            let rows = out.chunks_exact_mut(columns.max(1)).zip(&acc);
            for (j, (out, acc)) in rows.enumerate() {
                let scale = lora.b.scale(first + j);
                let out = out.iter_mut().skip(start);
                for ((out, a), h) in out.zip(acc).zip(gates) {
                    *out = if *h == 0.0 || first + j >= lora.b.rank {
                        0.0
                    } else {
                        flush(flush(*a) * *h) * scale
                    };
                }
            }
        }
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
}

/// Rows of up to three matrices that read the same input: `flush((W x + bias) + d)`, written, or added to
/// what is there times a residual scale.
#[derive(Clone, Copy)]
pub(crate) struct LinearJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) parts: [Option<Part<'a>>; 3],
    pub(crate) input: Input<'a>,
    pub(crate) columns: usize,
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
        columns: usize,
    ) -> Self {
        Self {
            kernels,
            parts: [Some(Part { weight, bias }), None, None],
            input,
            columns,
            term: None,
            u: &[],
            residual: None,
        }
    }

    /// Units of all matrices.
    pub(crate) fn units(&self) -> usize {
        self.parts.iter().flatten().map(Part::units).sum()
    }

    /// 16 rows; `out` is `[16][column]`.
    pub(crate) fn unit(&self, unit: usize, out: &mut [f32]) {
        let mut unit = unit;
        for (number, part) in self.parts.iter().enumerate() {
            let Some(part) = part else { return };
            if unit < part.units() {
                return self.part_unit(number, part, unit, out);
            }
            unit -= part.units();
        }
    }

    fn part_unit(&self, number: usize, part: &Part<'_>, unit: usize, out: &mut [f32]) {
        let first = unit * UNIT;
        for start in (0..self.columns).step_by(BLOCK) {
            let block = Block::new(&self.input, part.weight.dtype, start, self.columns);
            let mut acc: Acc<UNIT> = [[0.0; BLOCK]; UNIT];
            gemv(self.kernels, &part.weight, first, &block, &mut acc);
            if let Some(bias) = part.bias {
                let bias = bias.as_chunks::<4>().0.iter().skip(first);
                for (acc, b) in acc.iter_mut().zip(bias) {
                    let b = f32::from_le_bytes(*b);
                    acc.iter_mut().for_each(|v| *v += b);
                }
            }
            if let Some(term) = &self.term {
                add_deltas(term, self.u, number, unit, start, block.len, &mut acc);
            }
            for (out, acc) in out.chunks_exact_mut(self.columns.max(1)).zip(&acc) {
                let out = out.iter_mut().skip(start).zip(acc).take(block.len);
                for (out, y) in out {
                    let y = flush(*y);
                    *out = match self.residual {
                        Some(scale) => *out + y * scale,
                        None => y,
                    };
                }
            }
        }
    }
}

/// Adds to `acc` the deltas of the experts that the block's columns selected at matrix `part`: d = +0;
/// experts ascending, j ascending, `d = d + B[row][j] * u_j`; a column without experts keeps its value.
pub(crate) fn add_deltas(
    term: &LoraTerm<'_>,
    u: &[f32],
    part: usize,
    unit: usize,
    start: usize,
    len: usize,
    acc: &mut Acc<UNIT>,
) {
    let mut d: Acc<UNIT> = [[0.0; BLOCK]; UNIT];
    let mut took = [false; BLOCK];
    for (index, s) in term.selected.iter().enumerate() {
        if s.part as usize != part {
            continue;
        }
        let gates = term.gates(index, start, len);
        let mut taking = [false; BLOCK];
        for ((taking, took), h) in taking.iter_mut().zip(took.iter_mut()).zip(gates) {
            *taking = *h != 0.0;
            *took |= *taking;
        }
        if !taking.contains(&true) {
            continue;
        }
        let Some(lora) = term.source.get(part, s.class as usize) else {
            continue;
        };
        let at = (s.row as usize)
            .saturating_mul(term.columns)
            .saturating_add(start);
        let u = u.get(at..).unwrap_or(&[]);
        let columns = Columns {
            u,
            stride: term.columns.max(1),
            taking: &taking,
        };
        match lora.b.dtype {
            Dtype::Q8 => panel_b::<I8>(&lora.b, unit, &columns, &mut d),
            Dtype::F16 => panel_b::<F16>(&lora.b, unit, &columns, &mut d),
            Dtype::F32 => panel_b::<F32>(&lora.b, unit, &columns, &mut d),
        }
    }
    for (acc, d) in acc.iter_mut().zip(&d) {
        for ((acc, d), took) in acc.iter_mut().zip(d).zip(&took) {
            if *took {
                *acc += *d;
            }
        }
    }
}

/// The r-vectors of a block of columns, and which of its columns the expert takes part in.
struct Columns<'a> {
    /// `[j][column]`, from the block's first column on.
    u: &'a [f32],
    stride: usize,
    taking: &'a [bool; BLOCK],
}

/// A q of a B panel; its scale is already in `u`.
struct I8;

impl Element for I8 {
    const BYTES: usize = 1;
    #[inline]
    fn read(b: &[u8]) -> f32 {
        b.first().map_or(0.0, |b| *b as i8 as f32)
    }
}

fn panel_b<E: Element>(b: &BPanel<'_>, unit: usize, columns: &Columns<'_>, d: &mut Acc<UNIT>) {
    let lanes = b.lanes.max(1);
    for (i, d) in d.chunks_mut(lanes).enumerate() {
        let Some(tile) = b.tile(unit.saturating_mul(UNIT / lanes.min(UNIT)) + i) else {
            return;
        };
        let rows = tile.chunks_exact(lanes.saturating_mul(E::BYTES).max(1));
        for (w, u) in pairs(rows, columns.u.chunks(columns.stride)) {
            for (d, w) in d.iter_mut().zip(w.chunks_exact(E::BYTES)) {
                let w = E::read(w);
                let lanes = d.iter_mut().zip(u).zip(columns.taking);
                for ((d, u), taking) in lanes {
                    if *taking {
                        *d += w * *u;
                    }
                }
            }
        }
    }
}

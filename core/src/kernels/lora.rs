//! The deltas of the selected experts: their r-vectors (A), and what B makes of them.
//!
//! Only the panels of experts that some column selected are read, and each once a sweep: the columns that selected
//! an expert are gathered into blocks of their own.

use crate::blob::{BPanel, Lora, Model, Site};
use crate::error::Error;
use crate::kernels::float::{Element, F16, F32, I8};
use crate::kernels::isa::{Acc, Isa, LANES, Lanes};
use crate::kernels::layout::{Dtype, round_up};
use crate::kernels::linear::{Block, gemv};
use crate::kernels::log::{Operation, ran};
use crate::kernels::panel::Input;
use crate::kernels::{A_UNIT, BLOCK, Kernels, UNIT};
use crate::math::flush;
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

/// The r-vectors of the selected experts: `u[j] = flush(flush(A[j] x) * h)`, times B's scale of `j`.
#[derive(Clone, Copy)]
pub(crate) struct LoraAJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) input: Input<'a>,
    pub(crate) term: LoraTerm<'a>,
}

impl<'a> LoraAJob<'a> {
    /// Rows `4 * unit..` of the r-vectors; `out` is `[4][column]`, `block` is scratch.
    #[inline(always)]
    pub(crate) fn unit<I: Isa>(&self, isa: I, unit: usize, out: &mut [f32], block: &mut Block<'a>) {
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
        let n = self.term.columns;
        out.fill(0.0);
        let gates = self.term.gates(index, 0, n);
        let mut taking = gates.iter().enumerate().filter(|(_, h)| **h != 0.0);
        loop {
            let columns = taking.by_ref().map(|(column, _)| column);
            block.take(&self.input, lora.a.dtype, columns);
            if block.is_empty() {
                return;
            }
            let mut acc: Acc = [[0.0; LANES]; BLOCK];
            gemv(isa, &lora.a, first, A_UNIT, block, &mut acc);
            for (column, acc) in block.columns().iter().zip(&acc) {
                let h = gates.get(*column).copied().unwrap_or(0.0);
                let rows = out.chunks_exact_mut(n.max(1)).zip(acc);
                for (j, (out, a)) in rows.enumerate().take(lora.b.rank.saturating_sub(first)) {
                    if let Some(out) = out.get_mut(*column) {
                        *out = flush(flush(*a) * h) * lora.b.scale(first + j);
                    }
                }
            }
        }
    }
}

/// Adds to `acc` the deltas of the experts that columns `start..start + len` selected at matrix `part`: d = +0; experts
/// ascending, j ascending, `d = d + B[row][j] * u_j`; a column without experts keeps its value.
#[inline(always)]
pub(crate) fn add_deltas<I: Isa>(
    isa: I,
    term: &LoraTerm<'_>,
    u: &[f32],
    (part, unit): (usize, usize),
    (start, len): (usize, usize),
    acc: &mut [[f32; LANES]],
) {
    let mut d: Acc = [[0.0; LANES]; BLOCK];
    let mut took = [false; BLOCK];
    for (index, s) in term.selected.iter().enumerate() {
        if s.part as usize != part {
            continue;
        }
        let gates = term.gates(index, start, len);
        let mut panel = None;
        let at = (s.row as usize)
            .saturating_mul(term.columns)
            .saturating_add(start);
        for (c, ((h, took), d)) in gates.iter().zip(&mut took).zip(&mut d).enumerate() {
            if *h == 0.0 {
                continue;
            }
            *took = true;
            if panel.is_none() {
                panel = term.source.get(part, s.class as usize).map(|l| l.b);
            }
            let Some(b) = &panel else { break };
            ran(Operation::Deltas);
            let u = u.get(at.saturating_add(c)..).unwrap_or(&[]);
            let u = u.iter().step_by(term.columns.max(1));
            match b.dtype {
                Dtype::Q8 => panel_b::<I, I8>(isa, b, unit, u, d),
                Dtype::F16 => panel_b::<I, F16>(isa, b, unit, u, d),
                Dtype::F32 => panel_b::<I, F32>(isa, b, unit, u, d),
            }
        }
    }
    for ((acc, d), took) in acc.iter_mut().zip(&d).zip(took) {
        if took {
            *acc = (isa.load(acc) + isa.load(d)).array();
        }
    }
}

/// Adds one expert's rows of a unit times the r-vector `u` of one column.
#[inline(always)]
fn panel_b<'u, I: Isa, E: Element>(
    isa: I,
    b: &BPanel<'_>,
    unit: usize,
    u: impl Iterator<Item = &'u f32> + Clone,
    d: &mut [f32; LANES],
) {
    if b.lanes == LANES {
        let mut sum = isa.load(d);
        let tile = b.tile(unit).unwrap_or(&[]);
        for (w, u) in tile.chunks_exact(LANES * E::BYTES).zip(u) {
            sum = sum + E::lanes(isa, w) * isa.splat(*u);
        }
        *d = sum.array();
        return;
    }
    let lanes = b.lanes.max(1);
    for (i, d) in d.iter_mut().enumerate() {
        let row = unit.saturating_mul(UNIT).saturating_add(i);
        let tile = b.tile(row / lanes).unwrap_or(&[]);
        let column = tile.chunks_exact(E::BYTES).skip(row % lanes).step_by(lanes);
        for (w, u) in column.zip(u.clone()) {
            *d += E::read(w) * *u;
        }
    }
}

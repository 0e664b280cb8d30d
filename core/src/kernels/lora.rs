//! The deltas of the selected experts: their r-vectors (A), and what B makes of them.
//!
//! Only the panels of experts that some column selected are read, and each once a sweep: the columns that selected
//! an expert are gathered into blocks of their own.

use crate::blob::{BPanel, Lora, Model, Site};
use crate::error::Error;
use crate::kernels::float::{Element, F16, F32, I8, Vectors};
use crate::kernels::isa::{Acc, Isa, LANES, Lanes};
use crate::kernels::layout::{Dtype, round_up};
use crate::kernels::linear::{Block, gemv};
use crate::kernels::log::{Operation, ran};
use crate::kernels::panel::Input;
use crate::kernels::{A_UNIT, BLOCK, CHAINS, HELD_PANELS, Kernels, SMALL, UNIT};
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
    /// The panels of the first of `selected`, by [`held`].
    pub(crate) held: &'a [Option<Lora<'a>>],
}

/// Looks up the panels of the first selected experts, once for all units of an operation.
pub(crate) fn held<'a>(
    source: &LoraSource<'a>,
    selected: &[Choice],
) -> [Option<Lora<'a>>; HELD_PANELS] {
    let mut held = [None; HELD_PANELS];
    for (held, s) in held.iter_mut().zip(selected) {
        *held = source.get(s.part as usize, s.class as usize);
    }
    held
}

impl<'a> LoraTerm<'a> {
    /// The panels of a selected expert.
    #[inline(always)]
    fn lora(&self, index: usize) -> Option<Lora<'a>> {
        if let Some(held) = self.held.get(index) {
            return *held;
        }
        let s = self.selected.get(index)?;
        self.source.get(s.part as usize, s.class as usize)
    }

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
        let Some(lora) = self.term.lora(index) else {
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

/// Asks for the rows of B that [`add_deltas`] will read for `count` units from `unit` on of matrix `part`, so that they come
/// while the base rows are computed.
#[inline(always)]
pub(crate) fn prefetch<I: Isa>(
    isa: I,
    term: &LoraTerm<'_>,
    (part, unit): (usize, usize),
    count: usize,
) {
    for (lora, s) in term.held.iter().zip(term.selected) {
        if s.part as usize == part
            && let Some(Lora { b, .. }) = lora
            && let Some(tiles) = b.tiles(unit, count)
        {
            tiles
                .as_chunks::<64>()
                .0
                .iter()
                .for_each(|line| isa.prefetch(line, 0));
        }
    }
}

/// Adds to `acc` `[unit][column]` the deltas of the experts that columns `start..start + n`, at most 8, selected at units
/// `unit..` of matrix `part`: d = +0; experts ascending, j ascending, `d = d + B[row][j] * u_j`; a column without experts keeps
/// its value.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
pub(crate) fn add_deltas<I: Isa>(
    isa: I,
    term: &LoraTerm<'_>,
    u: &[f32],
    (part, unit): (usize, usize),
    (start, n): (usize, usize),
    acc: &mut [[f32; LANES]],
) {
    let mut d: Acc = [[0.0; LANES]; BLOCK];
    let mut took = [false; BLOCK];
    let units = acc.len() / n.max(1);
    for (index, s) in term.selected.iter().enumerate() {
        let gates = term.gates(index, start, n);
        if s.part as usize != part || gates.iter().all(|h| *h == 0.0) {
            continue;
        }
        let Some(Lora { b, .. }) = term.lora(index) else {
            continue;
        };
        ran(Operation::Deltas);
        let at = (s.row as usize)
            .saturating_mul(term.columns)
            .saturating_add(start);
        let rows = BRows {
            b: &b,
            unit,
            u: u.get(at..).unwrap_or(&[]),
            stride: term.columns.max(1),
        };
        // Which vectors of `d` the expert adds to: `[unit][column]`, of the columns that selected it.
        let mut chains = [(0, 0); BLOCK];
        let mut count = 0;
        for i in 0..units {
            for (c, _) in gates.iter().enumerate().filter(|(_, h)| **h != 0.0) {
                if let (Some(chain), Some(took)) = (chains.get_mut(count), took.get_mut(i * n + c))
                {
                    *chain = (i, c);
                    *took = true;
                    count += 1;
                }
            }
        }
        let chains = chains.get(..count).unwrap_or(&[]);
        match b.dtype {
            Dtype::Q8 => rows.add::<I, I8>(isa, n, chains, &mut d),
            Dtype::F16 => rows.add::<I, F16>(isa, n, chains, &mut d),
            Dtype::F32 => rows.add::<I, F32>(isa, n, chains, &mut d),
        }
    }
    for ((acc, d), took) in acc.iter_mut().zip(&d).zip(took) {
        if took {
            *acc = (isa.load(acc) + isa.load(d)).array();
        }
    }
}

/// Vectors `first..first + 4` of each tile, if all have so many.
#[inline(always)]
fn steps_at<E: Vectors, const C: usize>(
    tiles: [&[u8]; C],
    first: usize,
) -> Option<[&[E::Vector; A_UNIT]; C]> {
    let step = |tile| E::vectors(tile).get(first..)?.first_chunk();
    let mut steps = [step(tiles.first()?)?; C];
    for (to, tile) in steps.iter_mut().zip(tiles) {
        *to = step(tile)?;
    }
    Some(steps)
}

/// One expert's B from a unit on, and the r-vectors that it is multiplied by.
struct BRows<'a> {
    b: &'a BPanel<'a>,
    unit: usize,
    /// `[j][stride]`, from the block's first column on.
    u: &'a [f32],
    stride: usize,
}

impl BRows<'_> {
    /// Adds to `d[unit * n + column]`, for each of the chains (unit, column).
    #[inline(always)]
    fn add<I: Isa, E: Vectors>(&self, isa: I, n: usize, chains: &[(usize, usize)], d: &mut Acc) {
        let mut chains = chains;
        while !chains.is_empty() {
            let taken = if self.b.lanes != LANES {
                self.row_by_row::<E>(n, chains, d)
            } else if chains.len() < 2 || CHAINS < 2 {
                self.interleaved::<I, E, 1>(isa, n, chains, d)
            } else if chains.len() < CHAINS {
                self.interleaved::<I, E, 2>(isa, n, chains, d)
            } else {
                self.interleaved::<I, E, CHAINS>(isa, n, chains, d)
            };
            chains = chains.get(taken..).unwrap_or(&[]);
        }
    }

    #[cfg_attr(not(pleach_small), inline(always))]
    #[cfg_attr(pleach_small, inline(never))]
    fn interleaved<I: Isa, E: Vectors, const C: usize>(
        &self,
        isa: I,
        n: usize,
        chains: &[(usize, usize)],
        d: &mut Acc,
    ) -> usize {
        let Some(chains) = chains.first_chunk::<C>() else {
            return C;
        };
        let (mut tiles, mut sums) = ([&[][..]; C], [isa.splat(0.0); C]);
        for ((tile, sum), (i, c)) in tiles.iter_mut().zip(&mut sums).zip(chains) {
            *tile = self.b.tile(self.unit + i).unwrap_or(&[]);
            if let Some(d) = d.get(i * n + c) {
                *sum = isa.load(d);
            }
        }
        let mut done = 0;
        // The compiler knows the length of whole steps. Firmware has no flash for a second loop.
        while !SMALL && let Some(steps) = steps_at::<E, C>(tiles, done) {
            for j in 0..A_UNIT {
                let at = (done + j).saturating_mul(self.stride);
                let u = self.u.get(at..).unwrap_or(&[]);
                for ((sum, step), (_, c)) in sums.iter_mut().zip(steps).zip(chains) {
                    if let Some(w) = step.get(j) {
                        let u = isa.splat(u.get(*c).copied().unwrap_or(0.0));
                        *sum = *sum + E::load(isa, w) * u;
                    }
                }
            }
            done += A_UNIT;
        }
        let rows = self.u.chunks(self.stride.max(1)).enumerate();
        for (j, u) in rows.take(self.b.rank).skip(done) {
            let at = j * LANES * E::BYTES;
            for ((sum, tile), (_, c)) in sums.iter_mut().zip(tiles).zip(chains) {
                let w = E::lanes(isa, tile.get(at..).unwrap_or(&[]));
                *sum = *sum + w * isa.splat(u.get(*c).copied().unwrap_or(0.0));
            }
        }
        for (sum, (i, c)) in sums.iter().zip(chains) {
            if let Some(d) = d.get_mut(i * n + c) {
                *d = sum.array();
            }
        }
        C
    }

    /// A borrowed B, whose rows are not interleaved.
    fn row_by_row<E: Element>(&self, n: usize, chains: &[(usize, usize)], d: &mut Acc) -> usize {
        let lanes = self.b.lanes.max(1);
        if let Some((i, c)) = chains.first()
            && let Some(d) = d.get_mut(i * n + c)
        {
            for (r, d) in d.iter_mut().enumerate() {
                let row = (self.unit + i).saturating_mul(UNIT).saturating_add(r);
                let tile = self.b.tile(row / lanes).unwrap_or(&[]);
                let column = tile.chunks_exact(E::BYTES).skip(row % lanes).step_by(lanes);
                let u = self.u.iter().skip(*c).step_by(self.stride.max(1));
                column.zip(u).for_each(|(w, u)| *d += E::read(w) * *u);
            }
        }
        1
    }
}

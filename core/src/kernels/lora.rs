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
use crate::kernels::work::Operator;
use crate::kernels::{A_UNIT, BLOCK, HELD_PANELS, Kernels, SMALL, UNIT};
use crate::math::pow2;
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
    /// A blob: the site of each matrix of the operation.
    Model(&'a Model<'a>, &'a [Option<Site>]),
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
                let site = sites.get(part)?.as_ref()?;
                model.expert(class)?.lora(site)
            }
            LoraSource::Adapters(list) => *list.get(class)?,
        }
    }

    /// Of these, B alone.
    fn b(&self, part: usize, class: usize) -> Option<BPanel<'a>> {
        match self {
            LoraSource::Model(model, sites) => {
                let site = sites.get(part)?.as_ref()?;
                model.expert(class)?.b(site)
            }
            LoraSource::Adapters(list) => Some(list.get(class)?.as_ref()?.b),
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
/// matrix, then class, with their h (by `h(part, class, column, scale)`, where `takes(part, class, column)`). Returns their
/// number and the rows of their r-vectors.
pub(crate) fn choose(
    source: &LoraSource<'_>,
    experts: usize,
    n: usize,
    takes: impl Fn(usize, usize, usize) -> bool,
    h: impl Fn(usize, usize, usize, f32) -> f32,
    choices: &mut [Choice],
    gates: &mut [f32],
) -> Result<(u32, u32), Error> {
    let mut slots = choices.iter_mut().zip(gates.chunks_exact_mut(n.max(1)));
    let mut next = slots.next();
    let (mut count, mut row) = (0, 0);
    for part in 0..source.parts() {
        for class in 0..experts {
            // Asked first: the records of all experts lie apart, and each is a wait for memory.
            if !(0..n).any(|column| takes(part, class, column)) {
                continue;
            }
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
    /// B of the first of `selected`, by [`held`].
    pub(crate) held: &'a [Option<BPanel<'a>>],
}

/// Looks up B of the first selected experts, once for all units of an operation.
pub(crate) fn held<'a>(
    source: &LoraSource<'a>,
    selected: &[Choice],
) -> [Option<BPanel<'a>>; HELD_PANELS] {
    let mut held = [None; HELD_PANELS];
    for (held, s) in held.iter_mut().zip(selected) {
        *held = source.b(s.part as usize, s.class as usize);
    }
    held
}

impl<'a> LoraTerm<'a> {
    /// The panels of a selected expert.
    fn lora(&self, index: usize) -> Option<Lora<'a>> {
        let s = self.selected.get(index)?;
        self.source.get(s.part as usize, s.class as usize)
    }

    /// Its B alone.
    #[inline(always)]
    fn b(&self, index: usize) -> Option<BPanel<'a>> {
        if let Some(held) = self.held.get(index) {
            return *held;
        }
        let s = self.selected.get(index)?;
        self.source.b(s.part as usize, s.class as usize)
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
    /// What is read after the panels, if that is known.
    pub(crate) next: &'a [u8],
}

impl LoraAJob<'_> {
    /// Rows `first..` of a selected expert, at most 16: `out` is `[unit of 4 rows][column][4]`. `ahead` is that of
    /// [`Isa::q8_range`].
    #[cfg_attr(not(pleach_small), inline(always))]
    #[cfg_attr(pleach_small, inline(never))]
    fn rows<'b, I: Isa>(
        &'b self,
        isa: I,
        (index, lora, ahead): (usize, &Lora<'_>, usize),
        first: usize,
        out: &mut [[f32; A_UNIT]],
        block: &mut Block<'b>,
    ) {
        let n = self.term.columns.max(1);
        let rows = out.len() / n * A_UNIT;
        let gates = self.term.gates(index, 0, n);
        let mut taking = gates.iter().enumerate().filter(|(_, h)| **h != 0.0);
        loop {
            let columns = taking.by_ref().map(|(column, _)| column);
            block.take(&self.input, lora.a.dtype, columns);
            if block.is_empty() {
                return;
            }
            let mut acc: Acc = [[0.0; LANES]; BLOCK];
            gemv(isa, &lora.a, (first, rows), block, ahead, &mut acc);
            for (column, a) in block.columns().iter().zip(&mut acc) {
                let h = gates.get(*column).copied().unwrap_or(0.0);
                times_scales(isa, &lora.b, first, h, a);
                let out = out.iter_mut().skip(*column).step_by(n);
                out.zip(a.as_chunks().0).for_each(|(out, u)| *out = *u);
            }
        }
    }
}

impl Operator for LoraAJob<'_> {
    /// `out` is `[unit of 4 rows][column][4]`.
    #[inline(always)]
    fn compute<I: Isa>(&self, isa: I, first: usize, _: usize, out: &mut [f32]) {
        let n = self.term.columns.max(1);
        let mut block = Block::EMPTY;
        let (mut unit, mut out) = (first, out.as_chunks_mut::<A_UNIT>().0);
        let mut next = (0, None);
        while !out.is_empty() {
            let row = unit.saturating_mul(A_UNIT);
            let selected = self.term.selected;
            let after = selected.partition_point(|s| s.row as usize <= row);
            let Some((index, s)) = after
                .checked_sub(1)
                .and_then(|i| Some((i, selected.get(i)?)))
            else {
                return;
            };
            // At most 16 rows, of one expert.
            let first = row.saturating_sub(s.row as usize);
            let left = round_up(s.rank as usize, A_UNIT).saturating_sub(first);
            let units = left.min(LANES - first % LANES) / A_UNIT;
            let here = units.max(1).saturating_mul(n).min(out.len());
            let Some((now, rest)) = out.split_at_mut_checked(here) else {
                return;
            };
            now.fill([0.0; A_UNIT]);
            let lora = match next {
                (i, lora @ Some(_)) if i == index => lora,
                _ => self.term.lora(index),
            };
            if let Some(lora) = &lora {
                // No firmware's kernel asks for memory ahead of time.
                let ahead = if SMALL {
                    0
                } else {
                    next = (index + 1, self.term.lora(index + 1));
                    let behind = next.1.map_or(self.next, |next| next.a.data);
                    distance(lora.a.data, behind)
                };
                self.rows(isa, (index, lora, ahead), first, now, &mut block);
            }
            (unit, out) = (unit + units.max(1), rest);
        }
    }
}

/// `a = flush(flush(a) * h)`, times B's scales of 16 columns from `first` on; those beyond the last one are not its own.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn times_scales<I: Isa>(isa: I, b: &BPanel<'_>, first: usize, h: f32, a: &mut [f32; LANES]) {
    let u = (isa.load(a).flush() * isa.splat(h)).flush();
    let scales = match b.dtype {
        // Tiles follow the scales, so that there are 16 halves.
        Dtype::Q8 => {
            let halves = b.data.get(first.saturating_mul(F16::BYTES)..);
            F16::lanes(isa, halves.unwrap_or(&[])) * isa.splat(pow2(b.scale_exp))
        }
        Dtype::F16 | Dtype::F32 => isa.splat(1.0),
    };
    *a = (u * scales).array();
}

/// Bytes from one slice to another, for prefetches; 0 if there is no other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    if to.is_empty() {
        return 0;
    }
    to.as_ptr().addr().wrapping_sub(from.as_ptr().addr())
}

/// Asks for the rows of B that [`add_deltas`] will read first, of `count` units from `unit` on of matrix `part`: it asks for
/// the others itself, [`B_AHEAD`] bytes ahead.
#[inline(always)]
pub(crate) fn prefetch<I: Isa>(
    isa: I,
    term: &LoraTerm<'_>,
    (part, unit): (usize, usize),
    count: usize,
) {
    for (b, s) in term.held.iter().zip(term.selected) {
        if s.part as usize == part
            && let Some(b) = b
            && let Some(tiles) = b.tiles(unit, count)
        {
            isa.prefetch_lines(tiles, 0);
        }
    }
}

/// How far ahead of a stream of B's vectors to prefetch, in bytes: a column's 8 units of int8 and rank 16, so that the base
/// rows of those units are computed meanwhile. Twice as much took 1 % more of a token (`cargo xtask peers xlora`).
const B_AHEAD: usize = 2048;

/// Adds to `acc` `[unit][column]` the deltas of the experts that columns `start..start + n`, at most [`BLOCK`], selected at units
/// `unit..` of matrix `part`: d = +0; experts ascending, j ascending, `d = d + B[row][j] * u_j`; a column without experts keeps
/// its value. `d` has room for as many vectors as `acc`.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
pub(crate) fn add_deltas<I: Isa>(
    isa: I,
    term: &LoraTerm<'_>,
    u: &[f32],
    (part, unit): (usize, usize),
    (start, n): (usize, usize),
    acc: &mut [[f32; LANES]],
    d: &mut [[f32; LANES]],
) {
    let d = d.get_mut(..acc.len()).unwrap_or(&mut []);
    d.fill([0.0; LANES]);
    let mut took = 0u32;
    for (index, s) in term.selected.iter().enumerate() {
        let gates = term.gates(index, start, n);
        if s.part as usize != part || gates.iter().all(|h| *h == 0.0) {
            continue;
        }
        let Some(b) = term.b(index) else {
            continue;
        };
        ran::<I>(Operation::Deltas);
        let at = (s.row as usize / A_UNIT)
            .saturating_mul(term.columns)
            .saturating_add(start);
        let rows = BRows {
            b: &b,
            unit,
            u: u.as_chunks().0.get(at..).unwrap_or(&[]),
            stride: term.columns,
            n,
        };
        let mut columns = [0; BLOCK];
        let mut count = 0;
        for (c, _) in gates.iter().enumerate().filter(|(_, h)| **h != 0.0) {
            if let Some(column) = columns.get_mut(count) {
                *column = c;
                count += 1;
            }
            took |= 1 << c;
        }
        let columns = columns.get(..count).unwrap_or(&[]);
        match b.dtype {
            Dtype::Q8 => rows.add::<I, I8>(isa, columns, d),
            Dtype::F16 => rows.add::<I, F16>(isa, columns, d),
            Dtype::F32 => rows.add::<I, F32>(isa, columns, d),
        }
    }
    for c in (0..n).filter(|c| took & 1 << c != 0) {
        let of_column = acc.iter_mut().skip(c).step_by(n.max(1));
        for (acc, d) in of_column.zip(d.iter().skip(c).step_by(n.max(1))) {
            *acc = (isa.load(acc) + isa.load(d)).array();
        }
    }
}

/// One expert's B from a unit on, and the r-vectors that it is multiplied by.
struct BRows<'a> {
    b: &'a BPanel<'a>,
    unit: usize,
    /// `[unit of 4 rows][stride]`, from the block's first column on.
    u: &'a [[f32; A_UNIT]],
    stride: usize,
    /// Columns of the block.
    n: usize,
}

impl BRows<'_> {
    /// Adds to `d` `[unit][n]`, for these of the `n` columns.
    #[inline(always)]
    fn add<I: Isa, E: Vectors>(&self, isa: I, columns: &[usize], d: &mut [[f32; LANES]]) {
        let mut columns = columns;
        loop {
            let taken = match columns {
                [] => return,
                [c, ..] if self.b.lanes != LANES => self.row_by_row::<E>(*c, d),
                [_] if self.stride == 1 && self.n == 1 && !SMALL => self.alone::<I, E>(isa, d),
                [_] => self.units::<I, E, 1>(isa, columns, d),
                [_, ..] if SMALL => self.units::<I, E, 1>(isa, columns, d),
                [_, _] => self.units::<I, E, 2>(isa, columns, d),
                [_, _, _] => self.units::<I, E, 3>(isa, columns, d),
                _ => self.units::<I, E, 4>(isa, columns, d),
            };
            columns = columns.get(taken..).unwrap_or(&[]);
        }
    }

    /// All units of the only column: the rows of its r-vector lie side by side, so that one counter walks them and the tile.
    /// [`BRows::units`] picks each row by its number, which takes about half as many instructions more.
    #[inline(always)]
    fn alone<I: Isa, E: Vectors>(&self, isa: I, d: &mut [[f32; LANES]]) -> usize {
        let tiles = E::vectors(self.b.tiles(self.unit, d.len()).unwrap_or(&[]));
        for (d, tile) in d.iter_mut().zip(tiles.chunks_exact(self.b.rank.max(1))) {
            let mut sum = [isa.load(d)];
            products::<I, E, 1>(isa, tile, self.u.iter().map(|u| [u]), &mut sum);
            let [sum] = sum;
            *d = sum.array();
        }
        1
    }

    /// All units of the first `C` columns, one by one: a CPU begins the next one while a chain of additions waits.
    #[cfg_attr(not(pleach_small), inline(always))]
    #[cfg_attr(pleach_small, inline(never))]
    fn units<I: Isa, E: Vectors, const C: usize>(
        &self,
        isa: I,
        columns: &[usize],
        d: &mut [[f32; LANES]],
    ) -> usize {
        let Some(columns) = columns.first_chunk::<C>() else {
            return C;
        };
        let n = self.n.max(1);
        let tiles = E::vectors(self.b.tiles(self.unit, d.len() / n).unwrap_or(&[]));
        let tiles = tiles.chunks_exact(self.b.rank.max(1));
        for (d, tile) in d.chunks_exact_mut(n).zip(tiles) {
            let mut sums = [isa.splat(0.0); C];
            for (sum, c) in sums.iter_mut().zip(columns) {
                if let Some(d) = d.get(*c) {
                    *sum = isa.load(d);
                }
            }
            let rows = self.u.chunks(self.stride.max(1));
            let rows = rows.map_while(|row| of_columns(row, columns));
            products::<I, E, C>(isa, tile, rows, &mut sums);
            for (sum, c) in sums.into_iter().zip(columns) {
                if let Some(d) = d.get_mut(*c) {
                    *d = sum.array();
                }
            }
        }
        C
    }

    /// Column `c` of a borrowed B, whose rows are not interleaved.
    fn row_by_row<E: Element>(&self, c: usize, d: &mut [[f32; LANES]]) -> usize {
        let lanes = self.b.lanes.max(1);
        for (i, d) in d.iter_mut().skip(c).step_by(self.n.max(1)).enumerate() {
            for (r, d) in d.iter_mut().enumerate() {
                let row = (self.unit + i).saturating_mul(UNIT).saturating_add(r);
                let tile = self.b.tile(row / lanes).unwrap_or(&[]);
                let column = tile.chunks_exact(E::BYTES).skip(row % lanes).step_by(lanes);
                let u = self.u.iter().skip(c).step_by(self.stride.max(1)).flatten();
                column.zip(u).for_each(|(w, u)| *d += E::read(w) * *u);
            }
        }
        1
    }
}

/// Those of `row` `[column][4]` that belong to these columns.
#[inline(always)]
fn of_columns<'a, const C: usize>(
    row: &'a [[f32; A_UNIT]],
    columns: &[usize; C],
) -> Option<[&'a [f32; A_UNIT]; C]> {
    let mut all = [row.first()?; C];
    for (u, c) in all.iter_mut().zip(columns) {
        *u = row.get(*c)?;
    }
    Some(all)
}

/// Adds the products of a tile of B `[j][16]` with `C` r-vectors, of which `rows` has four rows at once: j ascending.
#[inline(always)]
fn products<'u, I: Isa, E: Vectors, const C: usize>(
    isa: I,
    tile: &[E::Vector],
    rows: impl Iterator<Item = [&'u [f32; A_UNIT]; C]> + Clone,
    sums: &mut [I::Lanes; C],
) {
    // Where lanes are an array, four unrolled products take a KiB of stack.
    let (steps, rest) = match I::BY_FOUR || !SMALL {
        true => tile.as_chunks::<A_UNIT>(),
        false => (&[][..], tile),
    };
    for (step, u) in steps.iter().zip(rows.clone()) {
        isa.prefetch_lines(step, B_AHEAD);
        E::add_four(isa, step.each_ref(), u, sums);
    }
    for (vectors, u) in rest.chunks(A_UNIT).zip(rows.skip(steps.len())) {
        for (j, vector) in vectors.iter().enumerate() {
            let vector = E::load(isa, vector);
            for (sum, u) in sums.iter_mut().zip(u) {
                let u = u.get(j).copied().unwrap_or(0.0);
                *sum = *sum + isa.splat(u) * vector;
            }
        }
    }
}

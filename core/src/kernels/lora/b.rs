//! B: what becomes of r-vectors, added to the rows that the base computed.

use super::LoraTerm;
use crate::blob::BPanel;
use crate::kernels::float::{Element, F16, F32, I8, Vectors};
use crate::kernels::isa::{Isa, LANES, Lanes};
use crate::kernels::layout::Dtype;
use crate::kernels::log::{Operation, ran};
use crate::kernels::{A_UNIT, BLOCK, SMALL, UNIT};

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

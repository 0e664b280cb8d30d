//! Rows of embedding tables, and the deltas of embedding sites.

use crate::blob::Tensor;
use crate::error::Error;
use crate::kernels::float::{Element, F16, F32};
use crate::kernels::isa::{Acc, Isa, LANES, Task};
use crate::kernels::layout::{Dtype, q8_weight};
use crate::kernels::lora::{LoraTerm, add_deltas};
use crate::kernels::q8::Q8Tile;
use crate::kernels::{A_UNIT, BLOCK};
use crate::math::{self, flush};
use crate::session::cost::Cost;

/// Writes row `row` of a table: f32(q) * sw, or the float itself.
pub(crate) fn table_row(
    t: &Tensor<'_>,
    row: usize,
    out: &mut dyn Iterator<Item = &mut f32>,
) -> Result<(), Error> {
    let lanes = t.lanes.max(1);
    let (tile, lane) = (row / lanes, row % lanes);
    let mut out = out.take(t.cols);
    match t.dtype {
        Dtype::Q8 => q8_row(&t.q8_tile(tile).ok_or(Error::Corrupt)?, lane, &mut out),
        Dtype::F16 => float_row::<F16>(t, tile, lane, &mut out),
        Dtype::F32 => float_row::<F32>(t, tile, lane, &mut out),
    }
    match out.next() {
        None => Ok(()),
        Some(_) => Err(Error::Corrupt),
    }
}

/// As many numbers of a lane as the tile has.
fn q8_row(tile: &Q8Tile<'_>, lane: usize, out: &mut dyn Iterator<Item = &mut f32>) {
    let (lanes, step) = (tile.layout.tile_rows(), tile.layout.k_step().max(1));
    let vector = lanes.saturating_mul(step).max(1);
    let group = (tile.group / step).saturating_mul(vector).max(vector);
    let scales = tile.scales.as_chunks::<2>().0.iter().skip(lane);
    let scales = scales.step_by(lanes.max(1));
    for (scale, vectors) in scales.zip(tile.vectors.chunks(group)) {
        let scale = math::from_f16(u16::from_le_bytes(*scale)) * tile.pow;
        for vector in vectors.chunks_exact(vector) {
            let weights = (0..step).map_while(|k| q8_weight(tile.layout, vector, lane, k));
            for (w, out) in weights.zip(&mut *out) {
                *out = w as f32 * scale;
            }
        }
    }
}

fn float_row<E: Element>(
    t: &Tensor<'_>,
    tile: usize,
    lane: usize,
    out: &mut dyn Iterator<Item = &mut f32>,
) {
    let numbers = t.tile(tile).unwrap_or(&[]).chunks_exact(E::BYTES);
    let numbers = numbers.skip(lane).step_by(t.lanes.max(1));
    for (number, out) in numbers.zip(out) {
        *out = E::read(number);
    }
}

/// The r-vectors `[unit of 4 rows][column][4]` of an embedding site: the token's row of A, gated. `token(c)` is column `c`'s row of the
/// table, if it has one. Returns what it costs.
pub(crate) fn ranks(
    term: &LoraTerm<'_>,
    token: impl Fn(usize) -> Option<usize>,
    ranks: &mut [f32],
) -> Result<Cost, Error> {
    let n = term.columns.max(1);
    let mut cost = Cost::NONE;
    for (choice, gates) in term.selected.iter().zip(term.h.chunks_exact(n)) {
        let lora = term
            .source
            .get(0, choice.class as usize)
            .ok_or(Error::Corrupt)?;
        let at = (choice.row as usize).saturating_mul(n);
        let rows = ranks.get_mut(at..).ok_or(Error::Corrupt)?;
        let (rows, _) = rows.as_chunks_mut::<A_UNIT>();
        let mut taking = 0;
        for (c, h) in gates.iter().enumerate() {
            let row = token(c).filter(|_| *h != 0.0);
            if let Some(row) = row {
                let mut slots = rows.iter_mut().skip(c).step_by(n).flatten();
                table_row(&lora.a, row, &mut slots)?;
                taking += 1;
            }
            let slots = rows.iter_mut().skip(c).step_by(n).flatten();
            for (j, slot) in slots.enumerate().take(lora.b.rank()) {
                *slot = match row {
                    Some(_) => flush(flush(*slot) * *h) * lora.b.scale(j),
                    None => 0.0,
                };
            }
        }
        cost = cost.plus(Cost::lora_row(&lora).for_columns(taking));
    }
    Ok(cost)
}

/// Adds the deltas of the table's dimensions to `out` `[unit][column][16]`.
pub(crate) struct AddDeltas<'a> {
    pub(crate) term: LoraTerm<'a>,
    pub(crate) ranks: &'a [f32],
    pub(crate) out: &'a mut [f32],
}

impl Task for AddDeltas<'_> {
    type Output = ();

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut d: Acc = [[0.0; LANES]; BLOCK];
        let n = self.term.columns.max(1);
        let units = self.out.chunks_exact_mut(n.saturating_mul(LANES).max(1));
        for (unit, out) in units.enumerate() {
            let blocks = out.as_chunks_mut::<LANES>().0.chunks_mut(BLOCK);
            for (i, block) in blocks.enumerate() {
                let columns = (i * BLOCK, block.len());
                add_deltas(
                    isa,
                    &self.term,
                    self.ranks,
                    (0, unit),
                    columns,
                    block,
                    &mut d,
                );
            }
        }
    }
}

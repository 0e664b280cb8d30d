//! Rows of embedding tables, and the deltas of embedding sites.

use crate::blob::Tensor;
use crate::error::Error;
use crate::kernels::isa::{Isa, LANES, Task};
use crate::kernels::layout::{Dtype, q8_weight, scale_bytes};
use crate::kernels::lora::{LoraTerm, add_deltas};
use crate::kernels::{A_UNIT, BLOCK};
use crate::math::{self, flush};
use crate::session::cost::Cost;

/// Writes row `row` of a table: f32(q) * sw, or the float itself.
pub(crate) fn table_row<'a>(
    t: &Tensor<'_>,
    row: usize,
    out: impl Iterator<Item = &'a mut f32>,
) -> Result<(), Error> {
    let lanes = t.lanes.max(1);
    let tile = t.tile(row / lanes).ok_or(Error::Corrupt)?;
    for (k, out) in out.enumerate().take(t.cols) {
        *out = element(t, tile, row % lanes, k).ok_or(Error::Corrupt)?;
    }
    Ok(())
}

/// Element `k` of a lane of a tile.
fn element(t: &Tensor<'_>, tile: &[u8], lane: usize, k: usize) -> Option<f32> {
    let lanes = t.lanes.max(1);
    Some(match t.dtype {
        Dtype::Q8 => {
            let scale_at = (k / t.group.max(1)) * lanes + lane;
            let scale = tile.as_chunks::<2>().0.get(scale_at)?;
            let scale = math::from_f16(u16::from_le_bytes(*scale)) * math::pow2(t.scale_exp);
            let step = t.layout.k_step().max(1);
            let bytes = step.saturating_mul(lanes);
            let at = scale_bytes(lanes, t.cols, t.group).saturating_add((k / step) * bytes);
            let vector = tile.get(at..at.saturating_add(bytes))?;
            q8_weight(t.layout, vector, lane, k % step)? as f32 * scale
        }
        Dtype::F16 => {
            let b = tile.as_chunks::<2>().0.get(k * lanes + lane)?;
            math::from_f16(u16::from_le_bytes(*b))
        }
        Dtype::F32 => f32::from_le_bytes(*tile.as_chunks::<4>().0.get(k * lanes + lane)?),
    })
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
            let lanes = lora.a.lanes.max(1);
            let row = token(c).filter(|_| *h != 0.0);
            let tile = row.and_then(|r| lora.a.tile(r / lanes));
            taking += row.is_some() as usize;
            let slots = rows.iter_mut().skip(c).step_by(n).flatten();
            for (j, slot) in slots.enumerate().take(lora.b.rank()) {
                let a = row
                    .zip(tile)
                    .and_then(|(r, tile)| element(&lora.a, tile, r % lanes, j));
                *slot = a.map_or(0.0, |a| flush(flush(a) * *h) * lora.b.scale(j));
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

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n = self.term.columns.max(1);
        let units = self.out.chunks_exact_mut(n.saturating_mul(LANES).max(1));
        for (unit, out) in units.enumerate() {
            let blocks = out.as_chunks_mut::<LANES>().0.chunks_mut(BLOCK);
            for (i, block) in blocks.enumerate() {
                let columns = (i * BLOCK, block.len());
                add_deltas(isa, &self.term, self.ranks, (0, unit), columns, &[], block);
            }
        }
    }
}

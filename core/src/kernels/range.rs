//! `q8` rows of many tiles times one column: what a backend gets that takes them in one call.

use crate::blob::Tensor;
use crate::kernels::isa::{Acc, Isa, LANES};
use crate::kernels::layout::{Dtype, Layout, scale_bytes};
use crate::kernels::linear::{Block, LinearJob, Part};
use crate::kernels::log::{Operation, ran};
use crate::kernels::panel::PanelColumn;
use crate::kernels::{BLOCK, UNIT};
use crate::math;

/// Tiles of four rows and a column, whose lengths were checked.
///
/// Invariants (by `new`): from `tile` to `end` lie whole tiles, at least one; each is `scale_bytes` bytes that begin
/// with four halves per group, then `whole * group_steps + short` vectors of four rows. `x` has as many steps, `sx` a scale per
/// group: `whole` ones, and one more if `short` is not 0. `out` has room for four floats per tile. `tile`, `x` and all
/// strides are multiples of 4.
pub(crate) struct Range {
    pub(crate) tile: *const u8,
    pub(crate) end: *const u8,
    pub(crate) tile_bytes: usize,
    pub(crate) scale_bytes: usize,
    pub(crate) x: *const i8,
    pub(crate) sx: *const f32,
    pub(crate) group_steps: usize,
    /// Groups without the short one at the end.
    pub(crate) whole: usize,
    /// Steps of the short group.
    pub(crate) short: usize,
    pub(crate) out: *mut f32,
    /// 2^scale_exp.
    pub(crate) pow: f32,
}

impl Range {
    /// Rows `first..first + rows` of `w`, from a tile on, into pieces of 16; rows behind the last are left out. A step of `layout` reads
    /// `step_bytes` of the column. `None` if something is not as a kernel needs it.
    #[inline(always)]
    pub(crate) fn new(
        (w, layout, step_bytes): (&Tensor<'_>, Layout, usize),
        (first, rows): (usize, usize),
        column: &PanelColumn<'_>,
        out: &mut [[f32; LANES]],
    ) -> Option<Self> {
        const R: usize = 4;
        let k_step = layout.k_step();
        if w.layout as u8 != layout as u8 || w.group % 32 != 0 || w.group == 0 {
            return None;
        }
        let (steps, group_steps) = (w.cols.div_ceil(k_step), w.group / k_step);
        let whole = steps / group_steps.max(1);
        let short = steps.wrapping_sub(whole * group_steps);
        let groups = whole + (short > 0) as usize;
        let scales = scale_bytes(R, w.cols, w.group);
        let tile_bytes = scales.wrapping_add(steps * R * k_step);
        let data = w.data.get((first / R).wrapping_mul(tile_bytes)..)?;
        // Tensor's invariant: what is left are whole tiles.
        let len = rows.div_ceil(R).wrapping_mul(tile_bytes).min(data.len());
        let data = data.get(..len)?;
        let sound = !data.is_empty()
            && column.q.len() >= steps * step_bytes
            && column.sx.len() >= groups
            && out.len() * LANES >= rows
            && (data.as_ptr().addr() | column.q.as_ptr().addr()).is_multiple_of(4);
        sound.then(|| Self {
            tile: data.as_ptr(),
            end: data.as_ptr_range().end,
            tile_bytes,
            scale_bytes: scales,
            x: column.q.as_ptr(),
            sx: column.sx.as_ptr(),
            group_steps,
            whole,
            short,
            out: out.as_mut_ptr().cast(),
            pow: math::pow2(w.scale_exp),
        })
    }
}

impl LinearJob<'_> {
    /// Units `first..`, `floats` of `out` each, as many in one call as a block holds.
    #[inline(always)]
    pub(crate) fn range<I: Isa>(&self, isa: I, first: usize, floats: usize, out: &mut [f32]) {
        let most = (BLOCK * LANES / floats.max(1)).max(1);
        let mut acc: Acc = [[0.0; LANES]; BLOCK];
        let (mut unit, mut out) = (first, out);
        for (number, part) in self.parts.iter().flatten().enumerate() {
            let Some(after) = part.units().checked_sub(unit) else {
                unit -= part.units();
                continue;
            };
            let here = after.saturating_mul(floats).min(out.len());
            let Some((now, rest)) = out.split_at_mut_checked(here) else {
                return;
            };
            for now in now.chunks_mut(most.saturating_mul(floats).max(1)) {
                let units = now.as_chunks_mut::<LANES>().0;
                self.part_range(isa, (number, part), (unit, floats / LANES), &mut acc, units);
                unit += most;
            }
            (unit, out) = (0, rest);
        }
    }

    /// The same for units of one matrix, `n` columns each; `acc` is scratch.
    #[inline(always)]
    fn part_range<I: Isa>(
        &self,
        isa: I,
        (number, part): (usize, &Part<'_>),
        (unit, n): (usize, usize),
        acc: &mut Acc,
        out: &mut [[f32; LANES]],
    ) {
        let (w, count) = (&part.weight, out.len() / n.max(1));
        let rows = (unit.saturating_mul(UNIT), count.saturating_mul(UNIT));
        if !w.rows.is_multiple_of(UNIT) {
            *acc = [[0.0; LANES]; BLOCK];
        }
        // Column by column, a column's units one after the other.
        let columns = acc.chunks_exact_mut(count.max(1)).take(n).enumerate();
        let computed = n <= BLOCK
            && matches!(w.dtype, Dtype::Q8)
            && columns.fold(true, |all, (c, acc)| {
                all && isa.q8_range(w, rows, &self.input.panel(c), acc)
            });
        if !computed {
            let mut block = Block::EMPTY;
            for (i, out) in out.chunks_exact_mut(n.max(1)).enumerate() {
                self.part_unit(
                    isa,
                    number,
                    part,
                    unit + i,
                    out.as_flattened_mut(),
                    &mut block,
                );
            }
            return;
        }
        ran(Operation::GemvQ8(w.layout));
        for (i, out) in out.chunks_exact_mut(n.max(1)).enumerate() {
            let at = (number, unit + i);
            let bias = part.bias(isa, unit + i);
            if n == 1 {
                let acc = acc.get_mut(i..=i).unwrap_or(&mut []);
                self.finish(isa, at, bias, 0, acc, out);
            } else {
                let mut columns: Acc = [[0.0; LANES]; BLOCK];
                let from = acc.iter().skip(i).step_by(count.max(1));
                columns
                    .iter_mut()
                    .zip(from)
                    .take(n)
                    .for_each(|(to, from)| *to = *from);
                let columns = columns.get_mut(..n).unwrap_or(&mut []);
                self.finish(isa, at, bias, 0, columns, out);
            }
        }
    }
}

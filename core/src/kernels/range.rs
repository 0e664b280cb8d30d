//! `q8` rows of many tiles times one column: what a backend gets that takes them in one call.

use crate::blob::Tensor;
use crate::kernels::isa::{Acc, Isa, LANES};
use crate::kernels::layout::{Dtype, Layout};
use crate::kernels::linear::{Block, LinearJob, Part};
use crate::kernels::log::{Operation, ran};
use crate::kernels::panel::PanelColumn;
use crate::kernels::{BLOCK, UNIT};

/// Rows of a tile.
const R: usize = 4;

/// Tiles of four rows and a column, whose lengths were checked.
///
/// Invariants (by `new`): `tiles`, at least one, lie one after the other from `tile` on, each `tile_bytes`: first
/// `scale_bytes`, which begin with four halves per group, then `whole * group_steps + short` vectors of four rows. `x` has as many
/// steps, `sx` a scale per group: `whole` ones, and one more if `short` is not 0. `out` has room for four floats per tile.
/// `tile`, `x` and all strides are multiples of 4.
pub(crate) struct Range {
    pub(crate) tile: *const u8,
    pub(crate) tiles: usize,
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
    pub(crate) scale_exp: i8,
}

impl Range {
    /// Rows `first..first + rows` of `w`, from a tile on, into pieces of 16; rows behind the last are left out. A step of
    /// `layout` reads `step_bytes` of the column. `None` if something is not as a kernel needs it.
    #[inline(always)]
    pub(crate) fn new(
        (w, layout, step_bytes): (&Tensor<'_>, Layout, usize),
        (first, rows): (usize, usize),
        column: &PanelColumn<'_>,
        out: &mut [[f32; LANES]],
    ) -> Option<Self> {
        let k_step = layout.k_step();
        if w.layout as u8 != layout as u8 || !w.group.is_multiple_of(32) || w.group == 0 {
            return None;
        }
        // Tensor's invariant: its data are whole tiles, as many as its rows take.
        let all = w.rows.div_ceil(R);
        let tiles = rows.div_ceil(R).min(all.checked_sub(first / R)?);
        if tiles == 0 {
            return None;
        }
        let tile_bytes = w.data.len() / all.max(1);
        let tile = w.data.as_ptr().wrapping_add(first / R * tile_bytes);

        let (whole, group_steps) = (w.cols / w.group, w.group / k_step);
        let short = (w.cols - whole * w.group).div_ceil(k_step);
        let steps = whole * group_steps + short;
        let scale_bytes = tile_bytes.checked_sub(steps * (R * k_step))?;
        let sound = column.q.len() >= steps * step_bytes
            && column.sx.len() >= whole + (short > 0) as usize
            && out.len() >= tiles.div_ceil(LANES / R)
            && (tile.addr() | column.q.as_ptr().addr()).is_multiple_of(4);
        sound.then(|| Self {
            tile,
            tiles,
            tile_bytes,
            scale_bytes,
            x: column.q.as_ptr(),
            sx: column.sx.as_ptr(),
            group_steps,
            whole,
            short,
            out: out.as_mut_ptr().cast(),
            scale_exp: w.scale_exp,
        })
    }

    /// Behind the last tile.
    #[inline(always)]
    pub(crate) fn end(&self) -> *const u8 {
        self.tile.wrapping_add(self.tiles * self.tile_bytes)
    }

    /// The panel where the last whole group ends, if a step takes `step_bytes` of it.
    #[inline(always)]
    pub(crate) fn full(&self, step_bytes: usize) -> *const i8 {
        self.x
            .wrapping_add(self.whole * self.group_steps * step_bytes)
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
            self.unit_by_unit(isa, (number, part), (unit, n), out);
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

    #[inline(never)] // its registers are not those of the short way
    fn unit_by_unit<I: Isa>(
        &self,
        isa: I,
        (number, part): (usize, &Part<'_>),
        (unit, n): (usize, usize),
        out: &mut [[f32; LANES]],
    ) {
        let mut block = Block::EMPTY;
        for (i, out) in out.chunks_exact_mut(n.max(1)).enumerate() {
            let out = out.as_flattened_mut();
            self.part_unit(isa, number, part, unit + i, out, &mut block);
        }
    }
}

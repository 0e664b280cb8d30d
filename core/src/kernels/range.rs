//! `q8` rows of many tiles times one column: what a backend gets that takes them in one call.

use crate::blob::Tensor;
use crate::kernels::isa::LANES;
use crate::kernels::layout::{Layout, scale_bytes};
use crate::kernels::panel::PanelColumn;
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

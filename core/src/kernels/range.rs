//! `q8` rows of many tiles times one column: what a backend gets that takes them in one call.

use crate::blob::Tensor;
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use core::marker::PhantomData;

/// Rows of a tile.
const R: usize = 4;

/// Tiles of four rows and a column, whose lengths were checked, for kernels that read through pointers.
///
/// Invariants (by `new`): `tiles`, at least one, lie one after the other from `tile` on, each `tile_bytes`: first
/// `scale_bytes`, which begin with four halves per group, then `whole * group_steps + short` vectors of four rows. `x` has as many
/// steps of `step_bytes`, `sx` a scale per group: `whole` ones, and one more if `short` is not 0. `out` has room for four floats
/// per tile. `tile`, `x` and all strides are multiples of 4. A group is one of [`is_group`](crate::kernels::layout::is_group).
pub(crate) struct Range<'a> {
    pub(crate) tile: *const u8,
    pub(crate) tiles: usize,
    pub(crate) tile_bytes: usize,
    pub(crate) scale_bytes: usize,
    pub(crate) x: *const i8,
    step_bytes: usize,
    pub(crate) sx: *const f32,
    pub(crate) group_steps: usize,
    /// Groups without the short one at the end.
    pub(crate) whole: usize,
    /// Steps of the short group.
    pub(crate) short: usize,
    pub(crate) out: *mut f32,
    pub(crate) scale_exp: i8,
    /// Nothing else makes one.
    lifetime: PhantomData<(&'a [u8], &'a mut [f32])>,
}

impl<'a> Range<'a> {
    /// Rows `first..first + rows` of `w`, from a tile on, into pieces of 16; rows behind the last are left out. A step of
    /// `layout` reads `step_bytes` of the column. `None` if something is not as a kernel needs it.
    #[inline(always)]
    pub(crate) fn new(
        (w, layout, step_bytes): (&Tensor<'a>, Layout, usize),
        (first, rows): (usize, usize),
        column: &PanelColumn<'a>,
        out: &'a mut [[f32; LANES]],
    ) -> Option<Self> {
        let k_step = layout.k_step();
        // Tensor's invariants: it has columns, in groups that are not 0, and its layout, which none of the others is, holds its dtype.
        if w.layout as u8 != layout as u8 || w.group == 0 {
            return None;
        }
        // Tensor's invariant: its data are whole tiles, as many as its rows take.
        let all = w.rows.div_ceil(R);
        let tiles = rows.div_ceil(R).min(all.checked_sub(first / R)?);
        if tiles == 0 {
            return None;
        }
        let tile_bytes = w.tile_bytes();
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
            step_bytes,
            sx: column.sx.as_ptr(),
            group_steps,
            whole,
            short,
            out: out.as_mut_ptr().cast(),
            scale_exp: w.scale_exp,
            lifetime: PhantomData,
        })
    }

    /// Behind the last tile.
    #[inline(always)]
    pub(crate) fn end(&self) -> *const u8 {
        self.tile.wrapping_add(self.tiles * self.tile_bytes)
    }

    /// The panel where the last whole group ends.
    #[inline(always)]
    pub(crate) fn full(&self) -> *const i8 {
        self.x
            .wrapping_add(self.whole * self.group_steps * self.step_bytes)
    }
}

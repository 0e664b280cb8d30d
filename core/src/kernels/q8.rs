//! `q8` rows: what a micro-kernel gets.

use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use core::marker::PhantomData;

/// One tile of `q8` rows.
pub(crate) struct Q8Tile<'a> {
    pub(crate) layout: Layout,
    /// f16 `[group][R]`.
    pub(crate) scales: &'a [u8],
    /// `[step][R][k_step]`.
    pub(crate) vectors: &'a [u8],
    /// Columns, without padding.
    pub(crate) k: usize,
    pub(crate) group: usize,
    /// 2^scale_exp.
    pub(crate) pow: f32,
}

/// A tile and `C` columns whose lengths were checked, for micro-kernels that read through pointers.
///
/// Invariants (by `new`): with `steps` steps of `k_step` columns in `groups` groups of `group_steps` steps (the last
/// may be shorter), `scales` holds `groups * R` halves, `vectors` holds `steps * R * k_step` bytes, and for each
/// column `q` holds `steps * k_step` bytes, `sx` and `sum` hold `groups` values.
pub(crate) struct Q8Block<'a, const C: usize> {
    pub(crate) scales: *const u8,
    pub(crate) vectors: *const u8,
    pub(crate) q: [*const i8; C],
    pub(crate) sx: [*const f32; C],
    /// For backends whose instruction takes one operand unsigned.
    #[allow(dead_code)]
    pub(crate) sum: [*const i32; C],
    pub(crate) steps: usize,
    pub(crate) groups: usize,
    pub(crate) group_steps: usize,
    pub(crate) pow: f32,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a, const C: usize> Q8Block<'a, C> {
    #[inline(always)]
    pub(crate) fn new(tile: &Q8Tile<'a>, columns: &[PanelColumn<'a>; C]) -> Option<Self> {
        let (rows, k_step) = (tile.layout.tile_rows(), tile.layout.k_step());
        let steps = tile.k.div_ceil(k_step.max(1));
        let group_steps = (tile.group / k_step.max(1)).max(1);
        let groups = steps.div_ceil(group_steps);
        let sound = tile.scales.len() >= groups.saturating_mul(rows).saturating_mul(2)
            && tile.vectors.len() >= steps.saturating_mul(rows).saturating_mul(k_step)
            && columns.iter().all(|c| {
                c.q.len() >= steps.saturating_mul(k_step)
                    && c.sx.len() >= groups
                    && c.sum.len() >= groups
            });
        sound.then(|| Self {
            scales: tile.scales.as_ptr(),
            vectors: tile.vectors.as_ptr(),
            q: columns.map(|c| c.q.as_ptr()),
            sx: columns.map(|c| c.sx.as_ptr()),
            sum: columns.map(|c| c.sum.as_ptr()),
            steps,
            groups,
            group_steps,
            pow: tile.pow,
            lifetime: PhantomData,
        })
    }
}

/// A micro-kernel over a number of columns that is known when it is compiled.
pub(crate) trait Q8Kernel: Copy {
    /// The layout of its tiles: it gets no others.
    const LAYOUT: Layout;

    /// Columns that it takes at once: 2, 4 or 8.
    const WIDEST: usize;

    /// Writes rows `lane..lane + R` of each column of `acc`.
    fn run<const C: usize>(self, block: &Q8Block<'_, C>, lane: usize, acc: &mut [[f32; LANES]; C]);
}

/// Runs a micro-kernel over up to 8 columns: 1, 2, if it can 3, 4 or 8 at once.
#[inline(always)]
pub(crate) fn by_columns<'a, K: Q8Kernel>(
    kernel: K,
    tile: &Q8Tile<'a>,
    columns: &[PanelColumn<'a>],
    lane: usize,
    acc: &mut [[f32; LANES]],
) {
    let (mut columns, mut acc) = (columns, acc);
    loop {
        let taken = match columns.len() {
            0 => return,
            1 => take::<K, 1>(kernel, tile, columns, lane, acc),
            n if n == 2 || K::WIDEST < 4 => take::<K, 2>(kernel, tile, columns, lane, acc),
            3 => take::<K, 3>(kernel, tile, columns, lane, acc),
            n if n < 8 || K::WIDEST < 8 => take::<K, 4>(kernel, tile, columns, lane, acc),
            _ => take::<K, 8>(kernel, tile, columns, lane, acc),
        };
        let (Some(rest), Some(more)) = (columns.get(taken..), acc.get_mut(taken..)) else {
            return;
        };
        (columns, acc) = (rest, more);
    }
}

#[inline(always)]
fn take<'a, K: Q8Kernel, const C: usize>(
    kernel: K,
    tile: &Q8Tile<'a>,
    columns: &[PanelColumn<'a>],
    lane: usize,
    acc: &mut [[f32; LANES]],
) -> usize {
    if tile.layout as u8 == K::LAYOUT as u8
        && let Some(columns) = columns.first_chunk::<C>()
        && let Some(acc) = acc.first_chunk_mut::<C>()
        && let Some(block) = Q8Block::new(tile, columns)
    {
        kernel.run(&block, lane, acc);
    }
    C
}

//! `q8` rows: what a micro-kernel gets.

use crate::blob::Tensor;
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::scalar::q8::gemv_q8_scalar;
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
        let (bytes, scales) = (
            steps.saturating_mul(k_step),
            groups.saturating_mul(rows).saturating_mul(2),
        );
        let enough = |c: &PanelColumn<'_>| {
            (c.q.len() >= bytes) & (c.sx.len() >= groups) & (c.sum.len() >= groups)
        };
        let sound = tile.scales.len() >= scales
            && tile.vectors.len() >= bytes.saturating_mul(rows)
            && columns.iter().fold(true, |all, c| all & enough(c));
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

    /// The block with the tile that lies `bytes` behind its own. It is sound where a tile of the same shape lies there.
    #[inline(always)]
    fn move_by(&mut self, bytes: usize) {
        self.scales = self.scales.wrapping_add(bytes);
        self.vectors = self.vectors.wrapping_add(bytes);
    }
}

/// A backend with micro-kernels for the layouts `r16k4` and `r4k4`. A value is the proof of its features.
#[allow(unsafe_code)]
pub(crate) trait Interleaved: Copy {
    /// Columns that they take at once: 2, 4 or 8.
    const WIDEST: usize;

    /// # Safety
    ///
    /// `block` is a sound block of `r16k4`.
    unsafe fn r16k4<const C: usize>(self, block: &Q8Block<'_, C>, acc: &mut [[f32; LANES]; C]);

    /// # Safety
    ///
    /// `block` is a sound block of `r4k4`.
    unsafe fn r4k4<const C: usize>(self, block: &Q8Block<'_, C>) -> [[f32; 4]; C];
}

/// [`Isa::q8`](crate::kernels::isa::Isa::q8) of such a backend; other layouts are read by the scalar code.
#[inline(always)]
pub(crate) fn gemv_q8<B: Interleaved>(
    backend: B,
    w: &Tensor<'_>,
    tiles: (usize, usize),
    columns: &[PanelColumn<'_>],
    lane: usize,
    acc: &mut [[f32; LANES]],
) {
    match w.layout {
        Layout::R16K4 => by_columns(R16K4(backend), w, tiles, columns, lane, acc),
        Layout::R4K4 => by_columns(R4K4(backend), w, tiles, columns, lane, acc),
        _ => gemv_q8_scalar(w, tiles, columns, lane, acc),
    }
}

/// A micro-kernel over a number of columns that is known when it is compiled.
trait Q8Kernel: Copy {
    /// The layout of its tiles: it gets no others.
    const LAYOUT: Layout;

    /// Columns that it takes at once: 2, 4 or 8.
    const WIDEST: usize;

    /// Writes rows `lane..lane + R` of each column of `acc`.
    fn run<const C: usize>(self, block: &Q8Block<'_, C>, lane: usize, acc: &mut [[f32; LANES]; C]);
}

#[derive(Clone, Copy)]
struct R16K4<B>(B);

impl<B: Interleaved> Q8Kernel for R16K4<B> {
    const LAYOUT: Layout = Layout::R16K4;
    const WIDEST: usize = B::WIDEST;

    #[inline(always)]
    #[allow(unsafe_code)]
    fn run<const C: usize>(self, block: &Q8Block<'_, C>, _: usize, acc: &mut [[f32; LANES]; C]) {
        // SAFETY: `take` comes here with blocks of `LAYOUT` only; `Q8Block::new` makes sound ones, and it moves them on to tiles
        //   that are there.
        unsafe { self.0.r16k4(block, acc) }
    }
}

#[derive(Clone, Copy)]
struct R4K4<B>(B);

impl<B: Interleaved> Q8Kernel for R4K4<B> {
    const LAYOUT: Layout = Layout::R4K4;
    const WIDEST: usize = B::WIDEST;

    #[inline(always)]
    #[allow(unsafe_code)]
    fn run<const C: usize>(self, block: &Q8Block<'_, C>, lane: usize, acc: &mut [[f32; LANES]; C]) {
        // SAFETY: `take` comes here with blocks of `LAYOUT` only; `Q8Block::new` makes sound ones, and it moves them on to tiles
        //   that are there.
        let sums = unsafe { self.0.r4k4(block) };
        for (acc, sums) in acc.iter_mut().zip(sums) {
            let rows = acc.iter_mut().skip(lane);
            rows.zip(sums).for_each(|(a, s)| *a = s);
        }
    }
}

/// Runs a micro-kernel over up to 8 columns: 1, 2, if it can 3, 4 or 8 at once.
#[inline(always)]
fn by_columns<K: Q8Kernel>(
    kernel: K,
    w: &Tensor<'_>,
    tiles: (usize, usize),
    columns: &[PanelColumn<'_>],
    lane: usize,
    acc: &mut [[f32; LANES]],
) {
    let mut at = 0;
    loop {
        at += match columns.len() - at {
            0 => return,
            1 => take::<K, 1>(kernel, w, tiles, (columns, at), lane, acc),
            n if n == 2 || K::WIDEST < 4 => {
                take::<K, 2>(kernel, w, tiles, (columns, at), lane, acc)
            }
            3 => take::<K, 3>(kernel, w, tiles, (columns, at), lane, acc),
            n if n < 8 || K::WIDEST < 8 => take::<K, 4>(kernel, w, tiles, (columns, at), lane, acc),
            _ => take::<K, 8>(kernel, w, tiles, (columns, at), lane, acc),
        };
    }
}

/// `C` of the columns, from number `at` on, and all tiles: what is the same for each of them is checked once.
#[inline(always)]
fn take<K: Q8Kernel, const C: usize>(
    kernel: K,
    w: &Tensor<'_>,
    (first, count): (usize, usize),
    (columns, at): (&[PanelColumn<'_>], usize),
    lane: usize,
    acc: &mut [[f32; LANES]],
) -> usize {
    let last = first.saturating_add(count.saturating_sub(1));
    if w.layout as u8 == K::LAYOUT as u8
        && let Some(tile) = w.q8_tile(first)
        && w.tile(last).is_some()
        && let Some(some) = columns.get(at..).and_then(|c| c.first_chunk::<C>())
        && let Some(mut block) = Q8Block::new(&tile, some)
    {
        // The tiles of a tensor up to one that is there lie one behind the other, alike: the block stays sound.
        for acc in acc.chunks_mut(columns.len()).take(count) {
            let acc = acc.get_mut(at..).unwrap_or(&mut []);
            if let Some(acc) = acc.first_chunk_mut::<C>() {
                kernel.run(&block, lane, acc);
            }
            block.move_by(w.tile_bytes());
        }
    }
    C
}

//! `q8` rows: what a micro-kernel gets.

use crate::blob::Tensor;
use crate::kernels::isa::{LANES, Named};
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::scalar::q8::gemv_q8_scalar;
use core::marker::PhantomData;
use core::ptr;

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

/// `T` tiles that lie one behind the other, and `C` columns, whose lengths were checked, for micro-kernels that read through
/// pointers.
///
/// Invariants (by `new`): with `steps` steps of `k_step` columns in `groups` groups of `group_steps` steps (the last
/// may be shorter), for each tile `scales` holds `groups * R` halves and `vectors` holds `steps * R * k_step` bytes, and for
/// each column `q` holds `steps * k_step` bytes, `sx` and `sum` hold `groups` values.
pub(crate) struct Q8Block<'a, const C: usize, const T: usize = 1> {
    pub(crate) scales: [*const u8; T],
    pub(crate) vectors: [*const u8; T],
    pub(crate) q: [*const i8; C],
    pub(crate) sx: [*const f32; C],
    /// For backends whose instruction takes one operand unsigned.
    #[allow(dead_code)]
    pub(crate) sum: [*const i32; C],
    pub(crate) steps: usize,
    pub(crate) groups: usize,
    pub(crate) group_steps: usize,
    /// Bytes from one tile to the next.
    pub(crate) stride: usize,
    pub(crate) pow: f32,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a, const C: usize, const T: usize> Q8Block<'a, C, T> {
    /// The first `T` of `count` tiles from `first` on; `None` if `w` has not so many, in another layout, or a column is short.
    #[inline(always)]
    pub(crate) fn new(
        w: &Tensor<'a>,
        layout: Layout,
        (first, count): (usize, usize),
        columns: &[PanelColumn<'a>; C],
    ) -> Option<Self> {
        if w.layout as u8 != layout as u8 || count < T {
            return None;
        }
        let tile = w.q8_tile(first)?;
        w.tile(first.saturating_add(count - 1))?;
        let (rows, k_step) = (layout.tile_rows(), layout.k_step());
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
        // Pointers that may reach all tiles.
        let at = |part: &[u8]| w.data.as_ptr().with_addr(part.as_ptr().addr());
        let mut block = Self {
            scales: [at(tile.scales); T],
            vectors: [at(tile.vectors); T],
            q: columns.map(|c| c.q.as_ptr()),
            sx: columns.map(|c| c.sx.as_ptr()),
            sum: columns.map(|c| c.sum.as_ptr()),
            steps,
            groups,
            group_steps,
            stride: w.tile_bytes(),
            pow: tile.pow,
            lifetime: PhantomData,
        };
        block.move_by(|t| t);
        sound.then_some(block)
    }

    /// Moves tile `t` by so many tiles. The tiles of a tensor up to one that is there lie one behind the other, alike: it stays
    /// sound among the `count` of `new`.
    #[inline(always)]
    fn move_by(&mut self, tiles: impl Fn(usize) -> usize) {
        let all = self.scales.iter_mut().zip(&mut self.vectors);
        for (t, (scales, vectors)) in all.enumerate() {
            let bytes = tiles(t).wrapping_mul(self.stride);
            *scales = scales.wrapping_add(bytes);
            *vectors = vectors.wrapping_add(bytes);
        }
    }

    /// Its tiles, each alone.
    #[inline(always)]
    pub(crate) fn each(&self) -> [Q8Block<'a, C>; T] {
        let mut tiles = [(ptr::null(), ptr::null()); T];
        let parts = self.scales.iter().zip(&self.vectors);
        for (tile, (scales, vectors)) in tiles.iter_mut().zip(parts) {
            *tile = (*scales, *vectors);
        }
        tiles.map(|(scales, vectors)| Q8Block {
            scales: [scales],
            vectors: [vectors],
            q: self.q,
            sx: self.sx,
            sum: self.sum,
            steps: self.steps,
            groups: self.groups,
            group_steps: self.group_steps,
            stride: self.stride,
            pow: self.pow,
            lifetime: PhantomData,
        })
    }
}

/// A backend with micro-kernels for the layouts `r16k4` and `r4k4`. A value is the proof of its features.
#[allow(unsafe_code)]
pub(crate) trait Interleaved: Copy + Named {
    /// Columns that they take at once: 2, 4 or 8.
    const WIDEST: usize;

    /// Columns times tiles of `r16k4`, at most, where a few columns take several tiles at once: tiles side by side are as many
    /// streams of memory, of which a core keeps more under way than of one.
    const SIDE_BY_SIDE: usize = 1;

    /// # Safety
    ///
    /// `block` is a sound block of `r16k4`.
    unsafe fn r16k4<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        acc: &mut [[[f32; LANES]; C]; T],
    );

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

/// A micro-kernel over numbers of columns and tiles that are known when it is compiled.
#[allow(unsafe_code)]
trait Q8Kernel: Copy {
    /// The layout of its tiles: it gets no others.
    const LAYOUT: Layout;

    /// Columns that it takes at once: 2, 4 or 8.
    const WIDEST: usize;

    /// Columns times tiles, at most, where it takes several tiles at once.
    const SIDE_BY_SIDE: usize;

    /// Writes rows `lane..lane + R` of each tile and column of `acc`.
    ///
    /// # Safety
    ///
    /// `block` is a sound block of `LAYOUT`.
    unsafe fn run<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        lane: usize,
        acc: &mut [[[f32; LANES]; C]; T],
    );
}

#[derive(Clone, Copy)]
struct R16K4<B>(B);

impl<B: Interleaved> Q8Kernel for R16K4<B> {
    const LAYOUT: Layout = Layout::R16K4;
    const WIDEST: usize = B::WIDEST;
    const SIDE_BY_SIDE: usize = B::SIDE_BY_SIDE;

    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn run<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        _: usize,
        acc: &mut [[[f32; LANES]; C]; T],
    ) {
        // SAFETY: the caller's obligation, of this layout.
        unsafe { self.0.r16k4(block, acc) }
    }
}

#[derive(Clone, Copy)]
struct R4K4<B>(B);

impl<B: Interleaved> Q8Kernel for R4K4<B> {
    const LAYOUT: Layout = Layout::R4K4;
    const WIDEST: usize = B::WIDEST;
    const SIDE_BY_SIDE: usize = 1;

    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn run<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        lane: usize,
        acc: &mut [[[f32; LANES]; C]; T],
    ) {
        for (block, acc) in block.each().iter().zip(acc) {
            // SAFETY: the caller's obligation, of this layout; each tile of a sound block is one.
            let sums = unsafe { self.0.r4k4(block) };
            for (acc, sums) in acc.iter_mut().zip(sums) {
                let rows = acc.iter_mut().skip(lane);
                rows.zip(sums).for_each(|(a, s)| *a = s);
            }
        }
    }
}

/// Runs a micro-kernel over up to 8 columns: 1, 2, if it can 3, 4 or 8 at once. Compiled once for all drivers, and without the
/// backend's features, which the micro-kernel alone needs.
#[inline(never)]
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

/// `C` of the columns, from number `at` on, and all tiles. Where these are all columns, and few, several tiles at once.
#[inline(always)]
fn take<K: Q8Kernel, const C: usize>(
    kernel: K,
    w: &Tensor<'_>,
    tiles: (usize, usize),
    columns: (&[PanelColumn<'_>], usize),
    lane: usize,
    acc: &mut [[f32; LANES]],
) -> usize {
    let done = match K::SIDE_BY_SIDE / C {
        _ if columns.0.len() != C => 0,
        0 | 1 => 0,
        2 | 3 => whole_sets::<K, C, 2>(kernel, w, tiles, columns, lane, acc),
        _ => whole_sets::<K, C, 4>(kernel, w, tiles, columns, lane, acc),
    };
    let tiles = (tiles.0.saturating_add(done), tiles.1.saturating_sub(done));
    let acc = acc.get_mut(done.saturating_mul(columns.0.len())..);
    whole_sets::<K, C, 1>(kernel, w, tiles, columns, lane, acc.unwrap_or(&mut []));
    C
}

/// As many of `count` tiles as are whole sets of `T`: what is the same for each of them is checked once. More than one is
/// taken at once for all columns only. Returns how many.
#[inline(always)]
#[allow(unsafe_code)]
fn whole_sets<K: Q8Kernel, const C: usize, const T: usize>(
    kernel: K,
    w: &Tensor<'_>,
    (first, count): (usize, usize),
    (columns, at): (&[PanelColumn<'_>], usize),
    lane: usize,
    acc: &mut [[f32; LANES]],
) -> usize {
    let count = count / T * T;
    if let Some(some) = columns.get(at..).and_then(|c| c.first_chunk::<C>())
        && let Some(mut block) = Q8Block::new(w, K::LAYOUT, (first, count), some)
    {
        for acc in acc.chunks_mut(columns.len() * T).take(count / T) {
            let acc = acc.get_mut(at..).unwrap_or(&mut []).as_chunks_mut::<C>().0;
            if let Some(acc) = acc.first_chunk_mut::<T>() {
                // SAFETY: `new` made a sound block of `LAYOUT`, whose sets of `T` tiles are all among its `count`, and it was moved
                //   by fewer sets than these are.
                unsafe { kernel.run(&block, lane, acc) };
            }
            block.move_by(|_| T);
        }
    }
    count
}

//! What a backend is: 16 lanes of f32, a few micro-kernels, and a way to enter code compiled for its CPU.
//!
//! Every operation has one driver, generic over an [`Isa`]. A driver is `#[inline(always)]` down to its loops, and
//! [`Kernels::run`](crate::Kernels) enters it through a function that has the backend's target features, so that
//! the compiler uses them for everything in between. A backend writes by hand only what the compiler does not
//! find: the [`Lanes`] (16 rows, positions or dimensions at once), and rows of `q8`.
//!
//! A value of an [`Isa`] is the proof that this CPU has it: detection or the build hands it out, nothing else can
//! make one. A [`Lanes`] is made by an `Isa` only, so it carries the proof on.

use crate::blob::Tensor;
use crate::kernels::float::{F16, I8, add_four};
use crate::kernels::panel::PanelColumn;
use core::ops::{Add, Mul};

/// Lanes of a vector: rows of a unit, positions of a tile of keys, dimensions of values.
pub const LANES: usize = 16;

/// Columns that a micro-kernel takes at once, or vectors of a column: fewer on bare metal, where they are stack.
pub const BLOCK: usize = if crate::kernels::SMALL { 2 } else { 8 };

/// Bytes that memory hands out at once, on most CPUs.
pub(crate) const LINE: usize = 64;

/// How far ahead of a stream to prefetch, in bytes, where several are read side by side.
pub(crate) const NEAR: usize = 2048;

/// How far ahead of one of several streams to prefetch, where `left` bytes of what lies together are left: what the stream reads
/// next begins `jump` bytes behind their end.
#[inline(always)]
pub(crate) const fn next_of(left: usize, jump: usize) -> usize {
    match left > NEAR {
        true => NEAR,
        false => NEAR.wrapping_add(jump),
    }
}

/// Accumulators of a block of columns: `[column][row]`.
pub(crate) type Acc = [[f32; LANES]; BLOCK];

/// 16 lanes of f32. Each operation rounds once, like the scalar one.
pub(crate) trait Lanes: Copy + Add<Output = Self> + Mul<Output = Self> {
    /// The lanes, in order.
    fn array(self) -> [f32; LANES];
    /// [`flush`](crate::math::flush) in each lane.
    fn flush(self) -> Self;
}

/// What a backend is called, in tables, tests and logs.
pub(crate) trait Named {
    const NAME: &'static str;

    /// The backend whose code runs what computes no rows of `q8`.
    const WITHOUT_Q8: &'static str = Self::NAME;
}

/// A backend.
pub(crate) trait Isa: Copy + Named {
    type Lanes: Lanes;

    /// Whether panels are expanded for this backend's `m4` kernel (see [`panel`](crate::kernels::panel)).
    const EXPANDS: bool = false;

    /// Columns up to which [`q8_range`](Isa::q8_range), column by column, is better than [`q8`](Isa::q8). 0: it does nothing.
    const RANGES: usize = 0;

    /// Query heads that attention takes through keys and values at once, at most 4.
    const QUERIES: usize = 4;

    /// Whether 16 accumulators of 16 lanes fit the registers, beside what is added to them: attention then takes four vectors
    /// of keys or values at once, and rows of floats eight columns.
    const SIXTEEN_SUMS: bool = false;

    /// Whether keys and values go by four products at once ([`add_four_f16`](Isa::add_four_f16), for
    /// [`QUERIES`](Isa::QUERIES) sums): where a product takes a factor from an element of a register, or where only assembly
    /// keeps the sums in registers. B goes by four everywhere but on firmware without this, with 1 to 4 sums.
    const BY_FOUR: bool = false;

    /// Whether [`prefetch`](Isa::prefetch) does anything.
    const PREFETCHES: bool = false;

    /// Asks for the memory `ahead` bytes behind `at`, which need not be ours.
    #[inline(always)]
    fn prefetch<T>(self, at: &T, ahead: usize) {
        let _ = (at, ahead);
    }

    /// [`prefetch`](Isa::prefetch) for all of `values`, once per line of memory.
    #[inline(always)]
    fn prefetch_lines<T>(self, values: &[T], ahead: usize) {
        if !Self::PREFETCHES {
            return;
        }
        let step = LINE / size_of::<T>().clamp(1, LINE);
        let firsts = values.iter().step_by(step);
        firsts.for_each(|at| self.prefetch(at, ahead));
    }

    fn splat(self, x: f32) -> Self::Lanes;
    fn load(self, x: &[f32; LANES]) -> Self::Lanes;
    /// Halves, little-endian; exact, subnormal ones too.
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::Lanes;
    /// `sums[c] = sums[c] + x[c][t] * vectors[t]` of halves, for t from 0 to 3.
    #[inline(always)]
    fn add_four_f16<const C: usize>(
        self,
        vectors: [&[u8; 2 * LANES]; 4],
        x: [&[f32; 4]; C],
        sums: &mut [Self::Lanes; C],
    ) {
        add_four::<Self, F16, C>(self, vectors, x, sums);
    }

    /// int8, exact.
    fn load_i8(self, x: &[u8; LANES]) -> Self::Lanes;
    /// [`add_four_f16`](Isa::add_four_f16) of int8.
    #[inline(always)]
    fn add_four_i8<const C: usize>(
        self,
        vectors: [&[u8; LANES]; 4],
        x: [&[f32; 4]; C],
        sums: &mut [Self::Lanes; C],
    ) {
        add_four::<Self, I8, C>(self, vectors, x, sums);
    }

    /// Rows `lane..lane + R` of `acc` `[tile][column]` = the `R` rows of each of the tiles `first, count` of `w` times each of the
    /// columns, at most 8.
    ///
    /// Order per row: acc = +0; for g ascending, d = the exact integer sum of q*x, then
    /// `acc = acc + (f32(d) * (sw * sx))`, with 2^scale_exp applied to sx, exactly.
    fn q8(
        self,
        w: &Tensor<'_>,
        tiles: (usize, usize),
        columns: &[PanelColumn<'_>],
        lane: usize,
        acc: &mut [[f32; LANES]],
    );

    /// Rows `first..first + rows` of `w`, from a tile on, times one column, into pieces of 16. `false` if this
    /// backend has no such kernel for what it is given: then nothing was written. What is read next lies `ahead` bytes
    /// behind the rows, or that is not known: 0.
    #[inline(always)]
    fn q8_range(
        self,
        _w: &Tensor<'_>,
        (_first, _rows): (usize, usize),
        _column: &PanelColumn<'_>,
        _ahead: usize,
        _out: &mut [[f32; LANES]],
    ) -> bool {
        false
    }
}

/// Work that a backend compiles for its CPU. `run` and all generic code that it calls is `#[inline(always)]`; but where
/// `pleach_small` is set the whole build is for one backend, and the larger functions stay apart to save flash.
pub(crate) trait Task {
    type Output;

    /// It computes no rows of `q8`: backends that differ in those alone compile it once.
    #[allow(dead_code)]
    const WITHOUT_Q8: bool = false;

    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

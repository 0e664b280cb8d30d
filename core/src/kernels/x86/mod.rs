//! x86: AVX2 with F16C, and AVX-512 with VNNI.

mod avx2;
mod avx2_q8;
mod avx512vnni;
mod avx512vnni_q8;

use crate::kernels::isa::{NEAR, next_of};

pub(crate) use avx2::Avx2;
pub(crate) use avx512vnni::Avx512Vnni;

#[cfg(target_arch = "x86")]
use core::arch::x86 as arch;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64 as arch;

/// How far ahead of a stream of weights to prefetch, in bytes. The more columns, the less a CPU looks ahead by itself: at
/// 4096 bytes two columns took 2 % more time.
const AHEAD: usize = 8192;

/// [`next_of`] of one of `T` tiles, `stride` bytes apart; of a single one, always [`AHEAD`].
#[inline(always)]
fn ahead<const T: usize>(left: usize, stride: usize) -> usize {
    match T {
        1 => AHEAD,
        _ => next_of(left, stride.saturating_mul(T - 1)),
    }
}

/// How far ahead of a group's scales to prefetch, so that with [`ahead`] of the vectors all bytes of a stream of tiles are asked
/// for: these reach behind a tile's end into the scales and vectors of the next, which begins with its vectors.
#[inline(always)]
const fn ahead_of_scales<const T: usize>() -> usize {
    match T {
        1 => AHEAD,
        _ => NEAR,
    }
}

/// Asks for the memory `ahead` bytes behind `at`.
#[inline(always)]
#[allow(unsafe_code)]
fn prefetch<T>(at: &T, ahead: usize) {
    let at = core::ptr::from_ref(at).cast::<i8>().wrapping_add(ahead);
    // SAFETY: cpu: SSE is part of what either backend stands for. bounds: a prefetch may go anywhere.
    unsafe { arch::_mm_prefetch::<{ arch::_MM_HINT_T0 }>(at) };
}

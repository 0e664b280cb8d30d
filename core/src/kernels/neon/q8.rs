//! `q8` rows: what the backends share is all but the integer dots of a group.

use super::lanes::widen;
use crate::kernels::isa::LANES;
use crate::kernels::q8::Q8Block;
use core::arch::aarch64::*;
use core::arch::asm;

/// How far ahead of a stream of weights to prefetch, in bytes.
pub(super) const AHEAD: usize = 1024;

/// Steps of a group of 64.
const USUAL: usize = 16;

/// The exact dots of a group, `steps` steps of 4 k: from `w`, 4 k of `R` rows a step, and each `q`, 4 k a step. All
/// pointers move on.
#[allow(unsafe_code)]
pub(super) trait Dots {
    /// 16 rows, four in a register.
    ///
    /// # Safety
    ///
    /// There are as many bytes behind the pointers, and the CPU has the instructions.
    unsafe fn r16<const C: usize>(
        w: &mut *const u8,
        q: &mut [*const i8; C],
        steps: usize,
    ) -> [[int32x4_t; 4]; C];

    /// 4 rows.
    ///
    /// # Safety
    ///
    /// There are as many bytes behind the pointers, and the CPU has the instructions.
    unsafe fn r4<const C: usize>(
        w: &mut *const u8,
        q: &mut [*const i8; C],
        steps: usize,
    ) -> [int32x4_t; C];
}

/// Asks for the memory [`AHEAD`] bytes behind `at`.
#[inline(always)]
#[allow(unsafe_code)]
fn prefetch(at: *const u8) {
    // SAFETY: cpu: every aarch64 has it. A prefetch may go anywhere; it writes no memory, no register and no flags.
    unsafe {
        asm!(
            "prfm pldl1keep, [{at}, #{ahead}]",
            at = in(reg) at,
            ahead = const AHEAD,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// The next 64 bytes of a stream of weights; those [`AHEAD`] are asked for, unless the columns are many.
///
/// # Safety
///
/// They are there, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) unsafe fn load_64<const PREFETCH: bool>(w: &mut *const u8) -> [int8x16_t; 4] {
    if PREFETCH {
        prefetch(*w);
    }
    // SAFETY: cpu, bounds: the caller. align: loads by bytes.
    unsafe {
        let v = vld1q_s8_x4(w.cast());
        *w = w.add(64);
        [v.0, v.1, v.2, v.3]
    }
}

/// `acc = acc + (f32(d) * (sw * sx))`.
///
/// # Safety
///
/// The CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn scaled(acc: float32x4_t, d: int32x4_t, sw: float32x4_t, sx: f32) -> float32x4_t {
    // SAFETY: cpu: the caller.
    unsafe { vaddq_f32(acc, vmulq_f32(vcvtq_f32_s32(d), vmulq_n_f32(sw, sx))) }
}

/// Adds group `g`, of `steps` steps, to the sums of 16 rows of each column; `w`, `scales` and `q` move on. No `pow` is 1.
///
/// # Safety
///
/// It is a group of `block`, which is a sound block of `r16k4`, the pointers stand at it, and the CPU has the instructions
/// of `D`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn add_group<D: Dots, const C: usize>(
    block: &Q8Block<'_, C>,
    pow: Option<f32>,
    (g, steps): (usize, usize),
    (w, scales): (&mut *const u8, &mut *const u8),
    q: &mut [*const i8; C],
    sums: &mut [[float32x4_t; 4]; C],
) {
    // SAFETY: cpu: the caller. bounds: a group has 16 halves of scales and an sx per column. align: scales are loaded by
    //   bytes.
    unsafe {
        let dots = D::r16::<C>(w, q, steps);
        // With the vectors' prefetches, which begin behind the scales, all bytes of a stream of tiles are asked for.
        prefetch(*scales);
        let [a, b] = widen(vld1q_u8(*scales));
        let [c, d] = widen(vld1q_u8(scales.add(16)));
        *scales = scales.add(32);
        for ((sums, dots), sx) in sums.iter_mut().zip(dots).zip(&block.sx) {
            let sx = *sx.add(g);
            let sx = pow.map_or(sx, |pow| sx * pow);
            for ((sum, d), sw) in sums.iter_mut().zip(dots).zip([a, b, c, d]) {
                *sum = scaled(*sum, d, sw, sx);
            }
        }
    }
}

/// Adds all whole groups of [`USUAL`] steps: what depends on their length is known. Returns how many they are.
///
/// # Safety
///
/// As of [`add_group`], for each of them.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn add_usual<D: Dots, const C: usize>(
    block: &Q8Block<'_, C>,
    pow: Option<f32>,
    (w, scales): (&mut *const u8, &mut *const u8),
    q: &mut [*const i8; C],
    sums: &mut [[float32x4_t; 4]; C],
) -> usize {
    let groups = block.steps / USUAL;
    for g in 0..groups {
        // SAFETY: the caller. bounds: the block has so many steps.
        unsafe { add_group::<D, C>(block, pow, (g, USUAL), (w, scales), q, sums) };
    }
    groups
}

/// 16 rows of each column.
///
/// # Safety
///
/// `block` is a sound block of `r16k4`, and the CPU has the instructions of `D`.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) unsafe fn rows_of_16<D: Dots, const C: usize>(
    block: &Q8Block<'_, C>,
    acc: &mut [[f32; LANES]; C],
) {
    let ([mut scales], [mut w], mut q) = (block.scales, block.vectors, block.q);
    // SAFETY: cpu: the caller.
    let mut sums = [[unsafe { vdupq_n_f32(0.0) }; 4]; C];
    let mut g = 0;
    if (C == 1 || C == 4) && block.group_steps == USUAL {
        let at = (&mut w, &mut scales);
        // SAFETY: the caller.
        g = unsafe {
            match block.pow {
                1.0 => add_usual::<D, C>(block, None, at, &mut q, &mut sums),
                pow => add_usual::<D, C>(block, Some(pow), at, &mut q, &mut sums),
            }
        };
    }
    let mut steps = block.steps - g * USUAL;
    while steps > 0 {
        let count = steps.min(block.group_steps);
        let (at, pow) = ((&mut w, &mut scales), Some(block.pow));
        // SAFETY: the caller. bounds: so many steps are left, and all groups have `block.steps`.
        unsafe { add_group::<D, C>(block, pow, (g, count), at, &mut q, &mut sums) };
        (g, steps) = (g + 1, steps - count);
    }
    for (acc, sums) in acc.iter_mut().zip(sums) {
        for (acc, sum) in acc.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            // SAFETY: cpu: the caller. bounds: 4 of 4 floats.
            unsafe { vst1q_f32(acc.as_mut_ptr(), sum) };
        }
    }
}

/// 4 rows of each column.
///
/// # Safety
///
/// `block` is a sound block of `r4k4`, and the CPU has the instructions of `D`.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) unsafe fn rows_of_4<D: Dots, const C: usize>(block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
    let ([mut scales], [mut w], mut q) = (block.scales, block.vectors, block.q);
    let mut steps = block.steps;
    // SAFETY: cpu: the caller.
    let mut sums = [unsafe { vdupq_n_f32(0.0) }; C];
    for g in 0..block.groups {
        let count = steps.min(block.group_steps);
        steps -= count;
        // SAFETY: cpu: the caller. bounds: `count` sums to `block.steps` over the groups; `g < groups`, and a group has 4
        //   halves of scales and an sx per column. align: scales are loaded by bytes.
        unsafe {
            let dots = match count {
                USUAL => D::r4::<C>(&mut w, &mut q, USUAL),
                _ => D::r4::<C>(&mut w, &mut q, count),
            };
            let [sw, _] = widen(vcombine_u8(vld1_u8(scales), vdup_n_u8(0)));
            scales = scales.add(8);
            for ((sum, d), sx) in sums.iter_mut().zip(dots).zip(&block.sx) {
                *sum = scaled(*sum, d, sw, *sx.add(g) * block.pow);
            }
        }
    }
    sums.map(|sum| {
        // SAFETY: init: 16 bytes either way, and every bit pattern is a float.
        unsafe { core::mem::transmute::<float32x4_t, [f32; 4]>(sum) }
    })
}

//! Dots without an instruction for them. The products of two steps add up in 16 bits: 2 * 128 * 127 = 32512.

use super::Neon;
use super::q8::{Dots, Family, prefetch, rows_of_4, rows_of_16};
use crate::kernels::isa::LANES;
use crate::kernels::q8::Q8Block;
use core::arch::aarch64::*;

#[allow(unsafe_code)]
impl Family for Neon {
    const WIDEST: usize = 2;

    #[inline(always)]
    unsafe fn r16k4<const C: usize>(self, block: &Q8Block<'_, C>, acc: &mut [[f32; LANES]; C]) {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe { gemv_q8_r16k4_neon(block, acc) }
    }

    #[inline(always)]
    unsafe fn r4k4<const C: usize>(self, block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe { gemv_q8_r4k4_neon(block) }
    }
}

/// # Safety
///
/// `block` is a sound block of `r16k4`.
#[inline(never)]
#[target_feature(enable = "neon")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r16k4_neon<const C: usize>(block: &Q8Block<'_, C>, acc: &mut [[f32; LANES]; C]) {
    // SAFETY: cpu: the features of this function. The rest is the caller's.
    unsafe { rows_of_16::<Smull, C>(block, acc) }
}

/// # Safety
///
/// `block` is a sound block of `r4k4`.
#[inline(never)]
#[target_feature(enable = "neon")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r4k4_neon<const C: usize>(block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
    // SAFETY: cpu: the features of this function. The rest is the caller's.
    unsafe { rows_of_4::<Smull, C>(block) }
}

/// Sums of pairs of products: of the first two rows of a vector, and of the last two.
#[derive(Clone, Copy)]
struct Halves(int32x4_t, int32x4_t);

impl Halves {
    /// # Safety
    ///
    /// The CPU has NEON.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn zero() -> Self {
        // SAFETY: cpu: the caller.
        unsafe { Self(vdupq_n_s32(0), vdupq_n_s32(0)) }
    }

    /// Adds two steps of four rows.
    ///
    /// # Safety
    ///
    /// The CPU has NEON.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn add_two(&mut self, w: [int8x16_t; 2], x: [int8x16_t; 2]) {
        // SAFETY: cpu: the caller.
        unsafe {
            let low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
            let low = vmlal_s8(low, vget_low_s8(w[1]), vget_low_s8(x[1]));
            let high = vmlal_high_s8(vmull_high_s8(w[0], x[0]), w[1], x[1]);
            self.0 = vpadalq_s16(self.0, low);
            self.1 = vpadalq_s16(self.1, high);
        }
    }

    /// Adds one step.
    ///
    /// # Safety
    ///
    /// The CPU has NEON.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn add_one(&mut self, w: int8x16_t, x: int8x16_t) {
        // SAFETY: cpu: the caller.
        unsafe {
            self.0 = vpadalq_s16(self.0, vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            self.1 = vpadalq_s16(self.1, vmull_high_s8(w, x));
        }
    }

    /// The sum of each row.
    ///
    /// # Safety
    ///
    /// The CPU has NEON.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn rows(self) -> int32x4_t {
        // SAFETY: cpu: the caller.
        unsafe { vpaddq_s32(self.0, self.1) }
    }
}

/// The 4 bytes of a step, beside all four rows.
///
/// # Safety
///
/// There are 4 bytes, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn spread(q: *const i8) -> int8x16_t {
    // SAFETY: cpu, bounds: the caller. align: an unaligned read.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(q.cast::<i32>().read_unaligned())) }
}

struct Smull;

#[allow(unsafe_code)]
impl Dots for Smull {
    #[inline(always)]
    unsafe fn r16<const C: usize>(
        w: &mut *const u8,
        q: &mut [*const i8; C],
        steps: usize,
    ) -> [[int32x4_t; 4]; C] {
        // SAFETY: cpu, bounds: the caller: `steps` steps of 64 bytes of `w` and 4 of each q. align: loads by bytes.
        unsafe {
            let mut d = [[Halves::zero(); 4]; C];
            for _ in 0..steps / 2 {
                prefetch(*w);
                prefetch(w.wrapping_add(64));
                let v = vld1q_s8_x4(w.cast());
                let u = vld1q_s8_x4(w.add(64).cast());
                *w = w.add(128);
                for (d, q) in d.iter_mut().zip(&mut *q) {
                    let x = [spread(*q), spread(q.add(4))];
                    *q = q.add(8);
                    d[0].add_two([v.0, u.0], x);
                    d[1].add_two([v.1, u.1], x);
                    d[2].add_two([v.2, u.2], x);
                    d[3].add_two([v.3, u.3], x);
                }
            }
            if steps % 2 == 1 {
                let v = vld1q_s8_x4(w.cast());
                *w = w.add(64);
                for (d, q) in d.iter_mut().zip(q) {
                    let x = spread(*q);
                    *q = q.add(4);
                    d[0].add_one(v.0, x);
                    d[1].add_one(v.1, x);
                    d[2].add_one(v.2, x);
                    d[3].add_one(v.3, x);
                }
            }
            let mut rows = [[vdupq_n_s32(0); 4]; C];
            for (rows, d) in rows.iter_mut().zip(d) {
                *rows = [d[0].rows(), d[1].rows(), d[2].rows(), d[3].rows()];
            }
            rows
        }
    }

    #[inline(always)]
    unsafe fn r4<const C: usize>(
        w: &mut *const u8,
        q: &mut [*const i8; C],
        steps: usize,
    ) -> [int32x4_t; C] {
        // SAFETY: cpu, bounds: the caller: `steps` steps of 16 bytes of `w` and 4 of each q. align: loads by bytes.
        unsafe {
            let mut d = [Halves::zero(); C];
            for _ in 0..steps / 2 {
                let v = vld1q_s8_x2(w.cast());
                *w = w.add(32);
                for (d, q) in d.iter_mut().zip(&mut *q) {
                    d.add_two([v.0, v.1], [spread(*q), spread(q.add(4))]);
                    *q = q.add(8);
                }
            }
            if steps % 2 == 1 {
                let v = vld1q_s8(w.cast());
                *w = w.add(16);
                for (d, q) in d.iter_mut().zip(q) {
                    d.add_one(v, spread(*q));
                    *q = q.add(4);
                }
            }
            let mut rows = [vdupq_n_s32(0); C];
            for (rows, d) in rows.iter_mut().zip(d) {
                *rows = d.rows();
            }
            rows
        }
    }
}

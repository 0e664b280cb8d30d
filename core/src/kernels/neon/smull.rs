//! Dots without an instruction for them. The products of two steps add up in 16 bits: 2 * 128 * 127 = 32512.

use super::Neon;
use super::q8::{AHEAD, Dots, load_64, rows_of_4, rows_of_16};
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::log::{key, ran_q8};
use crate::kernels::q8::{Interleaved, Q8Block};
use core::arch::aarch64::*;
use core::arch::asm;

#[allow(unsafe_code)]
impl Interleaved for Neon {
    const WIDEST: usize = 2;

    #[inline(always)]
    unsafe fn r16k4<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        acc: &mut [[[f32; LANES]; C]; T],
    ) {
        for (block, acc) in block.each().iter().zip(acc) {
            // SAFETY: cpu: `self`. The rest is the caller's.
            unsafe { gemv_q8_r16k4_neon(block, acc) }
        }
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
    ran_q8(Layout::R16K4, const { key("gemv_q8_r16k4_neon") });
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
    ran_q8(Layout::R4K4, const { key("gemv_q8_r4k4_neon") });
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

/// Two steps of 16 rows, in the registers that [`add_two_steps`] reads.
///
/// # Safety
///
/// There are 128 bytes of `w`, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn load_two_steps(w: &mut *const u8) -> [int8x16_t; 8] {
    let (v0, v1, v2, v3, u0, u1, u2, u3);
    // SAFETY: cpu, bounds: the caller. align: loads of bytes. A prefetch may go anywhere. It writes no memory and no flags;
    //   the equivalent is two times `load_64`.
    unsafe {
        asm!(
            "prfm pldl1keep, [{w}, #{ahead}]",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{w}], #64",
            "prfm pldl1keep, [{w}, #{ahead}]",
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{w}], #64",
            w = inout(reg) *w,
            ahead = const AHEAD,
            out("v0") v0, out("v1") v1, out("v2") v2, out("v3") v3,
            out("v4") u0, out("v5") u1, out("v6") u2, out("v7") u3,
            options(readonly, nostack, preserves_flags),
        );
    }
    [v0, v1, v2, v3, u0, u1, u2, u3]
}

/// Adds two steps of 16 rows times the next 8 bytes of a column. Written out, for the compiler takes EXT and SMULL for
/// SMULL2 where both halves of x are the same.
///
/// # Safety
///
/// There are 8 bytes of `q`, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn add_two_steps(d: &mut [Halves; 4], w: [int8x16_t; 8], q: &mut *const i8) {
    let [d0, d1, d2, d3] = d;
    // SAFETY: cpu, bounds: the caller. align: LD1R of words at any address. It writes no memory and no flags; the
    //   equivalent is four times `Halves::add_two`.
    unsafe {
        asm!(
            "ld1r {{{x:v}.4s}}, [{q}], #4",
            "ld1r {{{y:v}.4s}}, [{q}], #4",
            "smull {a:v}.8h, v0.8b, {x:v}.8b",
            "smull {b:v}.8h, v1.8b, {x:v}.8b",
            "smull {c:v}.8h, v2.8b, {x:v}.8b",
            "smull {d:v}.8h, v3.8b, {x:v}.8b",
            "smlal {a:v}.8h, v4.8b, {y:v}.8b",
            "smlal {b:v}.8h, v5.8b, {y:v}.8b",
            "smlal {c:v}.8h, v6.8b, {y:v}.8b",
            "smlal {d:v}.8h, v7.8b, {y:v}.8b",
            "sadalp {low0:v}.4s, {a:v}.8h",
            "sadalp {low1:v}.4s, {b:v}.8h",
            "sadalp {low2:v}.4s, {c:v}.8h",
            "sadalp {low3:v}.4s, {d:v}.8h",
            "smull2 {a:v}.8h, v0.16b, {x:v}.16b",
            "smull2 {b:v}.8h, v1.16b, {x:v}.16b",
            "smull2 {c:v}.8h, v2.16b, {x:v}.16b",
            "smull2 {d:v}.8h, v3.16b, {x:v}.16b",
            "smlal2 {a:v}.8h, v4.16b, {y:v}.16b",
            "smlal2 {b:v}.8h, v5.16b, {y:v}.16b",
            "smlal2 {c:v}.8h, v6.16b, {y:v}.16b",
            "smlal2 {d:v}.8h, v7.16b, {y:v}.16b",
            "sadalp {high0:v}.4s, {a:v}.8h",
            "sadalp {high1:v}.4s, {b:v}.8h",
            "sadalp {high2:v}.4s, {c:v}.8h",
            "sadalp {high3:v}.4s, {d:v}.8h",
            q = inout(reg) *q,
            x = out(vreg) _, y = out(vreg) _,
            a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
            low0 = inout(vreg) d0.0, low1 = inout(vreg) d1.0,
            low2 = inout(vreg) d2.0, low3 = inout(vreg) d3.0,
            high0 = inout(vreg) d0.1, high1 = inout(vreg) d1.1,
            high2 = inout(vreg) d2.1, high3 = inout(vreg) d3.1,
            in("v0") w[0], in("v1") w[1], in("v2") w[2], in("v3") w[3],
            in("v4") w[4], in("v5") w[5], in("v6") w[6], in("v7") w[7],
            options(pure, readonly, nostack, preserves_flags),
        );
    }
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
                let two = load_two_steps(w);
                for (d, q) in d.iter_mut().zip(&mut *q) {
                    add_two_steps(d, two, q);
                }
            }
            if steps % 2 == 1 {
                let v = load_64::<true>(w);
                for (d, q) in d.iter_mut().zip(q) {
                    let x = spread(*q);
                    *q = q.add(4);
                    for (d, v) in d.iter_mut().zip(v) {
                        d.add_one(v, x);
                    }
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

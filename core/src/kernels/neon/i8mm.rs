//! Dots by SMMLA: two rows of 8 k times two columns of 8 k. Zipped, two steps of four rows are two such operands.

use super::I8mm;
use super::dotprod::{gemv_q8_r4k4_neon_dotprod, gemv_q8_r16k4_neon_dotprod};
use super::q8::{Dots, load_64, rows_of_4, rows_of_16};
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::log::{key, ran_q8};
use crate::kernels::q8::{Interleaved, Q8Block};
use core::arch::aarch64::*;
use core::arch::asm;

#[allow(unsafe_code)]
impl Interleaved for I8mm {
    const WIDEST: usize = 4;

    #[inline(always)]
    unsafe fn r16k4<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        acc: &mut [[[f32; LANES]; C]; T],
    ) {
        for (block, acc) in block.each().iter().zip(acc) {
            // SAFETY: cpu: `self`. The rest is the caller's.
            unsafe {
                match C % 2 {
                    0 => gemv_q8_r16k4_neon_i8mm(block, acc),
                    _ => gemv_q8_r16k4_neon_dotprod(block, acc),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn r4k4<const C: usize>(self, block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe {
            match C % 2 {
                0 => gemv_q8_r4k4_neon_i8mm(block),
                _ => gemv_q8_r4k4_neon_dotprod(block),
            }
        }
    }
}

/// # Safety
///
/// `block` is a sound block of `r16k4`, and `C` is even.
#[inline(never)]
#[target_feature(enable = "neon,dotprod,i8mm")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r16k4_neon_i8mm<const C: usize>(
    block: &Q8Block<'_, C>,
    acc: &mut [[f32; LANES]; C],
) {
    ran_q8(Layout::R16K4, const { key("gemv_q8_r16k4_neon_i8mm") });
    // SAFETY: cpu: the features of this function. The rest is the caller's.
    unsafe { rows_of_16::<Smmla, C>(block, acc) }
}

/// # Safety
///
/// `block` is a sound block of `r4k4`, and `C` is even.
#[inline(never)]
#[target_feature(enable = "neon,dotprod,i8mm")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r4k4_neon_i8mm<const C: usize>(block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
    ran_q8(Layout::R4K4, const { key("gemv_q8_r4k4_neon_i8mm") });
    // SAFETY: cpu: the features of this function. The rest is the caller's.
    unsafe { rows_of_4::<Smmla, C>(block) }
}

/// `d[2 i + j] + sum over 8 k of w[8 i + k] * x[8 j + k]`: `vmmlaq_s32`, which is not stable.
///
/// # Safety
///
/// The CPU has the instruction.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn smmla(d: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut d = d;
    // SAFETY: cpu: the caller. It touches no memory and no flags.
    unsafe {
        asm!(
            "smmla {d:v}.4s, {w:v}.16b, {x:v}.16b",
            d = inlateout(vreg) d,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    d
}

/// Four rows times two columns: rows 0 and 1, then rows 2 and 3, each `[row][column]`.
#[derive(Clone, Copy)]
struct Quad(int32x4_t, int32x4_t);

impl Quad {
    /// # Safety
    ///
    /// The CPU has NEON.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn zero() -> Self {
        // SAFETY: cpu: the caller.
        unsafe { Self(vdupq_n_s32(0), vdupq_n_s32(0)) }
    }

    /// Adds 8 k, already zipped.
    ///
    /// # Safety
    ///
    /// The CPU has SMMLA.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn add(&mut self, w: [int8x16_t; 2], x: int8x16_t) {
        // SAFETY: cpu: the caller.
        unsafe {
            self.0 = smmla(self.0, w[0], x);
            self.1 = smmla(self.1, w[1], x);
        }
    }

    /// The four rows of the first column, then of the second.
    ///
    /// # Safety
    ///
    /// The CPU has NEON.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn columns(self) -> [int32x4_t; 2] {
        // SAFETY: cpu: the caller.
        unsafe { [vuzp1q_s32(self.0, self.1), vuzp2q_s32(self.0, self.1)] }
    }
}

/// Two steps of four rows, as two rows of 8 k and two more.
///
/// # Safety
///
/// The CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn zip(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: cpu: the caller.
    unsafe {
        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
        [
            vreinterpretq_s8_s32(vzip1q_s32(a, b)),
            vreinterpretq_s8_s32(vzip2q_s32(a, b)),
        ]
    }
}

/// Two steps of 16 rows.
///
/// # Safety
///
/// The CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn zip_all(a: [int8x16_t; 4], b: [int8x16_t; 4]) -> [[int8x16_t; 2]; 4] {
    // SAFETY: cpu: the caller.
    unsafe {
        [
            zip(a[0], b[0]),
            zip(a[1], b[1]),
            zip(a[2], b[2]),
            zip(a[3], b[3]),
        ]
    }
}

/// The next 16 bytes of two columns, as two operands.
///
/// # Safety
///
/// They are there, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn load_16(q: &mut [*const i8; 2]) -> [int8x16_t; 2] {
    // SAFETY: cpu, bounds: the caller. align: loads by bytes.
    unsafe {
        let a = vreinterpretq_s64_s8(vld1q_s8(q[0]));
        let b = vreinterpretq_s64_s8(vld1q_s8(q[1]));
        *q = q.map(|q| q.add(16));
        [
            vreinterpretq_s8_s64(vzip1q_s64(a, b)),
            vreinterpretq_s8_s64(vzip2q_s64(a, b)),
        ]
    }
}

/// The next 4 bytes of two columns, as an operand that has them twice: for weights whose second step is 0.
///
/// # Safety
///
/// They are there, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn load_4(q: &mut [*const i8; 2]) -> int8x16_t {
    // SAFETY: cpu, bounds: the caller. align: unaligned reads.
    unsafe {
        let [a, b] = q.map(|q| vdup_n_s32(q.cast::<i32>().read_unaligned()));
        *q = q.map(|q| q.add(4));
        vreinterpretq_s8_s32(vcombine_s32(a, b))
    }
}

struct Smmla;

#[allow(unsafe_code)]
impl Dots for Smmla {
    #[inline(always)]
    unsafe fn r16<const C: usize>(
        w: &mut *const u8,
        q: &mut [*const i8; C],
        steps: usize,
    ) -> [[int32x4_t; 4]; C] {
        // SAFETY: cpu, bounds: the caller: `steps` steps of 64 bytes of `w` and 4 of each q. align: loads by bytes.
        unsafe {
            // Of each pair of columns only the first half of the array is used: `C / 2` cannot be its length.
            let mut d = [[Quad::zero(); 4]; C];
            let zero = vdupq_n_s8(0);
            for _ in 0..steps / 4 {
                let mut x = [[zero; 2]; C];
                for (x, q) in x.iter_mut().zip(q.as_chunks_mut::<2>().0) {
                    *x = load_16(q);
                }
                for half in 0..2 {
                    let [v, u] = match C < 4 {
                        true => [load_64::<true>(w), load_64::<true>(w)],
                        false => [load_64::<false>(w), load_64::<false>(w)],
                    };
                    let rows = zip_all(v, u);
                    for (d, x) in d.iter_mut().zip(x).take(C / 2) {
                        let x = if half == 0 { x[0] } else { x[1] };
                        for (d, w) in d.iter_mut().zip(rows) {
                            d.add(w, x);
                        }
                    }
                }
            }
            for _ in 0..steps % 4 {
                let rows = zip_all(load_64::<false>(w), [zero; 4]);
                for (d, q) in d.iter_mut().zip(q.as_chunks_mut::<2>().0) {
                    let x = load_4(q);
                    for (d, w) in d.iter_mut().zip(rows) {
                        d.add(w, x);
                    }
                }
            }
            let mut rows = [[vdupq_n_s32(0); 4]; C];
            for (rows, d) in rows.as_chunks_mut::<2>().0.iter_mut().zip(d) {
                let [d0, d1, d2, d3] = [
                    d[0].columns(),
                    d[1].columns(),
                    d[2].columns(),
                    d[3].columns(),
                ];
                *rows = [[d0[0], d1[0], d2[0], d3[0]], [d0[1], d1[1], d2[1], d3[1]]];
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
            let mut d = [Quad::zero(); C];
            let zero = vdupq_n_s8(0);
            for _ in 0..steps / 4 {
                let [a, b, c, d4] = load_64::<false>(w);
                let rows = [zip(a, b), zip(c, d4)];
                for (d, q) in d.iter_mut().zip(q.as_chunks_mut::<2>().0) {
                    for (w, x) in rows.into_iter().zip(load_16(q)) {
                        d.add(w, x);
                    }
                }
            }
            for _ in 0..steps % 4 {
                let v = vld1q_s8(w.cast());
                *w = w.add(16);
                let rows = zip(v, zero);
                for (d, q) in d.iter_mut().zip(q.as_chunks_mut::<2>().0) {
                    d.add(rows, load_4(q));
                }
            }
            let mut rows = [vdupq_n_s32(0); C];
            for (rows, d) in rows.as_chunks_mut::<2>().0.iter_mut().zip(d) {
                *rows = d.columns();
            }
            rows
        }
    }
}

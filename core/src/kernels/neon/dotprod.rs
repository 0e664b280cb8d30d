//! Dots by SDOT: four rows of a step times the four bytes of one element of x.

use super::DotProd;
use super::q8::{AHEAD, Dots, load_64, rows_of_4, rows_of_16};
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::log::{key, ran_q8};
use crate::kernels::q8::{Interleaved, Q8Block};
use core::arch::aarch64::*;
use core::arch::asm;

#[allow(unsafe_code)]
impl Interleaved for DotProd {
    const WIDEST: usize = 4;

    #[inline(always)]
    unsafe fn r16k4<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        acc: &mut [[[f32; LANES]; C]; T],
    ) {
        for (block, acc) in block.each().iter().zip(acc) {
            // SAFETY: cpu: `self`. The rest is the caller's.
            unsafe { gemv_q8_r16k4_neon_dotprod(block, acc) }
        }
    }

    #[inline(always)]
    unsafe fn r4k4<const C: usize>(self, block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe { gemv_q8_r4k4_neon_dotprod(block) }
    }
}

/// # Safety
///
/// `block` is a sound block of `r16k4`.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
#[allow(unsafe_code)]
pub(super) unsafe fn gemv_q8_r16k4_neon_dotprod<const C: usize>(
    block: &Q8Block<'_, C>,
    acc: &mut [[f32; LANES]; C],
) {
    ran_q8(Layout::R16K4, const { key("gemv_q8_r16k4_neon_dotprod") });
    // SAFETY: cpu: the features of this function. The rest is the caller's.
    unsafe { rows_of_16::<Sdot, C>(block, acc) }
}

/// # Safety
///
/// `block` is a sound block of `r4k4`.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
#[allow(unsafe_code)]
pub(super) unsafe fn gemv_q8_r4k4_neon_dotprod<const C: usize>(
    block: &Q8Block<'_, C>,
) -> [[f32; 4]; C] {
    ran_q8(Layout::R4K4, const { key("gemv_q8_r4k4_neon_dotprod") });
    // SAFETY: cpu: the features of this function. The rest is the caller's.
    unsafe { rows_of_4::<Sdot, C>(block) }
}

/// `d[i] + sum of w[4 i + j] * x[4 L + j]`: `vdotq_laneq_s32`, which is not stable.
///
/// # Safety
///
/// The CPU has the instruction.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn sdot<const L: i32>(d: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut d = d;
    // SAFETY: cpu: the caller. It touches no memory and no flags.
    unsafe {
        asm!(
            "sdot {d:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            d = inlateout(vreg) d,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const L,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    d
}

/// A step of 16 rows, with element `L` of each x.
///
/// # Safety
///
/// There are 64 bytes of `w`, and the CPU has SDOT.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn step<const L: i32, const C: usize>(
    d: &mut [[int32x4_t; 4]; C],
    w: &mut *const u8,
    x: &[int8x16_t; C],
) {
    // SAFETY: cpu, bounds: the caller. align: loads by bytes.
    unsafe {
        let v = if C < 4 {
            load_64::<true>(w)
        } else {
            load_64::<false>(w)
        };
        for (d, x) in d.iter_mut().zip(x) {
            for (d, v) in d.iter_mut().zip(v) {
                *d = sdot::<L>(*d, v, *x);
            }
        }
    }
}

/// Loads the next 16 bytes of each column.
///
/// # Safety
///
/// They are there, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn load_16<const C: usize>(q: &mut [*const i8; C]) -> [int8x16_t; C] {
    // SAFETY: cpu, bounds: the caller. align: loads by bytes.
    unsafe {
        let mut x = [vdupq_n_s8(0); C];
        for (x, q) in x.iter_mut().zip(q) {
            *x = vld1q_s8(*q);
            *q = q.add(16);
        }
        x
    }
}

/// Loads the next 4 bytes of each column.
///
/// # Safety
///
/// They are there, and the CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn load_4<const C: usize>(q: &mut [*const i8; C]) -> [int8x16_t; C] {
    // SAFETY: cpu, bounds: the caller. align: an unaligned read.
    unsafe {
        let mut x = [vdupq_n_s8(0); C];
        for (x, q) in x.iter_mut().zip(q) {
            *x = vreinterpretq_s8_s32(vdupq_n_s32(q.cast::<i32>().read_unaligned()));
            *q = q.add(4);
        }
        x
    }
}

/// # Safety
///
/// There are `N * 256` bytes of `w` and `N * 16` of each q, and the CPU has SDOT.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn four_steps<const N: usize, const C: usize>(
    d: &mut [[int32x4_t; 4]; C],
    w: &mut *const u8,
    q: &mut [*const i8; C],
) {
    // SAFETY: cpu, bounds: the caller.
    unsafe {
        if let (Some(d), Some(q), 1) = (d.first_mut(), q.first_mut(), C) {
            return four_steps_of_one::<N>(d, w, q);
        }
        for _ in 0..N {
            let x = load_16(q);
            step::<0, C>(d, w, &x);
            step::<1, C>(d, w, &x);
            step::<2, C>(d, w, &x);
            step::<3, C>(d, w, &x);
        }
    }
}

/// The same of one column, where each instruction counts: two sets of registers, loaded in turn.
///
/// # Safety
///
/// There are `N * 256` bytes of `w` and `N * 16` of q, and the CPU has SDOT.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn four_steps_of_one<const N: usize>(
    d: &mut [int32x4_t; 4],
    w: &mut *const u8,
    q: &mut *const i8,
) {
    // SAFETY: cpu, bounds: the caller. align: loads of bytes, and LDR Q of any address. A prefetch may go anywhere. It
    //   writes no memory and no flags; the equivalent is the loop in `four_steps`.
    unsafe {
        asm!(
            ".rept {n}",
            "ldr {x:q}, [{q}], #16",
            "prfm pldl1keep, [{w}, #{ahead}]",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{w}], #64",
            "prfm pldl1keep, [{w}, #{ahead}]",
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{w}], #64",
            "sdot {d0:v}.4s, v0.16b, {x:v}.4b[0]",
            "sdot {d1:v}.4s, v1.16b, {x:v}.4b[0]",
            "sdot {d2:v}.4s, v2.16b, {x:v}.4b[0]",
            "sdot {d3:v}.4s, v3.16b, {x:v}.4b[0]",
            "prfm pldl1keep, [{w}, #{ahead}]",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{w}], #64",
            "sdot {d0:v}.4s, v4.16b, {x:v}.4b[1]",
            "sdot {d1:v}.4s, v5.16b, {x:v}.4b[1]",
            "sdot {d2:v}.4s, v6.16b, {x:v}.4b[1]",
            "sdot {d3:v}.4s, v7.16b, {x:v}.4b[1]",
            "prfm pldl1keep, [{w}, #{ahead}]",
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{w}], #64",
            "sdot {d0:v}.4s, v0.16b, {x:v}.4b[2]",
            "sdot {d1:v}.4s, v1.16b, {x:v}.4b[2]",
            "sdot {d2:v}.4s, v2.16b, {x:v}.4b[2]",
            "sdot {d3:v}.4s, v3.16b, {x:v}.4b[2]",
            "sdot {d0:v}.4s, v4.16b, {x:v}.4b[3]",
            "sdot {d1:v}.4s, v5.16b, {x:v}.4b[3]",
            "sdot {d2:v}.4s, v6.16b, {x:v}.4b[3]",
            "sdot {d3:v}.4s, v7.16b, {x:v}.4b[3]",
            ".endr",
            n = const N,
            ahead = const AHEAD,
            w = inout(reg) *w,
            q = inout(reg) *q,
            x = out(vreg) _,
            d0 = inout(vreg) d[0],
            d1 = inout(vreg) d[1],
            d2 = inout(vreg) d[2],
            d3 = inout(vreg) d[3],
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// A step of 16 rows from `{w}`, in v0 to v3: times element `$lane` of the x of each column.
macro_rules! sdots {
    ($lane:literal: $a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{w}], #64\n",
            sdots!(@ $lane: $a, "{a0:v}" "{a1:v}" "{a2:v}" "{a3:v}"),
            sdots!(@ $lane: $b, "{b0:v}" "{b1:v}" "{b2:v}" "{b3:v}"),
            sdots!(@ $lane: $c, "{c0:v}" "{c1:v}" "{c2:v}" "{c3:v}"),
            sdots!(@ $lane: $d, "{d0:v}" "{d1:v}" "{d2:v}" "{d3:v}"),
        )
    };
    (@ $lane:literal: $x:literal, $d0:literal $d1:literal $d2:literal $d3:literal) => {
        concat!(
            "sdot ", $d0, ".4s, v0.16b, ", $x, ".4b[", $lane, "]\n",
            "sdot ", $d1, ".4s, v1.16b, ", $x, ".4b[", $lane, "]\n",
            "sdot ", $d2, ".4s, v2.16b, ", $x, ".4b[", $lane, "]\n",
            "sdot ", $d3, ".4s, v3.16b, ", $x, ".4b[", $lane, "]\n",
        )
    };
}

/// `N` times eight steps of four columns, where a fifth of the compiler's instructions would be for addresses.
///
/// # Safety
///
/// There are `N * 512` bytes of `w` and `N * 32` of each q, and the CPU has SDOT.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn eight_steps_of_four<const N: usize>(
    d: &mut [[int32x4_t; 4]; 4],
    w: &mut *const u8,
    q: &mut [*const i8; 4],
) {
    let [a, b, c, d] = d;
    let [qa, qb, qc, qd] = q;
    // SAFETY: cpu, bounds: the caller. align: loads of bytes, and LDP Q of any address. It writes no memory and no flags;
    //   the equivalent is the loop in `four_steps`.
    unsafe {
        asm!(
            ".rept {n}",
            "ldp {xa:q}, {ya:q}, [{qa}], #32",
            "ldp {xb:q}, {yb:q}, [{qb}], #32",
            "ldp {xc:q}, {yc:q}, [{qc}], #32",
            "ldp {xd:q}, {yd:q}, [{qd}], #32",
            sdots!("0": "{xa:v}" "{xb:v}" "{xc:v}" "{xd:v}"),
            sdots!("1": "{xa:v}" "{xb:v}" "{xc:v}" "{xd:v}"),
            sdots!("2": "{xa:v}" "{xb:v}" "{xc:v}" "{xd:v}"),
            sdots!("3": "{xa:v}" "{xb:v}" "{xc:v}" "{xd:v}"),
            sdots!("0": "{ya:v}" "{yb:v}" "{yc:v}" "{yd:v}"),
            sdots!("1": "{ya:v}" "{yb:v}" "{yc:v}" "{yd:v}"),
            sdots!("2": "{ya:v}" "{yb:v}" "{yc:v}" "{yd:v}"),
            sdots!("3": "{ya:v}" "{yb:v}" "{yc:v}" "{yd:v}"),
            ".endr",
            n = const N,
            w = inout(reg) *w,
            qa = inout(reg) *qa, qb = inout(reg) *qb, qc = inout(reg) *qc, qd = inout(reg) *qd,
            xa = out(vreg) _, xb = out(vreg) _, xc = out(vreg) _, xd = out(vreg) _,
            ya = out(vreg) _, yb = out(vreg) _, yc = out(vreg) _, yd = out(vreg) _,
            a0 = inout(vreg) a[0], a1 = inout(vreg) a[1], a2 = inout(vreg) a[2], a3 = inout(vreg) a[3],
            b0 = inout(vreg) b[0], b1 = inout(vreg) b[1], b2 = inout(vreg) b[2], b3 = inout(vreg) b[3],
            c0 = inout(vreg) c[0], c1 = inout(vreg) c[1], c2 = inout(vreg) c[2], c3 = inout(vreg) c[3],
            d0 = inout(vreg) d[0], d1 = inout(vreg) d[1], d2 = inout(vreg) d[2], d3 = inout(vreg) d[3],
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            options(readonly, nostack, preserves_flags),
        );
    }
}

struct Sdot;

#[allow(unsafe_code)]
impl Dots for Sdot {
    #[inline(always)]
    unsafe fn r16<const C: usize>(
        w: &mut *const u8,
        q: &mut [*const i8; C],
        steps: usize,
    ) -> [[int32x4_t; 4]; C] {
        // SAFETY: cpu, bounds: the caller: `steps` steps of 64 bytes of `w` and 4 of each q.
        unsafe {
            let mut d = [[vdupq_n_s32(0); 4]; C];
            for _ in 0..steps / 16 {
                match (d.as_mut_array(), q.as_mut_array()) {
                    (Some(d), Some(q)) => eight_steps_of_four::<2>(d, w, q),
                    _ => four_steps::<4, C>(&mut d, w, q),
                }
            }
            for _ in 0..steps % 16 / 4 {
                four_steps::<1, C>(&mut d, w, q);
            }
            for _ in 0..steps % 4 {
                let x = load_4(q);
                step::<0, C>(&mut d, w, &x);
            }
            d
        }
    }

    /// Two chains, so that an instruction need not wait for the one before it.
    #[inline(always)]
    unsafe fn r4<const C: usize>(
        w: &mut *const u8,
        q: &mut [*const i8; C],
        steps: usize,
    ) -> [int32x4_t; C] {
        // SAFETY: cpu, bounds: the caller: `steps` steps of 16 bytes of `w` and 4 of each q. align: loads by bytes.
        unsafe {
            let mut d = [[vdupq_n_s32(0); 2]; C];
            for _ in 0..steps / 4 {
                let x = load_16(q);
                let v = vld1q_s8_x4(w.cast());
                *w = w.add(64);
                for (d, x) in d.iter_mut().zip(x) {
                    d[0] = sdot::<0>(d[0], v.0, x);
                    d[1] = sdot::<1>(d[1], v.1, x);
                    d[0] = sdot::<2>(d[0], v.2, x);
                    d[1] = sdot::<3>(d[1], v.3, x);
                }
            }
            for _ in 0..steps % 4 {
                let x = load_4(q);
                let v = vld1q_s8(w.cast());
                *w = w.add(16);
                for (d, x) in d.iter_mut().zip(x) {
                    d[0] = sdot::<0>(d[0], v, x);
                }
            }
            d.map(|[a, b]| vaddq_s32(a, b))
        }
    }
}

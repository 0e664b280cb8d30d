//! 16 floats in four registers.

use crate::kernels::isa::{LANES, Lanes};
use crate::kernels::q8::Interleaved;
use core::arch::aarch64::*;
use core::arch::asm;
use core::ops::{Add, Mul};

/// 16 halves at `$at`, in v0 to v3 as floats, times element `$t` of each x.
macro_rules! add_products {
    ($at:literal $t:literal) => {
        concat!(
            "ldp q1, q3, [", $at, "]\n",
            "fcvtl v0.4s, v1.4h\n",
            "fcvtl2 v1.4s, v1.8h\n",
            "fcvtl v2.4s, v3.4h\n",
            "fcvtl2 v3.4s, v3.8h\n",
            add_products!(@ $t "{xa:v}": "{a0:v}" "{a1:v}" "{a2:v}" "{a3:v}"),
            add_products!(@ $t "{xb:v}": "{b0:v}" "{b1:v}" "{b2:v}" "{b3:v}"),
            add_products!(@ $t "{xc:v}": "{c0:v}" "{c1:v}" "{c2:v}" "{c3:v}"),
            add_products!(@ $t "{xd:v}": "{d0:v}" "{d1:v}" "{d2:v}" "{d3:v}"),
        )
    };
    (@ $t:literal $x:literal: $s0:literal $s1:literal $s2:literal $s3:literal) => {
        concat!(
            "fmul v4.4s, v0.4s, ", $x, ".s[", $t, "]\n",
            "fmul v5.4s, v1.4s, ", $x, ".s[", $t, "]\n",
            "fmul v6.4s, v2.4s, ", $x, ".s[", $t, "]\n",
            "fmul v7.4s, v3.4s, ", $x, ".s[", $t, "]\n",
            "fadd ", $s0, ".4s, ", $s0, ".4s, v4.4s\n",
            "fadd ", $s1, ".4s, ", $s1, ".4s, v5.4s\n",
            "fadd ", $s2, ".4s, ", $s2, ".4s, v6.4s\n",
            "fadd ", $s3, ".4s, ", $s3, ".4s, v7.4s\n",
        )
    };
}

/// 16 bytes of `$w` as floats, in v0 to v3, times element `$t` of x.
macro_rules! add_product_i8 {
    ($w:literal $t:literal) => {
        concat!(
            add_product_i8!(@ $w "v0" "{i0:v}"),
            add_product_i8!(@ $w "v1" "{i1:v}"),
            add_product_i8!(@ $w "v2" "{i2:v}"),
            add_product_i8!(@ $w "v3" "{i3:v}"),
            add_products!(@ $t "{x:v}": "{s0:v}" "{s1:v}" "{s2:v}" "{s3:v}"),
        )
    };
    (@ $w:literal $to:literal $tops:literal) => {
        concat!(
            "tbl ", $to, ".16b, {{", $w, ".16b}}, ", $tops, ".16b\n",
            "scvtf ", $to, ".4s, ", $to, ".4s, #24\n",
        )
    };
}

/// 16 floats. Only a backend makes one, so the CPU has NEON.
#[derive(Clone, Copy)]
pub(crate) struct F32x16([float32x4_t; 4]);

impl F32x16 {
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn splat<B: Interleaved>(_: B, x: f32) -> Self {
        // SAFETY: cpu: the backend.
        Self([unsafe { vdupq_n_f32(x) }; 4])
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn load<B: Interleaved>(_: B, x: &[f32; LANES]) -> Self {
        // SAFETY: cpu: the backend. init: 64 bytes either way, and every bit pattern is a float.
        Self(unsafe { core::mem::transmute::<[f32; LANES], [float32x4_t; 4]>(*x) })
    }

    /// FCVTL is exact for every half, and no mode of the FPU changes what it makes of a subnormal one.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn load_f16<B: Interleaved>(_: B, x: &[u8; 2 * LANES]) -> Self {
        // SAFETY: cpu: the backend. bounds: two times 16 of 32 bytes. align: loads by bytes.
        unsafe {
            let (low, high) = (vld1q_u8(x.as_ptr()), vld1q_u8(x.as_ptr().add(16)));
            let ([a, b], [c, d]) = (widen(low), widen(high));
            Self([a, b, c, d])
        }
    }

    /// [`Isa::add_four_f16`](crate::kernels::isa::Isa::add_four_f16) for four sums: the compiler would load each x by itself.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn add_four_f16<B: Interleaved>(
        _: B,
        vectors: [&[u8; 2 * LANES]; 4],
        x: &[&[f32; 4]; 4],
        sums: &mut [Self; 4],
    ) {
        let [Self(a), Self(b), Self(c), Self(d)] = sums;
        // SAFETY: cpu: the backend. bounds: 16 bytes of each x and 32 of each vector. align: LDR Q and LDP Q of any address.
        //   It writes no memory and no flags; the equivalent is `float::add_four`.
        unsafe {
            asm!(
                "ldr {xa:q}, [{pa}]",
                "ldr {xb:q}, [{pb}]",
                "ldr {xc:q}, [{pc}]",
                "ldr {xd:q}, [{pd}]",
                add_products!("{v0}" "0"),
                add_products!("{v1}" "1"),
                add_products!("{v2}" "2"),
                add_products!("{v3}" "3"),
                pa = in(reg) x[0], pb = in(reg) x[1], pc = in(reg) x[2], pd = in(reg) x[3],
                v0 = in(reg) vectors[0], v1 = in(reg) vectors[1], v2 = in(reg) vectors[2], v3 = in(reg) vectors[3],
                xa = out(vreg) _, xb = out(vreg) _, xc = out(vreg) _, xd = out(vreg) _,
                a0 = inout(vreg) a[0], a1 = inout(vreg) a[1], a2 = inout(vreg) a[2], a3 = inout(vreg) a[3],
                b0 = inout(vreg) b[0], b1 = inout(vreg) b[1], b2 = inout(vreg) b[2], b3 = inout(vreg) b[3],
                c0 = inout(vreg) c[0], c1 = inout(vreg) c[1], c2 = inout(vreg) c[2], c3 = inout(vreg) c[3],
                d0 = inout(vreg) d[0], d1 = inout(vreg) d[1], d2 = inout(vreg) d[2], d3 = inout(vreg) d[3],
                out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                options(readonly, nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn load_i8<B: Interleaved>(_: B, x: &[u8; LANES]) -> Self {
        // SAFETY: cpu: the backend. bounds: 16 of 16 bytes. align: a load by bytes.
        unsafe {
            let x = vreinterpretq_s8_u8(vld1q_u8(x.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
            Self([
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ])
        }
    }

    /// [`Isa::add_four_i8`](crate::kernels::isa::Isa::add_four_i8) for one sum. TBL puts each byte at the top of a lane, and the
    /// conversion divides by 2^24: the compiler, which knows the indices, would take TBL apart.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn add_four_i8<B: Interleaved>(
        _: B,
        vectors: [&[u8; LANES]; 4],
        x: &[f32; 4],
        Self(sum): &mut Self,
    ) {
        // SAFETY: cpu: the backend. bounds: 16 bytes of x and of each vector, 64 of the table. align: loads by bytes, and LDP Q
        //   of any address. It writes no memory and no flags; the equivalent is `float::add_four`.
        unsafe {
            let [w0, w1, w2, w3] = vectors.map(|w| vld1q_u8(w.as_ptr()));
            asm!(
                "ldp {i0:q}, {i1:q}, [{tops}]",
                "ldp {i2:q}, {i3:q}, [{tops}, #32]",
                add_product_i8!("{w0:v}" "0"),
                add_product_i8!("{w1:v}" "1"),
                add_product_i8!("{w2:v}" "2"),
                add_product_i8!("{w3:v}" "3"),
                x = in(vreg) vld1q_f32(x.as_ptr()),
                w0 = in(vreg) w0, w1 = in(vreg) w1, w2 = in(vreg) w2, w3 = in(vreg) w3,
                tops = in(reg) TOPS.as_ptr(),
                i0 = out(vreg) _, i1 = out(vreg) _, i2 = out(vreg) _, i3 = out(vreg) _,
                s0 = inout(vreg) sum[0], s1 = inout(vreg) sum[1], s2 = inout(vreg) sum[2], s3 = inout(vreg) sum[3],
                out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
    }
}

/// For TBL: four bytes each to the top of a lane of 32 bits, zeros below.
static TOPS: [[u8; 16]; 4] = {
    let mut tops = [[u8::MAX; 16]; 4];
    let mut byte = 0;
    while byte < LANES {
        tops[byte / 4][byte % 4 * 4 + 3] = byte as u8;
        byte += 1;
    }
    tops
};

/// Eight halves as floats.
///
/// # Safety
///
/// The CPU has NEON.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) unsafe fn widen(halves: uint8x16_t) -> [float32x4_t; 2] {
    // SAFETY: cpu: the caller.
    unsafe {
        let halves = vreinterpretq_f16_u8(halves);
        [
            vcvt_f32_f16(vget_low_f16(halves)),
            vcvt_high_f32_f16(halves),
        ]
    }
}

impl Add for F32x16 {
    type Output = Self;
    #[inline(always)]
    #[allow(unsafe_code)]
    fn add(mut self, o: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(o.0) {
            // SAFETY: cpu: a backend made `self`.
            *a = unsafe { vaddq_f32(*a, b) };
        }
        self
    }
}

impl Mul for F32x16 {
    type Output = Self;
    #[inline(always)]
    #[allow(unsafe_code)]
    fn mul(mut self, o: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(o.0) {
            // SAFETY: cpu: a backend made `self`.
            *a = unsafe { vmulq_f32(*a, b) };
        }
        self
    }
}

impl Lanes for F32x16 {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn array(self) -> [f32; LANES] {
        // SAFETY: init: 64 bytes either way, and every bit pattern is a float.
        unsafe { core::mem::transmute::<[float32x4_t; 4], [f32; LANES]>(self.0) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn flush(mut self) -> Self {
        for x in &mut self.0 {
            // SAFETY: cpu: a backend made `self`.
            *x = unsafe {
                let bits = vreinterpretq_u32_f32(*x);
                // Without the sign: shifted out on both sides of the compare.
                let limit = vdupq_n_u32(crate::math::FLUSH_BELOW << 1);
                let kept = vcgeq_u32(vshlq_n_u32::<1>(bits), limit);
                vreinterpretq_f32_u32(vandq_u32(bits, kept))
            };
        }
        self
    }
}

//! 16 floats in four registers.

use crate::kernels::isa::{LANES, Lanes};
use crate::kernels::q8::Interleaved;
use core::arch::aarch64::*;
use core::ops::{Add, Mul};

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
}

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

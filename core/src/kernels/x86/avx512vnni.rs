//! AVX-512 with VNNI: sixteen lanes in a register.

use super::arch::*;
use super::{avx512vnni_q8, prefetch};
use crate::blob::Tensor;
use crate::kernels::isa::{Isa, LANES, Lanes};
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::gemv_q8;
use crate::kernels::token::token;
use core::ops::{Add, Mul};

token! {
    /// The proof that this CPU has AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni, "avx512vnni", "x86_avx512vnni", is_x86_feature_detected, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
    ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"]
}

/// 16 floats. Only an [`Avx512Vnni`] makes one, so the CPU has the instructions.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

impl Add for F32x16 {
    type Output = Self;
    #[inline(always)]
    #[allow(unsafe_code)]
    fn add(self, o: Self) -> Self {
        // SAFETY: cpu: an `Avx512Vnni` made `self`.
        unsafe { Self(_mm512_add_ps(self.0, o.0)) }
    }
}

impl Mul for F32x16 {
    type Output = Self;
    #[inline(always)]
    #[allow(unsafe_code)]
    fn mul(self, o: Self) -> Self {
        // SAFETY: cpu: an `Avx512Vnni` made `self`.
        unsafe { Self(_mm512_mul_ps(self.0, o.0)) }
    }
}

impl Lanes for F32x16 {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn array(self) -> [f32; LANES] {
        // SAFETY: init: 64 bytes either way, and every bit pattern is a float.
        unsafe { core::mem::transmute::<__m512, [f32; LANES]>(self.0) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn flush(self) -> Self {
        // SAFETY: cpu: an `Avx512Vnni` made `self`.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(i32::MAX));
            let limit = _mm512_set1_epi32(crate::math::FLUSH_BELOW.cast_signed());
            let kept = _mm512_cmpge_epi32_mask(magnitude, limit);
            Self(_mm512_maskz_mov_ps(kept, self.0))
        }
    }
}

impl Isa for Avx512Vnni {
    type Lanes = F32x16;

    const PREFETCHES: bool = true;
    const SIXTEEN_SUMS: bool = true;
    const RANGES: usize = 2;

    #[inline(always)]
    fn prefetch<T>(self, at: &T, ahead: usize) {
        prefetch(at, ahead);
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn splat(self, x: f32) -> F32x16 {
        // SAFETY: cpu: `self`.
        unsafe { F32x16(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn load(self, x: &[f32; LANES]) -> F32x16 {
        // SAFETY: cpu: `self`. bounds: 16 floats of 16. align: unaligned load.
        unsafe { F32x16(_mm512_loadu_ps(x.as_ptr())) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> F32x16 {
        // SAFETY: cpu: `self`. bounds: 32 bytes of 32. align: unaligned load.
        unsafe { F32x16(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn load_i8(self, x: &[u8; LANES]) -> F32x16 {
        // SAFETY: cpu: `self`. bounds: 16 bytes of 16. align: unaligned load.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            F32x16(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
        }
    }

    #[inline(always)]
    fn q8(
        self,
        w: &Tensor<'_>,
        tiles: (usize, usize),
        columns: &[PanelColumn<'_>],
        lane: usize,
        acc: &mut [[f32; LANES]],
    ) {
        gemv_q8(self, w, tiles, columns, lane, acc);
    }

    #[inline(always)]
    fn q8_range(
        self,
        w: &Tensor<'_>,
        rows: (usize, usize),
        column: &PanelColumn<'_>,
        ahead: usize,
        out: &mut [[f32; LANES]],
    ) -> bool {
        avx512vnni_q8::range_r4k4(self, w, rows, column, ahead, out)
    }
}

//! AVX2 with F16C: eight lanes in a register.

use super::arch::*;
use super::prefetch;
use crate::blob::Tensor;
use crate::kernels::isa::{Isa, LANES, Lanes};
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::gemv_q8;
use crate::kernels::token::token;
use core::ops::{Add, Mul};

token! {
    /// The proof that this CPU has AVX2 and F16C.
    Avx2, "avx2", "x86_avx2", is_x86_feature_detected, "avx2,f16c", ["avx2", "f16c"]
}

/// 16 floats in two registers. Only an [`Avx2`] makes one, so the CPU has the instructions.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m256, __m256);

impl Add for F32x16 {
    type Output = Self;
    #[inline(always)]
    #[allow(unsafe_code)]
    fn add(self, o: Self) -> Self {
        // SAFETY: cpu: an `Avx2` made `self`.
        unsafe { Self(_mm256_add_ps(self.0, o.0), _mm256_add_ps(self.1, o.1)) }
    }
}

impl Mul for F32x16 {
    type Output = Self;
    #[inline(always)]
    #[allow(unsafe_code)]
    fn mul(self, o: Self) -> Self {
        // SAFETY: cpu: an `Avx2` made `self`.
        unsafe { Self(_mm256_mul_ps(self.0, o.0), _mm256_mul_ps(self.1, o.1)) }
    }
}

impl Lanes for F32x16 {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn array(self) -> [f32; LANES] {
        // SAFETY: init: 64 bytes either way, and every bit pattern is a float.
        unsafe { core::mem::transmute::<[__m256; 2], [f32; LANES]>([self.0, self.1]) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn flush(self) -> Self {
        // SAFETY: cpu: an `Avx2` made `self`.
        unsafe { Self(flush(self.0), flush(self.1)) }
    }
}

/// Magnitudes are below 2^31, so the signed compare orders them.
#[inline]
#[target_feature(enable = "avx2")]
fn flush(x: __m256) -> __m256 {
    let bits = _mm256_castps_si256(x);
    let magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(i32::MAX));
    let limit = _mm256_set1_epi32(crate::math::FLUSH_BELOW.cast_signed());
    let below = _mm256_cmpgt_epi32(limit, magnitude);
    _mm256_castsi256_ps(_mm256_andnot_si256(below, bits))
}

impl Isa for Avx2 {
    type Lanes = F32x16;

    const PREFETCHES: bool = true;

    #[inline(always)]
    fn prefetch<T>(self, at: &T, ahead: usize) {
        prefetch(at, ahead);
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn splat(self, x: f32) -> F32x16 {
        // SAFETY: cpu: `self`.
        unsafe { F32x16(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn load(self, x: &[f32; LANES]) -> F32x16 {
        // SAFETY: cpu: `self`. bounds: two times 8 floats of 16. align: unaligned loads.
        unsafe {
            F32x16(
                _mm256_loadu_ps(x.as_ptr()),
                _mm256_loadu_ps(x.as_ptr().add(8)),
            )
        }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> F32x16 {
        // SAFETY: cpu: `self`. bounds: two times 16 bytes of 32. align: unaligned loads.
        unsafe {
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x.as_ptr().add(16).cast());
            F32x16(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn load_i8(self, x: &[u8; LANES]) -> F32x16 {
        // SAFETY: cpu: `self`. bounds: 16 bytes of 16. align: unaligned load.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            let low = _mm256_cvtepi8_epi32(bytes);
            let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes));
            F32x16(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
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
}

//! `q8` rows with AVX2: `maddubs(|w|, sign(x, w))`, exact for every byte (|w| = 128 is fine unsigned).

use super::arch::*;
use super::{AHEAD, Avx2, ahead, ahead_of_scales};
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::log::{key, ran_q8};
use crate::kernels::q8::{Interleaved, Q8Block};

#[allow(unsafe_code)]
impl Interleaved for Avx2 {
    const WIDEST: usize = 4;
    const SIDE_BY_SIDE: usize = 4;

    #[inline(always)]
    unsafe fn r16k4<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        acc: &mut [[[f32; LANES]; C]; T],
    ) {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe { gemv_q8_r16k4_x86_avx2(block, acc) }
    }

    #[inline(always)]
    unsafe fn r4k4<const C: usize>(self, block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe { gemv_q8_r4k4_x86_avx2(block) }
    }
}

/// The exact sums of four products per i32, added to `d`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_dots(d: __m256i, w: __m256i, w_abs: __m256i, x: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(w_abs, _mm256_sign_epi8(x, w));
    _mm256_add_epi32(d, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// # Safety
///
/// `block` is a sound block of `r16k4`.
#[inline(never)]
#[target_feature(enable = "avx2,f16c")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r16k4_x86_avx2<const C: usize, const T: usize>(
    block: &Q8Block<'_, C, T>,
    acc: &mut [[[f32; LANES]; C]; T],
) {
    ran_q8(Layout::R16K4, const { key("gemv_q8_r16k4_x86_avx2") });
    let mut sums = [[[_mm256_setzero_ps(); 2]; C]; T];
    let (mut scales, mut vectors, mut q) = (block.scales, block.vectors, block.q);
    let mut steps = block.steps;
    for g in 0..block.groups {
        let mut d = [[[_mm256_setzero_si256(); 2]; C]; T];
        let ahead = ahead::<T>(steps.saturating_mul(64), block.stride);
        let count = steps.min(block.group_steps);
        steps -= count;
        for _ in 0..count {
            // SAFETY: bounds: `count` sums to `block.steps` over the groups; a step is 64 bytes of each tile's vectors and 4 of
            //   each q. align: unaligned loads. A prefetch may go anywhere.
            unsafe {
                for (d, vectors) in d.iter_mut().zip(&mut vectors) {
                    _mm_prefetch::<_MM_HINT_T0>(vectors.wrapping_add(ahead).cast());
                    let low = _mm256_loadu_si256(vectors.cast());
                    let high = _mm256_loadu_si256(vectors.add(32).cast());
                    let (low_abs, high_abs) = (_mm256_abs_epi8(low), _mm256_abs_epi8(high));
                    for (d, q) in d.iter_mut().zip(&q) {
                        let x = _mm256_set1_epi32(q.cast::<i32>().read_unaligned());
                        d[0] = add_dots(d[0], low, low_abs, x);
                        d[1] = add_dots(d[1], high, high_abs, x);
                    }
                    *vectors = vectors.add(64);
                }
                for q in &mut q {
                    *q = q.add(4);
                }
            }
        }
        // SAFETY: bounds: `g < groups`, and a group has 16 halves of scales a tile, and an sx per column. align: unaligned. A
        //   prefetch may go anywhere.
        unsafe {
            for ((sums, d), scales) in sums.iter_mut().zip(d).zip(&mut scales) {
                _mm_prefetch::<_MM_HINT_T0>(scales.wrapping_add(ahead_of_scales::<T>()).cast());
                let low = _mm256_cvtph_ps(_mm_loadu_si128(scales.cast()));
                let high = _mm256_cvtph_ps(_mm_loadu_si128(scales.add(16).cast()));
                *scales = scales.add(32);
                for ((sums, d), sx) in sums.iter_mut().zip(d).zip(&block.sx) {
                    let sx = _mm256_set1_ps(*sx.add(g) * block.pow);
                    for ((sum, d), sw) in sums.iter_mut().zip(d).zip([low, high]) {
                        let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(d), _mm256_mul_ps(sw, sx));
                        *sum = _mm256_add_ps(*sum, scaled);
                    }
                }
            }
        }
    }
    for (acc, sums) in acc.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        let [low, high] = *sums;
        // SAFETY: bounds: two times 8 of 16 floats. align: unaligned stores.
        unsafe {
            _mm256_storeu_ps(acc.as_mut_ptr(), low);
            _mm256_storeu_ps(acc.as_mut_ptr().add(8), high);
        }
    }
}

/// Two steps at once: the low half of a register is one, the high half the next.
///
/// # Safety
///
/// `block` is a sound block of `r4k4`.
#[inline(never)]
#[target_feature(enable = "avx2,f16c")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r4k4_x86_avx2<const C: usize>(block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
    ran_q8(Layout::R4K4, const { key("gemv_q8_r4k4_x86_avx2") });
    let mut sums = [_mm_setzero_ps(); C];
    let ([mut scales], [mut vectors], mut q) = (block.scales, block.vectors, block.q);
    let mut steps = block.steps;
    let spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    for g in 0..block.groups {
        let mut d = [_mm256_setzero_si256(); C];
        let count = steps.min(block.group_steps);
        steps -= count;
        for _ in 0..count / 2 {
            // SAFETY: bounds: two of `count` steps, which sum to `block.steps`; a step is 16 bytes of vectors and 4 of
            //   each q. align: unaligned loads.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(vectors.wrapping_add(AHEAD / 4).cast());
                let w = _mm256_loadu_si256(vectors.cast());
                let w_abs = _mm256_abs_epi8(w);
                for (d, q) in d.iter_mut().zip(&mut q) {
                    let x = _mm256_castsi128_si256(_mm_loadl_epi64(q.cast()));
                    let x = _mm256_permutevar8x32_epi32(x, spread);
                    *d = add_dots(*d, w, w_abs, x);
                    *q = q.add(8);
                }
                vectors = vectors.add(32);
            }
        }
        if count % 2 == 1 {
            // SAFETY: bounds: the last of `count` steps. align: unaligned loads.
            unsafe {
                let w = _mm256_zextsi128_si256(_mm_loadu_si128(vectors.cast()));
                let w_abs = _mm256_abs_epi8(w);
                for (d, q) in d.iter_mut().zip(&mut q) {
                    let x = _mm256_set1_epi32(q.cast::<i32>().read_unaligned());
                    *d = add_dots(*d, w, w_abs, x);
                    *q = q.add(4);
                }
                vectors = vectors.add(16);
            }
        }
        // SAFETY: bounds: `g < groups`, and a group has 4 halves of scales and an sx per column. align: unaligned.
        unsafe {
            let sw = _mm_cvtph_ps(_mm_loadl_epi64(scales.cast()));
            scales = scales.add(8);
            for ((sum, d), sx) in sums.iter_mut().zip(d).zip(&block.sx) {
                let d = _mm_add_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256::<1>(d));
                let sx = _mm_set1_ps(*sx.add(g) * block.pow);
                let scaled = _mm_mul_ps(_mm_cvtepi32_ps(d), _mm_mul_ps(sw, sx));
                *sum = _mm_add_ps(*sum, scaled);
            }
        }
    }
    sums.map(|sum| {
        // SAFETY: init: 16 bytes either way, and every bit pattern is a float.
        unsafe { core::mem::transmute::<__m128, [f32; 4]>(sum) }
    })
}

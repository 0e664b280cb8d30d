//! `q8` rows with VPDPBUSD. It takes one operand unsigned: weights get their sign bit flipped (w + 128), and a group's
//! sum starts at -128 times the sum of its activations, which the panel holds.

use super::arch::*;
use super::{AHEAD, Avx512Vnni, ahead, ahead_of_scales};
use crate::blob::Tensor;
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::log::{key, ran_q8};
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::{Interleaved, Q8Block};
use core::array;

#[allow(unsafe_code)]
impl Interleaved for Avx512Vnni {
    const WIDEST: usize = 8;
    const SIDE_BY_SIDE: usize = 12;

    #[inline(always)]
    unsafe fn r16k4<const C: usize, const T: usize>(
        self,
        block: &Q8Block<'_, C, T>,
        acc: &mut [[[f32; LANES]; C]; T],
    ) {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe { gemv_q8_r16k4_x86_avx512vnni(block, acc) }
    }

    #[inline(always)]
    unsafe fn r4k4<const C: usize>(self, block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
        // SAFETY: cpu: `self`. The rest is the caller's.
        let [sums] = unsafe { gemv_q8_r4k4_x86_avx512vnni(block, AHEAD / 4) };
        sums
    }
}

/// # Safety
///
/// `block` is a sound block of `r16k4`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r16k4_x86_avx512vnni<const C: usize, const T: usize>(
    block: &Q8Block<'_, C, T>,
    acc: &mut [[[f32; LANES]; C]; T],
) {
    ran_q8(Layout::R16K4, const { key("gemv_q8_r16k4_x86_avx512vnni") });
    let mut sums = [[_mm512_setzero_ps(); C]; T];
    let (mut scales, mut vectors, mut q) = (block.scales, block.vectors, block.q);
    let mut steps = block.steps;
    for g in 0..block.groups {
        // SAFETY: bounds: `g < groups`, and there is a sum per group.
        let even = block
            .sum
            .map(|sum| unsafe { _mm512_set1_epi32((*sum.add(g)).wrapping_mul(-128)) });
        // Of one tile, two chains of sums, so that an instruction need not wait for the one before it.
        let (mut even, mut odd) = ([even; T], [[_mm512_setzero_si512(); C]; T]);
        let ahead = ahead::<T>(steps.saturating_mul(64), block.stride);
        let count = steps.min(block.group_steps);
        steps -= count;
        // SAFETY: cpu: this function's. bounds: `count` steps in all, which sum to `block.steps` over the groups.
        unsafe {
            for _ in 0..count / 2 {
                add_step(&mut even, &mut vectors, &mut q, ahead);
                match T {
                    1 => add_step(&mut odd, &mut vectors, &mut q, ahead),
                    _ => add_step(&mut even, &mut vectors, &mut q, ahead),
                }
            }
            if count % 2 == 1 {
                add_step(&mut even, &mut vectors, &mut q, ahead);
            }
        }
        // SAFETY: bounds: `g < groups`, and a group has 16 halves of scales a tile, and an sx per column. align: unaligned. A
        //   prefetch may go anywhere.
        unsafe {
            let dots = even.iter().zip(&odd);
            for ((sums, scales), dots) in sums.iter_mut().zip(&mut scales).zip(dots) {
                _mm_prefetch::<_MM_HINT_T0>(scales.wrapping_add(ahead_of_scales::<T>()).cast());
                let sw = _mm512_cvtph_ps(_mm256_loadu_si256(scales.cast()));
                *scales = scales.add(32);
                for ((sum, d), sx) in sums
                    .iter_mut()
                    .zip(dots.0.iter().zip(dots.1))
                    .zip(&block.sx)
                {
                    let d = _mm512_cvtepi32_ps(_mm512_add_epi32(*d.0, *d.1));
                    let sx = _mm512_set1_ps(*sx.add(g) * block.pow);
                    *sum = _mm512_add_ps(*sum, _mm512_mul_ps(d, _mm512_mul_ps(sw, sx)));
                }
            }
        }
    }
    for (acc, sum) in acc.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        // SAFETY: bounds: 16 of 16 floats. align: unaligned store.
        unsafe { _mm512_storeu_ps(acc.as_mut_ptr(), *sum) };
    }
}

/// Adds a step of `T` tiles times that of each column to `d`; the pointers move on.
///
/// # Safety
///
/// The CPU has this backend's features. From each of `vectors` 64 bytes can be read, and 4 from each q.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn add_step<const C: usize, const T: usize>(
    d: &mut [[__m512i; C]; T],
    vectors: &mut [*const u8; T],
    q: &mut [*const i8; C],
    ahead: usize,
) {
    // SAFETY: cpu and bounds: the caller's. align: unaligned loads. A prefetch may go anywhere.
    unsafe {
        let mut x = [_mm512_setzero_si512(); C];
        for (x, q) in x.iter_mut().zip(q) {
            *x = _mm512_set1_epi32(q.cast::<i32>().read_unaligned());
            *q = q.add(4);
        }
        for (d, vectors) in d.iter_mut().zip(vectors) {
            _mm_prefetch::<_MM_HINT_T0>(vectors.wrapping_add(ahead).cast());
            let w = _mm512_loadu_si512(vectors.cast());
            let w = _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN));
            for (d, x) in d.iter_mut().zip(x) {
                *d = _mm512_dpbusd_epi32(*d, w, x);
            }
            *vectors = vectors.add(64);
        }
    }
}

/// Rows `first..first + rows` of `r4k4` tiles, at most 16; `false` where `w` has other ones.
#[inline(always)]
pub(super) fn range_r4k4(
    backend: Avx512Vnni,
    w: &Tensor<'_>,
    (first, rows): (usize, usize),
    column: &PanelColumn<'_>,
    ahead: usize,
    out: &mut [[f32; LANES]],
) -> bool {
    let [out] = out else { return false };
    if w.layout as u8 != Layout::R4K4 as u8 {
        return false;
    }
    let (mut tile, mut out) = (first / 4, out.as_chunks_mut::<4>().0);
    let rows = rows.min(w.rows.saturating_sub(first));
    out = out.get_mut(..rows.div_ceil(4)).unwrap_or(&mut []);
    while !out.is_empty() {
        let taken = match out {
            [_, _, _, _, ..] => tiles::<4>(backend, w, tile, column, ahead, out),
            [_, _, ..] => tiles::<2>(backend, w, tile, column, ahead, out),
            _ => tiles::<1>(backend, w, tile, column, ahead, out),
        };
        tile += taken;
        out = out.get_mut(taken..).unwrap_or(&mut []);
    }
    true
}

/// `T` tiles from tile `first` on.
#[inline(always)]
#[allow(unsafe_code)]
fn tiles<const T: usize>(
    _: Avx512Vnni,
    w: &Tensor<'_>,
    first: usize,
    column: &PanelColumn<'_>,
    ahead: usize,
    out: &mut [[f32; 4]],
) -> usize {
    let column = array::from_ref(column);
    if let Some(block) = Q8Block::new(w, Layout::R4K4, (first, T), column) {
        let ahead = if ahead == 0 { AHEAD / 4 } else { ahead };
        // SAFETY: cpu: the first argument. `Q8Block::new` makes sound blocks, here of `r4k4`.
        let sums = unsafe { gemv_q8_r4k4_x86_avx512vnni(&block, ahead) };
        for (out, [sums]) in out.iter_mut().zip::<[_; T]>(sums) {
            *out = sums;
        }
    }
    T
}

/// Four steps at once, one in each quarter of a register, of each of `T` tiles, at most 4.
///
/// # Safety
///
/// `block` is a sound block of `r4k4`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r4k4_x86_avx512vnni<const C: usize, const T: usize>(
    block: &Q8Block<'_, C, T>,
    ahead: usize,
) -> [[[f32; 4]; C]; T] {
    ran_q8(Layout::R4K4, const { key("gemv_q8_r4k4_x86_avx512vnni") });
    const { assert!(T <= 4, "a register has four quarters") };
    let mut sums = [_mm512_setzero_ps(); C];
    let (mut scales, mut vectors, mut q) = (block.scales, block.vectors, block.q);
    let mut steps = block.steps;
    for g in 0..block.groups {
        let mut d = [[_mm512_setzero_si512(); T]; C];
        let count = steps.min(block.group_steps);
        steps -= count;
        // SAFETY: cpu: this function's. bounds: `count` steps in all, which sum to `block.steps` over the groups.
        unsafe {
            for _ in 0..count / 4 {
                four_steps(4, &mut vectors, &mut q, ahead, &mut d);
            }
            let rest = count % 4;
            if rest > 0 {
                four_steps(rest, &mut vectors, &mut q, ahead, &mut d);
            }
        }
        // SAFETY: bounds: `g < groups`: 4 halves of scales a tile, and an sx and a sum per column. align: unaligned.
        unsafe {
            let mut halves = [_mm_setzero_si128(); 4];
            for (halves, scales) in halves.iter_mut().zip(&mut scales) {
                *halves = _mm_loadl_epi64(scales.cast());
                *scales = scales.add(8);
            }
            let [first, second, third, fourth] = halves;
            let low = _mm_unpacklo_epi64(first, second);
            let high = _mm_unpacklo_epi64(third, fourth);
            let sw = _mm512_cvtph_ps(_mm256_set_m128i(high, low));
            let columns = block.sx.iter().zip(&block.sum);
            for ((sum, d), (sx, start)) in sums.iter_mut().zip(d).zip(columns) {
                let start = _mm512_set1_epi32((*start.add(g)).wrapping_mul(-128));
                let d = _mm512_cvtepi32_ps(_mm512_add_epi32(quarters(d), start));
                let sx = _mm512_set1_ps(*sx.add(g) * block.pow);
                *sum = _mm512_add_ps(*sum, _mm512_mul_ps(d, _mm512_mul_ps(sw, sx)));
            }
        }
    }
    let mut rows = [[[0.0; 4]; C]; T];
    for (c, sum) in sums.into_iter().enumerate() {
        // SAFETY: init: 64 bytes either way, and every bit pattern is a float.
        let sum = unsafe { core::mem::transmute::<__m512, [[f32; 4]; 4]>(sum) };
        for (rows, sum) in rows.iter_mut().zip(sum) {
            if let Some(row) = rows.get_mut(c) {
                *row = sum;
            }
        }
    }
    rows
}

/// Adds `taken` steps of `T` tiles, at most four, one in each quarter of a register, times those of each column, to `d`.
///
/// # Safety
///
/// The CPU has this backend's features. From each of `vectors`, 16 bytes a step can be read, and 4 from each q.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn four_steps<const C: usize, const T: usize>(
    taken: usize,
    vectors: &mut [*const u8; T],
    q: &mut [*const i8; C],
    ahead: usize,
    d: &mut [[__m512i; T]; C],
) {
    let (w_mask, x_mask) = (((1u32 << (4 * taken)) - 1) as u16, (1u8 << taken) - 1);
    // SAFETY: cpu and bounds: the caller's; the masks take `taken` steps. align: unaligned loads. Where x is 0, w does
    //   not matter. A prefetch may go anywhere.
    unsafe {
        let spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let mut x = [_mm512_setzero_si512(); C];
        for (x, q) in x.iter_mut().zip(q) {
            let four = _mm512_castsi128_si512(_mm_maskz_loadu_epi32(x_mask, q.cast()));
            *x = _mm512_permutexvar_epi32(spread, four);
            *q = q.add(4 * taken);
        }
        for (t, vectors) in vectors.iter_mut().enumerate() {
            _mm_prefetch::<_MM_HINT_T0>(vectors.wrapping_add(ahead).cast());
            let w = _mm512_maskz_loadu_epi32(w_mask, vectors.cast());
            let w = _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN));
            for (d, x) in d.iter_mut().zip(x) {
                if let Some(d) = d.get_mut(t) {
                    *d = _mm512_dpbusd_epi32(*d, w, x);
                }
            }
            *vectors = vectors.add(16 * taken);
        }
    }
}

/// The sum of the quarters of each of up to four registers, in a quarter of its own; 0 beyond the last register.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters<const T: usize>(registers: [__m512i; T]) -> __m512i {
    let mut four = [_mm512_setzero_si512(); 4];
    for (to, register) in four.iter_mut().zip(registers) {
        *to = register;
    }
    let [a, b, c, d] = four;
    let ab = _mm512_add_epi32(
        _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b),
        _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b),
    );
    let cd = _mm512_add_epi32(
        _mm512_shuffle_i64x2::<0b01_00_01_00>(c, d),
        _mm512_shuffle_i64x2::<0b11_10_11_10>(c, d),
    );
    _mm512_add_epi32(
        _mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd),
    )
}

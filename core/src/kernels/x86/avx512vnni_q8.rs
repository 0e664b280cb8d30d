//! `q8` rows with VPDPBUSD. It takes one operand unsigned: weights get their sign bit flipped (w + 128), and a group's
//! sum starts at -128 times the sum of its activations, which the panel holds.

use super::arch::*;
use super::{AHEAD, Avx512Vnni};
use crate::blob::Tensor;
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::{Interleaved, Q8Block};
use core::array;

#[allow(unsafe_code)]
impl Interleaved for Avx512Vnni {
    const WIDEST: usize = 8;

    #[inline(always)]
    unsafe fn r16k4<const C: usize>(self, block: &Q8Block<'_, C>, acc: &mut [[f32; LANES]; C]) {
        // SAFETY: cpu: `self`. The rest is the caller's.
        unsafe { gemv_q8_r16k4_x86_avx512vnni(block, acc) }
    }

    #[inline(always)]
    unsafe fn r4k4<const C: usize>(self, block: &Q8Block<'_, C>) -> [[f32; 4]; C] {
        // SAFETY: cpu: `self`. The rest is the caller's.
        let [sums] = unsafe { gemv_q8_r4k4_x86_avx512vnni(block, 0, AHEAD / 4) };
        sums
    }
}

/// # Safety
///
/// `block` is a sound block of `r16k4`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r16k4_x86_avx512vnni<const C: usize>(
    block: &Q8Block<'_, C>,
    acc: &mut [[f32; LANES]; C],
) {
    let flip = _mm512_set1_epi8(i8::MIN);
    let mut sums = [_mm512_setzero_ps(); C];
    let (mut scales, mut vectors, mut q) = (block.scales, block.vectors, block.q);
    let mut steps = block.steps;
    for g in 0..block.groups {
        // Two chains, so that an instruction need not wait for the one before it.
        // SAFETY: bounds: `g < groups`, and there is a sum per group.
        let mut even = block
            .sum
            .map(|sum| unsafe { _mm512_set1_epi32((*sum.add(g)).wrapping_mul(-128)) });
        let mut odd = [_mm512_setzero_si512(); C];
        let count = steps.min(block.group_steps);
        steps -= count;
        for _ in 0..count / 2 {
            // SAFETY: bounds: two of `count` steps, which sum to `block.steps` over the groups; a step is 64 bytes of
            //   vectors and 4 of each q. align: unaligned loads. A prefetch may go anywhere.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(vectors.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(vectors.wrapping_add(AHEAD + 64).cast());
                let w0 = _mm512_xor_si512(_mm512_loadu_si512(vectors.cast()), flip);
                let w1 = _mm512_xor_si512(_mm512_loadu_si512(vectors.add(64).cast()), flip);
                for ((even, odd), q) in even.iter_mut().zip(&mut odd).zip(&mut q) {
                    let x0 = _mm512_set1_epi32(q.cast::<i32>().read_unaligned());
                    let x1 = _mm512_set1_epi32(q.cast::<i32>().add(1).read_unaligned());
                    *even = _mm512_dpbusd_epi32(*even, w0, x0);
                    *odd = _mm512_dpbusd_epi32(*odd, w1, x1);
                    *q = q.add(8);
                }
                vectors = vectors.add(128);
            }
        }
        if count % 2 == 1 {
            // SAFETY: bounds: the last of `count` steps. align: unaligned loads.
            unsafe {
                let w = _mm512_xor_si512(_mm512_loadu_si512(vectors.cast()), flip);
                for (even, q) in even.iter_mut().zip(&mut q) {
                    let x = _mm512_set1_epi32(q.cast::<i32>().read_unaligned());
                    *even = _mm512_dpbusd_epi32(*even, w, x);
                    *q = q.add(4);
                }
                vectors = vectors.add(64);
            }
        }
        // SAFETY: bounds: `g < groups`, and a group has 16 halves of scales and an sx per column. align: unaligned.
        unsafe {
            let sw = _mm512_cvtph_ps(_mm256_loadu_si256(scales.cast()));
            scales = scales.add(32);
            for ((sum, d), sx) in sums.iter_mut().zip(even.iter().zip(odd)).zip(&block.sx) {
                let d = _mm512_cvtepi32_ps(_mm512_add_epi32(*d.0, d.1));
                let sx = _mm512_set1_ps(*sx.add(g) * block.pow);
                *sum = _mm512_add_ps(*sum, _mm512_mul_ps(d, _mm512_mul_ps(sw, sx)));
            }
        }
    }
    for (acc, sum) in acc.iter_mut().zip(sums) {
        // SAFETY: bounds: 16 of 16 floats. align: unaligned store.
        unsafe { _mm512_storeu_ps(acc.as_mut_ptr(), sum) };
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
    if let Some(tile) = w.q8_tile(first)
        && let Some(block) = Q8Block::new(&tile, array::from_ref(column))
        && w.tile(first + T - 1).is_some()
    {
        let ahead = if ahead == 0 { AHEAD / 4 } else { ahead };
        // SAFETY: cpu: the first argument. `Q8Block::new` makes sound blocks, and the tiles of a tensor up to one that is
        //   there lie one behind the other, alike.
        let sums = unsafe { gemv_q8_r4k4_x86_avx512vnni(&block, w.tile_bytes(), ahead) };
        for (out, [sums]) in out.iter_mut().zip::<[_; T]>(sums) {
            *out = sums;
        }
    }
    T
}

/// Four steps at once, one in each quarter of a register, of each of `T` tiles, at most 4, `stride` bytes apart.
///
/// # Safety
///
/// `block` is a sound block of `r4k4`, and so are the `T - 1` that lie behind it.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[allow(unsafe_code)]
unsafe fn gemv_q8_r4k4_x86_avx512vnni<const C: usize, const T: usize>(
    block: &Q8Block<'_, C>,
    stride: usize,
    ahead: usize,
) -> [[[f32; 4]; C]; T] {
    const { assert!(T <= 4, "a register has four quarters") };
    let mut sums = [_mm512_setzero_ps(); C];
    let (mut scales, mut vectors, mut q) = ([block.scales; T], [block.vectors; T], block.q);
    for (t, (scales, vectors)) in scales.iter_mut().zip(&mut vectors).enumerate() {
        // SAFETY: bounds: the caller promises `T` tiles.
        unsafe { (*scales, *vectors) = (scales.add(t * stride), vectors.add(t * stride)) };
    }
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
///
/// # Safety
///
/// The CPU has this backend's features.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn quarters<const T: usize>(registers: [__m512i; T]) -> __m512i {
    // SAFETY: cpu: the caller's.
    unsafe {
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
}

//! AVX2: the scalar source, compiled again for 256-bit registers.
//!
//! Nothing is written twice: the scalar micro-kernels are `#[inline(always)]` down to their loops, and a function
//! with the target feature around them lets the compiler vectorise with AVX2. `fma` is not among its features, so
//! no multiply and add are fused.

use crate::blob::Tensor;
use crate::kernels::BLOCK;
use crate::kernels::attention::AttentionJob;
use crate::kernels::linear::{Block, gemv_scalar};

/// The proof that this CPU has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if every CPU that this build runs on has AVX2.
    pub(crate) const fn of_build() -> Option<Self> {
        if cfg!(target_feature = "avx2") {
            Some(Self(()))
        } else {
            None
        }
    }

    /// The proof, if the running CPU has AVX2.
    #[cfg(feature = "std")]
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// As [`gemv_scalar`].
    #[allow(unsafe_code)]
    pub(crate) fn gemv(
        self,
        w: &Tensor<'_>,
        first: usize,
        block: &Block<'_>,
        acc: &mut [[f32; BLOCK]],
    ) {
        #[target_feature(enable = "avx2")]
        fn gemv_avx2(w: &Tensor<'_>, first: usize, block: &Block<'_>, acc: &mut [[f32; BLOCK]]) {
            gemv_scalar(w, first, block, acc);
        }
        // SAFETY: cpu: `self` exists only where `of_build` or `detect` found AVX2; nothing else is asked for.
        unsafe { gemv_avx2(w, first, block, acc) }
    }

    /// As [`AttentionJob::head_scalar`].
    #[allow(unsafe_code)]
    pub(crate) fn head(self, job: &AttentionJob<'_>, head: usize, out: &mut [f32]) {
        #[target_feature(enable = "avx2")]
        fn head_avx2(job: &AttentionJob<'_>, head: usize, out: &mut [f32]) {
            job.head_scalar(head, out);
        }
        // SAFETY: cpu: as for `gemv`.
        unsafe { head_avx2(job, head, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::layout::{Dtype, Layout, packed_size};
    use crate::kernels::panel::{Input, quantise};
    use std::vec::Vec;

    /// Numbers from a seed; SplitMix64.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Weights at random, extremes among them; halves and floats are finite and not too large.
    fn weights(dtype: Dtype, scales: usize, bytes: usize, state: &mut u64) -> Vec<u8> {
        let mut data: Vec<u8> = (0..bytes).map(|_| next(state) as u8).collect();
        let halves = match dtype {
            Dtype::Q8 => scales,
            Dtype::F16 => bytes,
            Dtype::F32 => 0,
        };
        for half in data[..halves].as_chunks_mut::<2>().0 {
            half[1] = half[1] & 0x80 | 0x2c | half[1] & 0x03;
        }
        match dtype {
            Dtype::Q8 => data[scales..].iter_mut().step_by(7).for_each(|q| *q = 0x80),
            Dtype::F16 => {}
            Dtype::F32 => {
                for float in data.as_chunks_mut::<4>().0 {
                    float[3] = float[3] & 0x80 | 0x3e;
                }
            }
        }
        data
    }

    /// Every dtype and layout, lengths around the vectors' and groups', 1 to 8 columns: the scalar bits.
    #[test]
    fn gemv_has_the_scalar_bits() {
        let Some(avx2) = Avx2::detect() else { return };
        let mut state = 5;
        for dtype in [Dtype::Q8, Dtype::F16, Dtype::F32] {
            for layout in [Layout::R16K4, Layout::R4K4, Layout::Rows] {
                for k in [1usize, 3, 31, 32, 33, 64, 65, 100, 257] {
                    for columns in 1..=BLOCK {
                        let (rows, group) = (16, 32);
                        let lanes = layout.tile_rows();
                        let bytes = packed_size(dtype, layout, rows, k, group);
                        let tile = bytes / (rows / lanes);
                        let scales = crate::kernels::layout::scale_bytes(lanes, k, group);
                        let data: Vec<u8> = (0..rows / lanes)
                            .flat_map(|_| weights(dtype, scales, tile, &mut state))
                            .collect();
                        let w = Tensor {
                            dtype,
                            layout,
                            lanes,
                            scale_exp: -2,
                            rows,
                            cols: k,
                            group,
                            data: &data,
                        };
                        let x: Vec<f32> = (0..k * columns)
                            .map(|_| next(&mut state) as i32 as f32 * 1e-9)
                            .collect();
                        let (padded, groups) = (k.next_multiple_of(4), k.div_ceil(group));
                        let mut q = std::vec![0; padded * columns];
                        let mut sx = std::vec![0.0; groups * columns];
                        let mut sum = std::vec![0; groups * columns];
                        for c in 0..columns {
                            let (p, g) =
                                (c * padded..(c + 1) * padded, c * groups..(c + 1) * groups);
                            let x = &x[c * k..(c + 1) * k];
                            assert!(quantise(
                                x,
                                group,
                                &mut q[p],
                                &mut sx[g.clone()],
                                &mut sum[g]
                            ));
                        }
                        let input = Input {
                            k,
                            group,
                            x: &x,
                            q_stride: padded,
                            s_stride: groups,
                            q: &q,
                            sx: &sx,
                            sum: &sum,
                            picks: None,
                        };
                        let block = Block::new(&input, dtype, 0, columns);
                        let (mut ours, mut scalar) = ([[7.0; BLOCK]; 16], [[7.0; BLOCK]; 16]);
                        avx2.gemv(&w, 0, &block, &mut ours);
                        gemv_scalar(&w, 0, &block, &mut scalar);
                        let bits = |acc: &[[f32; BLOCK]; 16]| acc.map(|r| r.map(f32::to_bits));
                        assert_eq!(
                            bits(&ours),
                            bits(&scalar),
                            "{dtype:?} {layout:?} {k} x {columns}"
                        );
                        let any = ours.iter().flatten().any(|v| *v != 0.0 && *v != 7.0);
                        assert!(any, "{dtype:?} {layout:?} {k}");
                    }
                }
            }
        }
    }
}

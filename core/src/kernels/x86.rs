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

//! Cortex-M with DSP and a single-precision FPU (M4F, M7, M33): `q8` rows in the layout `m4` by SMLAD, halves by
//! VCVTB and VCVTT, and products of B's, the keys' and the values' vectors with their sums in registers. Everything else is
//! the scalar code, which the compiler turns into VFP instructions one by one.
//!
//! `build.rs` of the core sets `pleach_cortex_m` where the target promises both, and nothing else compiles this
//! folder: the module's existence is the proof.

mod products;
mod q8;

use crate::blob::Tensor;
use crate::kernels::Task;
use crate::kernels::float::{F16, I8, add_four};
use crate::kernels::isa::{BLOCK, Isa, LANES, Named};
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::scalar::{Array, scalar_lanes};

/// The backend of a build for a Cortex-M with DSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CortexM;

impl CortexM {
    pub(crate) const fn q8_kernel(layout: Layout, _: usize) -> Option<&'static str> {
        match layout {
            Layout::M4 => Some("gemv_q8_m4_cortex_m_smlad"),
            _ => None,
        }
    }

    pub(crate) const fn of_build() -> Option<Self> {
        Some(Self)
    }

    #[inline(always)]
    pub(crate) fn enter<T: Task>(self, task: T) -> T::Output {
        task.run(self)
    }
}

impl Named for CortexM {
    const NAME: &'static str = "cortex_m";
}

impl Isa for CortexM {
    scalar_lanes!();

    const EXPANDS: bool = true;
    const BY_FOUR: bool = true;
    const RANGES: usize = BLOCK;

    #[inline(always)]
    fn add_four_f16<const C: usize>(
        self,
        vectors: [&[u8; 2 * LANES]; 4],
        x: [&[f32; 4]; C],
        sums: &mut [Array; C],
    ) {
        match (sums.as_mut_slice(), x.as_slice()) {
            ([sum], [x]) => products::add_four_f16_cortex_m(&vectors, x, &mut sum.0),
            _ => add_four::<Self, F16, C>(self, vectors, x, sums),
        }
    }

    #[inline(always)]
    fn add_four_i8<const C: usize>(
        self,
        vectors: [&[u8; LANES]; 4],
        x: [&[f32; 4]; C],
        sums: &mut [Array; C],
    ) {
        match (sums.as_mut_slice(), x.as_slice()) {
            ([sum], [x]) => products::add_four_i8_cortex_m(&vectors, x, &mut sum.0),
            _ => add_four::<Self, I8, C>(self, vectors, x, sums),
        }
    }

    #[inline(always)]
    fn q8_range(
        self,
        w: &Tensor<'_>,
        rows: (usize, usize),
        column: &PanelColumn<'_>,
        _ahead: usize,
        out: &mut [[f32; LANES]],
    ) -> bool {
        q8::range_m4(w, rows, column, out)
    }
}

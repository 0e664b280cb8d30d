//! Cortex-M with DSP and a single-precision FPU (M4F, M7, M33): `q8` rows in the layout `m4` by SMLAD, halves by
//! VCVTB and VCVTT. Everything else is the scalar code, which the compiler turns into VFP instructions one by one.
//!
//! `build.rs` of the core sets `pleach_cortex_m` where the target promises both, and nothing else compiles this
//! folder: the module's existence is the proof.

mod half;
mod q8;

use crate::blob::Tensor;
use crate::kernels::Task;
use crate::kernels::isa::{BLOCK, Isa, LANES};
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::Q8Tile;
use crate::kernels::range::Range;
use crate::kernels::scalar::{Array, Scalar, q8::gemv_q8_scalar};

/// The backend of a build for a Cortex-M with DSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CortexM;

impl CortexM {
    pub(crate) const NAME: &str = "cortex_m";

    pub(crate) const fn q8_kernel(layout: Layout) -> Option<&'static str> {
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

impl Isa for CortexM {
    type Lanes = Array;

    const EXPANDS: bool = true;
    const RANGES: usize = BLOCK;
    const QUERIES: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Array {
        Scalar.splat(x)
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Array {
        Scalar.load(x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Array {
        Array(half::load_f16_cortex_m(x))
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Array {
        Scalar.load_i8(x)
    }

    fn q8(
        self,
        tile: &Q8Tile<'_>,
        columns: &[PanelColumn<'_>],
        lane: usize,
        acc: &mut [[f32; LANES]],
    ) {
        gemv_q8_scalar(tile, columns, lane, acc);
    }

    #[inline(always)]
    fn q8_range(
        self,
        w: &Tensor<'_>,
        rows: (usize, usize),
        column: &PanelColumn<'_>,
        out: &mut [[f32; LANES]],
    ) -> bool {
        if !column.expanded {
            return false;
        }
        let range = Range::new((w, Layout::M4, q8::X_STEP), rows, column, out);
        range.as_ref().map(q8::gemv_q8_m4).is_some()
    }
}

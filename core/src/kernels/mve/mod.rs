//! Helium (M55, M85): `q8` rows in the layout `r4k16` by VMLADAV. Everything else is the scalar code, in which the
//! compiler finds vectors by itself. Helium's vector floats flush subnormals: none takes part (see [`math`](crate::math)).
//!
//! `build.rs` of the core sets `pleach_mve` where the target promises it, and nothing else compiles this folder: the
//! module's existence is the proof.

mod q8;

use crate::blob::Tensor;
use crate::kernels::Task;
use crate::kernels::isa::{BLOCK, Isa, LANES};
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::Q8Tile;
use crate::kernels::range::Range;
use crate::kernels::scalar::{Array, Scalar, q8::gemv_q8_scalar};

/// The backend of a build for a Cortex-M with Helium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mve;

impl Mve {
    pub(crate) const NAME: &str = "mve";

    pub(crate) const fn q8_kernel(layout: Layout) -> Option<&'static str> {
        match layout {
            Layout::R4K16 => Some("gemv_q8_r4k16_mve_vmladav"),
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

impl Isa for Mve {
    type Lanes = Array;

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
        Scalar.load_f16(x)
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
        let range = Range::new((w, Layout::R4K16, q8::X_STEP), rows, column, out);
        range.as_ref().map(q8::gemv_q8_r4k16).is_some()
    }
}

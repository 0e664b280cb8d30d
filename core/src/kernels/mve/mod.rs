//! Helium (M55, M85): `q8` rows in the layout `r4k16` by VMLADAV. Everything else is the scalar code, in which the
//! compiler finds vectors by itself. Helium's vector floats flush subnormals: none takes part (see [`math`](crate::math)).
//!
//! `build.rs` of the core sets `pleach_mve` where the target promises it, and nothing else compiles this folder: the
//! module's existence is the proof.

mod q8;

use crate::blob::Tensor;
use crate::kernels::Task;
use crate::kernels::isa::{BLOCK, Isa, LANES, Named};
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::scalar::scalar_lanes;

/// The backend of a build for a Cortex-M with Helium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mve;

impl Mve {
    pub(crate) const fn q8_kernel(layout: Layout, _: usize) -> Option<&'static str> {
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

impl Named for Mve {
    const NAME: &'static str = "mve";
}

impl Isa for Mve {
    scalar_lanes!();

    const RANGES: usize = BLOCK;

    #[inline(always)]
    fn q8_range(
        self,
        w: &Tensor<'_>,
        rows: (usize, usize),
        column: &PanelColumn<'_>,
        _ahead: usize,
        out: &mut [[f32; LANES]],
    ) -> bool {
        q8::range_r4k16(w, rows, column, out)
    }
}

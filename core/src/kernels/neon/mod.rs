//! aarch64: NEON alone (Cortex-A53, A72), with dot products (A76), with i8mm.
//!
//! The three share their lanes, and all of a `q8` row but the integer dots of a group:
//!
//! | backend | dots | columns at once |
//! |---|---|---|
//! | `neon` | SMULL and SMLAL on a pair of steps, SADALP, at the end ADDP | 2 |
//! | `dotprod` | SDOT by element | 4 |
//! | `i8mm` | SMMLA over zipped steps for 2 and 4 columns; one is `dotprod`'s | 4 |

mod dotprod;
mod i8mm;
mod lanes;
mod q8;
mod smull;

use crate::blob::Tensor;
use crate::kernels::Task;
use crate::kernels::isa::{Isa, LANES};
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::Q8Tile;
use lanes::F32x16;
use q8::Family;

/// A token, and how it is come by.
macro_rules! backend {
    ($(#[$doc:meta])* $name:ident, $text:literal, $kernel:literal, $features:literal, [$($feature:tt),*]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct $name(());

        impl $name {
            pub(crate) const NAME: &str = $text;

            pub(crate) const fn q8_kernel(layout: Layout) -> Option<&'static str> {
                match layout {
                    Layout::R16K4 => Some(concat!("gemv_q8_r16k4_", $kernel)),
                    Layout::R4K4 => Some(concat!("gemv_q8_r4k4_", $kernel)),
                    _ => None,
                }
            }

            /// The proof, if every CPU that this build runs on has the features.
            pub(crate) const fn of_build() -> Option<Self> {
                if cfg!(all($(target_feature = $feature),*)) {
                    Some(Self(()))
                } else {
                    None
                }
            }

            /// The proof, if the running CPU has the features.
            #[cfg(any(test, feature = "std"))]
            pub(crate) fn detect() -> Option<Self> {
                ($(std::arch::is_aarch64_feature_detected!($feature))&&*).then_some(Self(()))
            }

            /// Runs a task compiled with the features. Nothing is fused that is not written so.
            #[inline(always)]
            #[allow(unsafe_code)]
            pub(crate) fn enter<T: Task>(self, task: T) -> T::Output {
                #[target_feature(enable = $features)]
                fn compiled<T: Task>(isa: $name, task: T) -> T::Output {
                    task.run(isa)
                }
                // SAFETY: cpu: `self` exists only where `of_build` or `detect` found the features.
                unsafe { compiled(self, task) }
            }
        }
    };
}

backend! {
    /// The proof that this CPU has NEON.
    Neon, "neon", "neon", "neon", ["neon"]
}
backend! {
    /// The proof that this CPU has NEON and its dot products.
    DotProd, "dotprod", "neon_dotprod", "neon,dotprod", ["neon", "dotprod"]
}
backend! {
    /// The proof that this CPU has NEON, its dot products and its products of int8 matrices.
    I8mm, "i8mm", "neon_i8mm", "neon,dotprod,i8mm", ["neon", "dotprod", "i8mm"]
}

impl<F: Family> Isa for F {
    type Lanes = F32x16;

    const RANGES: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        F32x16::splat(self, x)
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F32x16 {
        F32x16::load(self, x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> F32x16 {
        F32x16::load_f16(self, x)
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> F32x16 {
        F32x16::load_i8(self, x)
    }

    #[inline(always)]
    fn q8(
        self,
        tile: &Q8Tile<'_>,
        columns: &[PanelColumn<'_>],
        lane: usize,
        acc: &mut [[f32; LANES]],
    ) {
        q8::gemv_q8(self, tile, columns, lane, acc);
    }

    #[inline(always)]
    fn q8_range(
        self,
        w: &Tensor<'_>,
        rows: (usize, usize),
        column: &PanelColumn<'_>,
        out: &mut [[f32; LANES]],
    ) -> bool {
        q8::range_q8(self, w, rows, column, out)
    }
}

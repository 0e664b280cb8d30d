//! aarch64: NEON alone (Cortex-A53, A72), with dot products (A76), with i8mm.
//!
//! The three share all but `q8` rows, and of those all but the integer dots of a group:
//!
//! | backend | dots | columns at once |
//! |---|---|---|
//! | `neon` | SMULL and SMLAL on a pair of steps, SADALP, at the end ADDP | 2 |
//! | `dotprod` | SDOT by element | 4 |
//! | `i8mm` | SMMLA over zipped steps for 2 and 4 columns; 1 and 3 are `dotprod`'s | 4 |

mod dotprod;
mod i8mm;
mod lanes;
mod q8;
mod smull;

use crate::blob::Tensor;
use crate::kernels::float::{F16, I8, add_four};
use crate::kernels::isa::{Isa, LANES};
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::{Interleaved, gemv_q8};
use crate::kernels::token::token;
use lanes::F32x16;

token! {
    /// The proof that this CPU has NEON.
    Neon, "neon", "neon", is_aarch64_feature_detected, "neon", ["neon"]
}
token! {
    /// The proof that this CPU has NEON and its dot products.
    DotProd, "dotprod", "neon_dotprod", is_aarch64_feature_detected, "neon,dotprod", ["neon", "dotprod"], Neon
}
token! {
    /// The proof that this CPU has NEON, its dot products and its products of int8 matrices.
    I8mm, "i8mm", ("neon_i8mm", "neon_dotprod"), is_aarch64_feature_detected, "neon,dotprod,i8mm", ["neon", "dotprod", "i8mm"], Neon
}

impl<B: Interleaved> Isa for B {
    type Lanes = F32x16;

    const BY_FOUR: bool = true;

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
    fn add_four_f16<const C: usize>(
        self,
        vectors: [&[u8; 2 * LANES]; 4],
        x: [&[f32; 4]; C],
        sums: &mut [F32x16; C],
    ) {
        match sums.as_mut_array().zip(x.as_array()) {
            Some((sums, x)) => F32x16::add_four_f16(self, vectors, x, sums),
            None => add_four::<Self, F16, C>(self, vectors, x, sums),
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> F32x16 {
        F32x16::load_i8(self, x)
    }

    #[inline(always)]
    fn add_four_i8<const C: usize>(
        self,
        vectors: [&[u8; LANES]; 4],
        x: [&[f32; 4]; C],
        sums: &mut [F32x16; C],
    ) {
        match (sums.as_mut_slice(), x.as_slice()) {
            ([sum], [x]) => F32x16::add_four_i8(self, vectors, x, sum),
            _ => add_four::<Self, I8, C>(self, vectors, x, sums),
        }
    }

    #[inline(always)]
    fn q8(
        self,
        w: &Tensor<'_>,
        tiles: (usize, usize),
        columns: &[PanelColumn<'_>],
        lane: usize,
        acc: &mut [[f32; LANES]],
    ) {
        gemv_q8(self, w, tiles, columns, lane, acc);
    }
}

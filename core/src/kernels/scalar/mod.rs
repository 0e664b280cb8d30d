//! The specification: lanes and micro-kernels in plain Rust that read every layout.
//!
//! A backend repeats these operations in lanes; it may not reorder, fuse or skip one.

pub(crate) mod q8;

use crate::blob::Tensor;
use crate::kernels::Task;
use crate::kernels::isa::{Isa, LANES, Lanes, Named};
use crate::kernels::layout::Layout;
use crate::kernels::panel::PanelColumn;
use crate::math;
use core::ops::{Add, Mul};

/// The backend that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scalar;

#[cfg_attr(
    any(pleach_cortex_m, pleach_mve),
    expect(dead_code, reason = "no backend there: other backends use its lanes")
)]
impl Scalar {
    pub(crate) const fn q8_kernel(_: Layout, _: usize) -> Option<&'static str> {
        None
    }

    pub(crate) const fn of_build() -> Option<Self> {
        Some(Self)
    }

    #[cfg(any(test, feature = "std"))]
    pub(crate) fn detect() -> Option<Self> {
        Some(Self)
    }

    #[inline(always)]
    pub(crate) fn enter<T: Task>(self, task: T) -> T::Output {
        task.run(self)
    }
}

/// 16 floats.
#[derive(Clone, Copy)]
pub(crate) struct Array(pub(crate) [f32; LANES]);

impl Add for Array {
    type Output = Self;
    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
        self
    }
}

impl Mul for Array {
    type Output = Self;
    #[inline(always)]
    fn mul(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a *= b);
        self
    }
}

impl Lanes for Array {
    #[inline(always)]
    fn array(self) -> [f32; LANES] {
        self.0
    }
    #[inline(always)]
    fn flush(mut self) -> Self {
        self.0.iter_mut().for_each(|x| *x = math::flush(*x));
        self
    }
}

impl Named for Scalar {
    const NAME: &'static str = "scalar";
}

impl Isa for Scalar {
    type Lanes = Array;

    const QUERIES: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Array {
        Array([x; LANES])
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Array {
        Array(*x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Array {
        let mut lanes = [0.0; LANES];
        for (lane, half) in lanes.iter_mut().zip(x.as_chunks::<2>().0) {
            *lane = math::from_f16(u16::from_le_bytes(*half));
        }
        Array(lanes)
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Array {
        Array(x.map(|b| b as i8 as f32))
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
        q8::gemv_q8_scalar(w, tiles, columns, lane, acc);
    }
}

/// What an `Isa` without lanes of its own takes from [`Scalar`].
#[cfg(any(pleach_cortex_m, pleach_mve))]
macro_rules! scalar_lanes {
    () => {
        type Lanes = $crate::kernels::scalar::Array;

        const QUERIES: usize = 1;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Lanes {
            $crate::kernels::scalar::Scalar.splat(x)
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> Self::Lanes {
            $crate::kernels::scalar::Scalar.load(x)
        }

        #[inline(always)]
        fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::Lanes {
            $crate::kernels::scalar::Array($crate::kernels::vfp::load_f16_vfp(x))
        }

        #[inline(always)]
        fn load_i8(self, x: &[u8; LANES]) -> Self::Lanes {
            $crate::kernels::scalar::Scalar.load_i8(x)
        }

        fn q8(
            self,
            w: &$crate::blob::Tensor<'_>,
            tiles: (usize, usize),
            columns: &[PanelColumn<'_>],
            lane: usize,
            acc: &mut [[f32; LANES]],
        ) {
            $crate::kernels::scalar::q8::gemv_q8_scalar(w, tiles, columns, lane, acc);
        }
    };
}
#[cfg(any(pleach_cortex_m, pleach_mve))]
pub(crate) use scalar_lanes;

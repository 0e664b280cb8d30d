//! One harness over the table of kernels: every backend that this CPU has against the scalar one, on bits.
//!
//! A test makes a case from a seed and hands [`same`] a function that computes something with given [`Kernels`]. A
//! backend that is added to the table is tested without a line here. All that a kernel reads or writes lies
//! between pages that may not be touched ([`guard`]): a byte too far is a fault.
//!
//! * [`lanes`]: the 16 lanes of a backend, over all halves and bytes, and values around their limits.
//! * [`rows`]: rows of every dtype and layout, as base matrices and as A panels.
//! * [`linear`]: the drivers: many columns, bias, experts, residual.
//! * [`columns`]: norm, activation, quantised panel.
//! * [`attention`]: scores, softmax, mix, also against their definition.

mod attention;
mod columns;
mod guard;
mod lanes;
mod linear;
mod matrix;
mod rows;

use crate::kernels::Kernels;
use crate::kernels::layout::Layout;
use std::format;
use std::vec::Vec;

/// Numbers that follow from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut r = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        r.bits();
        r
    }

    fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// In -1..1, never 0.
    fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / 8_388_608.0 - 1.0 + 1.0 / 16_777_216.0
    }
}

/// What a kernel's values are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    Ordinary,
    /// As large as they may be.
    Largest,
    /// As small as they may be: above and below what counts as 0.
    Smallest,
    /// Groups and rows of zeros among ordinary ones.
    Zeros,
}

impl Size {
    const ALL: [Size; 4] = [Size::Ordinary, Size::Largest, Size::Smallest, Size::Zeros];

    /// Activations, by runs of 16 of one kind.
    fn floats(self, n: usize, random: &mut Random) -> Vec<f32> {
        let mut zero = false;
        (0..n)
            .map(|i| {
                if i % 16 == 0 {
                    zero = random.below(2) == 0;
                }
                let x = random.unit();
                match self {
                    Size::Ordinary => x,
                    // All of one magnitude: the integers of a panel are +-127.
                    Size::Largest if zero => 1e30f32.copysign(x),
                    Size::Largest => x * f32::MAX,
                    Size::Smallest if zero => x * 2f32.powi(-47),
                    Size::Smallest => x * 2f32.powi(-39),
                    Size::Zeros if zero => 0f32.copysign(x),
                    Size::Zeros => x,
                }
            })
            .collect()
    }
}

/// Bits, all NaN alike: their sign and payload are not specified.
fn bits<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    let number = |x: &f32| if x.is_nan() { u32::MAX } else { x.to_bits() };
    values.into_iter().map(number).collect()
}

/// The backends other than the scalar one; that one if there is no other.
fn backends() -> Vec<Kernels> {
    let mut all: Vec<Kernels> = Kernels::available().collect();
    if all.len() > 1 {
        all.retain(|k| *k != Kernels::portable());
    }
    all
}

/// `compute` gives the same bits with all kernels. Panics with the backend, the case and the first that differ.
fn same(case: &dyn core::fmt::Debug, mut compute: impl FnMut(Kernels) -> Vec<u32>) {
    let want = compute(Kernels::portable());
    for kernels in backends() {
        let got = compute(kernels);
        assert_eq!(want.len(), got.len(), "{}: {case:?}", kernels.name());
        let first = want.iter().zip(&got).position(|(w, g)| w != g);
        if let Some(i) = first {
            panic!(
                "{}: {case:?}: value {i} is {:08x}, with scalar kernels {:08x}",
                kernels.name(),
                got[i],
                want[i]
            );
        }
    }
}

/// The table is sound: best first, scalar kernels last, names that can be read.
#[test]
fn table() {
    let all: Vec<Kernels> = Kernels::available().collect();
    assert_eq!(all.last(), Some(&Kernels::portable()));
    assert_eq!(all.first(), Some(&Kernels::detect()));
    assert!(all.contains(&Kernels::of_build()));
    for kernels in all {
        for layout in Layout::ALL {
            let name = kernels.q8_kernel(layout);
            std::println!("{:<12} q8 {:<6} {name:?}", kernels.name(), layout.name());
            let head = format!("gemv_q8_{}_", layout.name());
            assert!(name.is_none_or(|n| n.starts_with(&head)));
        }
    }
}

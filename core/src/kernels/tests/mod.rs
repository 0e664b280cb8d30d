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
//! * [`attention`], [`rope`], [`deltas`], [`parts`]: against their definition too; `parts` in pieces on threads.

mod attention;
mod columns;
mod deltas;
mod guard;
mod lanes;
mod linear;
mod matrix;
mod parts;
mod rope;
mod rows;
mod store;

use crate::kernels::layout::Layout;
use crate::kernels::{BLOCK, Kernels};
use std::format;
use std::string::String;
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
            let all: Vec<&str> = kernels.q8_kernels(layout).collect();
            std::println!("{:<12} q8 {:<6} {all:?}", kernels.name(), layout.name());
            let head = format!("gemv_q8_{}_", layout.name());
            assert!(all.iter().all(|n| n.starts_with(&head)));
            for columns in 1..=BLOCK {
                let name = kernels.q8_kernel(layout, columns);
                assert!(name.map_or(all.is_empty(), |n| all.contains(&n)));
            }
        }
    }
}

/// The harness compares the scalar code with itself where there is nothing else: not on a CPU that has more, by the word
/// of its operating system.
#[test]
fn every_backend_of_this_cpu_is_compared() {
    let names: Vec<&str> = backends().iter().map(|k| k.name()).collect();
    std::println!("compared with the scalar code: {}", names.join(", "));
    // Under an emulator the file may be the host's; Miri has none.
    if cfg!(miri) {
        return;
    }
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = |key: &str| -> Vec<String> {
        let line = cpu.lines().find(|l| l.starts_with(key));
        let flags = line.and_then(|l| l.split_once(':')).map_or("", |l| l.1);
        flags.split_whitespace().map(String::from).collect()
    };
    let (key, table): (&str, &[(&str, &[&str])]) = match std::env::consts::ARCH {
        "x86_64" => (
            "flags",
            &[
                ("avx2", &["avx2", "f16c"]),
                (
                    "avx512vnni",
                    &["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"],
                ),
            ],
        ),
        "aarch64" => (
            "Features",
            &[
                ("neon", &[]),
                ("dotprod", &["asimddp"]),
                ("i8mm", &["asimddp", "i8mm"]),
            ],
        ),
        _ => return,
    };
    let flags = flags(key);
    for (name, needs) in table {
        let has = needs.iter().all(|n| flags.iter().any(|f| f == n));
        assert!(!has || names.contains(name), "{name} is not in {names:?}");
    }
}

/// SMMLA takes columns in pairs: a single one, and the last of three, are the dot products'.
#[test]
fn odd_columns_of_i8mm_are_named_after_what_runs() {
    let Some(i8mm) = Kernels::available().find(|k| k.name() == "i8mm") else {
        return;
    };
    let name = |columns| i8mm.q8_kernel(Layout::R16K4, columns);
    assert_eq!(name(1), Some("gemv_q8_r16k4_neon_dotprod"));
    assert_eq!(name(2), Some("gemv_q8_r16k4_neon_i8mm"));
    assert_eq!(name(3), Some("gemv_q8_r16k4_neon_dotprod"));
    assert_eq!(name(4), Some("gemv_q8_r16k4_neon_i8mm"));
}

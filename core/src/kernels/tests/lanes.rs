//! The lanes of a backend: every half, every byte, and f32 around its limits.

use super::{Random, bits, same};
use crate::kernels::Task;
use crate::kernels::isa::{Isa, LANES, Lanes};
use crate::math::FLUSH_BELOW;
use std::vec::Vec;

struct Halves<'a>(&'a [u8]);

impl Task for Halves<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let chunks = self.0.as_chunks::<{ 2 * LANES }>().0;
        chunks
            .iter()
            .flat_map(|b| isa.load_f16(b).array())
            .collect()
    }
}

#[test]
fn every_half() {
    let every = if cfg!(miri) { 61 } else { 1 };
    let halves = (0..=u16::MAX).step_by(every);
    let halves: Vec<u8> = halves.flat_map(u16::to_le_bytes).collect();
    same(&"load_f16", |k| bits(&k.run(Halves(&halves))));
}

struct Bytes<'a>(&'a [u8]);

impl Task for Bytes<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let chunks = self.0.as_chunks::<LANES>().0;
        chunks.iter().flat_map(|b| isa.load_i8(b).array()).collect()
    }
}

#[test]
fn every_byte() {
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    same(&"load_i8", |k| bits(&k.run(Bytes(&bytes))));
}

/// `load`, `flush`, and a product and a sum that would differ if they were fused.
struct Floats<'a> {
    x: &'a [f32],
    y: &'a [f32],
}

impl Task for Floats<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let mut out = Vec::new();
        let pairs = self.x.as_chunks::<LANES>().0.iter();
        for (x, y) in pairs.zip(self.y.as_chunks::<LANES>().0) {
            let (x, y) = (isa.load(x), isa.load(y));
            for lanes in [
                x,
                x.flush(),
                x + y,
                x * y,
                x * y + isa.splat(0.7),
                x + y * y,
            ] {
                out.extend(lanes.array());
            }
        }
        out
    }
}

#[test]
fn floats() {
    let mut random = Random::new(1);
    let count = if cfg!(miri) { 256 } else { 1 << 16 };
    let edges = [0, 1, 0x007f_ffff, 0x0080_0000, FLUSH_BELOW - 1, FLUSH_BELOW];
    let edges = edges
        .into_iter()
        .chain([FLUSH_BELOW + 1, 0x7f7f_ffff, 0x7f80_0000]);
    let mut x: Vec<f32> = edges
        .flat_map(|b| [b, b | 0x8000_0000])
        .map(f32::from_bits)
        .collect();
    x.resize_with(count, || f32::from_bits(random.bits()));
    let y: Vec<f32> = (0..count).map(|i| x[i * 7 % count]).collect();
    same(&"lanes", |k| bits(&k.run(Floats { x: &x, y: &y })));
}

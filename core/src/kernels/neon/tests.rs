//! Each micro-kernel that this CPU has against the scalar one, on bits.

use crate::kernels::Kernels;
use crate::kernels::isa::{Acc, BLOCK, Isa, LANES, Lanes, Task};
use crate::kernels::layout::{K_PAD, Layout, groups, round_up, scale_bytes, vector_bytes};
use crate::kernels::panel::PanelColumn;
use crate::kernels::q8::Q8Tile;
use crate::math;
use std::vec::Vec;

/// Numbers that look random (Numerical Recipes' generator).
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }
}

struct Q8<'a> {
    tile: Q8Tile<'a>,
    columns: &'a [PanelColumn<'a>],
    lane: usize,
}

impl Task for Q8<'_> {
    type Output = Acc;
    fn run<I: Isa>(self, isa: I) -> Acc {
        let mut acc = [[-1.5; LANES]; BLOCK];
        isa.q8(&self.tile, self.columns, self.lane, &mut acc);
        acc
    }
}

fn bits(acc: &Acc) -> Vec<u32> {
    acc.iter().flatten().map(|x| x.to_bits()).collect()
}

/// All layouts, 1 to 8 columns, short and long rows, short last groups; weights of every byte, activations of
/// ±127.
#[test]
fn q8_is_scalar() {
    let mut n = Numbers(1);
    for layout in Layout::ALL {
        let rows = layout.tile_rows();
        for (k, group) in [1, 3, 31, 33, 64, 65, 100, 257, 1000]
            .into_iter()
            .flat_map(|k| [(k, 32), (k, 64), (k, 256)])
        {
            for extreme in [false, true] {
                let mut scales = std::vec![0u8; scale_bytes(rows, k, group)];
                for half in scales.as_chunks_mut::<2>().0 {
                    *half = (0x0c00 + n.next() as u16 % 0x1800).to_le_bytes();
                }
                let weights: Vec<u8> = (0..vector_bytes(layout, k))
                    .map(|_| if extreme { 0x80 } else { n.next() as u8 })
                    .collect();
                let (padded, count) = (round_up(k, K_PAD), groups(k, group));
                let mut q: Vec<Vec<i8>> = Vec::new();
                let (mut sx, mut sums): (Vec<Vec<f32>>, Vec<Vec<i32>>) = (Vec::new(), Vec::new());
                for column in 0..BLOCK {
                    let value = |n: &mut Numbers| match (extreme, column % 2) {
                        (true, 0) => 127,
                        (true, _) => -127,
                        _ => (n.next() % 255) as i8 as i32 as i8,
                    };
                    let mut x: Vec<i8> = (0..k).map(|_| value(&mut n).max(-127)).collect();
                    x.resize(padded, 0);
                    sums.push(
                        x.chunks(group)
                            .take(count)
                            .map(|x| x.iter().map(|x| *x as i32).sum())
                            .collect(),
                    );
                    q.push(x);
                    sx.push(
                        (0..count)
                            .map(|_| 0.001 + (n.next() % 1000) as f32 * 1.37e-5)
                            .collect(),
                    );
                }
                let columns: Vec<PanelColumn<'_>> = (0..BLOCK)
                    .map(|c| PanelColumn {
                        q: &q[c],
                        sx: &sx[c],
                        sum: &sums[c],
                    })
                    .collect();
                for taken in 1..=BLOCK {
                    for lane in (0..LANES).step_by(rows) {
                        let task = || Q8 {
                            tile: Q8Tile {
                                layout,
                                scales: &scales,
                                vectors: &weights,
                                k,
                                group,
                                pow: math::pow2(-3),
                            },
                            columns: &columns[..taken],
                            lane,
                        };
                        let want = bits(&Kernels::portable().run(task()));
                        for kernels in Kernels::available() {
                            let got = bits(&kernels.run(task()));
                            let what = (kernels.name(), layout, k, group, taken, lane);
                            assert_eq!(got, want, "{what:?}");
                        }
                    }
                }
            }
        }
    }
}

/// Every half, every byte, and the lanes' operations on values around their limits.
struct Floats(Vec<u32>);

impl Task for Floats {
    type Output = Vec<u32>;
    fn run<I: Isa>(self, isa: I) -> Vec<u32> {
        let mut out = Vec::new();
        let mut keep = |lanes: I::Lanes| out.extend(lanes.array().map(f32::to_bits));
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        halves
            .as_chunks()
            .0
            .iter()
            .for_each(|h| keep(isa.load_f16(h)));
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        bytes
            .as_chunks()
            .0
            .iter()
            .for_each(|b| keep(isa.load_i8(b)));
        let floats: Vec<f32> = self.0.iter().map(|b| f32::from_bits(*b)).collect();
        for x in floats.as_chunks().0 {
            let x = isa.load(x);
            keep(x);
            keep(x.flush());
            for y in [1.0, -0.3, 3.1e-7, 1e30] {
                keep(x * isa.splat(y) + isa.splat(0.7));
            }
        }
        out
    }
}

#[test]
fn lanes_are_scalar() {
    let mut n = Numbers(7);
    let mut x: Vec<u32> = (0..4096).map(|_| n.next() << 8 | n.next() & 0xff).collect();
    let limit = math::FLUSH_BELOW;
    for bits in [
        0,
        limit - 1,
        limit,
        limit + 1,
        0x7f7f_ffff,
        0x7f80_0000,
        1,
        0x007f_ffff,
    ] {
        x.extend([bits, bits | 0x8000_0000].repeat(8));
    }
    // The bits of a NaN are not specified.
    x.retain(|b| !f32::from_bits(*b).is_nan());
    x.truncate(x.len() / LANES * LANES);
    let number = |b: &u32| {
        if f32::from_bits(*b).is_nan() {
            u32::MAX
        } else {
            *b
        }
    };
    let want: Vec<u32> = Kernels::portable()
        .run(Floats(x.clone()))
        .iter()
        .map(number)
        .collect();
    for kernels in Kernels::available() {
        let got: Vec<u32> = kernels.run(Floats(x.clone())).iter().map(number).collect();
        assert_eq!(got, want, "{}", kernels.name());
    }
}

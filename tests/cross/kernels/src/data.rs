//! Inputs from a seed: the same on every target.

use pleach::kernels::layout::{Dtype, Layout, scale_bytes, tile_bytes, vector_bytes};

/// Numbers from a seed (PCG-XSH-RR, 32 bits).
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut r = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1);
        r.draw();
        r
    }

    /// The next one.
    pub fn draw(&mut self) -> u32 {
        let s = self.0;
        self.0 = s
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((((s >> 18) ^ s) >> 27) as u32).rotate_right((s >> 59) as u32)
    }
}

/// What a matrix is filled with.
#[derive(Clone, Copy, PartialEq)]
pub enum Fill {
    /// Any byte, any scale that a file may hold.
    Random,
    /// -128 and 127 only, the largest scales.
    Extreme,
}

/// An f16 that a file may hold as a scale: 0, or normal and positive.
fn scale(r: &mut Random, fill: Fill) -> u16 {
    let n = r.draw();
    match fill {
        Fill::Extreme => 0x7bff,
        _ if n.is_multiple_of(29) => 0,
        _ => (0x0400 + n % (0x4c00 - 0x0400)) as u16,
    }
}

/// An f16 weight: 0, or 2^-24 <= |w| <= 65504.
fn half(r: &mut Random, fill: Fill) -> u16 {
    let n = r.draw();
    let sign = (n >> 16) as u16 & 0x8000;
    match fill {
        Fill::Extreme => sign | 0x7bff,
        Fill::Random => sign | (n % 0x5000) as u16,
    }
}

fn single(r: &mut Random) -> f32 {
    let n = r.draw();
    // 2^-24 to 2^4, of either sign.
    f32::from_bits((n & 0x8000_0000) | (0x3380_0000 + n % 0x0e00_0000))
}

/// Fills the bytes of a packed tensor; all of them are legal, padding too: it cannot matter.
pub fn tensor(
    (dtype, layout): (Dtype, Layout),
    (cols, group): (usize, usize),
    fill: Fill,
    r: &mut Random,
    bytes: &mut [u8],
) {
    if dtype != Dtype::Q8 {
        return floats(dtype, fill, r, bytes);
    }
    let scales = scale_bytes(layout.tile_rows(), cols, group);
    debug_assert_eq!(
        scales + vector_bytes(layout, cols),
        tile_bytes(dtype, layout, cols, group)
    );
    for tile in bytes.chunks_mut(tile_bytes(dtype, layout, cols, group)) {
        let (head, vectors) = tile.split_at_mut(scales);
        for s in head.as_chunks_mut::<2>().0 {
            *s = scale(r, fill).to_le_bytes();
        }
        for w in vectors.as_chunks_mut::<4>().0 {
            *w = match fill {
                Fill::Random => r.draw().to_le_bytes(),
                Fill::Extreme => r
                    .draw()
                    .to_le_bytes()
                    .map(|b| if b % 2 == 0 { 0x80 } else { 0x7f }),
            };
        }
    }
}

/// Fills a B panel.
pub fn b_panel(dtype: Dtype, scales: usize, fill: Fill, r: &mut Random, bytes: &mut [u8]) {
    if dtype != Dtype::Q8 {
        return floats(dtype, fill, r, bytes);
    }
    let (head, values) = bytes.split_at_mut(scales);
    for s in head.as_chunks_mut::<2>().0 {
        *s = scale(r, fill).to_le_bytes();
    }
    values.fill_with(|| r.draw() as u8);
}

fn floats(dtype: Dtype, fill: Fill, r: &mut Random, bytes: &mut [u8]) {
    if dtype == Dtype::F16 {
        bytes
            .as_chunks_mut::<2>()
            .0
            .fill_with(|| half(r, fill).to_le_bytes());
    } else {
        bytes
            .as_chunks_mut::<4>()
            .0
            .fill_with(|| single(r).to_le_bytes());
    }
}

/// Activations: groups of all sizes, zeros, and groups in which every value is the largest.
pub fn activations(group: usize, fill: Fill, r: &mut Random, x: &mut [f32]) {
    for x in x.chunks_mut(group) {
        let n = r.draw();
        let size = f32::from_bits(((107 + n % 24) << 23) | (n >> 9));
        for v in x {
            let n = r.draw();
            *v = match (fill, n % 16) {
                (Fill::Extreme, _) => {
                    if n & 16 == 0 {
                        size
                    } else {
                        -size
                    }
                }
                (Fill::Random, 0) => 0.0,
                (Fill::Random, _) => ((n >> 8) as i32 - (1 << 23)) as f32 / 8_388_608.0 * size,
            };
        }
    }
}

//! From GGUF's blocks to f32. Each function takes whole blocks and appends their values; every operation
//! is one rounded f32 operation in the order of the `gguf` package's `quants.py`, so that the bits are its.
//!
//! In the 32-value types byte `i` of the nibbles holds values `i` (low) and `i + 16` (high). In the
//! 256-value types nibbles run in chunks of 32 bytes: 32 values in the low halves, then 32 in the high ones.

use half::{bf16, f16};

/// Single precision.
pub(super) fn f32(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
}

/// Half precision.
pub(super) fn f16(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(bytes.as_chunks().0.iter().map(|b| half(*b)));
}

/// The upper half of f32.
pub(super) fn bf16(bytes: &[u8], out: &mut Vec<f32>) {
    let words = bytes.as_chunks().0.iter();
    out.extend(words.map(|b| bf16::from_le_bytes(*b).to_f32()));
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// The 32 nibbles of 16 bytes: low halves, then high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let low = bytes.iter().map(|b| b & 15);
    low.chain(bytes.iter().map(|b| b >> 4))
}

/// The fifth bits of 32 values, in place.
fn fifth(bits: [u8; 4]) -> impl Iterator<Item = u8> {
    let bits = u32::from_le_bytes(bits);
    (0..32).map(move |i| ((bits >> i) as u8 & 1) << 4)
}

/// `d * (q - 8)`: f16 d, 16 bytes of nibbles.
pub(super) fn q4_0(bytes: &[u8], out: &mut Vec<f32>) {
    for [d0, d1, q @ ..] in bytes.as_chunks::<18>().0 {
        let d = half([*d0, *d1]);
        out.extend(nibbles(q).map(|q| d * f32::from(q as i8 - 8)));
    }
}

/// `d * q + m`: f16 d, f16 m, 16 bytes of nibbles.
pub(super) fn q4_1(bytes: &[u8], out: &mut Vec<f32>) {
    for [d0, d1, m0, m1, q @ ..] in bytes.as_chunks::<20>().0 {
        let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
        out.extend(nibbles(q).map(|q| d * f32::from(q) + m));
    }
}

/// `d * (q - 16)`: f16 d, 32 fifth bits, 16 bytes of nibbles.
pub(super) fn q5_0(bytes: &[u8], out: &mut Vec<f32>) {
    for [d0, d1, h0, h1, h2, h3, q @ ..] in bytes.as_chunks::<22>().0 {
        let d = half([*d0, *d1]);
        let q = nibbles(q).zip(fifth([*h0, *h1, *h2, *h3]));
        out.extend(q.map(|(q, h)| d * f32::from((q | h) as i8 - 16)));
    }
}

/// `d * q + m`: f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles.
pub(super) fn q5_1(bytes: &[u8], out: &mut Vec<f32>) {
    for [d0, d1, m0, m1, h0, h1, h2, h3, q @ ..] in bytes.as_chunks::<24>().0 {
        let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
        let q = nibbles(q).zip(fifth([*h0, *h1, *h2, *h3]));
        out.extend(q.map(|(q, h)| d * f32::from(q | h) + m));
    }
}

/// `d * q`: f16 d, 32 int8.
pub(super) fn q8_0(bytes: &[u8], out: &mut Vec<f32>) {
    for [d0, d1, q @ ..] in bytes.as_chunks::<34>().0 {
        let d = half([*d0, *d1]);
        out.extend(q.iter().map(|q| d * f32::from(*q as i8)));
    }
}

/// Eight 6-bit scales and eight 6-bit minima in 12 bytes: the low six bits of the first four of each, then
/// four bits of the last four of each, whose upper two lie above the first ones' six.
fn scales_and_minima(s: [u8; 12]) -> [(u8, u8); 8] {
    let [d0, d1, d2, d3, m0, m1, m2, m3, x0, x1, x2, x3] = s;
    let first = |d: u8, m: u8| (d & 63, m & 63);
    let last = |d: u8, m: u8, x: u8| (x & 15 | (d >> 2 & 48), x >> 4 | (m >> 2 & 48));
    [
        first(d0, m0),
        first(d1, m1),
        first(d2, m2),
        first(d3, m3),
        last(d0, m0, x0),
        last(d1, m1, x1),
        last(d2, m2, x2),
        last(d3, m3, x3),
    ]
}

/// The 256 nibbles of 128 bytes.
fn long_nibbles(bytes: &[u8], chunk: usize) -> impl Iterator<Item = u8> + '_ {
    bytes.chunks(chunk).flat_map(nibbles)
}

/// `(d * sc) * q - (dmin * m)` for each of eight groups of 32.
fn with_minima(
    [d, dmin]: [f32; 2],
    scales: [u8; 12],
    q: impl Iterator<Item = u8>,
    out: &mut Vec<f32>,
) {
    let mut q = q;
    for (sc, m) in scales_and_minima(scales) {
        let (d, m) = (d * f32::from(sc), dmin * f32::from(m));
        out.extend(q.by_ref().take(32).map(|q| d * f32::from(q) - m));
    }
}

/// f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes of nibbles.
pub(super) fn q4_k(bytes: &[u8], out: &mut Vec<f32>) {
    for [d0, d1, m0, m1, rest @ ..] in bytes.as_chunks::<144>().0 {
        let Some((scales, q)) = rest.split_first_chunk::<12>() else {
            continue;
        };
        let d = [half([*d0, *d1]), half([*m0, *m1])];
        with_minima(d, *scales, long_nibbles(q, 32), out);
    }
}

/// f16 d, f16 dmin, 12 bytes of scales and minima, 32 bytes of fifth bits (bit g of byte i belongs to value
/// i of group g), 128 bytes of nibbles.
pub(super) fn q5_k(bytes: &[u8], out: &mut Vec<f32>) {
    for [d0, d1, m0, m1, rest @ ..] in bytes.as_chunks::<176>().0 {
        let Some((scales, rest)) = rest.split_first_chunk::<12>() else {
            continue;
        };
        let (high, low) = rest.split_at(32);
        let high = (0..8).flat_map(|g| high.iter().map(move |h| (h >> g & 1) << 4));
        let d = [half([*d0, *d1]), half([*m0, *m1])];
        let q = long_nibbles(low, 32).zip(high).map(|(q, h)| q | h);
        with_minima(d, *scales, q, out);
    }
}

/// `(d * sc) * (q - 32)` for each of sixteen groups of 16: 128 bytes of low nibbles in chunks of 64, 64 bytes
/// of upper bit pairs in chunks of 32, sixteen int8 scales, f16 d.
pub(super) fn q6_k(bytes: &[u8], out: &mut Vec<f32>) {
    for block in bytes.as_chunks::<210>().0 {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(16);
        let d = half(d.first_chunk().copied().unwrap_or_default());
        let high = high
            .chunks(32)
            .flat_map(|c| [0, 2, 4, 6].map(|s| c.iter().map(move |h| (h >> s & 3) << 4)))
            .flatten();
        let mut q = long_nibbles(low, 64).zip(high).map(|(q, h)| q | h);
        for sc in scales {
            let d = d * f32::from(*sc as i8);
            out.extend(q.by_ref().take(16).map(|q| d * f32::from(q as i8 - 32)));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::import::gguf::file::Gguf;
    use crate::import::gguf::types::TYPES;
    use safetensors::SafeTensors;
    use std::path::Path;

    /// Random blocks of every type, scales from 0 and subnormal to the largest, and blocks that the `gguf`
    /// package quantised: its values, bit for bit.
    #[test]
    fn every_type_as_the_gguf_package() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/gguf");
        let mut file = Gguf::open(&folder.join("blocks.gguf")).expect("blocks.gguf");
        let bytes = std::fs::read(folder.join("blocks.safetensors")).expect("read");
        let expected = SafeTensors::deserialize(&bytes).expect("safetensors");
        assert_eq!(expected.len(), TYPES.len());
        for kind in &TYPES {
            let expected = expected.tensor(kind.name).expect(kind.name);
            let values: Vec<f32> = expected
                .data()
                .chunks(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            let name = format!("blocks.{}", kind.name);
            assert_eq!(
                file.required(&name).expect("tensor").kind.number,
                kind.number
            );
            // In one piece and block by block.
            for piece in [usize::MAX, kind.bytes] {
                let mut ours = Vec::new();
                file.pieces(&name, piece, |b| (kind.decode)(b, &mut ours))
                    .expect("read");
                assert_eq!(ours.len(), values.len());
                for (i, (a, b)) in ours.iter().zip(&values).enumerate() {
                    assert_eq!(a.to_bits(), b.to_bits(), "{} value {i}: {a} {b}", kind.name);
                }
            }
        }
    }
}

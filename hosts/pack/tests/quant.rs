//! Properties of the quantisers and layouts over random matrices, with an independent reader.

mod common;

use common::reader::Tensor;
use pleach::kernels::layout::{Dtype, Layout, packed_b_size, packed_size};
use pleach_pack::Matrix;
use pleach_pack::layout::{pack, pack_b, unpack_q8};
use pleach_pack::quant::Q8;

/// A small generator (PCG's output function over an LCG): seeds are kept by number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 18) ^ self.0) >> 27) as u32
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    /// Anything that a file stores: zeros, and magnitudes from far below 2^-24 up to 65504.
    fn value(&mut self, exponents: (i32, i32)) -> f32 {
        if self.below(8) == 0 {
            return 0.0;
        }
        let m = 1.0 + self.next() as f32 / 4_294_967_296.0;
        let e = exponents.0 + self.below((exponents.1 - exponents.0 + 1) as usize) as i32;
        let v = (m * 2f32.powi(e)).min(65504.0);
        if self.below(2) == 0 { v } else { -v }
    }

    fn matrix(&mut self, rows: usize, cols: usize) -> Matrix {
        let low = -40 + self.below(50) as i32;
        let exponents = (low, (low + self.below(30) as i32).min(15));
        Matrix {
            rows,
            cols,
            data: (0..rows * cols).map(|_| self.value(exponents)).collect(),
        }
    }
}

fn tensor(p: &pleach_pack::layout::Packed) -> Tensor {
    Tensor {
        rows: p.rows,
        cols: p.cols,
        role: 0,
        layer: 0,
        dtype: p.dtype as u8,
        layout: p.layout as u8,
        scale_exp: p.scale_exp,
        bytes: p.bytes.clone(),
    }
}

/// What a float may become: itself, or 0 below 2^-24; within f16 the nearest.
fn stored(v: f32, dtype: Dtype) -> f32 {
    let v = if dtype == Dtype::F16 {
        half::f16::from_f32(v).to_f32()
    } else {
        v
    };
    if v.abs() < 2f32.powi(-24) { 0.0 } else { v }
}

#[test]
fn every_element_comes_back_from_every_layout() {
    for seed in 0..600 {
        let mut r = Random(seed);
        let (rows, cols) = (1 + r.below(40), 1 + r.below(300));
        let group = [32, 64, 128, 256][r.below(4)];
        let m = r.matrix(rows, cols);
        for layout in Layout::ALL {
            for dtype in [Dtype::F16, Dtype::F32] {
                let p = pack(&m, dtype, layout, group);
                let layout = p.layout;
                assert!(layout as u8 <= 3, "floats do not lie in m4 and r4k16");
                assert_eq!(p.bytes.len(), packed_size(dtype, layout, rows, cols, group));
                let expected: Vec<f32> = m.data.iter().map(|v| stored(*v, dtype)).collect();
                assert_eq!(tensor(&p).values(group), expected, "seed {seed}");
                let flushed = m
                    .data
                    .iter()
                    .zip(&expected)
                    .filter(|(v, s)| **v != 0.0 && **s == 0.0)
                    .count();
                assert_eq!(p.loss.flushed, flushed as u64, "seed {seed}");
            }
        }
    }
}

/// What comes out of a packed matrix is what went in, and packs to the same bytes in every other layout.
#[test]
fn q8_comes_back_from_every_layout() {
    for seed in 0..400 {
        let mut r = Random(seed ^ 0x4d34);
        let (rows, cols) = (1 + r.below(40), 1 + r.below(300));
        let group = [32, 64, 128, 256][r.below(4)];
        let m = r.matrix(rows, cols);
        let given = Q8::new(&m.data, cols, group);
        for layout in Layout::ALL {
            let p = pack(&m, Dtype::Q8, layout, group);
            let back = unpack_q8(&p.bytes, layout, (rows, cols), p.scale_exp, group);
            let back = back.expect("whole tiles");
            assert_eq!((&back.q, &back.scales), (&given.q, &given.scales));
            assert_eq!(back.scale_exp, given.scale_exp);
            let cut = &p.bytes[..p.bytes.len() - 1];
            assert!(unpack_q8(cut, layout, (rows, cols), p.scale_exp, group).is_none());
        }
    }
}

/// Tiles by hand: five rows of five columns, weights 10 row + column, alternating in sign, scale 1.
#[test]
fn m4_and_r4k16_by_hand() {
    let weight = |r: usize, k: usize| {
        let w = (10 * r + k) as f32;
        if (r + k) % 2 == 1 { -w } else { w }
    };
    // The last row's sixth weight makes absmax 127 in each row.
    let at = |r: usize, k: usize| if k == 5 { 127.0 } else { weight(r, k) };
    let m = Matrix {
        rows: 5,
        cols: 6,
        data: (0..30).map(|i| at(i / 6, i % 6)).collect(),
    };
    let scales = [0x3c00u16; 4].map(u16::to_le_bytes).concat();
    let p = pack(&m, Dtype::Q8, Layout::R4K16, 32);
    assert_eq!(p.bytes.len(), 2 * (16 + 64));
    assert_eq!(p.bytes[..8], scales[..]);
    assert!(p.bytes[8..16].iter().all(|b| *b == 0));
    // Row 1 of the first tile: -10 11 -12 13 -14 127, and ten zeros.
    let row = [-10, 11, -12, 13, -14, 127i8].map(|q| q as u8);
    assert_eq!(p.bytes[32..38], row);
    assert!(p.bytes[38..48].iter().all(|b| *b == 0));
    // The second tile has one row: 40 -41 42 -43 44 127.
    let row = [40, -41, 42, -43, 44, 127i8].map(|q| q as u8);
    assert_eq!(p.bytes[80 + 16..80 + 22], row);
    assert!(p.bytes[80 + 32..].iter().all(|b| *b == 0));

    let p = pack(&m, Dtype::Q8, Layout::M4, 32);
    assert_eq!(p.bytes.len(), 2 * (16 + 2 * 16));
    let halfwords = |at: usize| {
        let b = p.bytes[at..at + 4].as_chunks::<2>().0;
        [b[0], b[1]].map(i16::from_le_bytes)
    };
    // Row 1, columns 0 to 3, then 4 and 5: 256 * 11 - 10, 256 * 13 - 12; 256 * 127 - 14.
    assert_eq!(halfwords(16 + 4), [2806, 3316]);
    assert_eq!(halfwords(32 + 4), [32498, 0]);
    // Row 4 of the second tile: 256 * -41 + 40.
    assert_eq!(halfwords(48 + 16), [-10456, -10966]);
}

#[test]
fn q8_keeps_its_bounds_for_every_magnitude() {
    for seed in 0..1500 {
        let mut r = Random(seed ^ 0x9e37);
        let (rows, cols) = (1 + r.below(20), 1 + r.below(200));
        let group = [32, 64, 128, 256][r.below(4)];
        let m = r.matrix(rows, cols);
        let all = Layout::ALL.map(|l| pack(&m, Dtype::Q8, l, group));
        for (p, layout) in all.iter().zip(Layout::ALL) {
            assert_eq!(p.layout, layout);
            assert_eq!(
                p.bytes.len(),
                packed_size(Dtype::Q8, p.layout, rows, cols, group)
            );
            assert_eq!((p.scale_exp, p.loss), (all[0].scale_exp, all[0].loss));
            assert_eq!(
                tensor(p).values(group),
                tensor(&all[0]).values(group),
                "seed {seed}"
            );
        }
        let t = tensor(&all[0]);
        let mut flushed = 0;
        let groups = m
            .data
            .chunks(cols)
            .enumerate()
            .flat_map(|(row, v)| v.chunks(group).enumerate().map(move |g| (row, g)));
        let steps: Vec<(usize, usize, &[f32], f64)> = groups
            .map(|(row, (g, v))| {
                (
                    row,
                    g,
                    v,
                    f64::from(v.iter().fold(0f32, |m, v| m.max(v.abs()))) / 127.0,
                )
            })
            .collect();
        for (row, g, values, step) in &steps {
            let s = t.scale(*row, g * group, group);
            assert!(
                s == 0.0 || (2f32.powi(-24)..=65504.0).contains(&s),
                "seed {seed}: {s}"
            );
            if s == 0.0 {
                assert!(*step < 2f64.powi(-24), "seed {seed}: {step} was flushed");
                flushed += values.iter().filter(|v| **v != 0.0).count() as u64;
            }
            for (i, w) in values.iter().enumerate() {
                let q = t.q(*row, g * group + i, group);
                let error = (f64::from(*w) - f64::from(q) * f64::from(s)).abs();
                assert!(
                    s == 0.0 || error <= f64::from(s) / 2.0,
                    "seed {seed}: {w} as {q} x {s}"
                );
                assert!(q != i8::MIN && (s != 0.0 || q == 0), "seed {seed}");
            }
        }
        assert_eq!(
            t.scale_exp,
            exponent(&steps.iter().map(|s| s.3).collect::<Vec<_>>()),
            "seed {seed}"
        );
        assert_eq!(all[0].loss.flushed, flushed, "seed {seed}");
    }
}

/// The contract's rule, word for word: the exponent nearest 0 for which no non-zero scale is subnormal in f16,
/// else the most negative that keeps every scale <= 65504.
fn exponent(steps: &[f64]) -> i8 {
    let scales = |e: i8| {
        steps
            .iter()
            .map(move |s| half::f16::from_f64(s * 2f64.powi(-i32::from(e))).to_f64())
    };
    let fits = |e: &i8| scales(*e).all(|s| s <= 65504.0);
    let normal = |e: &i8| {
        scales(*e)
            .zip(steps)
            .all(|(s, step)| *step == 0.0 || s >= 2f64.powi(-14))
    };
    let down: Vec<i8> = (0..=10).map(|n: i8| -n).collect();
    down.iter()
        .find(|e| fits(e) && normal(e))
        .or_else(|| down.iter().rev().find(|e| fits(e)))
        .copied()
        .expect("0 always fits")
}

#[test]
fn b_panels_come_back() {
    for seed in 0..600 {
        let mut r = Random(seed ^ 0x51ab);
        let (rows, rank) = (1 + r.below(90), 1 + r.below(20));
        let m = r.matrix(rows, rank);
        for dtype in [Dtype::F16, Dtype::F32] {
            let p = pack_b(&m, dtype);
            assert_eq!(p.bytes.len(), packed_b_size(dtype, rows, rank));
            let expected: Vec<f32> = m.data.iter().map(|v| stored(*v, dtype)).collect();
            assert_eq!(tensor(&p).b_values(), expected, "seed {seed}");
        }
        let p = pack_b(&m, Dtype::Q8);
        assert_eq!(p.bytes.len(), packed_b_size(Dtype::Q8, rows, rank));
        let t = tensor(&p);
        for (i, (w, v)) in m.data.iter().zip(t.b_values()).enumerate() {
            let s = t.b_scale(i % rank);
            let q = if s == 0.0 { 0.0 } else { v / s };
            assert!(q.fract() == 0.0 && q.abs() <= 127.0, "seed {seed}: {q}");
            let error = (f64::from(*w) - f64::from(q) * f64::from(s)).abs();
            assert!(
                s == 0.0 || error <= f64::from(s) / 2.0,
                "seed {seed}: {w} as {q} x {s}"
            );
        }
        let columns: Vec<f64> = (0..rank)
            .map(|j| {
                f64::from(
                    m.data
                        .iter()
                        .skip(j)
                        .step_by(rank)
                        .fold(0f32, |m, v| m.max(v.abs())),
                ) / 127.0
            })
            .collect();
        assert_eq!(t.scale_exp, exponent(&columns), "seed {seed}");
    }
}

//! What one expert adds against its definition: A, gate and B, through the probe. r-vectors are made and read by the probe
//! alone, so that their layout is its own.

use super::guard::{Edge, Guarded};
use super::{Random, backends, bits};
use crate::blob::{BPanel, Lora, Tensor};
use crate::kernels::layout::{Dtype, b_scale_bytes, packed_b_size};
use crate::kernels::probe::{self, By, Columns};
use crate::kernels::{LANES, UNIT};
use std::vec::Vec;

/// How a B lies: rows that a caller owns, or tiles of a dtype.
pub(super) const FORMS: [Option<Dtype>; 4] =
    [None, Some(Dtype::Q8), Some(Dtype::F16), Some(Dtype::F32)];

/// A half, and what it is.
fn half(random: &mut Random) -> (u16, f32) {
    let (sign, exponent, mantissa) = (random.below(2), 8 + random.below(10), random.below(1024));
    let value = (1.0 + mantissa as f32 / 1024.0) * 2f32.powi(exponent as i32 - 15);
    let bits = (sign << 15 | exponent << 10 | mantissa) as u16;
    (bits, if sign == 0 { value } else { -value })
}

/// A B panel `[rows][rank]` as a list of numbers, and its bytes.
pub(super) struct DenseB {
    form: Option<Dtype>,
    rows: usize,
    rank: usize,
    scale_exp: i8,
    /// `[row][j]`
    values: Vec<f32>,
    /// `[j]`: 1 but for `q8`.
    scales: Vec<f32>,
    floats: Guarded<f32>,
    bytes: Guarded<u8>,
}

impl DenseB {
    pub(super) fn new(
        form: Option<Dtype>,
        [rows, rank]: [usize; 2],
        edge: Edge,
        random: &mut Random,
    ) -> Self {
        let mut scales = std::vec![1.0; rank];
        let mut bytes: Vec<u8> = Vec::new();
        let scale_exp = match form {
            Some(Dtype::Q8) => random.pick(&[0, -1, -10]),
            _ => 0,
        };
        if let Some(Dtype::Q8) = form {
            for scale in &mut scales {
                let (bits, value) = half(random);
                bytes.extend((bits & 0x7fff).to_le_bytes());
                *scale = value.abs() * 2f32.powi(i32::from(scale_exp));
            }
            bytes.resize(b_scale_bytes(Dtype::Q8, rank), 0xaa);
        }
        let mut values = std::vec![0.0; rows * rank];
        // Tiles [j][16 rows]; what stands behind the last row must not show.
        for tile in 0..rows.div_ceil(LANES) {
            for j in 0..rank {
                for row in tile * LANES..(tile + 1) * LANES {
                    let value = match form {
                        Some(Dtype::Q8) => {
                            let q = random.bits() as u8;
                            bytes.push(q);
                            f32::from(q as i8)
                        }
                        Some(Dtype::F16) => {
                            let (bits, value) = half(random);
                            bytes.extend(bits.to_le_bytes());
                            value
                        }
                        Some(Dtype::F32) | None => {
                            let value = random.unit();
                            bytes.extend(value.to_le_bytes());
                            value
                        }
                    };
                    if let Some(to) = values.get_mut(row * rank + j).filter(|_| row < rows) {
                        *to = value;
                    }
                }
            }
        }
        if let Some(dtype) = form {
            assert_eq!(bytes.len(), packed_b_size(dtype, rows, rank));
        }
        Self {
            form,
            rows,
            rank,
            scale_exp,
            scales,
            floats: Guarded::new(edge, &values),
            bytes: Guarded::new(edge, &bytes),
            values,
        }
    }

    pub(super) fn panel(&self) -> BPanel<'_> {
        let shape = (self.rows, self.rank);
        match self.form {
            None => BPanel::from_rows(&self.floats, self.rows, self.rank),
            Some(dtype) => BPanel::from_tiles(dtype, self.scale_exp, shape, &self.bytes),
        }
        .expect("a panel")
    }

    /// `d = d + B[row][j] * u_j`, j ascending.
    pub(super) fn add(&self, row: usize, u: &[f32], d: &mut f32) {
        let values = &self.values[row * self.rank..][..self.rank];
        values.iter().zip(u).for_each(|(b, u)| *d += b * u);
    }

    /// `u_j = flush(flush(a_j) * h)`, for q8 then times the scale of j.
    pub(super) fn u(&self, a: &[f32], h: f32) -> Vec<f32> {
        let both = a.iter().zip(&self.scales);
        both.map(|(a, s)| flush(flush(*a) * h) * s).collect()
    }
}

pub(super) fn flush(x: f32) -> f32 {
    if x.abs() < 2f32.powi(-48) { 0.0 } else { x }
}

/// Rows of f32 times a column: from +0, k ascending.
pub(super) fn product(w: &[f32], rows: usize, x: &[f32]) -> Vec<f32> {
    let row = |r: usize| {
        let row = &w[r * x.len()..][..x.len()];
        row.iter().zip(x).fold(0.0, |acc, (w, x)| acc + w * x)
    };
    (0..rows).map(row).collect()
}

#[test]
fn of_every_rank_and_number_of_columns() {
    let mut random = Random::new(12);
    let by = |kernels| (By::Backend(kernels), kernels.name());
    let all: Vec<(By, &str)> = [(By::Specification, "specification")]
        .into_iter()
        .chain(backends().into_iter().map(by))
        .collect();
    let k = 5;
    for (n, rank) in [1, 3, 4, 8, 16, 17].into_iter().enumerate() {
        for form in FORMS {
            for columns in if cfg!(miri) { 2..=3 } else { 1..=8 } {
                let edge = Edge::of(n + columns);
                for rows in [1, 15, 16, 33, 100] {
                    let b = DenseB::new(form, [rows, rank], edge, &mut random);
                    let a: Vec<f32> = (0..rank * k).map(|_| random.unit()).collect();
                    // Some columns so small that what A gives is flushed.
                    let tiny = random.below(3) == 0;
                    let size = if tiny { 2f32.powi(-48) } else { 1.0 };
                    let x: Vec<f32> = (0..columns * k).map(|_| random.unit() * size).collect();
                    let h = random.pick(&[1.0, -0.75, 3.0]);
                    let (a_guarded, x_guarded) = (Guarded::new(edge, &a), Guarded::new(edge, &x));
                    let lora = Lora {
                        a: Tensor::from_rows(&a_guarded, rank, k).expect("A"),
                        b: b.panel(),
                        scale: 1.0,
                    };
                    let x_of = |c: usize| &x[c * k..][..k];
                    let mut want = Vec::new();
                    for c in 0..columns {
                        let u = b.u(&product(&a, rank, x_of(c)), h);
                        for row in 0..rows {
                            let mut d = 0.0;
                            b.add(row, &u, &mut d);
                            want.push(d);
                        }
                    }
                    let floats = Columns {
                        k,
                        group: 32,
                        n: columns,
                        x: &x_guarded,
                        q: &[],
                        sx: &[],
                        sum: &[],
                        expanded: false,
                    };
                    for (by, name) in &all {
                        let len = probe::rank_floats(rank, columns);
                        let mut u = Guarded::new(edge, &std::vec![f32::NAN; len]);
                        probe::lora_a(*by, &lora, &floats, h, &mut u);
                        let len = rows.next_multiple_of(UNIT) * columns;
                        let mut out = Guarded::new(edge, &std::vec![f32::NAN; len]);
                        probe::lora_b(*by, &lora, columns, &u, &mut out);
                        let place =
                            |row: usize, c: usize| (row / UNIT * columns + c) * UNIT + row % UNIT;
                        let got: Vec<f32> = (0..columns)
                            .flat_map(|c| (0..rows).map(move |row| (row, c)))
                            .map(|(row, c)| out[place(row, c)])
                            .collect();
                        let what = (name, form, rank, columns, rows);
                        assert_eq!(bits(&got), bits(&want), "{what:?}");
                    }
                }
            }
        }
    }
}

//! The rotary embedding against its definition.

use super::guard::{Edge, Guarded};
use super::{Random, Size, bits};
use crate::error::Pass;
use crate::kernels::rope::Rope;
use crate::kernels::{Kernels, UNIT};
use crate::math::sincos;
use crate::session::{Column, Gates};
use std::vec::Vec;

/// Of heads: halves that are whole vectors, and others.
const DIMS: [usize; 9] = [2, 4, 6, 18, 32, 48, 64, 96, 128];

/// Values below 2^-48 are 0.
fn flushed(x: f64) -> f64 {
    if x.abs() < 2f64.powi(-48) { 0.0 } else { x }
}

struct Case {
    head_dim: usize,
    /// Heads of q and of k.
    heads: [usize; 2],
    positions: Vec<u32>,
    freqs: Vec<f32>,
    /// `[row][column]`: heads of q, of k, and rows behind them that stay.
    rows: Vec<Vec<f32>>,
}

impl Case {
    fn new(head_dim: usize, size: Size, random: &mut Random) -> Self {
        let heads = [1 + random.below(5), 1 + random.below(2)];
        let columns = 1 + random.below(9);
        let largest = |n: usize| [0, 1, 7, 511, 4095, 131_071][n % 6];
        let positions = (0..columns).map(|c| match random.below(3) {
            0 => largest(c),
            _ => random.bits() % 131_072,
        });
        let positions = positions.collect();
        // As the packer makes them: from 1 down.
        let freq = |i: usize| 1e4f64.powf(-2.0 * i as f64 / head_dim as f64) as f32;
        let case = Self {
            head_dim,
            heads,
            positions,
            freqs: (0..head_dim / 2).map(freq).collect(),
            rows: Vec::new(),
        };
        let count = case.first_of_k() + heads[1] * head_dim;
        let count = count.next_multiple_of(UNIT) + UNIT;
        let row = |_| size.floats(columns, random);
        Self {
            rows: (0..count).map(row).collect(),
            ..case
        }
    }

    fn first_of_k(&self) -> usize {
        (self.heads[0] * self.head_dim).next_multiple_of(UNIT)
    }

    /// Rows of the first and the second of each pair, and the pair's number within its head.
    fn pairs(&self) -> Vec<(usize, usize, usize)> {
        let half = self.head_dim / 2;
        let mut all = Vec::new();
        for (first, heads) in [(0, self.heads[0]), (self.first_of_k(), self.heads[1])] {
            for head in 0..heads {
                let row = first + head * self.head_dim;
                all.extend((0..half).map(|i| (row + i, row + half + i, i)));
            }
        }
        all
    }

    /// `[row][column]`, by a backend.
    fn by(&self, kernels: Kernels, edge: Edge) -> Vec<Vec<f32>> {
        let n = self.positions.len();
        let place = |row: usize, c: usize| (row / UNIT * n + c) * UNIT + row % UNIT;
        let mut values = std::vec![0.0; self.rows.len() * n];
        for (r, row) in self.rows.iter().enumerate() {
            row.iter()
                .enumerate()
                .for_each(|(c, x)| values[place(r, c)] = *x);
        }
        let mut values = Guarded::new(edge, &values);
        let freqs: Vec<u8> = self.freqs.iter().flat_map(|f| f.to_le_bytes()).collect();
        let column = |pos: &u32| Column::new(Pass::Routed, 0, *pos, Gates::Off);
        let columns: Vec<Column> = self.positions.iter().map(column).collect();
        let rotated = kernels.run(Rope {
            columns: &columns,
            freqs: &Guarded::new(edge, &freqs),
            head_dim: self.head_dim,
            parts: [(0, self.heads[0]), (self.first_of_k(), self.heads[1])],
            values: &mut values,
        });
        assert_eq!(rotated, Some(()));
        let row = |r| (0..n).map(|c| values[place(r, c)]).collect();
        (0..self.rows.len()).map(row).collect()
    }

    /// The definition: one multiply to an angle; `lo * cos - hi * sin` and `hi * cos + lo * sin`, each operation rounded to
    /// f32; flushed. All other rows stay.
    fn defined(&self) -> Vec<Vec<f32>> {
        let mut out = self.rows.clone();
        for (lo, hi, i) in self.pairs() {
            for (c, pos) in self.positions.iter().enumerate() {
                let (sin, cos) = sincos(*pos as f32 * self.freqs[i]);
                let (a, b) = (self.rows[lo][c], self.rows[hi][c]);
                let flush = |x: f32| flushed(x.into()) as f32;
                out[lo][c] = flush(a * cos - b * sin);
                out[hi][c] = flush(b * cos + a * sin);
            }
        }
        out
    }

    /// The same in f64 from the angle on: `sincos` is within 2^-23 of it.
    fn within_bounds(&self, found: &[Vec<f32>]) {
        for (lo, hi, i) in self.pairs() {
            for (c, pos) in self.positions.iter().enumerate() {
                let angle = f64::from(*pos as f32 * self.freqs[i]);
                let (a, b) = (f64::from(self.rows[lo][c]), f64::from(self.rows[hi][c]));
                // Sine and cosine are off by 2^-23; two products and a sum are rounded, by 2^-24 of at most |a| + |b| each
                // pair; what is flushed loses 2^-48.
                let bound = (a.abs() + b.abs()) * 2f64.powi(-22) + 2f64.powi(-48);
                let (sin, cos) = angle.sin_cos();
                for (row, want) in [(lo, a * cos - b * sin), (hi, b * cos + a * sin)] {
                    let got = f64::from(found[row][c]);
                    assert!((got - want).abs() <= bound, "{row} {c}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn pairs_are_rotated() {
    let mut random = Random::new(11);
    for (n, dim) in DIMS.into_iter().enumerate() {
        for size in Size::ALL {
            for round in 0..if cfg!(miri) { 1 } else { 8 } {
                let case = Case::new(dim, size, &mut random);
                let want = case.defined();
                for kernels in Kernels::available() {
                    let got = case.by(kernels, Edge::of(n + round));
                    for (row, (got, want)) in got.iter().zip(&want).enumerate() {
                        let what = (kernels.name(), dim, size, row);
                        assert_eq!(bits(got), bits(want), "{what:?}");
                    }
                    if size != Size::Largest {
                        case.within_bounds(&got);
                    }
                }
            }
        }
    }
}

/// By hand: at position 0 nothing turns; where an angle is 1, sine and cosine are those of 1.
#[test]
fn by_hand() {
    for kernels in Kernels::available() {
        for dim in [2, 32] {
            let mut case = Case::new(dim, Size::Ordinary, &mut Random::new(1));
            case.positions = std::vec![0, 1];
            case.rows
                .iter_mut()
                .for_each(|row| *row = std::vec![3.0, 3.0]);
            for (_, hi, _) in case.pairs() {
                case.rows[hi] = std::vec![4.0, 4.0];
            }
            let got = case.by(kernels, Edge::End);
            let (lo, hi) = (&got[0], &got[dim / 2]);
            assert_eq!((lo[0], hi[0]), (3.0, 4.0));
            // 3 cos 1 - 4 sin 1 and 4 cos 1 + 3 sin 1.
            assert!((lo[1] - -1.744_977).abs() < 1e-6, "{}", lo[1]);
            assert!((hi[1] - 4.685_622).abs() < 1e-6, "{}", hi[1]);
            // The rows behind k.
            assert_eq!(got.last(), Some(&std::vec![3.0, 3.0]));
        }
    }
}

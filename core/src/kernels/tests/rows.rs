//! Rows of every dtype and layout times 1 to 8 columns, by panels of both kinds.

use super::guard::{Edge, Guarded};
use super::matrix::{Columns, Matrix, forms, shapes};
use super::{Random, Size, bits, same};
use crate::blob::Tensor;
use crate::kernels::isa::{BLOCK, Isa, LANES};
use crate::kernels::layout::{Dtype, Layout};
use crate::kernels::linear::{Block, gemv};
use crate::kernels::panel::{Input, expand, panel_stride};
use crate::kernels::scalar::Scalar;
use crate::kernels::{A_UNIT, Task, UNIT};
use std::vec::Vec;

/// All units of a matrix, one after the other.
struct Gemv<'a> {
    weight: Tensor<'a>,
    /// Rows at once: 16, or fewer of an A panel, or several times 16.
    at_once: usize,
    input: Input<'a>,
    columns: usize,
}

impl Task for Gemv<'_> {
    type Output = Vec<u32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<u32> {
        let mut block = Block::EMPTY;
        block.take(&self.input, self.weight.dtype, 0..self.columns);
        let mut all = Vec::new();
        for first in (0..self.weight.rows).step_by(self.at_once) {
            let left = self.weight.rows - first;
            let rows = self.at_once.min(left.next_multiple_of(UNIT));
            let mut acc = std::vec![[-1.5; LANES]; rows.div_ceil(UNIT) * self.columns];
            gemv(isa, &self.weight, (first, rows), &block, 0, &mut acc);
            // Rows behind the last one are not specified.
            let specified = rows.min(left);
            let units = acc.chunks(self.columns).zip((0..specified).step_by(UNIT));
            for (unit, at) in units {
                let rows = (specified - at).min(UNIT);
                all.extend(bits(unit.iter().flat_map(|acc| &acc[..rows])));
            }
        }
        all
    }
}

#[test]
fn of_every_form() {
    let mut random = Random::new(2);
    for (n, shape) in shapes(&mut random).into_iter().enumerate() {
        let edge = Edge::of(n);
        for form in forms() {
            let [weights, activations] = [random.pick(&Size::ALL), random.pick(&Size::ALL)];
            let matrix = Matrix::new(form, shape, weights, edge, &mut random);
            let widths: &[usize] = match shape[0].max(shape[1]) {
                _ if cfg!(miri) => &[2, 3],
                0..200 => &[1, 2, 3, 4, 5, 6, 7, 8],
                _ => &[1, 2, 3, 8],
            };
            for &columns in widths {
                let [_, k, group] = shape;
                let x = Columns::new(columns, [k, group], activations, edge, &mut random);
                let rows: &[usize] = match form {
                    (Dtype::Q8, Layout::R16K4) => &[UNIT, 2 * UNIT, 4 * UNIT, 7 * UNIT],
                    (_, Layout::R16K4) => &[UNIT],
                    _ => &[UNIT, A_UNIT, 2 * A_UNIT, 3 * A_UNIT],
                };
                for &at_once in rows {
                    let case = (form, shape, columns, weights, activations, at_once, edge);
                    same(&case, |kernels| {
                        kernels.run(Gemv {
                            weight: matrix.tensor(),
                            at_once,
                            input: x.input(),
                            columns,
                        })
                    });
                }
            }
        }
    }
}

/// Matrices that a caller owns: rows, or columns of all rows.
#[test]
fn of_borrowed_matrices() {
    let mut random = Random::new(3);
    for (n, [rows, k, _]) in shapes(&mut random).into_iter().enumerate() {
        let edge = Edge::of(n);
        let data = Guarded::new(edge, &Size::Ordinary.floats(rows * k, &mut random));
        let columns = 1 + n % BLOCK;
        let x = Columns::new(columns, [k, 32], Size::Ordinary, edge, &mut random);
        for weight in [
            Tensor::from_rows(&data, rows, k).unwrap(),
            Tensor::from_columns(&data, rows, k).unwrap(),
        ] {
            let case = (rows, k, weight.lanes, columns);
            same(&case, |kernels| {
                kernels.run(Gemv {
                    weight,
                    at_once: UNIT,
                    input: x.input(),
                    columns,
                })
            });
        }
    }
}

/// Panels as the `m4` kernel of a Cortex-M reads them: the scalar code finds the same values in them.
#[test]
fn of_expanded_panels() {
    let mut random = Random::new(15);
    let q8 = || forms().filter(|f| f.0 == Dtype::Q8);
    for (n, shape) in shapes(&mut random).into_iter().enumerate() {
        let [_, k, group] = shape;
        let (edge, columns) = (Edge::of(n), 1 + n % BLOCK);
        let size = random.pick(&Size::ALL);
        let x = Columns::new(columns, [k, group], size, edge, &mut random);
        let plain = x.input();
        let q_stride = panel_stride(k, true);
        let mut q = std::vec![0i8; columns * q_stride];
        let both = q.chunks_mut(q_stride).zip(plain.q.chunks(plain.q_stride));
        for (wide, narrow) in both {
            wide[..narrow.len()].copy_from_slice(narrow);
            expand(wide);
        }
        let q = Guarded::new(edge, &q);
        let expanded = Input {
            q: &q,
            q_stride,
            expanded: true,
            ..plain
        };
        for form in q8() {
            let matrix = Matrix::new(form, shape, Size::Ordinary, edge, &mut random);
            let by = |input| {
                Scalar.enter(Gemv {
                    weight: matrix.tensor(),
                    at_once: UNIT,
                    input,
                    columns,
                })
            };
            assert!(by(plain) == by(expanded), "{form:?} {shape:?} {columns}");
        }
    }
}

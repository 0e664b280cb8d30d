//! Norm, activation and quantised panel of a column.

use super::guard::{Edge, Guarded};
use super::{Random, Size, bits, same};
use crate::kernels::UNIT;
use crate::kernels::elementwise::{Act, Norm, Quantise, column};
use crate::kernels::layout::{K_PAD, groups, round_up};
use std::vec::Vec;

/// Lengths around vectors and groups.
fn lengths() -> &'static [usize] {
    if cfg!(miri) {
        return &[1, 17];
    }
    &[
        1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256, 257, 576, 1000,
    ]
}

/// Outputs of matrices `[unit][column][16]`.
fn outputs(
    len: usize,
    columns: usize,
    size: Size,
    edge: Edge,
    random: &mut Random,
) -> Guarded<f32> {
    Guarded::new(edge, &size.floats(round_up(len, UNIT) * columns, random))
}

#[test]
fn norm() {
    let mut random = Random::new(5);
    for (n, len) in lengths().iter().copied().enumerate() {
        for size in Size::ALL {
            let edge = Edge::of(n);
            let columns = 1 + n % 3;
            let x = outputs(len, columns, size, edge, &mut random);
            let weight: Vec<u8> = (0..len).flat_map(|_| random.unit().to_le_bytes()).collect();
            let weight = Guarded::new(edge, &weight);
            for c in 0..columns {
                same(&("norm", len, size, c), |kernels| {
                    let mut out = Guarded::new(edge, &std::vec![f32::NAN; len]);
                    let finite = kernels.run(Norm {
                        x: column(&x, columns, c),
                        weight: &weight,
                        eps: 1e-5,
                        out: &mut out,
                    });
                    let mut all = bits(&*out);
                    all.push(u32::from(finite));
                    all
                });
            }
        }
    }
}

#[test]
fn act() {
    let mut random = Random::new(6);
    for (n, len) in lengths().iter().copied().enumerate() {
        // exp's range, and far beyond it.
        for spread in [1.0, 20.0, 120.0, 1e30] {
            for size in Size::ALL {
                let edge = Edge::of(n);
                let columns = 1 + n % 3;
                let mut gate = outputs(len, columns, size, edge, &mut random);
                if size != Size::Largest {
                    gate.iter_mut().for_each(|g| *g *= spread);
                }
                let up = outputs(len, columns, size, edge, &mut random);
                for c in 0..columns {
                    same(&("act", len, size, spread, c), |kernels| {
                        let mut out = Guarded::new(edge, &std::vec![f32::NAN; len]);
                        kernels.run(Act {
                            gate: column(&gate, columns, c),
                            up: column(&up, columns, c),
                            out: &mut out,
                        });
                        bits(&*out)
                    });
                }
            }
        }
    }
}

#[test]
fn quantise() {
    let mut random = Random::new(7);
    for (n, len) in lengths().iter().copied().enumerate() {
        for group in [32, 64, 128, 256] {
            for (size, bad) in Size::ALL
                .map(|s| (s, None))
                .into_iter()
                .chain([f32::NAN, f32::INFINITY].map(|b| (Size::Ordinary, Some(b))))
            {
                let edge = Edge::of(n);
                let mut x = size.floats(len, &mut random);
                if size == Size::Ordinary {
                    // Halves of a step: ties.
                    x.iter_mut()
                        .step_by(3)
                        .for_each(|x| *x = (*x * 254.0).round() / 254.0);
                }
                if let Some(bad) = bad {
                    x[random.below(len)] = bad;
                }
                let x = Guarded::new(edge, &x);
                same(&("quantise", len, group, size, bad), |kernels| {
                    let count = groups(len, group);
                    let mut q = Guarded::new(edge, &std::vec![99i8; round_up(len, K_PAD)]);
                    let mut sx = Guarded::new(edge, &std::vec![f32::NAN; count]);
                    let mut sum = Guarded::new(edge, &std::vec![99i32; count]);
                    let finite = kernels.run(Quantise {
                        x: &x,
                        group,
                        q: &mut q,
                        expand: false,
                        sx: &mut sx,
                        sum: &mut sum,
                    });
                    assert_eq!(finite, bad.is_none());
                    if !finite {
                        // The outputs are unspecified.
                        return Vec::new();
                    }
                    let mut all = bits(&*sx);
                    all.extend(q.iter().map(|q| *q as u32));
                    all.extend(sum.iter().map(|s| *s as u32));
                    all
                });
            }
        }
    }
}

//! Cases: a matrix of any dtype and layout, and columns to multiply it with.

use super::guard::{Edge, Guarded};
use super::{Random, Size};
use crate::blob::{BPanel, Tensor};
use crate::kernels::layout::{
    Dtype, K_PAD, Layout, b_scale_bytes, groups, packed_b_size, packed_size, round_up, scale_bytes,
    tile_bytes,
};
use crate::kernels::panel::{Input, quantise};
use std::vec::Vec;

/// A matrix `[rows][k]` as a blob holds it.
pub(super) struct Matrix {
    dtype: Dtype,
    layout: Layout,
    scale_exp: i8,
    rows: usize,
    k: usize,
    group: usize,
    data: Guarded<u8>,
}

/// A half that a weight or scale may be.
fn half(size: Size, random: &mut Random) -> u16 {
    let sign = (random.bits() as u16) & 0x8000;
    sign | match size {
        // 2^-12 to 2.
        Size::Ordinary => 0x0c00 + random.below(0x3400) as u16,
        Size::Largest => 0x7bff,
        // 2^-24 to 2^-14: subnormal halves are legal.
        Size::Smallest => 1 + random.below(0x400) as u16,
        Size::Zeros => random.pick(&[0, 0, 0x3555]),
    }
}

/// An int8 weight; -128 is legal.
fn byte(size: Size, random: &mut Random) -> u8 {
    match size {
        Size::Ordinary | Size::Smallest => random.bits() as u8,
        Size::Largest => random.pick(&[0x80, 0x80, 0x80, 0x7f]),
        Size::Zeros => random.pick(&[0, 0, 0x80, 0x55]),
    }
}

impl Matrix {
    /// Numbers of `size`, at the paddings too: they must not show.
    pub(super) fn new(
        (dtype, layout): (Dtype, Layout),
        [rows, k, group]: [usize; 3],
        size: Size,
        edge: Edge,
        random: &mut Random,
    ) -> Self {
        let len = packed_size(dtype, layout, rows, k, group);
        let mut data: Vec<u8> = Vec::new();
        match dtype {
            Dtype::Q8 => {
                let tile = tile_bytes(dtype, layout, k, group);
                let scales = scale_bytes(layout.tile_rows(), k, group);
                while data.len() < len {
                    for _ in 0..scales / 2 {
                        data.extend((half(size, random) & 0x7fff).to_le_bytes());
                    }
                    data.extend((scales..tile).map(|_| byte(size, random)));
                }
            }
            Dtype::F16 => {
                data.extend((0..len / 2).flat_map(|_| half(size, random).to_le_bytes()));
            }
            Dtype::F32 => {
                let weight = |_| crate::math::from_f16(half(size, random)) * 0.987;
                data.extend((0..len / 4).map(weight).flat_map(f32::to_le_bytes));
            }
        }
        assert_eq!(data.len(), len);
        Self {
            dtype,
            layout,
            scale_exp: match dtype {
                Dtype::Q8 => random.pick(&[0, -10, -3]),
                _ => 0,
            },
            rows,
            k,
            group,
            data: Guarded::new(edge, &data),
        }
    }

    pub(super) fn tensor(&self) -> Tensor<'_> {
        Tensor::packed(
            (self.dtype, self.layout),
            (self.rows, self.k),
            self.group,
            self.scale_exp,
            &self.data,
        )
        .unwrap()
    }
}

/// A B panel `[rows][rank]`.
pub(super) struct B {
    dtype: Dtype,
    scale_exp: i8,
    rows: usize,
    rank: usize,
    data: Guarded<u8>,
}

impl B {
    pub(super) fn new(
        dtype: Dtype,
        [rows, rank]: [usize; 2],
        size: Size,
        edge: Edge,
        random: &mut Random,
    ) -> Self {
        let len = packed_b_size(dtype, rows, rank);
        let mut data: Vec<u8> = Vec::new();
        for _ in 0..b_scale_bytes(dtype, rank) / 2 {
            data.extend((half(size, random) & 0x7fff).to_le_bytes());
        }
        while data.len() < len {
            match dtype {
                Dtype::Q8 => data.push(byte(size, random)),
                Dtype::F16 => data.extend(half(size, random).to_le_bytes()),
                Dtype::F32 => data.extend((random.unit() * 3.0).to_le_bytes()),
            }
        }
        assert_eq!(data.len(), len);
        Self {
            dtype,
            scale_exp: match dtype {
                Dtype::Q8 => random.pick(&[0, -10]),
                _ => 0,
            },
            rows,
            rank,
            data: Guarded::new(edge, &data),
        }
    }

    pub(super) fn panel(&self) -> BPanel<'_> {
        BPanel::packed(self.dtype, self.scale_exp, self.rows, self.rank, &self.data)
    }
}

/// Columns in f32 and quantised, by the scalar code.
pub(super) struct Columns {
    k: usize,
    group: usize,
    x: Guarded<f32>,
    q: Guarded<i8>,
    sx: Guarded<f32>,
    sum: Guarded<i32>,
}

impl Columns {
    pub(super) fn new(
        n: usize,
        [k, group]: [usize; 2],
        size: Size,
        edge: Edge,
        random: &mut Random,
    ) -> Self {
        let x = size.floats(n * k, random);
        let (padded, count) = (round_up(k, K_PAD), groups(k, group));
        let mut q = std::vec![0i8; n * padded];
        let mut sx = std::vec![0f32; n * count];
        let mut sum = std::vec![0i32; n * count];
        let parts = q
            .chunks_mut(padded)
            .zip(sx.chunks_mut(count).zip(sum.chunks_mut(count)));
        for (x, (q, (sx, sum))) in x.chunks(k).zip(parts) {
            assert!(quantise(x, group, q, sx, sum));
        }
        Self {
            k,
            group,
            x: Guarded::new(edge, &x),
            q: Guarded::new(edge, &q),
            sx: Guarded::new(edge, &sx),
            sum: Guarded::new(edge, &sum),
        }
    }

    pub(super) fn input(&self) -> Input<'_> {
        Input {
            k: self.k,
            x: &self.x,
            q_stride: round_up(self.k, K_PAD),
            s_stride: groups(self.k, self.group),
            q: &self.q,
            sx: &self.sx,
            sum: &self.sum,
            expanded: false,
            picks: None,
        }
    }
}

/// Dtypes and the layouts that hold them.
pub(super) fn forms() -> impl Iterator<Item = (Dtype, Layout)> {
    let of = |d: Dtype| {
        Layout::ALL
            .into_iter()
            .filter(move |l| l.holds(d))
            .map(move |l| (d, l))
    };
    [Dtype::Q8, Dtype::F16, Dtype::F32].into_iter().flat_map(of)
}

/// `[rows, k, group]`: the edges of tiles, steps and groups, then any.
pub(super) fn shapes(random: &mut Random) -> Vec<[usize; 3]> {
    if cfg!(miri) {
        return std::vec![[1, 1, 32], [3, 33, 32], [17, 6, 64]];
    }
    const EDGES: [usize; 5] = [1, 3, 31, 33, 1000];
    let mut shapes = Vec::new();
    for rows in EDGES {
        for k in EDGES {
            // The largest by the largest says no more than each with the others.
            if rows.min(k) < 1000 {
                shapes.push([rows, k, random.pick(&[32, 64, 128, 256])]);
            }
        }
    }
    for group in [32, 64, 128, 256] {
        for k in [group - 1, group, group + 1, 2 * group + 3, 3 * group - 4] {
            shapes.push([1 + random.below(40), k, group]);
        }
    }
    for _ in 0..30 {
        let [rows, k] = [1 + random.below(70), 1 + random.below(300)];
        shapes.push([rows, k, random.pick(&[32, 64, 128, 256])]);
    }
    shapes
}

//! `math`, `hash`, `kernels`: rows and attention are reached by sessions.

use crate::{any, bytes, floats};
use core::hint::black_box;
use pleach::hash::{Fnv1a, crc32, fnv1a};
use pleach::kernels::layout::{self, Dtype, Layout};
use pleach::{Kernels, math};

pub(crate) fn call() {
    let x: f32 = any();
    black_box((
        math::exp(x),
        math::sigmoid(x),
        math::sincos(x),
        math::sqrt(x),
        math::relu(x),
    ));
    black_box((
        math::flush(x),
        math::magnitude(x),
        math::is_finite(x),
        math::in_range(x),
    ));
    black_box((
        math::ordered_key(x),
        math::from_ordered_key(any()),
        math::max_ordered(x, any()),
    ));
    black_box((
        math::to_f16_cache(x),
        math::from_f16(any()),
        math::pow2(any()),
    ));
    let mut row = [0.0; 64];
    let row = black_box(&mut row[..]);
    black_box((math::max_row(row), math::softmax_attention(row)));
    math::softmax_scalings(row, any());
    math::softmax_kept(row);
    let mut sum = math::Sum16::new();
    sum.add(any(), any());
    sum.add_slice(floats());
    black_box((sum.finish(), math::Sum16::from_partials(any()).finish()));

    let mut hash = Fnv1a::new();
    hash.bytes(bytes());
    hash.floats(floats());
    black_box((hash.value(), crc32(bytes()), fnv1a(bytes())));

    sizes();
    quantise();
}

fn sizes() {
    black_box((Kernels::portable().name(), Kernels::of_build()));
    let (Some(dtype), Some(layout)) = (Dtype::from_tag(any()), Layout::from_tag(any())) else {
        return;
    };
    black_box((
        dtype.name(),
        dtype.bytes(),
        layout.name(),
        (layout.tile_rows(), layout.k_step(), layout.holds(dtype)),
    ));
    let (rows, cols, group) = (any(), any(), any());
    black_box(layout::packed_size(dtype, layout, rows, cols, group));
    black_box(layout::packed_b_size(dtype, rows, cols));
    black_box((
        layout::groups(cols, group),
        layout::scale_bytes(rows.max(1), cols, group),
    ));
    black_box((
        layout::tile_bytes(dtype, layout, cols, group),
        layout::b_scale_bytes(dtype, cols),
    ));
    black_box((
        layout::vector_bytes(layout, cols),
        layout::q8_weight(layout, bytes(), rows, cols),
        layout::m4_pair(any()),
    ));
}

fn quantise() {
    let (mut q, mut scales, mut sums) = ([0; 64], [0.0; 2], [0; 2]);
    let group: usize = any();
    black_box(pleach::kernels::panel::quantise(
        floats(),
        group,
        black_box(&mut q[..]),
        black_box(&mut scales[..]),
        black_box(&mut sums[..]),
    ));
}

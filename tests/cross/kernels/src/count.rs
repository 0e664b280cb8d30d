//! Instructions per multiply-accumulate.

use crate::board::count;
use kernels::data::{self, Fill, Random};
use kernels::memory::Buffers;
use pleach::Kernels;
use pleach::blob::{BPanel, Lora, Tensor};
use pleach::kernels::layout::{Dtype, Layout, b_scale_bytes, groups, packed_b_size, packed_size};
use pleach::kernels::probe::{self, By, Columns};
use pleach::kernels::{A_UNIT, UNIT};

const GROUP: usize = 64;

/// The layout that a backend's kernel reads.
fn layout(kernels: Kernels) -> Layout {
    match kernels.name() {
        "cortex_m" => Layout::M4,
        "mve" => Layout::R4K16,
        _ => Layout::Rows,
    }
}

/// `w` times `x` by the specification.
fn specified(
    w: &Tensor<'_>,
    x: &[f32],
    (q, sx, sum): (&mut [i8], &mut [f32], &mut [i32]),
    out: &mut [f32],
) {
    let (k, by) = (x.len(), By::Specification);
    let (q, g) = (&mut q[..probe::q_bytes(k, false)], groups(k, GROUP));
    let (sx, sum) = (&mut sx[..g], &mut sum[..g]);
    let parts = (&mut *q, &mut *sx, &mut *sum);
    assert!(probe::quantise(by, (x, GROUP), false, parts), "finite");
    let columns = Columns {
        k,
        group: GROUP,
        n: 1,
        x,
        q,
        sx,
        sum,
        expanded: false,
    };
    probe::rows(by, w, &columns, UNIT, out);
}

/// Prints a line of [`kernels::show`] for what fits.
pub fn print(kernels: Kernels, m: &mut Buffers<'_>, line: kernels::Line) {
    let (by, layout) = (By::Backend(kernels), layout(kernels));
    let show = |name: &str, shape: (usize, usize), n: u64| kernels::show(line, name, shape, n);
    let expand = layout == Layout::M4 && by.expands();
    let mut random = Random::new(7);
    for k in [64, 128, 256, 512] {
        let size = packed_size(Dtype::Q8, layout, k, k, GROUP);
        if size > m.weights.len() || k > m.x.len() {
            continue;
        }
        let bytes = &mut m.weights[..size];
        data::tensor(
            (Dtype::Q8, layout),
            (k, GROUP),
            Fill::Random,
            &mut random,
            bytes,
        );
        let w = Tensor::from_tiles((Dtype::Q8, layout), (k, k), GROUP, -1, bytes)
            .expect("the shape's bytes");
        let (x, s) = (&mut m.x[..k], &mut m.backend);
        data::activations(GROUP, Fill::Random, &mut random, x);
        let (q, g) = (&mut s.q[..probe::q_bytes(k, expand)], groups(k, GROUP));
        let (sx, sum) = (&mut s.sx[..g], &mut s.sum[..g]);
        let quantise = count(|| {
            let ok = probe::quantise(by, (x, GROUP), expand, (&mut *q, &mut *sx, &mut *sum));
            assert!(ok, "finite");
        });
        let columns = Columns {
            k,
            group: GROUP,
            n: 1,
            x,
            q,
            sx,
            sum,
            expanded: expand,
        };
        let out = &mut s.out[..k.next_multiple_of(UNIT)];
        let column = columns.column(0);
        let rows = if probe::one_call(by, &w, &column, out) {
            count(|| {
                probe::one_call(by, &w, &column, out);
            })
        } else {
            count(|| probe::rows(by, &w, &columns, UNIT, out))
        };
        let expected = &mut m.spec.out[..k.next_multiple_of(UNIT)];
        specified(
            &w,
            x,
            (&mut *m.spec.q, &mut *m.spec.sx, &mut *m.spec.sum),
            expected,
        );
        assert!(
            out == expected,
            "the rows that are counted are right: {k}x{k}"
        );
        show("q8", (k, k), rows);
        show(
            "linear",
            (k, k),
            quantise + count(|| probe::linear(by, &w, &columns, out)),
        );
    }

    let (k, rank) = (64, 8);
    let (a_len, b_len) = (
        packed_size(Dtype::Q8, layout, rank, k, GROUP),
        packed_b_size(Dtype::Q8, k, rank),
    );
    let (a, b) = m.weights.split_at_mut(a_len.next_multiple_of(16));
    let (a, b) = (&mut a[..a_len], &mut b[..b_len]);
    data::tensor(
        (Dtype::Q8, layout),
        (k, GROUP),
        Fill::Random,
        &mut random,
        a,
    );
    data::b_panel(
        Dtype::Q8,
        b_scale_bytes(Dtype::Q8, rank),
        Fill::Random,
        &mut random,
        b,
    );
    let lora = Lora {
        a: Tensor::from_tiles((Dtype::Q8, layout), (rank, k), GROUP, 0, a)
            .expect("the shape's bytes"),
        b: BPanel::from_tiles(Dtype::Q8, 0, (k, rank), b).expect("the shape's bytes"),
        scale: 1.0,
    };
    let (x, s) = (&mut m.x[..k], &mut m.backend);
    data::activations(GROUP, Fill::Random, &mut random, x);
    let q = &mut s.q[..probe::q_bytes(k, expand)];
    assert!(
        probe::quantise(
            by,
            (x, GROUP),
            expand,
            (&mut *q, &mut s.sx[..1], &mut s.sum[..1])
        ),
        "finite"
    );
    let columns = Columns {
        k,
        group: GROUP,
        n: 1,
        x,
        q,
        sx: s.sx,
        sum: s.sum,
        expanded: expand,
    };
    let (u, out) = s.out.split_at_mut(probe::rank_floats(rank, 1));
    show(
        "q8-of-4",
        (rank, k),
        count(|| probe::rows(by, &lora.a, &columns, A_UNIT, &mut out[..2 * 16])),
    );
    let a = count(|| probe::lora_a(by, &lora, &columns, 0.75, u));
    let b = count(|| probe::lora_b(by, &lora, 1, u, &mut out[..k]));
    show("lora-a", (rank, k), a);
    show("lora-b", (k, rank), b);
    show("lora-pair", (2 * k, rank), a + b);
}

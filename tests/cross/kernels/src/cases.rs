//! Which operations are compared, on which shapes.

use crate::Line;
use crate::data::{self, Fill, Random};
use crate::memory::{Buffers, Side};
use pleach::Kernels;
use pleach::blob::{BPanel, Lora, Tensor};
use pleach::hash::Fnv1a;
use pleach::kernels::layout::{Dtype, Layout, b_scale_bytes, groups, packed_b_size, packed_size};
use pleach::kernels::probe::{self, By, Columns};
use pleach::kernels::{A_UNIT, LANES, Operation, UNIT};

/// The most columns of a case.
const COLUMNS: usize = 8;

/// Rows and columns of matrices.
const SIZES: [usize; 6] = [1, 3, 31, 33, 64, 1000];
const GROUPS: [usize; 4] = [32, 64, 128, 256];
/// Every layout and dtype of a matrix.
const KINDS: [(&str, Dtype, Layout); 9] = [
    ("q8 rows", Dtype::Q8, Layout::Rows),
    ("q8 r16k4", Dtype::Q8, Layout::R16K4),
    ("q8 r4k4", Dtype::Q8, Layout::R4K4),
    ("q8 m4", Dtype::Q8, Layout::M4),
    ("q8 r4k16", Dtype::Q8, Layout::R4K16),
    ("f16 rows", Dtype::F16, Layout::Rows),
    ("f16 r16k4", Dtype::F16, Layout::R16K4),
    ("f16 r4k4", Dtype::F16, Layout::R4K4),
    ("f32 r16k4", Dtype::F32, Layout::R16K4),
];

/// A difference between the backend and the specification.
pub struct Difference;

/// One hash over the results of one kind of operation.
struct Check {
    hash: Fnv1a,
    cases: u32,
    line: Line,
}

impl Check {
    /// Compares the rows that count of `[unit][column][16]` outputs, and hashes them.
    fn rows(
        &mut self,
        what: &dyn Fn(Line),
        (rows, unit, n): (usize, usize, usize),
        (found, expected): (&[f32], &[f32]),
    ) -> Result<(), Difference> {
        self.cases += 1;
        for row in 0..rows {
            for column in 0..n {
                let at = ((row / unit) * n + column) * LANES + row % unit;
                let (f, e) = (found[at], expected[at]);
                if f.to_bits() != e.to_bits() {
                    what(self.line);
                    let (f, e) = (f.to_bits(), e.to_bits());
                    (self.line)(format_args!(
                        "row {row}, column {column}: found {f:#010x}, expected {e:#010x}"
                    ));
                    return Err(Difference);
                }
                self.hash.bytes(&e.to_bits().to_le_bytes());
            }
        }
        Ok(())
    }
}

/// Writes which kernels an operation runs.
pub fn operations(kernels: Kernels, line: Line) {
    for operation in Operation::ALL {
        let (name, layout) = operation.name();
        for kernel in kernels.kernels_of(operation) {
            match layout {
                Some(layout) => line(format_args!("{name} {}: {kernel}", layout.name())),
                None => line(format_args!("{name}: {name}_{kernel}")),
            }
        }
    }
}

/// Runs all cases that fit, and writes a line with a hash for each kind, and one for all of them.
pub fn compare(kernels: Kernels, mut memory: Buffers<'_>, line: Line) -> Result<(), Difference> {
    let mut all = Fnv1a::new();
    let mut finish = |check: Check, name: &str| {
        let (cases, hash) = (check.cases, check.hash.value());
        all.bytes(&hash.to_le_bytes());
        (check.line)(format_args!("bits {name}: {cases} cases, {hash:016x}"));
    };
    let by = By::Backend(kernels);
    for (seed, (name, dtype, layout)) in KINDS.into_iter().enumerate() {
        let mut check = Check {
            hash: Fnv1a::new(),
            cases: 0,
            line,
        };
        matrices(
            by,
            (name, dtype, layout),
            seed as u64,
            &mut memory,
            &mut check,
        )?;
        finish(check, name);
    }
    for (seed, (name, a, layout, b)) in LORAS.into_iter().enumerate() {
        let mut check = Check {
            hash: Fnv1a::new(),
            cases: 0,
            line,
        };
        loras(
            by,
            (name, a, layout, b),
            seed as u64,
            &mut memory,
            &mut check,
        )?;
        finish(check, name);
    }
    let mut check = Check {
        hash: Fnv1a::new(),
        cases: 0,
        line,
    };
    halves(by, &mut check)?;
    finish(check, "f16 to f32");
    line(format_args!("bits all: {:016x}", all.value()));
    Ok(())
}

fn matrices(
    by: By,
    (name, dtype, layout): (&str, Dtype, Layout),
    seed: u64,
    memory: &mut Buffers<'_>,
    check: &mut Check,
) -> Result<(), Difference> {
    let mut random = Random::new(seed);
    let mut turn = 0;
    for rows in SIZES {
        for cols in SIZES {
            for group in GROUPS {
                for fill in [Fill::Random, Fill::Extreme] {
                    turn += 1;
                    let n = 1 + turn % COLUMNS;
                    let exp = -((turn % 11) as i8);
                    let shape = Shape {
                        rows,
                        cols,
                        group,
                        n,
                    };
                    if dtype != Dtype::Q8 && group != GROUPS[turn % 4]
                        || !shape.fits((dtype, layout), memory)
                    {
                        continue;
                    }
                    let bytes =
                        &mut memory.weights[..packed_size(dtype, layout, rows, cols, group)];
                    data::tensor((dtype, layout), (cols, group), fill, &mut random, bytes);
                    let exp = if dtype == Dtype::Q8 { exp } else { 0 };
                    let w = Tensor::from_tiles((dtype, layout), (rows, cols), group, exp, bytes)
                        .expect("the bytes are those of the shape");
                    let x = &mut memory.x[..n * cols];
                    data::activations(group, fill, &mut random, x);
                    // All of a session's panels are expanded where its model has `m4` tensors, whatever lies beside them.
                    let expand = by.expands();
                    quantise(by, expand, &shape, x, &mut memory.backend);
                    quantise(By::Specification, false, &shape, x, &mut memory.spec);
                    let what = |line: Line| {
                        line(format_args!(
                            "{name} {rows}x{cols}, groups of {group}, {n} columns, 2^{exp}"
                        ));
                    };
                    // As a base matrix, and if it may be one as an A panel.
                    for unit in [UNIT, A_UNIT] {
                        if layout.tile_rows() > unit {
                            continue;
                        }
                        let len = rows.div_ceil(unit) * n * LANES;
                        if len > memory.spec.out.len() {
                            continue;
                        }
                        for (by, side, expanded) in [
                            (by, &mut memory.backend, expand),
                            (By::Specification, &mut memory.spec, false),
                        ] {
                            side.out[..len].fill(0.0);
                            let columns = shape.columns(x, expanded, side.q, side.sx, side.sum);
                            probe::rows(by, &w, &columns, unit, &mut side.out[..len]);
                        }
                        check.rows(
                            &what,
                            (rows, unit, n),
                            (memory.backend.out, memory.spec.out),
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

struct Shape {
    rows: usize,
    cols: usize,
    group: usize,
    n: usize,
}

impl Shape {
    fn fits(&self, (dtype, layout): (Dtype, Layout), m: &Buffers<'_>) -> bool {
        packed_size(dtype, layout, self.rows, self.cols, self.group) <= m.weights.len()
            && self.columns_fit(m)
    }

    fn columns_fit(&self, m: &Buffers<'_>) -> bool {
        self.n * self.cols <= m.x.len()
            && self.n * probe::q_bytes(self.cols, true) <= m.spec.q.len()
            && self.n * groups(self.cols, self.group) <= m.spec.sx.len()
            && self.rows.div_ceil(UNIT) * self.n * LANES <= m.spec.out.len()
    }

    fn columns<'a>(
        &self,
        x: &'a [f32],
        expanded: bool,
        q: &'a [i8],
        sx: &'a [f32],
        sum: &'a [i32],
    ) -> Columns<'a> {
        Columns {
            k: self.cols,
            group: self.group,
            n: self.n,
            x,
            q,
            sx,
            sum,
            expanded,
        }
    }
}

fn quantise(by: By, expand: bool, shape: &Shape, x: &[f32], side: &mut Side<'_>) {
    let count = groups(shape.cols, shape.group);
    let columns = x
        .chunks_exact(shape.cols)
        .zip(side.q.chunks_exact_mut(probe::q_bytes(shape.cols, expand)))
        .zip(
            side.sx
                .chunks_exact_mut(count)
                .zip(side.sum.chunks_exact_mut(count)),
        );
    for ((x, q), (sx, sum)) in columns {
        assert!(
            probe::quantise(by, (x, shape.group), expand, (q, sx, sum)),
            "finite"
        );
    }
}

/// Dtype and layout of A, dtype of B.
const LORAS: [(&str, Dtype, Layout, Dtype); 5] = [
    ("lora q8 m4, q8", Dtype::Q8, Layout::M4, Dtype::Q8),
    ("lora q8 r4k16, q8", Dtype::Q8, Layout::R4K16, Dtype::Q8),
    ("lora q8 rows, f16", Dtype::Q8, Layout::Rows, Dtype::F16),
    ("lora f16 r4k4, f16", Dtype::F16, Layout::R4K4, Dtype::F16),
    ("lora f16 rows, f32", Dtype::F16, Layout::Rows, Dtype::F32),
];

fn loras(
    by: By,
    (name, a_dtype, layout, b_dtype): (&str, Dtype, Layout, Dtype),
    seed: u64,
    memory: &mut Buffers<'_>,
    check: &mut Check,
) -> Result<(), Difference> {
    let mut random = Random::new(1000 + seed);
    let mut turn = 0;
    for (rank, outputs) in [(1, 33), (3, 3), (8, 64), (8, 31), (9, 1000)] {
        for cols in SIZES {
            turn += 1;
            let (n, group) = (1 + turn % COLUMNS, GROUPS[turn % 4]);
            let shape = Shape {
                rows: outputs,
                cols,
                group,
                n,
            };
            let (a_len, b_len) = (
                packed_size(a_dtype, layout, rank, cols, group),
                packed_b_size(b_dtype, outputs, rank),
            );
            let ranks = probe::rank_floats(rank, n);
            let len = outputs.div_ceil(UNIT) * n * LANES;
            let fits = a_len.next_multiple_of(16) + b_len <= memory.weights.len();
            if !fits || !shape.columns_fit(memory) || ranks + len > memory.spec.out.len() {
                continue;
            }
            let (a, b) = memory.weights.split_at_mut(a_len.next_multiple_of(16));
            let (a, b) = (&mut a[..a_len], &mut b[..b_len]);
            data::tensor(
                (a_dtype, layout),
                (cols, group),
                Fill::Random,
                &mut random,
                a,
            );
            data::b_panel(
                b_dtype,
                b_scale_bytes(b_dtype, rank),
                Fill::Random,
                &mut random,
                b,
            );
            let exp = -((turn % 11) as i8);
            let of = |d: Dtype| if d == Dtype::Q8 { exp } else { 0 };
            let lora = Lora {
                a: Tensor::from_tiles((a_dtype, layout), (rank, cols), group, of(a_dtype), a)
                    .expect("the bytes are those of the shape"),
                b: BPanel::from_tiles(b_dtype, of(b_dtype), (outputs, rank), b)
                    .expect("the bytes are those of the shape"),
                scale: 1.0,
            };
            let x = &mut memory.x[..n * cols];
            data::activations(group, Fill::Random, &mut random, x);
            // All of a session's panels are expanded where its model has `m4` tensors, whatever lies beside them.
            let expand = by.expands();
            quantise(by, expand, &shape, x, &mut memory.backend);
            quantise(By::Specification, false, &shape, x, &mut memory.spec);
            for (by, side, expanded) in [
                (by, &mut memory.backend, expand),
                (By::Specification, &mut memory.spec, false),
            ] {
                let columns = shape.columns(x, expanded, side.q, side.sx, side.sum);
                let (u, out) = side.out.split_at_mut(ranks);
                probe::lora_a(by, &lora, &columns, 0.75, u);
                probe::lora_b(by, &lora, n, u, &mut out[..len]);
            }
            let what = |line: Line| {
                line(format_args!(
                    "{name} {cols} to {rank} to {outputs}, groups of {group}, {n} columns"
                ));
            };
            check.rows(
                &what,
                (outputs, UNIT, n),
                (&memory.backend.out[ranks..], &memory.spec.out[ranks..]),
            )?;
        }
    }
    Ok(())
}

/// All halves that are finite, 16 at once.
fn halves(by: By, check: &mut Check) -> Result<(), Difference> {
    for first in (0..0x1_0000u32).step_by(LANES) {
        if first & 0x7c00 == 0x7c00 {
            continue;
        }
        let mut bytes = pleach::Aligned([0u8; 2 * LANES]);
        for (i, b) in bytes.0.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *b = ((first as u16) + i as u16).to_le_bytes();
        }
        let what = |line: Line| line(format_args!("f16 from {first:#06x}"));
        let (found, expected) = (
            probe::halves(by, &bytes.0),
            probe::halves(By::Specification, &bytes.0),
        );
        check.rows(&what, (LANES, LANES, 1), (&found, &expected))?;
    }
    Ok(())
}

//! The drivers of linear layers: many columns, bias, the deltas of experts, residual.

use super::guard::{Edge, Guarded};
use super::matrix::{B, Columns, Matrix, forms};
use super::{Random, Size, bits, same};
use crate::blob::{BPanel, Lora, Tensor};
use crate::kernels::layout::{Dtype, Layout};
use crate::kernels::linear::{LinearJob, Part};
use crate::kernels::lora::{Choice, LoraAJob, LoraSource, LoraTerm, choose};
use crate::kernels::work::{Job, Work};
use crate::kernels::{A_UNIT, UNIT};
use std::vec::Vec;

const RANKS: [usize; 7] = [1, 3, 4, 5, 8, 16, 17];
const DTYPES: [Dtype; 3] = [Dtype::Q8, Dtype::F16, Dtype::F32];

/// One expert: panels as a blob holds them, or rows that a caller owns.
enum Expert {
    Packed(Matrix, B),
    Borrowed(Guarded<f32>, Guarded<f32>, usize),
}

impl Expert {
    fn new([rows, k, group]: [usize; 3], size: Size, edge: Edge, random: &mut Random) -> Self {
        let rank = random.pick(&RANKS);
        if random.below(5) == 0 {
            let a = Size::Ordinary.floats(rank * k, random);
            let b = Size::Ordinary.floats(rows * rank, random);
            return Expert::Borrowed(Guarded::new(edge, &a), Guarded::new(edge, &b), rank);
        }
        let forms: Vec<_> = forms().filter(|f| f.1 != Layout::R16K4).collect();
        let a = Matrix::new(random.pick(&forms), [rank, k, group], size, edge, random);
        let b = B::new(random.pick(&DTYPES), [rows, rank], size, edge, random);
        Expert::Packed(a, b)
    }

    fn lora(&self, rows: usize, k: usize) -> Lora<'_> {
        let (a, b) = match self {
            Expert::Packed(a, b) => (a.tensor(), b.panel()),
            Expert::Borrowed(a, b, rank) => (
                Tensor::from_rows(a, *rank, k).unwrap(),
                BPanel::from_rows(b, rows, *rank).unwrap(),
            ),
        };
        Lora { a, b, scale: 0.75 }
    }
}

/// Scalings: some experts are selected by no column, some columns select none.
fn scaling(size: Size, random: &mut Random) -> f32 {
    match (random.below(3), size) {
        (0, _) => 0.0,
        (_, Size::Largest) => -65504.0,
        (_, Size::Smallest) => 2f32.powi(-23),
        _ => random.unit(),
    }
}

/// Up to 19 columns through A, B, bias and residual, in one piece and in two.
#[test]
fn layers_with_experts() {
    let mut random = Random::new(4);
    for n in 0..if cfg!(miri) { 3 } else { 150 } {
        let edge = Edge::of(n);
        let (rows, k): (&[usize], &[usize]) = match cfg!(miri) {
            true => (&[3, 17], &[3, 33]),
            false => (
                &[1, 3, 15, 16, 17, 31, 33, 64, 100, 1000],
                &[1, 3, 31, 33, 64, 100, 257, 1000],
            ),
        };
        let (rows, k) = (random.pick(rows), random.pick(k));
        let group = random.pick(&[32, 64, 128, 256]);
        let columns = 1 + n % 19;
        let size = random.pick(&Size::ALL);
        let form = random.pick(&forms().collect::<Vec<_>>());
        let case = (n, rows, k, group, columns, size, form, edge);

        let weight = Matrix::new(form, [rows, k, group], size, edge, &mut random);
        let x = Columns::new(columns, [k, group], size, edge, &mut random);
        let bias: Vec<u8> = (0..rows.next_multiple_of(UNIT))
            .flat_map(|_| random.unit().to_le_bytes())
            .collect();
        let bias = Guarded::new(edge, &bias);
        let experts: Vec<Option<Expert>> = (0..random.below(6))
            .map(|_| {
                let expert = Expert::new([rows, k, group], size, edge, &mut random);
                (random.below(5) > 0).then_some(expert)
            })
            .collect();
        let loras: Vec<Option<Lora<'_>>> = experts
            .iter()
            .map(|e| e.as_ref().map(|e| e.lora(rows, k)))
            .collect();
        let scalings: Vec<f32> = (0..loras.len() * columns)
            .map(|_| scaling(size, &mut random))
            .collect();
        let residual = random.pick(&[None, Some(1.0), Some(0.22)]);

        let source = LoraSource::Adapters(&loras);
        let mut choices = std::vec![Choice::default(); loras.len()];
        let mut gates = std::vec![0.0; loras.len() * columns];
        let h =
            |_, class: usize, column: usize, scale: f32| scalings[class * columns + column] * scale;
        let takes = |_, class: usize, column: usize| scalings[class * columns + column] != 0.0;
        let (choices_of, gates_of) = (&mut choices, &mut gates);
        let (count, rank_rows) = choose(
            &source,
            loras.len(),
            columns,
            takes,
            h,
            choices_of,
            gates_of,
        )
        .unwrap();
        choices.truncate(count as usize);
        gates.truncate(count as usize * columns);
        let gates = Guarded::new(edge, &gates);
        let term = LoraTerm {
            source,
            selected: &choices,
            h: &gates,
            columns,
            held: &[],
        };
        let start = Size::Ordinary.floats(rows.next_multiple_of(UNIT) * columns, &mut random);
        same(&case, |kernels| {
            let mut u = Guarded::new(edge, &std::vec![f32::NAN; rank_rows as usize * columns]);
            let job = LoraAJob {
                kernels,
                input: x.input(),
                term,
                next: &[],
            };
            let work = Work::new(Job::LoraA(&job), 0, &mut u, A_UNIT * columns, A_UNIT, 1);
            let (head, tail) = work.split_at(rank_rows as usize / 3);
            tail.run();
            head.run();
            let job = LinearJob {
                kernels,
                parts: &[Part::of(weight.tensor(), (n % 2 == 0).then_some(&bias[..]))],
                input: x.input(),
                term: (count > 0).then_some(term),
                u: &u,
                residual,
            };
            let mut out = Guarded::new(edge, &start);
            let work = Work::new(Job::Linear(&job), 0, &mut out, UNIT * columns, UNIT, 1);
            let (head, tail) = work.split_at(rows / 2);
            tail.run();
            head.run();
            // Rows behind the last one are not specified.
            let vectors = out.as_chunks::<UNIT>().0.iter().enumerate();
            let y = vectors.flat_map(|(i, v)| v.iter().take(rows - (i / columns * UNIT).min(rows)));
            bits(u.iter().chain(y))
        });
    }
}

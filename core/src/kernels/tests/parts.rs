//! Operations of three matrices (q, k and v) with more experts than are looked up at once: against the definition, in one
//! piece and in many that threads claim in any order.

use super::deltas::{DenseB, FORMS, flush, product};
use super::guard::{Edge, Guarded};
use super::{Random, bits};
use crate::blob::{Lora, Tensor};
use crate::kernels::linear::{LinearJob, Part};
use crate::kernels::lora::{Choice, LoraAJob, LoraSource, LoraTerm, held};
use crate::kernels::panel::Input;
use crate::kernels::work::{Job, Work};
use crate::kernels::{A_UNIT, HELD_PANELS, Kernels, UNIT};
use std::sync::Mutex;
use std::vec::Vec;

/// Rows of the matrices.
const ROWS: [usize; 3] = [70, 33, 16];
const K: usize = 21;

/// An expert at one of the matrices.
struct Expert {
    part: usize,
    rank: usize,
    a: Vec<f32>,
    b: DenseB,
}

/// An operation, and who selected what.
struct Case {
    weights: [Vec<f32>; 3],
    biases: [Vec<f32>; 3],
    /// By part, then class.
    experts: Vec<Expert>,
    /// `[expert][column]`: 0 where the column did not select it.
    h: Vec<f32>,
    /// `[column][K]`
    x: Vec<f32>,
    columns: usize,
}

impl Case {
    /// Experts at each matrix, of which a column selects `top`.
    fn new(experts: usize, top: usize, columns: usize, random: &mut Random) -> Self {
        let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| random.unit()).collect() };
        let weights = ROWS.map(|rows| floats(rows * K));
        let biases = ROWS.map(&mut floats);
        let x = floats(columns * K);
        let expert = |n: usize| {
            let (part, rank) = (n / experts, random.pick(&[1, 3, 4, 8, 17]));
            let shape = [ROWS[part], rank];
            Expert {
                part,
                rank,
                a: (0..rank * K).map(|_| random.unit()).collect(),
                b: DenseB::new(random.pick(&FORMS), shape, Edge::End, random),
            }
        };
        let all: Vec<Expert> = (0..3 * experts).map(expert).collect();
        let mut h = std::vec![0.0; all.len() * columns];
        for part in 0..3 {
            for column in 0..columns {
                let mut classes: Vec<usize> = (0..experts).collect();
                for _ in 0..top.min(experts) {
                    let class = classes.swap_remove(random.below(classes.len()));
                    h[(part * experts + class) * columns + column] = random.unit();
                }
            }
        }
        Self {
            weights,
            biases,
            experts: all,
            h,
            x,
            columns,
        }
    }

    fn gates(&self, expert: usize) -> &[f32] {
        &self.h[expert * self.columns..][..self.columns]
    }

    /// `y = flush((W x + bias) + d)`; d from +0, experts ascending, j ascending; without experts nothing is added.
    fn defined(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for (part, rows) in ROWS.into_iter().enumerate() {
            for c in 0..self.columns {
                let x = &self.x[c * K..][..K];
                let mut d: Vec<Option<f32>> = std::vec![None; rows];
                let own = self.experts.iter().enumerate();
                for (n, e) in own.filter(|(_, e)| e.part == part) {
                    let h = self.gates(n)[c];
                    if h == 0.0 {
                        continue;
                    }
                    let u = e.b.u(&product(&e.a, e.rank, x), h);
                    for (row, d) in d.iter_mut().enumerate() {
                        e.b.add(row, &u, d.get_or_insert(0.0));
                    }
                }
                let base = product(&self.weights[part], rows, x);
                let base = base.iter().zip(&self.biases[part]).map(|(y, b)| y + b);
                let y = base.zip(&d).map(|(y, d)| flush(d.map_or(y, |d| y + d)));
                all.extend(bits(&y.collect::<Vec<f32>>()));
            }
        }
        all
    }

    /// The same by a backend: B is looked up beforehand for the first `HELD_PANELS` experts if `hold`, else each time;
    /// `threads` other than 0 claim pieces.
    fn by(&self, kernels: Kernels, hold: bool, threads: usize, random: &mut Random) -> Vec<u32> {
        let n = self.columns;
        let loras: Vec<Option<Lora<'_>>> = self
            .experts
            .iter()
            .map(|e| {
                let a = Tensor::from_rows(&e.a, e.rank, K)?;
                let (b, scale) = (e.b.panel(), 1.0);
                Some(Lora { a, b, scale })
            })
            .collect();
        let source = LoraSource::Adapters(&loras);
        let (mut selected, mut gates, mut row) = (Vec::new(), Vec::new(), 0);
        for (class, e) in self.experts.iter().enumerate() {
            if self.gates(class).iter().any(|h| *h != 0.0) {
                selected.push(Choice {
                    part: e.part as u16,
                    class: class as u16,
                    rank: e.rank as u16,
                    reserved: 0,
                    row,
                });
                gates.extend(self.gates(class));
                row += e.rank.next_multiple_of(A_UNIT) as u32;
            }
        }
        let held = held(&source, &selected);
        let term = LoraTerm {
            source,
            selected: &selected,
            h: &gates,
            columns: n,
            held: if hold { &held } else { &[] },
        };
        let input = Input {
            k: K,
            x: &self.x,
            q_stride: 0,
            s_stride: 0,
            q: &[],
            sx: &[],
            sum: &[],
            expanded: false,
            picks: None,
        };
        let mut u = Guarded::new(Edge::End, &std::vec![f32::NAN; row as usize * n]);
        let job = LoraAJob {
            kernels,
            input,
            term,
            next: &[],
        };
        let work = Work::new(Job::LoraA(&job), 0, &mut u, A_UNIT * n, A_UNIT, 1);
        run(work, threads, random);
        let biases = self.biases.each_ref().map(|b| {
            let units = b.len().next_multiple_of(UNIT);
            let padded = b.iter().copied().chain(std::iter::repeat(f32::NAN));
            padded
                .take(units)
                .flat_map(f32::to_le_bytes)
                .collect::<Vec<u8>>()
        });
        let part = |i: usize| {
            Some(Part {
                weight: Tensor::from_rows(&self.weights[i], ROWS[i], K)?,
                bias: Some(&biases[i][..]),
            })
        };
        let job = LinearJob {
            kernels,
            parts: &[part(0), part(1), part(2)],
            input,
            term: (!selected.is_empty()).then_some(term),
            u: &u,
            residual: None,
        };
        let mut out = Guarded::new(Edge::End, &std::vec![f32::NAN; job.units() * UNIT * n]);
        let work = Work::new(Job::Linear(&job), 0, &mut out, UNIT * n, UNIT, 1);
        run(work, threads, random);
        let (mut all, mut first) = (Vec::new(), 0);
        for rows in ROWS {
            for c in 0..n {
                let place = |row: usize| (first + row / UNIT * n + c) * UNIT + row % UNIT;
                let y: Vec<f32> = (0..rows).map(|row| out[place(row)]).collect();
                all.extend(bits(&y));
            }
            first += rows.div_ceil(UNIT) * n;
        }
        all
    }
}

/// Where it is, or in pieces of one unit or a few that threads claim in an order of chance.
fn run(work: Work<'_>, threads: usize, random: &mut Random) {
    if threads == 0 {
        return work.run();
    }
    let (mut rest, mut pieces) = (work, Vec::new());
    while rest.rows() > 0 {
        let rows = rest.tile() * (1 + random.below(3));
        let (piece, tail) = rest.split_at(rows);
        let at = random.below(pieces.len() + 1);
        pieces.insert(at, piece);
        rest = tail;
    }
    assert!(pieces.len() > 1);
    let pieces = Mutex::new(pieces);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let claimed = pieces.lock().expect("no thread panicked").pop();
                    let Some(piece) = claimed else { return };
                    piece.run();
                }
            });
        }
    });
}

/// On both sides of the border: all of an operation's experts are held, all but one, most are not.
#[test]
fn more_experts_than_are_held() {
    let mut random = Random::new(13);
    let top_of = |all: usize| [1, 3, all];
    for experts in [1, 5, 6, 13, 40] {
        for top in top_of(experts) {
            for columns in if cfg!(miri) { 2..=2 } else { 1..=9 } {
                let case = Case::new(experts, top, columns, &mut random);
                let want = case.defined();
                for kernels in Kernels::available() {
                    for hold in [false, true] {
                        let got = case.by(kernels, hold, 0, &mut random);
                        let what = (kernels.name(), experts, top, columns, hold);
                        assert!(got == want, "{what:?}");
                    }
                }
            }
        }
    }
    // 5 at each of the three are held all, 6 are not.
    assert!((15..18).contains(&HELD_PANELS));
}

#[test]
fn three_matrices_in_pieces_of_any_order() {
    let mut random = Random::new(14);
    for n in 0..if cfg!(miri) { 1 } else { 40 } {
        let (experts, columns) = ([2, 13][n % 2], 1 + n % 9);
        let case = Case::new(experts, 2, columns, &mut random);
        let want = case.defined();
        for kernels in Kernels::available() {
            for threads in 1..=4 {
                let got = case.by(kernels, true, threads, &mut random);
                assert!(got == want, "{n}, {}, {threads}", kernels.name());
            }
        }
    }
}

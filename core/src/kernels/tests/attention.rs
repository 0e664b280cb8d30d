//! Scores, softmax and mix: each backend against the scalar one, and that against the definition.

use super::guard::{Edge, Guarded};
use super::{Random, Size, bits, same};
use crate::error::Pass;
use crate::kernels::attention::{
    AttentionJob, Denominators, Gather, KvType, LayerCache, Maxima, SEGMENT, Shape,
};
use crate::kernels::work::{Job, Work};
use crate::kernels::{Kernels, LANES};
use crate::math::{flush, from_f16, softmax_attention, to_f16_cache};
use crate::session::{Column, Gates};
use std::vec::Vec;

/// Keys or values of one layer and pass, in f32 and as a cache holds them.
struct Cache {
    floats: Vec<f32>,
    bytes: Guarded<u8>,
}

impl Cache {
    fn new(n: usize, kv: KvType, size: Size, edge: Edge, random: &mut Random) -> Self {
        let values = size.floats(n, random);
        let (floats, bytes): (Vec<f32>, Vec<u8>) = match kv {
            KvType::F32 => {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                (values, bytes)
            }
            KvType::F16 => {
                let halves: Vec<u16> = values.iter().map(|v| to_f16_cache(*v)).collect();
                let floats = halves.iter().map(|h| from_f16(*h)).collect();
                (
                    floats,
                    halves.iter().flat_map(|h| h.to_le_bytes()).collect(),
                )
            }
        };
        Self {
            floats,
            bytes: Guarded::new(edge, &bytes),
        }
    }
}

struct Case {
    shape: Shape,
    kv: KvType,
    scale: f32,
    columns: Vec<Column>,
    q: Guarded<f32>,
    /// Keys and values of both passes.
    caches: [[Cache; 2]; 2],
    edge: Edge,
}

/// What the operations give, one after the other.
struct Outcome {
    maxima: Vec<f32>,
    weights: Vec<f32>,
    inverses: Vec<f32>,
    /// `[column][head * head_dim]`
    input: Vec<f32>,
}

impl Case {
    fn job(&self, kernels: Kernels) -> AttentionJob<'_> {
        AttentionJob {
            kernels,
            shape: self.shape,
            columns: &self.columns,
            q: &self.q,
            scores: &[],
            maxima: &[],
            caches: self.caches.each_ref().map(|[keys, values]| LayerCache {
                keys: &keys.bytes,
                values: &values.bytes,
            }),
            kv: self.kv,
            scale: self.scale,
        }
    }

    fn buffer(&self, len: usize) -> Guarded<f32> {
        Guarded::new(self.edge, &std::vec![f32::NAN; len])
    }

    /// All units of a step, in two pieces.
    fn run(&self, job: Job<'_>, out: &mut [f32]) {
        let units = self.shape.segments() * self.shape.kv_heads;
        let work = Work::new(job, 0, out, out.len() / units, 1, 1);
        let (head, tail) = work.split_at(units / 2);
        tail.run();
        head.run();
    }

    fn compute(&self, kernels: Kernels) -> Outcome {
        let (shape, n) = (self.shape, self.columns.len());
        let columns = &self.columns[..];
        let mut scores = self.buffer(shape.scores(n));
        self.run(Job::Score(&self.job(kernels)), &mut scores);
        let mut maxima = self.buffer(shape.stats(n));
        kernels.run(Maxima {
            shape,
            columns,
            scores: &scores,
            out: &mut maxima,
        });
        let job = AttentionJob {
            maxima: &maxima,
            ..self.job(kernels)
        };
        self.run(Job::Softmax(&job), &mut scores);
        let mut inverses = self.buffer(shape.stats(n));
        kernels.run(Denominators {
            shape,
            columns,
            weights: &scores,
            out: &mut inverses,
        });
        let job = AttentionJob {
            scores: &scores,
            ..self.job(kernels)
        };
        let mut sums = self.buffer(shape.sums(n));
        self.run(Job::Mix(&job), &mut sums);
        let mut input = self.buffer(n * shape.heads() * shape.head_dim);
        kernels.run(Gather {
            shape,
            columns,
            sums: &sums,
            inverses: &inverses,
            input: &mut input,
        });
        // Weights beyond a column's position are not specified.
        let weights = (0..shape.heads() * n).flat_map(|row| self.row(&scores, row));
        Outcome {
            weights: weights.collect(),
            maxima: maxima.to_vec(),
            inverses: inverses.to_vec(),
            input: input.to_vec(),
        }
    }

    /// The weights of row `[head][column]` by position.
    fn row(&self, weights: &[f32], row: usize) -> Vec<f32> {
        let (n, slots) = (self.columns.len(), self.shape.slots());
        let rows = self.shape.heads() * n;
        let used = self.columns[row % n].position() + 1;
        let at = |t: usize| (t / SEGMENT * rows + row) * slots + t % SEGMENT;
        (0..used).map(|t| weights[at(t)]).collect()
    }

    /// ARITHMETIC.md, *Attention*, to the letter.
    fn defined(&self) -> Vec<f32> {
        let (shape, n) = (self.shape, self.columns.len());
        let dim = shape.head_dim;
        let mut input = std::vec![0.0; n * shape.heads() * dim];
        for (c, column) in self.columns.iter().enumerate() {
            let [keys, values] = match column.pass() {
                Pass::Scaling => &self.caches[0],
                Pass::Routed => &self.caches[1],
            };
            for head in 0..shape.heads() {
                let kv = head / shape.sharing;
                let mut weights: Vec<f32> = (0..=column.position())
                    .map(|t| {
                        let mut sum = 0.0;
                        for d in 0..dim {
                            let row = head * dim + d;
                            let q = self.q[(row / LANES * n + c) * LANES + row % LANES];
                            let tile = kv * (shape.context / LANES) + t / LANES;
                            sum += q * keys.floats[(tile * dim + d) * LANES + t % LANES];
                        }
                        flush(sum * self.scale)
                    })
                    .collect();
                let inverse = 1.0 / softmax_attention(&mut weights);
                for d in 0..dim {
                    let mut total = 0.0;
                    for (s, weights) in weights.chunks(SEGMENT).enumerate() {
                        let mut sum = 0.0;
                        for (t, w) in weights.iter().enumerate() {
                            let position = kv * shape.context + s * SEGMENT + t;
                            sum += w * values.floats[position * dim + d];
                        }
                        total += sum;
                    }
                    input[c * shape.heads() * dim + head * dim + d] = flush(total * inverse);
                }
            }
        }
        input
    }
}

#[test]
fn scores_softmax_and_mix() {
    let mut random = Random::new(8);
    for n in 0..if cfg!(miri) { 1 } else { 90 } {
        let edge = Edge::of(n);
        let kv = [KvType::F32, KvType::F16][n % 2];
        let context = match cfg!(miri) {
            true => 16,
            false => random.pick(&[16, 32, 48, 240, 256, 272, 528, 784]),
        };
        let dims: &[usize] = match cfg!(miri) {
            true => &[6, 18],
            false => &[2, 6, 10, 16, 18, 32, 48, 64, 80, 128],
        };
        let shape = Shape {
            head_dim: random.pick(dims),
            kv_heads: if cfg!(miri) {
                1
            } else {
                random.pick(&[1, 2, 3])
            },
            sharing: if cfg!(miri) {
                2
            } else {
                random.pick(&[1, 2, 3, 4, 5])
            },
            context,
        };
        let columns: Vec<Column> = (0..1 + random.below(if cfg!(miri) { 3 } else { 9 }))
            .map(|_| {
                let edges = [0, 1, 14, 15, 16, 31, 254, 255, 256, 257, 511, context - 1];
                let position = match random.below(2) {
                    0 => random.pick(&edges).min(context - 1),
                    _ => random.below(context),
                };
                let pass = random.pick(&[Pass::Scaling, Pass::Routed]);
                Column::new(pass, 0, position as u32, Gates::Off)
            })
            .collect();
        let size = random.pick(&[Size::Ordinary, Size::Smallest, Size::Zeros]);
        let rows = (shape.heads() * shape.head_dim).next_multiple_of(LANES);
        let q = Size::Ordinary.floats(rows * columns.len(), &mut random);
        let floats = shape.kv_heads * context * shape.head_dim;
        let case = Case {
            shape,
            kv,
            // The latter takes most weights below the cut.
            scale: random.pick(&[1.0, 0.125, 40.0]),
            columns,
            q: Guarded::new(edge, &q),
            caches: [(); 2]
                .map(|()| [(); 2].map(|()| Cache::new(floats, kv, size, edge, &mut random))),
            edge,
        };
        let positions: Vec<u32> = case.columns.iter().map(|c| c.pos).collect();
        let name = (
            n,
            kv,
            shape.head_dim,
            shape.kv_heads,
            shape.sharing,
            context,
            size,
            positions,
        );
        same(&name, |kernels| {
            let o = case.compute(kernels);
            bits(
                o.maxima
                    .iter()
                    .chain(&o.weights)
                    .chain(&o.inverses)
                    .chain(&o.input),
            )
        });
        let scalar = case.compute(Kernels::portable());
        assert_eq!(bits(&scalar.input), bits(&case.defined()), "{name:?}");
    }
}

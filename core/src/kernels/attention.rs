//! Causal attention of a sweep's columns over the KV caches, one head per row of work.
//!
//! Layouts of one layer's cache: K `[kv_head][pos / 16][d][16]`, so that lanes are positions and no
//! backend needs a horizontal sum; V `[kv_head][pos][d]`, so that lanes are dimensions.

use crate::error::Pass;
use crate::kernels::Kernels;
use crate::kernels::elementwise::place;
use crate::kernels::float::{Element, F16, F32};
use crate::kernels::isa::{Isa, Lanes};
use crate::kernels::log::{Operation, ran};
use crate::math::{self, flush};
use crate::pairs::pairs;

pub use crate::kernels::isa::LANES;

/// Positions in one segment of the mix; segments are summed in order.
pub const SEGMENT: usize = 256;

/// How the caches store keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// 32 bits: PEFT's answers.
    F32,
    /// 16 bits: half the memory.
    F16,
}

impl KvType {
    /// Bytes per number.
    pub const fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
        }
    }
}

/// Keys and values of one layer in one cache.
#[derive(Clone, Copy)]
pub(crate) struct LayerCache<'a> {
    pub(crate) keys: &'a [u8],
    pub(crate) values: &'a [u8],
}

/// Which of the three operations of attention.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Step {
    /// `scores[t] = flush((q . k_t) * scale)`.
    Score,
    /// `scores[t] = exp(scores[t] - max)`, the denominator after them.
    Softmax,
    /// `out[d] = flush(sum of scores[t] * v_t[d] / denominator)`.
    Mix,
}

/// One of the three operations over all heads.
#[derive(Clone, Copy)]
pub(crate) struct AttentionJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) step: Step,
    pub(crate) columns: &'a [crate::session::Column],
    /// `[head * head_dim / 16][column][16]`; [`Step::Score`] only.
    pub(crate) q: &'a [f32],
    /// `[head][column][context + 1]`; [`Step::Mix`] only.
    pub(crate) scores: &'a [f32],
    /// Of the scaling and the routed pass.
    pub(crate) caches: [LayerCache<'a>; 2],
    pub(crate) kv: KvType,
    pub(crate) head_dim: usize,
    /// Query heads per KV head.
    pub(crate) sharing: usize,
    /// A multiple of 16.
    pub(crate) context: usize,
    pub(crate) scale: f32,
}

impl AttentionJob<'_> {
    /// Head `head`; `out` is `[column][context + 1]` for scores and softmax, `[column][head_dim]` for the mix.
    #[inline(always)]
    pub(crate) fn head<I: Isa>(&self, isa: I, head: usize, out: &mut [f32]) {
        ran(match self.step {
            Step::Score => Operation::Score,
            Step::Softmax => Operation::Softmax,
            Step::Mix => Operation::Mix,
        });
        match (self.step, self.kv) {
            (Step::Score, KvType::F32) => self.score::<I, F32>(isa, head, out),
            (Step::Score, KvType::F16) => self.score::<I, F16>(isa, head, out),
            (Step::Softmax, _) => self.softmax(out),
            (Step::Mix, KvType::F32) => self.mix::<F32>(head, out),
            (Step::Mix, KvType::F16) => self.mix::<F16>(head, out),
        }
    }

    fn cache(&self, pass: Pass) -> LayerCache<'_> {
        let [scaling, routed] = self.caches;
        match pass {
            Pass::Scaling => scaling,
            Pass::Routed => routed,
        }
    }

    fn stride(&self) -> usize {
        self.context.saturating_add(1)
    }

    fn kv_head(&self, head: usize) -> usize {
        head / self.sharing.max(1)
    }

    /// d ascending in one chain from +0, lanes are positions.
    #[inline(always)]
    fn score<I: Isa, E: Element>(&self, isa: I, head: usize, out: &mut [f32]) {
        let n = self.columns.len().max(1);
        let tile_bytes = self.head_dim.saturating_mul(LANES * E::BYTES).max(1);
        let head_bytes = self
            .context
            .saturating_mul(self.head_dim)
            .saturating_mul(E::BYTES);
        let at = self.kv_head(head).saturating_mul(head_bytes);
        let first = head.saturating_mul(self.head_dim);
        for ((c, column), out) in self
            .columns
            .iter()
            .enumerate()
            .zip(out.chunks_exact_mut(self.stride()))
        {
            let keys = self.cache(column.pass()).keys;
            let keys = keys.get(at..at.saturating_add(head_bytes)).unwrap_or(&[]);
            let len = column.position().saturating_add(1);
            let tiles = keys.chunks_exact(tile_bytes);
            let tiles = pairs(tiles, out.chunks_mut(LANES));
            for (tile, out) in tiles.take(len.div_ceil(LANES)) {
                let mut acc = isa.splat(0.0);
                for (d, row) in tile.chunks_exact(LANES * E::BYTES).enumerate() {
                    let q = self.q.get(place(first + d, n, c)).copied().unwrap_or(0.0);
                    acc = acc + isa.splat(q) * E::lanes(isa, row);
                }
                let scores = (acc * isa.splat(self.scale)).flush().array();
                out.iter_mut().zip(scores).for_each(|(o, s)| *o = s);
            }
        }
    }

    fn softmax(&self, out: &mut [f32]) {
        for (column, out) in self.columns.iter().zip(out.chunks_exact_mut(self.stride())) {
            let len = column.position().saturating_add(1);
            let denominator = match out.get_mut(..len) {
                Some(scores) => math::softmax_attention(scores),
                None => 1.0,
            };
            if let Some(last) = out.last_mut() {
                *last = denominator;
            }
        }
    }

    /// Lanes are dimensions; t ascending inside segments of 256 positions, segment sums added in order.
    #[inline(always)]
    fn mix<E: Element>(&self, head: usize, out: &mut [f32]) {
        let n = self.columns.len();
        let row_bytes = self.head_dim.saturating_mul(E::BYTES).max(1);
        let head_bytes = self.context.saturating_mul(row_bytes);
        let at = self.kv_head(head).saturating_mul(head_bytes);
        let scores_at = head.saturating_mul(n).saturating_mul(self.stride());
        let scores = self.scores.get(scores_at..).unwrap_or(&[]);
        for ((c, column), scores) in self
            .columns
            .iter()
            .enumerate()
            .zip(scores.chunks_exact(self.stride()))
        {
            let values = self.cache(column.pass()).values;
            let values = values.get(at..at.saturating_add(head_bytes)).unwrap_or(&[]);
            let len = column.position().saturating_add(1);
            let weights = scores.get(..len).unwrap_or(&[]);
            let inverse = 1.0 / scores.last().copied().unwrap_or(1.0);
            for d in (0..self.head_dim).step_by(LANES) {
                let mut total = [0.0f32; LANES];
                let segments = weights
                    .chunks(SEGMENT)
                    .zip(values.chunks(SEGMENT.saturating_mul(row_bytes)));
                for (weights, values) in segments {
                    let mut acc = [0.0f32; LANES];
                    for (e, row) in weights.iter().zip(values.chunks_exact(row_bytes)) {
                        let row = row.get(d.saturating_mul(E::BYTES)..).unwrap_or(&[]);
                        for (acc, v) in acc.iter_mut().zip(row.chunks_exact(E::BYTES)) {
                            *acc += *e * E::read(v);
                        }
                    }
                    for (total, acc) in total.iter_mut().zip(acc) {
                        *total += acc;
                    }
                }
                let at = c.saturating_mul(self.head_dim);
                let out = out
                    .get_mut(at..at.saturating_add(self.head_dim))
                    .unwrap_or(&mut []);
                for (out, total) in out.iter_mut().skip(d).zip(total) {
                    *out = flush(total * inverse);
                }
            }
        }
    }
}

/// Writes one position's keys or values into a layer's cache: the clamp, flush and rounding of
/// ARITHMETIC.md, *Attention*, where it is f16.
pub(crate) fn store(cache: &mut [u8], kv: KvType, index: usize, value: f32) {
    match kv {
        KvType::F32 => {
            let at = index.saturating_mul(4);
            if let Some(slot) = cache.get_mut(at..).and_then(|s| s.first_chunk_mut::<4>()) {
                *slot = value.to_le_bytes();
            }
        }
        KvType::F16 => {
            let at = index.saturating_mul(2);
            if let Some(slot) = cache.get_mut(at..).and_then(|s| s.first_chunk_mut::<2>()) {
                *slot = math::to_f16_cache(value).to_le_bytes();
            }
        }
    }
}

//! Causal attention of a sweep's columns over the KV caches, one head per row of work.
//!
//! Layouts of one layer's cache: K `[kv_head][pos / 16][d][16]`, so that lanes are positions and no
//! backend needs a horizontal sum; V `[kv_head][pos][d]`, so that lanes are dimensions.

use crate::error::Pass;
use crate::kernels::scalar::float::{Element, F16, F32};
use crate::kernels::{Backend, Kernels};
use crate::math::{self, flush};
use crate::pairs::pairs;

/// Positions in one tile of the K cache.
pub const LANES: usize = 16;

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
    /// `[head * head_dim][column]`; [`Step::Score`] only.
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
    /// Head `head`; `out` is `[column][context + 1]` for scores and softmax, `[head_dim][column]` for the mix.
    pub(crate) fn head(&self, head: usize, out: &mut [f32]) {
        match self.kernels.backend {
            Backend::Scalar => self.head_scalar(head, out),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Backend::Avx2(avx2) => avx2.head(self, head, out),
        }
    }

    #[inline(always)]
    pub(crate) fn head_scalar(&self, head: usize, out: &mut [f32]) {
        match (self.step, self.kv) {
            (Step::Score, KvType::F32) => self.score::<F32>(head, out),
            (Step::Score, KvType::F16) => self.score::<F16>(head, out),
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
    fn score<E: Element>(&self, head: usize, out: &mut [f32]) {
        let n = self.columns.len().max(1);
        let tile_bytes = self.head_dim.saturating_mul(LANES * E::BYTES).max(1);
        let head_bytes = self
            .context
            .saturating_mul(self.head_dim)
            .saturating_mul(E::BYTES);
        let at = self.kv_head(head).saturating_mul(head_bytes);
        let first = head.saturating_mul(self.head_dim).saturating_mul(n);
        let q = self.q.get(first..).unwrap_or(&[]);
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
                let mut acc = [0.0f32; LANES];
                let rows = tile.chunks_exact(LANES * E::BYTES);
                for (row, q) in rows.zip(q.iter().skip(c).step_by(n)) {
                    for (acc, k) in acc.iter_mut().zip(row.chunks_exact(E::BYTES)) {
                        *acc += *q * E::read(k);
                    }
                }
                for (out, acc) in out.iter_mut().zip(acc) {
                    *out = flush(acc * self.scale);
                }
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
        let n = self.columns.len().max(1);
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
                let rows = out.chunks_exact_mut(n).skip(d);
                for (out, total) in rows.zip(total) {
                    if let Some(out) = out.get_mut(c) {
                        *out = flush(total * inverse);
                    }
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

//! Causal attention of a sweep's columns over the KV caches.
//!
//! Layouts of one layer's cache: K `[kv_head][pos / 16][d][16]`, so that lanes are positions and no
//! backend needs a horizontal sum; V `[kv_head][pos][d]`, so that lanes are dimensions.
//!
//! A unit of work is a segment of 256 positions of one KV head, with all query heads that share it and all columns:
//! its keys and values are read once, and a long context is work for many threads even where heads are few. Scores
//! and sums lie `[segment][head][column][..]`, so a unit's are contiguous.
//!
//! * `groups`: which query heads and columns go through the keys and values of a unit together.
//! * `score`, `softmax`, `mix`: the three operations, and what joins their segments.

mod groups;
mod mix;
mod score;
mod softmax;

pub(crate) use mix::Gather;
pub(crate) use softmax::{Denominators, Maxima};

use crate::error::Pass;
use crate::kernels::Kernels;
use crate::kernels::float::{F16, F32};
use crate::kernels::isa::Isa;
use crate::kernels::log::{Operation, ran};
use crate::math;
use crate::pairs::pairs;
use crate::session::Column;

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
    /// `scores[t] = exp(scores[t] - max)`.
    Softmax,
    /// `out[d] = sum of scores[t] * v_t[d]` over the segment.
    Mix,
}

/// Heads and context of a model: how scores and sums lie.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) head_dim: usize,
    pub(crate) kv_heads: usize,
    /// Query heads per KV head.
    pub(crate) sharing: usize,
    /// Positions in a cache: a multiple of 16.
    pub(crate) context: usize,
}

impl Shape {
    /// Segments of the whole context.
    pub(crate) const fn segments(&self) -> usize {
        self.context.div_ceil(SEGMENT)
    }

    /// Scores of a head, a column and a segment: 256, or one for each position of a shorter context.
    pub(crate) const fn slots(&self) -> usize {
        if self.context < SEGMENT {
            self.context
        } else {
            SEGMENT
        }
    }

    /// Query heads.
    pub(crate) const fn heads(&self) -> usize {
        self.kv_heads.saturating_mul(self.sharing)
    }

    /// Scores of `columns` columns.
    pub(crate) const fn scores(&self, columns: usize) -> usize {
        self.stats(columns)
            .saturating_mul(self.segments())
            .saturating_mul(self.slots())
    }

    /// Maxima, or denominators, of `columns` columns.
    pub(crate) const fn stats(&self, columns: usize) -> usize {
        self.heads().saturating_mul(columns)
    }

    /// Sums of `columns` columns.
    pub(crate) const fn sums(&self, columns: usize) -> usize {
        self.stats(columns)
            .saturating_mul(self.segments())
            .saturating_mul(self.head_dim)
    }
}

/// A segment of a KV head.
#[derive(Clone, Copy)]
struct Unit {
    segment: usize,
    kv_head: usize,
}

/// Positions of segment `segment` that a column attends to: the first ones.
fn used(column: &Column, segment: usize) -> usize {
    let end = column.position().saturating_add(1);
    end.saturating_sub(segment.saturating_mul(SEGMENT))
        .min(SEGMENT)
}

/// One of the three operations.
#[derive(Clone, Copy)]
pub(crate) struct AttentionJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) step: Step,
    pub(crate) shape: Shape,
    pub(crate) columns: &'a [Column],
    /// `[head * head_dim / 16][column][16]`; [`Step::Score`] only.
    pub(crate) q: &'a [f32],
    /// `[segment][head][column][slots]`; [`Step::Mix`] only.
    pub(crate) scores: &'a [f32],
    /// `[head][column]`; [`Step::Softmax`] only.
    pub(crate) maxima: &'a [f32],
    /// Of the scaling and the routed pass.
    pub(crate) caches: [LayerCache<'a>; 2],
    pub(crate) kv: KvType,
    pub(crate) scale: f32,
}

impl AttentionJob<'_> {
    /// Unit `unit`, `[segment][kv_head]`; `out` is `[sharing][column][slots]` for scores and softmax,
    /// `[sharing][column][head_dim]` for the mix.
    #[inline(always)]
    pub(crate) fn unit<I: Isa>(&self, isa: I, unit: usize, out: &mut [f32]) {
        ran(match self.step {
            Step::Score => Operation::Score,
            Step::Softmax => Operation::Softmax,
            Step::Mix => Operation::Mix,
        });
        let kv_heads = self.shape.kv_heads.max(1);
        let unit = Unit {
            segment: unit / kv_heads,
            kv_head: unit % kv_heads,
        };
        match (self.step, self.kv) {
            (Step::Score, KvType::F32) => score::unit::<I, F32>(isa, self, unit, out),
            (Step::Score, KvType::F16) => score::unit::<I, F16>(isa, self, unit, out),
            (Step::Softmax, _) => softmax::unit(self, unit, out),
            (Step::Mix, KvType::F32) => mix::unit::<I, F32>(isa, self, unit, out),
            (Step::Mix, KvType::F16) => mix::unit::<I, F16>(isa, self, unit, out),
        }
    }

    fn cache(&self, pass: Pass) -> LayerCache<'_> {
        let [scaling, routed] = self.caches;
        match pass {
            Pass::Scaling => scaling,
            Pass::Routed => routed,
        }
    }

    /// What belongs to a unit of keys or of values, whose order within a segment is their own.
    fn part<'a>(&self, cache: &'a [u8], unit: Unit) -> &'a [u8] {
        let row = self.shape.head_dim.saturating_mul(self.kv.bytes());
        let first = unit.segment.saturating_mul(SEGMENT);
        let positions = self.shape.context.saturating_sub(first).min(SEGMENT);
        let head = unit.kv_head.saturating_mul(self.shape.context);
        let at = head.saturating_add(first).saturating_mul(row);
        let end = at.saturating_add(positions.saturating_mul(row));
        cache.get(at..end).unwrap_or(&[])
    }
}

/// Writes one position's keys or values into a layer's cache: those of head `h` from number `first(h)` on, `stride`
/// apart. `values` are the heads', one after the other, in pieces of any length. Where the cache is f16, with the clamp,
/// flush and rounding of ARITHMETIC.md, *Attention*.
pub(crate) fn store<'a>(
    cache: &mut [u8],
    kv: KvType,
    dim: usize,
    first: impl Fn(usize) -> usize,
    stride: usize,
    values: impl Iterator<Item = &'a [f32]>,
) {
    let dim = dim.max(1);
    let mut row = 0usize;
    for mut rest in values {
        while !rest.is_empty() {
            let (head, d) = (row / dim, row % dim);
            let (now, later) = rest.split_at(rest.len().min(dim - d));
            let at = first(head).saturating_add(d.saturating_mul(stride));
            match kv {
                KvType::F32 => write(cache, at, stride, now, f32::to_le_bytes),
                KvType::F16 => write(cache, at, stride, now, |x| {
                    math::to_f16_cache(x).to_le_bytes()
                }),
            }
            (row, rest) = (row + now.len(), later);
        }
    }
}

/// Writes values as numbers of `BYTES` bytes, `stride` apart from number `at` on.
#[inline(always)]
fn write<const BYTES: usize>(
    cache: &mut [u8],
    at: usize,
    stride: usize,
    values: &[f32],
    number: impl Fn(f32) -> [u8; BYTES],
) {
    let numbers = cache.as_chunks_mut::<BYTES>().0;
    let slots = numbers.get_mut(at..).unwrap_or(&mut []).iter_mut();
    let slots = slots.step_by(stride.max(1));
    match values.as_array::<LANES>() {
        // All at once, which vectorises.
        Some(values) => {
            let mut all = [[0; BYTES]; LANES];
            all.iter_mut()
                .zip(values)
                .for_each(|(n, v)| *n = number(*v));
            pairs(slots, all.into_iter()).for_each(|(s, n)| *s = n);
        }
        None => pairs(slots, values.iter()).for_each(|(s, v)| *s = number(*v)),
    }
}

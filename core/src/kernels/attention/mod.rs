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
//! * `store`: a position's keys and values on their way into the caches.
//! * `score`, `softmax`, `mix`: the three operations, and what joins their segments.

mod groups;
mod mix;
mod score;
mod softmax;
mod store;

pub(crate) use mix::{Gather, Mix};
pub(crate) use score::Score;
pub(crate) use softmax::{Denominators, Maxima, Softmax};
pub(crate) use store::Store;

use crate::error::Pass;
use crate::kernels::Kernels;
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
    /// Bytes from its keys, or values, to those of the unit that is computed next, wrapping; 0 if there is none.
    jump: usize,
}

/// What is asked for while a unit's values are read: those of the next one, four positions as four are read, one of each of its
/// quarters. That makes four streams of memory, of which a core keeps more under way than of one.
#[derive(Clone, Copy)]
struct Ahead {
    jump: usize,
    /// Positions of a quarter.
    quarter: usize,
    /// Bytes of a position.
    row: usize,
}

impl Ahead {
    /// How far ahead of position `position` those four lie for which it asks, in bytes, wrapping.
    #[inline(always)]
    fn of(self, position: usize) -> [usize; 4] {
        let first = (position / 4).min(self.quarter);
        [0, 1, 2, 3].map(|quarter| {
            let to = first + quarter * self.quarter;
            let positions = to.wrapping_sub(position);
            self.jump.wrapping_add(positions.wrapping_mul(self.row))
        })
    }
}

/// Positions of segment `segment` that a column attends to: the first ones.
fn used(column: &Column, segment: usize) -> usize {
    let end = column.position().saturating_add(1);
    end.saturating_sub(segment.saturating_mul(SEGMENT))
        .min(SEGMENT)
}

/// What the three operations read.
#[derive(Clone, Copy)]
pub(crate) struct AttentionJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) shape: Shape,
    pub(crate) columns: &'a [Column],
    /// `[head * head_dim / 16][column][16]`; [`Score`] only.
    pub(crate) q: &'a [f32],
    /// `[segment][head][column][slots]`; [`Mix`] only.
    pub(crate) scores: &'a [f32],
    /// `[head][column]`; [`Softmax`] only.
    pub(crate) maxima: &'a [f32],
    /// Of the scaling and the routed pass.
    pub(crate) caches: [LayerCache<'a>; 2],
    pub(crate) kv: KvType,
    pub(crate) scale: f32,
}

impl AttentionJob<'_> {
    /// Units `first..`, `[segment][kv_head]`, and `floats` of `out` for each.
    fn units<'o>(
        &self,
        first: usize,
        floats: usize,
        out: &'o mut [f32],
    ) -> impl Iterator<Item = (Unit, &'o mut [f32])> {
        let outs = out.chunks_exact_mut(floats.max(1));
        let (kv_heads, last) = (self.shape.kv_heads.max(1), outs.len().saturating_sub(1));
        outs.enumerate().map(move |(i, out)| {
            let mut unit = Unit {
                segment: (first + i) / kv_heads,
                kv_head: (first + i) % kv_heads,
                jump: 0,
            };
            if i < last {
                unit.jump = self.jump_after(unit);
            }
            (unit, out)
        })
    }

    fn cache(&self, pass: Pass) -> LayerCache<'_> {
        let [scaling, routed] = self.caches;
        match pass {
            Pass::Scaling => scaling,
            Pass::Routed => routed,
        }
    }

    /// [`Unit::jump`] where another one follows.
    fn jump_after(&self, unit: Unit) -> usize {
        let row = self.shape.head_dim.saturating_mul(self.kv.bytes());
        let head = self.shape.context.saturating_mul(row);
        if unit.kv_head + 1 < self.shape.kv_heads {
            return head;
        }
        let heads = head.saturating_mul(self.shape.kv_heads.saturating_sub(1));
        SEGMENT.saturating_mul(row).wrapping_sub(heads)
    }

    /// What to ask for while `unit` is read.
    fn ahead(&self, unit: Unit) -> Ahead {
        let next = unit.segment + usize::from(unit.kv_head + 1 == self.shape.kv_heads);
        let used = self.columns.iter().map(|c| used(c, next)).max();
        Ahead {
            jump: unit.jump,
            quarter: match unit.jump {
                0 => 0,
                _ => used.unwrap_or(0) / 4,
            },
            row: self.shape.head_dim.saturating_mul(self.kv.bytes()),
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

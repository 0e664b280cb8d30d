//! Rotary embedding: pairs (i, i + dim/2), each product rounded, results flushed.

use crate::kernels::Task;
use crate::kernels::elementwise::place;
use crate::kernels::float::{Element, F32};
use crate::kernels::isa::{Isa, LANES, Lanes};
use crate::kernels::log::{Operation, ran};
use crate::math::{flush, sincos};
use crate::session::Column;

/// Rotates heads in place; `None` if the values are too few.
pub(crate) struct Rope<'a> {
    pub(crate) columns: &'a [Column],
    /// f32, little-endian: one for each pair.
    pub(crate) freqs: &'a [u8],
    pub(crate) head_dim: usize,
    /// First row, a multiple of 16, and heads of q and of k.
    pub(crate) parts: [(usize, usize); 2],
    /// `[row / 16][column][16]`
    pub(crate) values: &'a mut [f32],
}

impl Task for Rope<'_> {
    type Output = Option<()>;

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Option<()> {
        ran::<I>(Operation::Rope);
        if self.head_dim.is_multiple_of(2 * LANES) {
            self.by_lanes(isa)
        } else {
            self.by_pairs()
        }
    }
}

impl Rope<'_> {
    /// 16 pairs at once, where both halves of a head are whole vectors.
    #[inline(always)]
    fn by_lanes<I: Isa>(self, isa: I) -> Option<()> {
        let n = self.columns.len();
        let to_hi = (self.head_dim / 2 / LANES).saturating_mul(n);
        let (vectors, _) = self.values.as_chunks_mut::<LANES>();
        for (block, freqs) in self.freqs.as_chunks::<{ 4 * LANES }>().0.iter().enumerate() {
            let freqs = F32::lanes(isa, freqs);
            for (c, column) in self.columns.iter().enumerate() {
                let angles = (isa.splat(column.pos as f32) * freqs).array();
                let (mut sin, mut cos) = ([0.0; LANES], [0.0; LANES]);
                for ((sin, cos), angle) in sin.iter_mut().zip(&mut cos).zip(angles) {
                    (*sin, *cos) = sincos(angle);
                }
                let (sin, cos) = (isa.load(&sin), isa.load(&cos));
                let minus_sin = sin * isa.splat(-1.0);
                for (first, heads) in self.parts {
                    for head in 0..heads {
                        let row = first.saturating_add(head.saturating_mul(self.head_dim));
                        let lo_at = (row / LANES + block).saturating_mul(n) + c;
                        let hi_at = lo_at.saturating_add(to_hi);
                        let lo = isa.load(vectors.get(lo_at)?);
                        let hi = isa.load(vectors.get(hi_at)?);
                        // x - y is x + (-y), bit for bit.
                        *vectors.get_mut(lo_at)? = (lo * cos + hi * minus_sin).flush().array();
                        *vectors.get_mut(hi_at)? = (hi * cos + lo * sin).flush().array();
                    }
                }
            }
        }
        Some(())
    }

    #[inline(always)]
    fn by_pairs(self) -> Option<()> {
        let (n, half) = (self.columns.len(), self.head_dim / 2);
        for (i, f) in self.freqs.as_chunks::<4>().0.iter().enumerate() {
            let f = f32::from_le_bytes(*f);
            for (c, column) in self.columns.iter().enumerate() {
                let (sin, cos) = sincos(column.pos as f32 * f);
                for (first, heads) in self.parts {
                    for head in 0..heads {
                        let row = first.saturating_add(head.saturating_mul(self.head_dim)) + i;
                        let (lo_at, hi_at) = (place(row, n, c), place(row + half, n, c));
                        let (lo, hi) = (*self.values.get(lo_at)?, *self.values.get(hi_at)?);
                        *self.values.get_mut(lo_at)? = flush(lo * cos - hi * sin);
                        *self.values.get_mut(hi_at)? = flush(hi * cos + lo * sin);
                    }
                }
            }
        }
        Some(())
    }
}

//! A: the r-vectors of the selected experts.

use super::LoraTerm;
use crate::blob::{BPanel, Lora};
use crate::kernels::float::{Element, F16};
use crate::kernels::isa::{Acc, Isa, LANES, Lanes};
use crate::kernels::layout::{Dtype, round_up};
use crate::kernels::linear::{Block, gemv};
use crate::kernels::panel::Input;
use crate::kernels::work::Operator;
use crate::kernels::{A_UNIT, BLOCK, Kernels, SMALL};
use crate::math::pow2;

/// The r-vectors of the selected experts: `u[j] = flush(flush(A[j] x) * h)`, times B's scale of `j`.
#[derive(Clone, Copy)]
pub(crate) struct LoraAJob<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) input: Input<'a>,
    pub(crate) term: LoraTerm<'a>,
    /// What is read after the panels, if that is known.
    pub(crate) next: &'a [u8],
}

impl LoraAJob<'_> {
    /// Rows `first..` of a selected expert, at most 16: `out` is `[unit of 4 rows][column][4]`. `ahead` is that of
    /// [`Isa::q8_range`].
    #[cfg_attr(not(pleach_small), inline(always))]
    #[cfg_attr(pleach_small, inline(never))]
    fn rows<'b, I: Isa>(
        &'b self,
        isa: I,
        (index, lora, ahead): (usize, &Lora<'_>, usize),
        first: usize,
        out: &mut [[f32; A_UNIT]],
        block: &mut Block<'b>,
    ) {
        let n = self.term.columns.max(1);
        let rows = out.len() / n * A_UNIT;
        let gates = self.term.gates(index, 0, n);
        let mut taking = gates.iter().enumerate().filter(|(_, h)| **h != 0.0);
        loop {
            let columns = taking.by_ref().map(|(column, _)| column);
            block.take(&self.input, lora.a.dtype, columns);
            if block.is_empty() {
                return;
            }
            let mut acc: Acc = [[0.0; LANES]; BLOCK];
            gemv(isa, &lora.a, (first, rows), block, ahead, &mut acc);
            for (column, a) in block.columns().iter().zip(&mut acc) {
                let h = gates.get(*column).copied().unwrap_or(0.0);
                times_scales(isa, &lora.b, first, h, a);
                let out = out.iter_mut().skip(*column).step_by(n);
                out.zip(a.as_chunks().0).for_each(|(out, u)| *out = *u);
            }
        }
    }
}

impl Operator for LoraAJob<'_> {
    /// `out` is `[unit of 4 rows][column][4]`.
    #[inline(always)]
    fn compute<I: Isa>(&self, isa: I, first: usize, _: usize, out: &mut [f32]) {
        let n = self.term.columns.max(1);
        let mut block = Block::EMPTY;
        let (mut unit, mut out) = (first, out.as_chunks_mut::<A_UNIT>().0);
        let mut next = (0, None);
        while !out.is_empty() {
            let row = unit.saturating_mul(A_UNIT);
            let selected = self.term.selected;
            let after = selected.partition_point(|s| s.row as usize <= row);
            let Some((index, s)) = after
                .checked_sub(1)
                .and_then(|i| Some((i, selected.get(i)?)))
            else {
                return;
            };
            // At most 16 rows, of one expert.
            let first = row.saturating_sub(s.row as usize);
            let left = round_up(s.rank as usize, A_UNIT).saturating_sub(first);
            let units = left.min(LANES - first % LANES) / A_UNIT;
            let here = units.max(1).saturating_mul(n).min(out.len());
            let Some((now, rest)) = out.split_at_mut_checked(here) else {
                return;
            };
            now.fill([0.0; A_UNIT]);
            let lora = match next {
                (i, lora @ Some(_)) if i == index => lora,
                _ => self.term.lora(index),
            };
            if let Some(lora) = &lora {
                // No firmware's kernel asks for memory ahead of time.
                let ahead = if SMALL {
                    0
                } else {
                    next = (index + 1, self.term.lora(index + 1));
                    let behind = next.1.map_or(self.next, |next| next.a.data);
                    distance(lora.a.data, behind)
                };
                self.rows(isa, (index, lora, ahead), first, now, &mut block);
            }
            (unit, out) = (unit + units.max(1), rest);
        }
    }
}

/// `a = flush(flush(a) * h)`, times B's scales of 16 columns from `first` on; those beyond the last one are not its own.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
fn times_scales<I: Isa>(isa: I, b: &BPanel<'_>, first: usize, h: f32, a: &mut [f32; LANES]) {
    let u = (isa.load(a).flush() * isa.splat(h)).flush();
    let scales = match b.dtype {
        // Tiles follow the scales, so that there are 16 halves.
        Dtype::Q8 => {
            let halves = b.data.get(first.saturating_mul(F16::BYTES)..);
            F16::lanes(isa, halves.unwrap_or(&[])) * isa.splat(pow2(b.scale_exp))
        }
        Dtype::F16 | Dtype::F32 => isa.splat(1.0),
    };
    *a = (u * scales).array();
}

/// Bytes from one slice to another, for prefetches; 0 if there is no other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    if to.is_empty() {
        return 0;
    }
    to.as_ptr().addr().wrapping_sub(from.as_ptr().addr())
}

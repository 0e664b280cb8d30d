//! The deltas of the selected experts: their r-vectors (`a`), and what B makes of them (`b`). Here: which experts, and by what
//! gates.
//!
//! Only the panels of experts that some column selected are read, and each once a sweep: the columns that selected
//! an expert are gathered into blocks of their own.

mod a;
mod b;

pub(crate) use a::LoraAJob;
pub(crate) use b::{add_deltas, prefetch};

use crate::blob::{BPanel, Lora, Model, Site};
use crate::error::Error;
use crate::kernels::layout::round_up;
use crate::kernels::{A_UNIT, HELD_PANELS};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An expert that at least one column selected at one site of an operation.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Choice {
    /// Which of the operation's matrices the site belongs to.
    pub(crate) part: u16,
    pub(crate) class: u16,
    pub(crate) rank: u16,
    pub(crate) reserved: u16,
    /// First row in the operation's r-vectors.
    pub(crate) row: u32,
}

/// Where the panels of an expert come from.
#[derive(Clone, Copy)]
pub(crate) enum LoraSource<'a> {
    /// A blob: the site of each matrix of the operation.
    Model(&'a Model<'a>, &'a [Option<Site>]),
    /// Borrowed adapters by class index, of one matrix.
    Adapters(&'a [Option<Lora<'a>>]),
}

impl<'a> LoraSource<'a> {
    /// Matrices that may have experts.
    fn parts(&self) -> usize {
        match self {
            LoraSource::Model(_, sites) => sites.len(),
            LoraSource::Adapters(_) => 1,
        }
    }

    /// The panels of `class` at matrix `part`.
    pub(crate) fn get(&self, part: usize, class: usize) -> Option<Lora<'a>> {
        match self {
            LoraSource::Model(model, sites) => {
                let site = sites.get(part)?.as_ref()?;
                model.expert(class)?.lora(site)
            }
            LoraSource::Adapters(list) => *list.get(class)?,
        }
    }

    /// Of these, B alone.
    fn b(&self, part: usize, class: usize) -> Option<BPanel<'a>> {
        match self {
            LoraSource::Model(model, sites) => {
                let site = sites.get(part)?.as_ref()?;
                model.expert(class)?.b(site)
            }
            LoraSource::Adapters(list) => Some(list.get(class)?.as_ref()?.b),
        }
    }

    /// Rank and scale of `class` at matrix `part`, if it targets the site.
    pub(crate) fn rank_scale(&self, part: usize, class: usize) -> Option<(usize, f32)> {
        match self {
            LoraSource::Model(model, sites) => {
                let site = sites.get(part).copied().flatten()?;
                let record = model.expert(class)?.record(site.number)?;
                Some((record.rank as usize, record.scale))
            }
            LoraSource::Adapters(list) => {
                let lora = list.get(class).copied().flatten()?;
                Some((lora.b.rank(), lora.scale))
            }
        }
    }
}

/// Lists the experts of up to three matrices that at least one of `n` columns selected, ascending by
/// matrix, then class, with their h (by `h(part, class, column, scale)`, where `takes(part, class, column)`). Returns their
/// number and the rows of their r-vectors.
pub(crate) fn choose(
    source: &LoraSource<'_>,
    experts: usize,
    n: usize,
    takes: impl Fn(usize, usize, usize) -> bool,
    h: impl Fn(usize, usize, usize, f32) -> f32,
    choices: &mut [Choice],
    gates: &mut [f32],
) -> Result<(u32, u32), Error> {
    let mut slots = choices.iter_mut().zip(gates.chunks_exact_mut(n.max(1)));
    let mut next = slots.next();
    let (mut count, mut row) = (0, 0);
    for part in 0..source.parts() {
        for class in 0..experts {
            // Asked first: the records of all experts lie apart, and each is a wait for memory.
            if !(0..n).any(|column| takes(part, class, column)) {
                continue;
            }
            let Some((rank, scale)) = source.rank_scale(part, class) else {
                continue;
            };
            let Some((choice, gates)) = next.as_mut() else {
                return Err(Error::Corrupt);
            };
            let mut any = false;
            for (column, gate) in gates.iter_mut().enumerate() {
                *gate = h(part, class, column, scale);
                any |= *gate != 0.0;
            }
            if any {
                **choice = Choice {
                    part: part as u16,
                    class: class as u16,
                    rank: rank as u16,
                    reserved: 0,
                    row,
                };
                row += round_up(rank, A_UNIT) as u32;
                count += 1;
                next = slots.next();
            }
        }
    }
    Ok((count, row))
}

/// The gates of one operation.
#[derive(Clone, Copy)]
pub(crate) struct LoraTerm<'a> {
    pub(crate) source: LoraSource<'a>,
    /// Ascending by part, then class.
    pub(crate) selected: &'a [Choice],
    /// `[selected][column]`: h = (scaling * scale) * global weight; a column takes part iff it is not 0.
    pub(crate) h: &'a [f32],
    pub(crate) columns: usize,
    /// B of the first of `selected`, by [`held`].
    pub(crate) held: &'a [Option<BPanel<'a>>],
}

/// Looks up B of the first selected experts, once for all units of an operation.
pub(crate) fn held<'a>(
    source: &LoraSource<'a>,
    selected: &[Choice],
) -> [Option<BPanel<'a>>; HELD_PANELS] {
    let mut held = [None; HELD_PANELS];
    for (held, s) in held.iter_mut().zip(selected) {
        *held = source.b(s.part as usize, s.class as usize);
    }
    held
}

impl<'a> LoraTerm<'a> {
    /// The panels of a selected expert.
    fn lora(&self, index: usize) -> Option<Lora<'a>> {
        let s = self.selected.get(index)?;
        self.source.get(s.part as usize, s.class as usize)
    }

    /// Its B alone.
    #[inline(always)]
    fn b(&self, index: usize) -> Option<BPanel<'a>> {
        if let Some(held) = self.held.get(index) {
            return *held;
        }
        let s = self.selected.get(index)?;
        self.source.b(s.part as usize, s.class as usize)
    }

    fn gates(&self, selected: usize, first: usize, len: usize) -> &'a [f32] {
        let at = selected.saturating_mul(self.columns).saturating_add(first);
        self.h.get(at..at.saturating_add(len)).unwrap_or(&[])
    }
}

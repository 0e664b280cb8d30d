//! Which experts the columns of a sweep select at a group of matrices, and how strongly.

use crate::blob::{Model, Site};
use crate::error::Error;
use crate::kernels::A_UNIT;
use crate::kernels::layout::round_up;
use crate::kernels::linear::{Choice, LoraSource};
use crate::math::flush;
use crate::session::arena::scalings_row;
use crate::session::column::{Column, Gates};

/// What gates read.
pub(crate) struct GateInputs<'a> {
    pub(crate) columns: &'a [Column],
    /// Rows of scalings, see `State::rows`.
    pub(crate) rows: &'a [f32],
    /// Floats in a row.
    pub(crate) width: usize,
    pub(crate) layerwise: bool,
    pub(crate) experts: usize,
    pub(crate) global: f32,
}

impl GateInputs<'_> {
    /// h = (s * scale) * global weight, flushed; 0 where the expert takes no part.
    fn h(&self, column: &Column, site: usize, class: usize, scale: f32) -> f32 {
        let (s, global) = match column.gates() {
            Gates::Off => return 0.0,
            Gates::Uniform { value } => (value, true),
            Gates::Row { row, global } => {
                let at = if self.layerwise {
                    site.saturating_mul(self.experts).saturating_add(class)
                } else {
                    class
                };
                let s = scalings_row(self.rows, self.width, row as usize, true)
                    .and_then(|r| r.get(at));
                (s.copied().unwrap_or(0.0), global)
            }
        };
        if s == 0.0 {
            return 0.0;
        }
        let h = s * scale;
        flush(if global { h * self.global } else { h })
    }

    /// Lists the experts that at least one column selected at up to three sites, ascending by matrix,
    /// then class. Returns their number and the rows of their r-vectors.
    pub(crate) fn choose(
        &self,
        model: &Model<'_>,
        sites: [Option<Site>; 3],
        choices: &mut [Choice],
        gates: &mut [f32],
    ) -> Result<(u32, u32), Error> {
        let n = self.columns.len().max(1);
        let source = LoraSource::Model(model, sites);
        let mut slots = choices.iter_mut().zip(gates.chunks_exact_mut(n));
        let mut next = slots.next();
        let (mut count, mut row) = (0, 0);
        for (part, site) in sites.iter().enumerate() {
            let Some(site) = site else { continue };
            for class in 0..self.experts {
                let Some((rank, scale)) = source.rank_scale(part, class) else {
                    continue;
                };
                let Some((choice, gates)) = next.as_mut() else {
                    return Err(Error::Corrupt);
                };
                let mut any = false;
                for (h, column) in gates.iter_mut().zip(self.columns) {
                    *h = self.h(column, site.number, class, scale);
                    any |= *h != 0.0;
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
}

//! Which experts the columns of a sweep select at a group of matrices, and how strongly.

use crate::blob::{Model, Site};
use crate::error::Error;
use crate::kernels::lora::{Choice, LoraSource, choose};
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
    /// The scaling of an expert, and whether the global weight applies to it; 0 where the expert takes no part.
    fn scaling(&self, column: &Column, site: usize, class: usize) -> (f32, bool) {
        match column.gates() {
            Gates::Off => (0.0, false),
            Gates::Uniform { value } => (value, true),
            Gates::Row { row, global } => {
                let at = if self.layerwise {
                    site.saturating_mul(self.experts).saturating_add(class)
                } else {
                    class
                };
                let s =
                    scalings_row(self.rows, self.width, row as usize, true).and_then(|r| r.get(at));
                (s.copied().unwrap_or(0.0), global)
            }
        }
    }

    /// h = (s * scale) * global weight, flushed; 0 where the expert takes no part.
    fn h(&self, (s, global): (f32, bool), scale: f32) -> f32 {
        if s == 0.0 {
            return 0.0;
        }
        let h = s * scale;
        flush(if global { h * self.global } else { h })
    }

    /// The experts that the columns selected at these sites; see [`choose`].
    pub(crate) fn choose(
        &self,
        model: &Model<'_>,
        sites: &[Option<Site>],
        choices: &mut [Choice],
        gates: &mut [f32],
    ) -> Result<(u32, u32), Error> {
        if self.columns.iter().all(|c| c.gates() == Gates::Off) {
            return Ok((0, 0));
        }
        let source = LoraSource::Model(model, sites);
        let scaling = |part: usize, class: usize, column: usize| {
            let site = sites.get(part).copied().flatten();
            match (site, self.columns.get(column)) {
                (Some(site), Some(column)) => self.scaling(column, site.number, class),
                _ => (0.0, false),
            }
        };
        choose(
            &source,
            self.experts,
            self.columns.len(),
            |part, class, column| scaling(part, class, column).0 != 0.0,
            |part, class, column, scale| self.h(scaling(part, class, column), scale),
            choices,
            gates,
        )
    }
}

//! The operations that are not split into rows: each is done whole.

use crate::blob::format::LayerRecord;
use crate::blob::{Model, Tensor};
use crate::error::{Error, Pass};
use crate::kernels::attention::{Gather, LANES, Store};
use crate::kernels::elementwise::{self, Act, Norm, Quantise, column_mut, place};
use crate::kernels::layout::{groups, round_up};
use crate::kernels::lora::{LoraSource, LoraTerm};
use crate::kernels::panel::{Input, panel_stride};
use crate::kernels::rope::Rope;
use crate::kernels::{UNIT, embedding};
use crate::math::{self, Sum16, flush};
use crate::pairs::pairs;
use crate::session::arena::{State, shape};
use crate::session::column::{Column, Sweep};
use crate::session::gates::GateInputs;
use crate::session::options::Counters;
use crate::session::sweep::{Machine, cache_ranges, scores_and_stats};

/// An activation of column `column` is not finite: an error, unless the column is a guess, which is
/// dropped.
fn not_finite(column: &mut Column) -> Result<(), Error> {
    if column.has(Column::GUESS) {
        column.kill();
        return Ok(());
    }
    Err(Error::NonFinite {
        pass: column.pass(),
        position: column.pos,
    })
}

/// The values of a vector tensor, f32 little-endian.
pub(crate) fn vector<'b>(t: &Tensor<'b>) -> impl Iterator<Item = f32> + 'b {
    t.data
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
}

impl<'m> Machine<'m> {
    pub(crate) fn gate_inputs<'a>(&self, columns: &'a [Column], rows: &'a [f32]) -> GateInputs<'a> {
        GateInputs {
            columns,
            rows,
            width: self.model.scalings_width(),
            layerwise: self.xlora.layerwise_scalings,
            experts: self.model.n_experts(),
            global: self.xlora.global_scaling_weight,
        }
    }

    /// Token rows, with the deltas of an embedding site: `(row + d) * embed_scale`, flushed.
    pub(crate) fn embed(
        &self,
        state: &mut State<'_>,
        sweep: &mut Sweep,
        counters: &mut Counters,
    ) -> Result<u64, Error> {
        let n = sweep.active as usize;
        let config = &self.model.config;
        let hidden = config.hidden as usize;
        let table = self.model.embed().ok_or(Error::Corrupt)?;
        let columns = state.columns.get(..n).ok_or(Error::Corrupt)?;
        for (c, column) in columns.iter().enumerate() {
            let mut slots = column_mut(state.residual, n, c).flatten();
            let row = column.input as usize;
            if column.has(Column::EMBEDDING) {
                let at = row.saturating_mul(hidden);
                let from = state
                    .embeddings
                    .get(at..at.saturating_add(hidden))
                    .ok_or(Error::Corrupt)?;
                slots.zip(from).for_each(|(x, v)| *x = *v);
            } else {
                embedding::table_row(&table, row, &mut slots)?;
                counters.weight_bytes += table.row_bytes() as u64;
            }
        }
        let mut macs = (hidden * n) as u64;
        if let Some(site) = self.model.embed_site().and_then(|s| self.model.site(s)) {
            let sites = &[Some(site)];
            let (count, _) = self.gate_inputs(columns, state.rows).choose(
                self.model,
                sites,
                state.choices,
                state.gates,
            )?;
            let term = LoraTerm {
                source: LoraSource::Model(self.model, sites),
                selected: state.choices.get(..count as usize).ok_or(Error::Corrupt)?,
                h: state.gates,
                columns: n,
                held: &[],
            };
            let token = |c: usize| {
                let column = columns.get(c)?;
                (!column.has(Column::EMBEDDING)).then_some(column.input as usize)
            };
            let cost = embedding::ranks(&term, token, state.ranks)?;
            counters.weight_bytes += cost.bytes();
            macs += cost.macs;
            let floats = round_up(hidden, UNIT).saturating_mul(n);
            self.kernels.run(embedding::AddDeltas {
                term,
                ranks: state.ranks,
                out: state.residual.get_mut(..floats).ok_or(Error::Corrupt)?,
            });
        }
        let scale = config.embed_scale;
        for (c, column) in columns.iter().enumerate() {
            let scale = if column.has(Column::EMBEDDING) {
                1.0
            } else {
                scale
            };
            let values = column_mut(state.residual, n, c).flatten().take(hidden);
            values.for_each(|x| *x = flush(*x * scale));
        }
        counters.macs += macs;
        Ok(macs)
    }

    /// RMSNorm of the residual stream into the next input: `(x * inv) * w`, flushed.
    pub(crate) fn norm(
        &self,
        state: &mut State<'_>,
        sweep: &Sweep,
        weight: &Tensor<'_>,
        counters: &mut Counters,
    ) -> Result<u64, Error> {
        let n = sweep.active as usize;
        let hidden = self.model.config.hidden as usize;
        let columns = state.columns.get_mut(..n).ok_or(Error::Corrupt)?;
        let inputs = state.input.chunks_exact_mut(hidden.max(1));
        for ((c, column), out) in columns.iter_mut().enumerate().zip(inputs) {
            let finite = self.kernels.run(Norm {
                x: elementwise::column(state.residual, n, c),
                weight: weight.data,
                eps: self.model.config.rms_eps,
                out: &mut *out,
            });
            if !finite {
                not_finite(column)?;
            }
            if column.has(Column::DEAD) {
                out.fill(0.0);
            }
        }
        counters.weight_bytes += weight.bytes() as u64;
        Ok((hidden * n * 2) as u64)
    }

    /// RMSNorm of each head of q and k, in place: `(x * inv) * w`, flushed.
    pub(crate) fn qk_norm(
        &self,
        state: &mut State<'_>,
        sweep: &Sweep,
        layer: &LayerRecord,
        counters: &mut Counters,
    ) -> Result<u64, Error> {
        let n = sweep.active as usize;
        let c = &self.model.config;
        let dim = c.head_dim as usize;
        let k_at = round_up((c.heads * c.head_dim) as usize, UNIT);
        let columns = state.columns.get_mut(..n).ok_or(Error::Corrupt)?;
        for (first, heads, key) in [(0, c.heads, false), (k_at, c.kv_heads, true)] {
            let weight = self.model.head_norm(layer, key).ok_or(Error::Corrupt)?;
            for head in 0..heads as usize {
                for (col, column) in columns.iter_mut().enumerate() {
                    let place = |i: usize| place(first + head * dim + i, n, col);
                    self.norm_head(state.output, place, column, &weight)?;
                }
            }
            counters.weight_bytes += weight.bytes() as u64;
        }
        Ok((dim * n * 2 * (c.heads + c.kv_heads) as usize) as u64)
    }

    /// One head of one column; `place(i)` is where value `i` lies.
    fn norm_head(
        &self,
        values: &mut [f32],
        place: impl Fn(usize) -> usize,
        column: &mut Column,
        weight: &Tensor<'_>,
    ) -> Result<(), Error> {
        let dim = weight.cols();
        let mut squares = Sum16::new();
        for i in 0..dim {
            let x = flush(*values.get(place(i)).ok_or(Error::Corrupt)?);
            squares.add(i, x * x);
        }
        let sum = squares.finish();
        if !math::is_finite(sum) {
            not_finite(column)?;
        }
        let dead = column.has(Column::DEAD);
        let inv = 1.0 / math::sqrt(sum / dim as f32 + self.model.config.rms_eps);
        for (i, w) in (0..dim).zip(vector(weight)) {
            let x = values.get_mut(place(i)).ok_or(Error::Corrupt)?;
            *x = if dead {
                0.0
            } else {
                flush((flush(*x) * inv) * w)
            };
        }
        Ok(())
    }

    /// Rotates q and k.
    pub(crate) fn rope(&self, state: &mut State<'_>, sweep: &Sweep) -> Result<u64, Error> {
        let n = sweep.active as usize;
        let c = &self.model.config;
        let k_at = round_up((c.heads * c.head_dim) as usize, UNIT);
        let rotated = self.kernels.run(Rope {
            columns: state.columns.get(..n).ok_or(Error::Corrupt)?,
            freqs: self.model.inv_freq().ok_or(Error::Corrupt)?,
            head_dim: c.head_dim as usize,
            parts: [(0, c.heads as usize), (k_at, c.kv_heads as usize)],
            values: state.output,
        });
        rotated.ok_or(Error::Corrupt)?;
        let half = c.rope_dim as usize / 2;
        Ok((half * n * 4 * (c.heads + c.kv_heads) as usize) as u64)
    }

    /// Writes k and v into the cache of each column's pass.
    pub(crate) fn store(
        &self,
        state: &mut State<'_>,
        sweep: &Sweep,
        layer: usize,
    ) -> Result<u64, Error> {
        let n = sweep.active as usize;
        let c = &self.model.config;
        let (dim, heads) = (c.head_dim as usize, c.kv_heads as usize);
        let context = shape(self.model, self.options).context;
        let k_at = round_up((c.heads * c.head_dim) as usize, UNIT);
        let v_at = k_at + round_up(heads * dim, UNIT);
        let from = |at: usize| state.output.get(at * n..).ok_or(Error::Corrupt);
        let (k, v) = (from(k_at)?, from(v_at)?);
        let columns = state.columns.get(..n).ok_or(Error::Corrupt)?;
        for (i, column) in columns.iter().enumerate() {
            let pos = column.position();
            let [keys, values] = cache_ranges(self.model, self.options, layer, column.pass());
            let tile = pos / LANES * dim * LANES;
            let both = [
                (keys, tile + pos % LANES, LANES, k),
                (values, pos * dim, 1, v),
            ];
            for (range, first, stride, outputs) in both {
                self.kernels.run(Store {
                    cache: state.kv.get_mut(range).ok_or(Error::Corrupt)?,
                    kv: self.options.kv,
                    head_dim: dim,
                    per_head: context * dim,
                    first,
                    stride,
                    outputs,
                    columns: n,
                    column: i,
                    rows: heads * dim,
                });
            }
        }
        Ok((2 * heads * dim * n) as u64)
    }

    /// Segment sums of attention → input `[n][head][head_dim]`.
    pub(crate) fn gather(&self, state: &mut State<'_>, sweep: &Sweep) -> Result<u64, Error> {
        let n = sweep.active as usize;
        let shape = shape(self.model, self.options);
        let (_, inverses) = scores_and_stats(&shape, n, state.scores)?;
        self.kernels.run(Gather {
            shape,
            columns: state.columns.get(..n).ok_or(Error::Corrupt)?,
            sums: state.output,
            inverses,
            input: state.input,
        });
        Ok((shape.stats(n) * shape.head_dim) as u64)
    }

    /// SwiGLU into the input of the down projection.
    pub(crate) fn act(&self, state: &mut State<'_>, sweep: &Sweep) -> u64 {
        let n = (sweep.active as usize).max(1);
        let width = self.model.config.intermediate as usize;
        let up_at = round_up(width, UNIT) * n;
        let up = state.output.get(up_at..).unwrap_or(&[]);
        let inputs = state.input.chunks_exact_mut(width.max(1)).take(n);
        for (c, input) in inputs.enumerate() {
            self.kernels.run(Act {
                gate: elementwise::column(state.output, n, c),
                up: elementwise::column(up, n, c),
                out: input,
            });
        }
        (width * n * 4) as u64
    }

    /// Quantises the input's columns, or only the picked ones.
    pub(crate) fn quantise(
        &self,
        state: &mut State<'_>,
        n: usize,
        k: usize,
        picked: Option<usize>,
    ) -> Result<(), Error> {
        let group = self.model.config.group as usize;
        let count = groups(k, group).max(1);
        let expand = self.expands();
        let values = pairs(
            state.input.chunks_exact(k.max(1)),
            state.panel.chunks_exact_mut(panel_stride(k, expand).max(1)),
        );
        let scales = pairs(
            state.panel_scales.chunks_exact_mut(count),
            state.panel_sums.chunks_exact_mut(count),
        );
        let parts = values.zip(scales).zip(state.columns.iter_mut()).take(n);
        for (c, (((x, q), (sx, sum)), column)) in parts.enumerate() {
            let wanted = picked.is_none_or(|p| {
                state
                    .picks
                    .get(..p)
                    .is_some_and(|list| list.contains(&(c as u16)))
            });
            if !wanted {
                continue;
            }
            let finite = self.kernels.run(Quantise {
                x,
                group,
                q: &mut *q,
                expand,
                sx: &mut *sx,
                sum: &mut *sum,
            });
            if !finite {
                not_finite(column)?;
                q.fill(0);
                sx.fill(0.0);
                sum.fill(0);
            }
        }
        Ok(())
    }

    /// Whether panels are expanded: on a CPU whose kernels want that, in a model with tensors for them.
    pub(crate) fn expands(&self) -> bool {
        self.model.has_m4 && self.kernels.expands()
    }

    /// Lists the columns with `flag`; returns their number.
    pub(crate) fn pick(&self, state: &mut State<'_>, n: usize, flag: u16) -> u16 {
        let mut count = 0;
        let mut slots = state.picks.iter_mut();
        for (c, column) in state.columns.iter().enumerate().take(n) {
            if column.has(flag)
                && let Some(slot) = slots.next()
            {
                *slot = c as u16;
                count += 1;
            }
        }
        count
    }

    /// Hidden states that are not finite never reach the classifier, whose ReLU would hide them.
    pub(crate) fn check_classifier_input(
        &self,
        state: &mut State<'_>,
        picked: usize,
        width: usize,
    ) -> Result<(), Error> {
        for c in state.picks.iter().take(picked) {
            let input = state.input.chunks_exact(width.max(1)).nth(*c as usize);
            let finite = input.is_some_and(math::all_finite);
            if !finite && let Some(column) = state.columns.get_mut(*c as usize) {
                not_finite(column)?;
            }
        }
        Ok(())
    }

    /// Outputs of a classifier layer `[row / 16][picked][16]` → the next one's input `[picked][row]`.
    pub(crate) fn classifier_input(&self, state: &mut State<'_>, picked: usize, width: usize) {
        let relu = self.model.classifier_relu();
        let inputs = state.scores.chunks_exact_mut(width.max(1)).take(picked);
        for (c, input) in inputs.enumerate() {
            let from = elementwise::column(state.output, picked, c).flatten();
            for (x, y) in input.iter_mut().zip(from) {
                *x = if relu { math::relu(*y) } else { *y };
            }
        }
    }

    /// Classifier outputs → scalings and effective scalings of each column's row.
    pub(crate) fn route(&self, state: &mut State<'_>, sweep: &Sweep) -> Result<u64, Error> {
        let picked = sweep.picked as usize;
        let width = self.model.scalings_width();
        let experts = self.model.n_experts();
        for p in 0..picked {
            let column = state
                .picks
                .get(p)
                .and_then(|&c| state.columns.get_mut(c as usize))
                .ok_or(Error::Corrupt)?;
            let row = column.route_row as usize;
            let at = row.saturating_mul(2).saturating_mul(width);
            let (raw, effective) = state
                .rows
                .get_mut(at..at.saturating_add(width.saturating_mul(2)))
                .and_then(|r| r.split_at_mut_checked(width))
                .ok_or(Error::Corrupt)?;
            let from = elementwise::column(state.output, picked, p).flatten();
            raw.iter_mut().zip(from).for_each(|(s, y)| *s = *y);
            let finite = |row: &[f32]| row.iter().all(|s| math::is_finite(*s));
            let mut sound = finite(raw);
            if sound {
                crate::xlora::scalings_from_logits(raw, self.xlora, experts);
                for (raw, out) in raw
                    .chunks_exact(experts.max(1))
                    .zip(effective.chunks_exact_mut(experts.max(1)))
                {
                    crate::xlora::get_maybe_topk_scalings(raw, self.xlora, out)?;
                }
                // A cold temperature may take finite outputs out of the range of f32.
                sound = finite(raw) && finite(effective);
            }
            if !sound {
                not_finite(column)?;
            }
            let dead = column.has(Column::DEAD);
            if let Some(position) = state.row_positions.get_mut(row) {
                *position = if dead {
                    crate::session::arena::NO_POSITION
                } else {
                    column.pos
                };
            }
        }
        Ok((width * picked * 4) as u64)
    }
}

/// The views of `state`'s input that matrices read.
pub(crate) fn input_of<'a>(
    model: &Model<'_>,
    expanded: bool,
    k: usize,
    parts: (&'a [f32], &'a [i8], &'a [f32], &'a [i32]),
    picks: Option<&'a [u16]>,
) -> Input<'a> {
    let group = model.config.group as usize;
    let (x, q, sx, sum) = parts;
    Input {
        k,
        x,
        q_stride: panel_stride(k, expanded),
        s_stride: groups(k, group),
        q,
        sx,
        sum,
        expanded,
        picks,
    }
}

/// The cache of a pass: with one cache both passes share it.
pub(crate) fn cache_index(caches: crate::session::options::Caches, pass: Pass) -> usize {
    match (caches, pass) {
        (crate::session::options::Caches::Two, Pass::Routed) => 1,
        _ => 0,
    }
}

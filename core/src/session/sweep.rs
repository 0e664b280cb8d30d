//! `advance`: the only forward pass.

use crate::blob::{Model, Site};
use crate::error::{Error, Pass};
use crate::kernels::attention::{AttentionJob, Denominators, LayerCache, Maxima, SEGMENT, Shape};
use crate::kernels::layout::Dtype;
use crate::kernels::linear::{LinearJob, Part};
use crate::kernels::lora::{Choice, LoraAJob, LoraSource, LoraTerm, held};
use crate::kernels::panel::Input;
use crate::kernels::work::Job;
use crate::kernels::{A_UNIT, Executor, Kernels, UNIT, Work};
use crate::model::program::{Group, Op, op};
use crate::session::arena::{State, cache_bytes, shape};
use crate::session::column::{Column, Sweep};
use crate::session::cost::{Cost, attended_bytes, attended_macs};
use crate::session::options::{Budget, Counters, SessionOptions};
use crate::session::steps::{cache_index, input_of};
use crate::xlora::XLoraConfig;
use core::ops::Range;

/// What a sweep reads and never writes.
pub(crate) struct Machine<'m> {
    pub(crate) model: &'m Model<'m>,
    pub(crate) options: &'m SessionOptions,
    pub(crate) xlora: &'m XLoraConfig,
    pub(crate) kernels: Kernels,
}

/// The rows of one operation.
struct Rows {
    /// Units of work.
    units: usize,
    /// Rows in a unit.
    tile: usize,
    /// Floats of a unit's outputs.
    floats: usize,
    /// Multiply-accumulates of a row over all columns.
    cost: u64,
}

/// What reads the same input: the matrices of a group, and their sites.
struct Matrices<'m> {
    parts: [Option<Part<'m>>; 3],
    sites: [Option<Site>; 3],
    /// Width of the input.
    k: usize,
}

impl Matrices<'_> {
    const NONE: Self = Self {
        parts: [None; 3],
        sites: [None; 3],
        k: 0,
    };
}

/// Place of a layer's keys and values in the arena's cache, for one pass.
pub(crate) fn cache_ranges(
    model: &Model<'_>,
    options: &SessionOptions,
    layer: usize,
    pass: Pass,
) -> [Range<usize>; 2] {
    let bytes = cache_bytes(model, options);
    let layers = model.config.layers as usize;
    let at = (cache_index(options.caches, pass) * layers + layer) * 2 * bytes;
    [at..at + bytes, at + bytes..at + 2 * bytes]
}

impl<'m> Machine<'m> {
    /// Runs a sweep until it is done (`Ok(true)`) or the budget is used up (`Ok(false)`).
    ///
    /// Errors: [`Error::NonFinite`]; [`Error::Corrupt`] if the blob's tables changed under us.
    pub(crate) fn advance(
        &self,
        state: &mut State<'_>,
        sweep: &mut Sweep,
        counters: &mut Counters,
        executor: &mut dyn Executor,
        budget: Budget,
    ) -> Result<bool, Error> {
        let layers = self.model.config.layers;
        let depth = self.model.classifier_depth() as u32;
        let mut left = budget.0 as u64;
        loop {
            let op = op(layers, depth, sweep.pc);
            if op == Op::End || sweep.active == 0 {
                return Ok(true);
            }
            let cost = match self.whole(op, state, sweep, counters)? {
                Some(cost) => {
                    sweep.pc += 1;
                    cost
                }
                None => self.rows(op, state, sweep, counters, executor, left)?,
            };
            if budget != Budget::UNLIMITED {
                left = left.saturating_sub(cost.max(1));
                if left == 0 {
                    return Ok(false);
                }
            }
        }
    }

    /// The operations that are done whole; `None` for those that are rows.
    fn whole(
        &self,
        op: Op,
        state: &mut State<'_>,
        sweep: &mut Sweep,
        counters: &mut Counters,
    ) -> Result<Option<u64>, Error> {
        Ok(Some(match op {
            Op::Embed => self.embed(state, sweep, counters)?,
            Op::Norm { layer, mlp } => {
                let record = self.model.layer(layer as usize).ok_or(Error::Corrupt)?;
                let weight = self.model.norm(&record, mlp).ok_or(Error::Corrupt)?;
                self.norm(state, sweep, &weight, counters)?
            }
            Op::FinalNorm => {
                let weight = self.model.final_norm().ok_or(Error::Corrupt)?;
                let cost = self.norm(state, sweep, &weight, counters)?;
                sweep.picked = self.pick(state, sweep.active as usize, Column::ROUTE);
                cost
            }
            Op::Qk { layer } => {
                let record = self.model.layer(layer as usize).ok_or(Error::Corrupt)?;
                let normed = match record.qk_norm() {
                    true => self.qk_norm(state, sweep, &record, counters)?,
                    false => 0,
                };
                let rotated = match record.rope {
                    0 => 0,
                    _ => self.rope(state, sweep)?,
                };
                normed + rotated
            }
            Op::Store { layer } => {
                let cost = self.store(state, sweep, layer as usize)?;
                if layer as u32 + 1 == self.model.config.layers {
                    self.narrow(state, sweep)?;
                }
                cost
            }
            Op::Gather => self.gather(state, sweep)?,
            Op::Act => self.act(state, sweep),
            Op::Route => {
                let cost = self.route(state, sweep)?;
                sweep.picked = self.pick(state, sweep.active as usize, Column::HEAD);
                cost
            }
            _ => return Ok(None),
        }))
    }

    /// Runs as many units of an operation as the budget allows, at least one; returns their cost.
    fn rows(
        &self,
        op: Op,
        state: &mut State<'_>,
        sweep: &mut Sweep,
        counters: &mut Counters,
        executor: &mut dyn Executor,
        left: u64,
    ) -> Result<u64, Error> {
        let mut matrices = Matrices::NONE;
        if let Op::LoraA { layer, group } | Op::Linear { layer, group } = op {
            self.look_up(layer, group, &mut matrices)?;
        }
        if sweep.unit == 0 {
            self.begin(op, &matrices, state, sweep, counters)?;
        }
        let Matrices { parts, sites, k } = &matrices;
        let k = *k;
        let n = sweep.active as usize;
        let inputs = (
            &*state.input,
            &*state.panel,
            &*state.panel_scales,
            &*state.panel_sums,
        );
        // No list would mean all columns.
        let picks = || {
            let picks = state.picks.get(..sweep.picked as usize);
            picks.map(Some).ok_or(Error::Corrupt)
        };
        match op {
            Op::LoraA { .. } => {
                let source = LoraSource::Model(self.model, sites);
                let selected = chosen(state.choices, sweep.chosen)?;
                let job = LoraAJob {
                    kernels: self.kernels,
                    input: input_of(self.model, self.expands(), k, inputs, None),
                    term: LoraTerm {
                        source,
                        selected,
                        h: state.gates,
                        columns: n,
                        held: &[],
                    },
                    next: parts.iter().flatten().next().map_or(&[], |p| p.weight.data),
                };
                let rows = Rows {
                    units: sweep.lora_rows as usize / A_UNIT,
                    tile: A_UNIT,
                    floats: A_UNIT * n,
                    cost: product(k, n, 1),
                };
                take(sweep, executor, left, Job::LoraA(&job), rows, state.ranks)
            }
            Op::Linear { group, .. } => {
                let residual = match group {
                    Group::Output | Group::Down => Some(self.model.config.residual_scale),
                    Group::Qkv | Group::GateUp => None,
                };
                let source = LoraSource::Model(self.model, sites);
                let selected = chosen(state.choices, sweep.chosen)?;
                let held = held(&source, selected);
                let job = LinearJob {
                    kernels: self.kernels,
                    parts,
                    input: input_of(self.model, self.expands(), k, inputs, None),
                    term: (sweep.chosen > 0).then_some(LoraTerm {
                        source,
                        selected,
                        h: state.gates,
                        columns: n,
                        held: &held,
                    }),
                    u: state.ranks,
                    residual,
                };
                let out = match residual {
                    Some(_) => &mut *state.residual,
                    None => &mut *state.output,
                };
                let rows = linear_rows(&job, k, n);
                take(sweep, executor, left, Job::Linear(&job), rows, out)
            }
            Op::Score { layer } => {
                let job = AttentionJob {
                    q: state.output,
                    ..self.attention(layer, state.columns, n, state.kv)?
                };
                let rows = attention_rows(&job, job.shape.slots());
                take(sweep, executor, left, Job::Score(&job), rows, state.scores)
            }
            Op::Softmax => {
                let job = self.attention(0, state.columns, n, &[])?;
                let (scores, maxima) = scores_and_stats(&job.shape, n, state.scores)?;
                let job = AttentionJob { maxima, ..job };
                let rows = attention_rows(&job, job.shape.slots());
                take(sweep, executor, left, Job::Softmax(&job), rows, scores)
            }
            Op::Mix { layer } => {
                let job = AttentionJob {
                    scores: state.scores,
                    ..self.attention(layer, state.columns, n, state.kv)?
                };
                let rows = attention_rows(&job, job.shape.head_dim);
                take(sweep, executor, left, Job::Mix(&job), rows, state.output)
            }
            Op::Classify { layer } => {
                let picked = sweep.picked as usize;
                let (weight, bias) = self
                    .model
                    .classifier_layer(layer as usize)
                    .ok_or(Error::Corrupt)?;
                let k = weight.cols();
                let input = match layer {
                    0 => input_of(self.model, self.expands(), k, inputs, picks()?),
                    _ => Input::floats_only(k, state.scores),
                };
                let part = Part::of(weight, Some(bias.data));
                let job = LinearJob::plain(self.kernels, &part, input);
                let rows = linear_rows(&job, k, picked);
                take(sweep, executor, left, Job::Linear(&job), rows, state.output)
            }
            Op::Head => {
                let picked = sweep.picked as usize;
                let weight = self.model.head().ok_or(Error::Corrupt)?;
                let k = weight.cols();
                let input = input_of(self.model, self.expands(), k, inputs, picks()?);
                let part = Part::of(weight, None);
                let job = LinearJob::plain(self.kernels, &part, input);
                let rows = linear_rows(&job, k, picked);
                take(sweep, executor, left, Job::Linear(&job), rows, state.output)
            }
            _ => Err(Error::Corrupt),
        }
    }

    /// What an operation does once, before its first unit: make its input contiguous and quantised, choose
    /// experts, count.
    fn begin(
        &self,
        op: Op,
        matrices: &Matrices<'_>,
        state: &mut State<'_>,
        sweep: &mut Sweep,
        counters: &mut Counters,
    ) -> Result<(), Error> {
        let n = sweep.active as usize;
        match op {
            Op::LoraA { .. } => {
                let columns = state.columns.get(..n).ok_or(Error::Corrupt)?;
                let (count, rows) = self.gate_inputs(columns, state.rows).choose(
                    self.model,
                    &matrices.sites,
                    state.choices,
                    state.gates,
                )?;
                sweep.chosen = count;
                sweep.lora_rows = rows;
                let source = LoraSource::Model(self.model, &matrices.sites);
                let mut parts = matrices.parts.iter().flatten();
                let mut quantised = parts.any(|p| p.weight.dtype() == Dtype::Q8);
                let choices = chosen(state.choices, count)?;
                for (choice, h) in choices.iter().zip(state.gates.chunks_exact(n.max(1))) {
                    let lora = source
                        .get(choice.part as usize, choice.class as usize)
                        .ok_or(Error::Corrupt)?;
                    quantised |= lora.a.dtype() == Dtype::Q8;
                    let taking = h.iter().filter(|h| **h != 0.0).count();
                    counters.add(Cost::lora(&lora).for_columns(taking));
                }
                if quantised {
                    self.quantise(state, n, matrices.k, None)?;
                }
            }
            Op::Linear { .. } => {
                for part in matrices.parts.iter().flatten() {
                    counters.add(Cost::matrix(&part.weight, part.bias).for_columns(n));
                }
            }
            Op::Score { .. } => self.count_attended(state, n, counters),
            Op::Softmax => {
                let shape = shape(self.model, self.options);
                let (scores, out) = scores_and_stats(&shape, n, state.scores)?;
                self.kernels.run(Maxima {
                    shape,
                    columns: state.columns.get(..n).ok_or(Error::Corrupt)?,
                    scores,
                    out,
                });
            }
            Op::Mix { .. } => {
                self.count_attended(state, n, counters);
                let shape = shape(self.model, self.options);
                let (weights, out) = scores_and_stats(&shape, n, state.scores)?;
                self.kernels.run(Denominators {
                    shape,
                    columns: state.columns.get(..n).ok_or(Error::Corrupt)?,
                    weights,
                    out,
                });
            }
            Op::Classify { layer } => {
                let picked = sweep.picked as usize;
                let (weight, bias) = self
                    .model
                    .classifier_layer(layer as usize)
                    .ok_or(Error::Corrupt)?;
                match layer {
                    0 => self.check_classifier_input(state, picked, weight.cols())?,
                    _ => self.classifier_input(state, picked, weight.cols()),
                }
                if picked > 0 {
                    let cost = Cost::matrix(&weight, Some(bias.data)).for_columns(picked);
                    counters.add(cost);
                    counters.classifier_bytes += cost.bytes();
                    counters.classifier_macs += cost.macs;
                }
            }
            Op::Head => {
                let picked = sweep.picked as usize;
                let weight = self.model.head().ok_or(Error::Corrupt)?;
                if picked > 0 {
                    counters.add(Cost::matrix(&weight, None).for_columns(picked));
                }
                if weight.dtype() == Dtype::Q8 {
                    self.quantise(state, n, weight.cols(), Some(picked))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What scores, or the mix, compute and read in one layer.
    fn count_attended(&self, state: &State<'_>, n: usize, counters: &mut Counters) {
        for column in state.columns.iter().take(n) {
            counters.kv_bytes += attended_bytes(self.model, column.pos, self.options.kv);
            counters.macs += attended_macs(self.model, column.pos);
        }
    }

    /// The matrices of a group. Not returned: they would be copied.
    fn look_up(&self, layer: u16, group: Group, to: &mut Matrices<'m>) -> Result<(), Error> {
        let record = self.model.layer(layer as usize).ok_or(Error::Corrupt)?;
        let slots = to.parts.iter_mut().zip(&mut to.sites);
        for ((part, site), module) in slots.zip(group.modules()) {
            let weight = self.model.weight(&record, *module).ok_or(Error::Corrupt)?;
            to.k = weight.cols();
            *part = Some(Part {
                weight,
                bias: self.model.bias(&record, *module).map(|b| b.data),
            });
            *site = self
                .model
                .layer_site(&record, *module)
                .and_then(|s| self.model.site(s));
        }
        Ok(())
    }

    fn attention<'a>(
        &self,
        layer: u16,
        columns: &'a [Column],
        n: usize,
        kv: &'a [u8],
    ) -> Result<AttentionJob<'a>, Error> {
        let cache = |pass| {
            let [keys, values] = cache_ranges(self.model, self.options, layer as usize, pass);
            LayerCache {
                keys: kv.get(keys).unwrap_or(&[]),
                values: kv.get(values).unwrap_or(&[]),
            }
        };
        Ok(AttentionJob {
            kernels: self.kernels,
            columns: columns.get(..n).ok_or(Error::Corrupt)?,
            shape: shape(self.model, self.options),
            q: &[],
            scores: &[],
            maxima: &[],
            caches: [cache(Pass::Scaling), cache(Pass::Routed)],
            kv: self.options.kv,
            scale: self.model.config.attn_scale,
        })
    }
}

/// Runs as many units of a job as `left` allows, at least one, from where the sweep stands.
#[inline(never)]
fn take(
    sweep: &mut Sweep,
    executor: &mut dyn Executor,
    left: u64,
    job: Job<'_>,
    rows: Rows,
    out: &mut [f32],
) -> Result<u64, Error> {
    let first = sweep.unit as usize;
    if first >= rows.units {
        sweep.unit = 0;
        sweep.pc += 1;
        return Ok(0);
    }
    let unit_cost = rows.cost.saturating_mul(rows.tile as u64).max(1);
    let count = (rows.units - first).min((left / unit_cost).max(1) as usize);
    let end = first + count;
    let out = out
        .get_mut(first * rows.floats..end * rows.floats)
        .ok_or(Error::Corrupt)?;
    let cost = rows.cost.min(u32::MAX as u64) as u32;
    executor.run(Work::new(job, first, out, rows.floats, rows.tile, cost));
    sweep.unit = end as u32;
    if end == rows.units {
        sweep.unit = 0;
        sweep.pc += 1;
    }
    Ok(unit_cost.saturating_mul(count as u64))
}

/// A unit for each segment that some column attends to, and KV head; `floats` outputs of each head and column.
fn attention_rows(job: &AttentionJob<'_>, floats: usize) -> Rows {
    let (shape, n) = (&job.shape, job.columns.len());
    let ends = job.columns.iter().map(|c| c.position() + 1);
    let positions = ends.max().unwrap_or(0).min(shape.context);
    let segments = positions.div_ceil(SEGMENT);
    let rows = shape.sharing * n;
    Rows {
        units: segments * shape.kv_heads,
        tile: 1,
        floats: rows * floats,
        cost: product(rows, shape.head_dim, positions.div_ceil(segments.max(1))),
    }
}

/// The two parts of the arena's scores.
pub(crate) fn scores_and_stats<'a>(
    shape: &Shape,
    columns: usize,
    scores: &'a mut [f32],
) -> Result<(&'a mut [f32], &'a mut [f32]), Error> {
    scores
        .split_at_mut_checked(shape.scores(columns))
        .ok_or(Error::Corrupt)
}

fn linear_rows(job: &LinearJob<'_>, k: usize, n: usize) -> Rows {
    Rows {
        units: if n == 0 { 0 } else { job.units() },
        tile: UNIT,
        floats: UNIT * n,
        cost: product(k, n, 1),
    }
}

fn chosen(choices: &[Choice], count: u32) -> Result<&[Choice], Error> {
    choices.get(..count as usize).ok_or(Error::Corrupt)
}

/// A count that may not fit 32 bits.
pub(crate) fn product(a: usize, b: usize, c: usize) -> u64 {
    (a as u64).saturating_mul(b as u64).saturating_mul(c as u64)
}

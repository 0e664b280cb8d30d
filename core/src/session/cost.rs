//! What a token costs, from a model's tables alone: bytes of weights that a sweep reads, multiply-accumulates,
//! bytes of keys and values.
//!
//! The forward pass counts with the same functions, so that these figures and [`Counters`] agree. A sweep
//! reads a tensor once, whatever its columns. One column
//! costs `embedding + layers + attention`, and `classifier`, `head` and experts where it needs them.
//!
//! ```
//! use pleach::Model;
//! /// Bytes that the routed pass of one token reads, whichever two experts it selects: at most.
//! const fn most(model: &Model<'_>) -> u64 {
//!     let pass = model.embedding_cost().plus(model.layers_cost());
//!     pass.plus(model.head_cost()).plus(model.experts_cost(2).most).bytes()
//! }
//! ```

use crate::blob::format::Module;
use crate::blob::{Lora, Model, Site, Tensor};
use crate::kernels::attention::KvType;
use crate::model::program::{Op, op};
use crate::session::arena::cache_bytes;
use crate::session::options::{Caches, Counters, SessionOptions};

/// What a column costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Packed bytes of the tensors that its sweep reads once, whatever the number of columns.
    pub sweep_bytes: u64,
    /// Packed bytes of the rows of tables that each column reads.
    pub column_bytes: u64,
    /// Multiply-accumulates of each column.
    pub macs: u64,
}

impl Cost {
    /// Nothing.
    pub const NONE: Cost = Cost {
        sweep_bytes: 0,
        column_bytes: 0,
        macs: 0,
    };

    /// Bytes of weights that a sweep of this column alone reads.
    pub const fn bytes(self) -> u64 {
        self.sweep_bytes.saturating_add(self.column_bytes)
    }

    /// The sum; saturates, as only an absurd blob can make it.
    pub const fn plus(self, other: Cost) -> Cost {
        Cost {
            sweep_bytes: self.sweep_bytes.saturating_add(other.sweep_bytes),
            column_bytes: self.column_bytes.saturating_add(other.column_bytes),
            macs: self.macs.saturating_add(other.macs),
        }
    }

    /// One sweep of `columns` such columns.
    pub const fn for_columns(self, columns: usize) -> Cost {
        let n = columns as u64;
        Cost {
            sweep_bytes: self.sweep_bytes,
            column_bytes: self.column_bytes.saturating_mul(n),
            macs: self.macs.saturating_mul(n),
        }
    }

    const fn only_if(self, bytes: bool, macs: bool) -> Cost {
        Cost {
            sweep_bytes: if bytes { self.sweep_bytes } else { 0 },
            column_bytes: if bytes { self.column_bytes } else { 0 },
            macs: if macs { self.macs } else { 0 },
        }
    }

    /// A matrix and its bias.
    pub(crate) const fn matrix(weight: &Tensor<'_>, bias: Option<&[u8]>) -> Cost {
        let bias = match bias {
            Some(b) => b.len(),
            None => 0,
        };
        Cost {
            sweep_bytes: weight.bytes().saturating_add(bias) as u64,
            column_bytes: 0,
            macs: (weight.rows() as u64).saturating_mul(weight.cols() as u64),
        }
    }

    /// Values that are only multiplied elementwise: no multiply-accumulates are counted.
    pub(crate) const fn vector(weight: &Tensor<'_>) -> Cost {
        Cost {
            sweep_bytes: weight.bytes() as u64,
            ..Cost::NONE
        }
    }

    /// The panels of an expert at a matrix.
    pub(crate) const fn lora(lora: &Lora<'_>) -> Cost {
        let (a, b) = (&lora.a, &lora.b);
        let width = (a.cols() as u64).saturating_add(b.rows() as u64);
        Cost {
            sweep_bytes: (a.bytes() as u64).saturating_add(b.bytes() as u64),
            column_bytes: 0,
            macs: (b.rank() as u64).saturating_mul(width),
        }
    }

    /// What an expert adds at an embedding site: B, and for each column a row of A.
    pub(crate) const fn lora_row(lora: &Lora<'_>) -> Cost {
        let (rank, rows) = (lora.b.rank() as u64, lora.b.rows() as u64);
        Cost {
            sweep_bytes: lora.b.bytes() as u64,
            column_bytes: lora.a.row_bytes() as u64,
            macs: rank.saturating_mul(rows.saturating_add(1)),
        }
    }
}

impl Counters {
    pub(crate) fn add(&mut self, cost: Cost) {
        self.weight_bytes = self.weight_bytes.saturating_add(cost.bytes());
        self.macs = self.macs.saturating_add(cost.macs);
    }
}

/// What the cheapest and the dearest choice of experts cost: the two may be different choices for bytes and
/// for multiply-accumulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostRange {
    /// The least.
    pub least: Cost,
    /// The most.
    pub most: Cost,
}

impl Model<'_> {
    /// Looking up one token: a row of the embedding table.
    pub const fn embedding_cost(&self) -> Cost {
        match self.embed() {
            Some(table) => Cost {
                sweep_bytes: 0,
                column_bytes: table.row_bytes() as u64,
                macs: self.config.hidden as u64,
            },
            None => Cost::NONE,
        }
    }

    /// All of the base's norms and matrices but embedding and head; no experts, no attention.
    pub const fn layers_cost(&self) -> Cost {
        let mut sum = Cost::NONE;
        let mut pc = 0;
        loop {
            let op = op(self.config.layers, self.classifier_depth() as u32, pc);
            sum = match op {
                Op::End => return sum,
                Op::Norm { layer, mlp } => match self.layer(layer as usize) {
                    Some(record) => sum.plus(vector_or_none(self.norm(&record, mlp))),
                    None => return sum,
                },
                Op::FinalNorm => sum.plus(vector_or_none(self.final_norm())),
                Op::Linear { layer, group } => match self.layer(layer as usize) {
                    Some(record) => {
                        let mut modules = group.modules();
                        while let Some((module, rest)) = modules.split_first() {
                            if let Some(weight) = self.weight(&record, *module) {
                                let bias = match self.bias(&record, *module) {
                                    Some(b) => Some(b.data),
                                    None => None,
                                };
                                sum = sum.plus(Cost::matrix(&weight, bias));
                            }
                            modules = rest;
                        }
                        sum
                    }
                    None => return sum,
                },
                Op::Qk { layer } => match self.layer(layer as usize) {
                    Some(record) if record.qk_norm() => sum
                        .plus(vector_or_none(self.head_norm(&record, false)))
                        .plus(vector_or_none(self.head_norm(&record, true))),
                    _ => sum,
                },
                _ => sum,
            };
            pc += 1;
        }
    }

    /// The classifier; nothing without one.
    pub const fn classifier_cost(&self) -> Cost {
        let mut sum = Cost::NONE;
        let mut layer = 0;
        while let Some((weight, bias)) = self.classifier_layer(layer) {
            if layer >= self.classifier_depth() {
                break;
            }
            sum = sum.plus(Cost::matrix(&weight, Some(bias.data)));
            layer += 1;
        }
        sum
    }

    /// The logits.
    pub const fn head_cost(&self) -> Cost {
        match self.head() {
            Some(head) => Cost::matrix(&head, None),
            None => Cost::NONE,
        }
    }

    /// What attention computes for a column at `position`, over all layers.
    pub const fn attention_macs(&self, position: u32) -> u64 {
        attended_macs(self, position)
            .saturating_mul(2)
            .saturating_mul(self.config.layers as u64)
    }

    /// Bytes of keys and values that attention reads for a column at `position`, over all layers.
    pub const fn attention_bytes(&self, position: u32, kv: KvType) -> u64 {
        attended_bytes(self, position, kv)
            .saturating_mul(2)
            .saturating_mul(self.config.layers as u64)
    }

    /// Bytes of the arena that each token of context takes in the caches; the context is rounded up to 16.
    pub const fn kv_bytes_per_token(&self, options: &SessionOptions) -> u64 {
        let one = SessionOptions {
            context: 16,
            ..*options
        };
        let caches = match options.caches {
            Caches::One => 1,
            Caches::Two => 2,
        };
        (cache_bytes(self, &one) as u64 / 16)
            .saturating_mul(2)
            .saturating_mul(self.config.layers as u64)
            .saturating_mul(caches)
    }

    /// What expert `class` adds to a column that selects it at every site.
    pub const fn expert_cost(&self, class: usize) -> Cost {
        let mut sum = Cost::NONE;
        let mut n = 0;
        while let Some(site) = self.site(n) {
            sum = sum.plus(self.expert_site_cost(class, &site));
            n += 1;
        }
        sum
    }

    /// What expert `class` adds at one site; nothing if it does not target it.
    pub const fn expert_site_cost(&self, class: usize, site: &Site) -> Cost {
        let Some(expert) = self.expert(class) else {
            return Cost::NONE;
        };
        match expert.lora(site) {
            Some(lora) if matches!(site.module, Module::Embed) => Cost::lora_row(&lora),
            Some(lora) => Cost::lora(&lora),
            None => Cost::NONE,
        }
    }

    /// What a column's experts cost if it selects `k` of them: at each site other ones with layerwise
    /// scalings, else the same ones at all sites. With `k` of at least [`Model::n_experts`]: all.
    pub const fn experts_cost(&self, k: usize) -> CostRange {
        if !self.options.layerwise_scalings {
            return self.choice(k, None);
        }
        let mut sum = CostRange {
            least: Cost::NONE,
            most: Cost::NONE,
        };
        let mut n = 0;
        while let Some(site) = self.site(n) {
            let here = self.choice(k, Some(&site));
            sum = CostRange {
                least: sum.least.plus(here.least),
                most: sum.most.plus(here.most),
            };
            n += 1;
        }
        sum
    }

    /// The `k` cheapest and the `k` dearest experts at one site, or over all.
    const fn choice(&self, k: usize, site: Option<&Site>) -> CostRange {
        let (mut least, mut most) = (Cost::NONE, Cost::NONE);
        let mut class = 0;
        while class < self.n_experts() {
            let cost = self.at(class, site);
            // How many come before this one from either end, by bytes and by multiply-accumulates.
            let (mut bytes_below, mut macs_below, mut bytes_above, mut macs_above) = (0, 0, 0, 0);
            let mut other = 0;
            while other < self.n_experts() {
                let o = self.at(other, site);
                let first = other < class;
                bytes_below += before(o.bytes(), cost.bytes(), first);
                macs_below += before(o.macs, cost.macs, first);
                bytes_above += before(cost.bytes(), o.bytes(), first);
                macs_above += before(cost.macs, o.macs, first);
                other += 1;
            }
            least = least.plus(cost.only_if(bytes_below < k, macs_below < k));
            most = most.plus(cost.only_if(bytes_above < k, macs_above < k));
            class += 1;
        }
        CostRange { least, most }
    }

    const fn at(&self, class: usize, site: Option<&Site>) -> Cost {
        match site {
            Some(site) => self.expert_site_cost(class, site),
            None => self.expert_cost(class),
        }
    }
}

/// What scores, or the mix, compute in one layer.
pub(crate) const fn attended_macs(model: &Model<'_>, position: u32) -> u64 {
    let c = &model.config;
    (position as u64 + 1).saturating_mul((c.heads as u64).saturating_mul(c.head_dim as u64))
}

/// Bytes of keys, or of values, that they read.
pub(crate) const fn attended_bytes(model: &Model<'_>, position: u32, kv: KvType) -> u64 {
    let c = &model.config;
    (position as u64 + 1)
        .saturating_mul((c.kv_heads as u64).saturating_mul(c.head_dim as u64))
        .saturating_mul(kv.bytes() as u64)
}

/// 1 if a lies before b, where equal ones keep the order of their classes.
const fn before(a: u64, b: u64, first: bool) -> usize {
    (a < b || (a == b && first)) as usize
}

const fn vector_or_none(weight: Option<Tensor<'_>>) -> Cost {
    match weight {
        Some(w) => Cost::vector(&w),
        None => Cost::NONE,
    }
}

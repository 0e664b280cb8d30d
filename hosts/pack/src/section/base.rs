//! The base: which tensors, in which order, stored how.

use super::config::{features, tensors_before_layers};
use super::{Job, Table, net_bytes};
use crate::error::{PackError, Result};
use crate::import::Matrix;
use crate::import::base::BaseConfig;
use crate::import::modules::Place;
use crate::import::weights::Source;
use crate::layout::{pack, pack_q8};
use crate::quant::Loss;
use crate::write::Section;
use pleach::blob::format::{LAYER_TENSORS, Module, NO_LAYER, QK_TENSORS, Role};
use pleach::hash::Fnv1a;
use pleach::kernels::layout::{Dtype, Layout};

/// One tensor of the base, as the checkpoint names it and as the file stores it.
#[derive(Debug)]
struct Item {
    name: String,
    role: u16,
    layer: u16,
    rows: usize,
    cols: usize,
    bytes: u64,
}

/// The base's tensors, found and checked.
#[derive(Debug)]
pub(crate) struct Base {
    items: Vec<Item>,
    weights: Box<dyn Source>,
    /// Bytes of tensors that will be read.
    pub(crate) bytes: u64,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
}

impl Base {
    /// Checks that every tensor is there in the right shape.
    pub(crate) fn plan(config: &BaseConfig, mut weights: Box<dyn Source>) -> Result<Self> {
        let mut items = Vec::new();
        let mut bytes = 0;
        // A tensor at a time: a config of a billion layers ends at the first that is missing.
        for mut item in list(config) {
            item.bytes = weights
                .check(&item.name, item.rows, item.cols)
                .map_err(|e| head_hint(e, &item))?;
            bytes += item.bytes;
            items.push(item);
        }
        if items.len() > usize::from(u16::MAX) {
            return Err(PackError::refused(
                format!(
                    "the base has {} tensors; at most 65535 are possible",
                    items.len()
                ),
                "use a base with fewer layers",
            ));
        }
        let used: Vec<_> = items.iter().map(|i| i.name.clone()).collect();
        let mut unused = weights.unused(&used);
        let tied_head = |n: &str| config.record.tied && n == "lm_head.weight";
        unused.retain(|n| !n.ends_with(".rotary_emb.inv_freq") && !tied_head(n));
        let notes = unused
            .first()
            .map(|first| {
                format!("the base's files hold {} tensors that its configuration does not ask for, ignored: {first} first", unused.len())
            })
            .into_iter()
            .collect();
        Ok(Self {
            items,
            weights,
            bytes,
            notes,
        })
    }

    /// Writes the section; returns the hash of the embedding table's values, if `hash_embedding`.
    pub(crate) fn write(
        &mut self,
        out: &mut Section<'_>,
        job: &mut Job<'_>,
        tied: bool,
        hash_embedding: bool,
    ) -> Result<u64> {
        let storage = job.storage;
        let mut table = Table::begin(out, self.items.len(), 0);
        let mut hash = 0;
        let mut halves = Loss::default();
        let mut numbers = 0;
        for item in &self.items {
            let (name, rows, cols) = (&item.name, item.rows, item.cols);
            if hash_embedding && item.role == Role::Embed as u16 {
                hash = hash_of(&self.weights.read(name, rows, cols)?);
            }
            let dtype = match is_vector(item.role) {
                true => Dtype::F32,
                false => storage.base,
            };
            let layout = layout_of(item.role, tied, storage.weights);
            let exact = match dtype {
                Dtype::Q8 => self.weights.read_q8(name, rows, cols, storage.group)?,
                _ => None,
            };
            let t = match exact {
                Some(q8) => pack_q8(&q8, (rows, cols), layout, storage.group),
                None => {
                    let m = self.weights.read(name, rows, cols)?;
                    pack(&m, dtype, layout, storage.group)
                }
            };
            if dtype == Dtype::F16 {
                halves.add(&t.loss);
                numbers += rows * cols;
            }
            let kind = kind_of(item.role);
            job.report
                .tensor(kind, None, &item.name, &t, net_bytes(&t, storage.group));
            table.push(out, item.role, item.layer, &t);
            job.progress.advance(item.bytes);
        }
        if halves.rounded > 0 {
            job.progress.note(&format!(
                "{} of the base's {numbers} weights are rounded to f16, relative error {:.4} %",
                halves.rounded,
                100.0 * halves.relative()
            ));
        }
        Ok(hash)
    }
}

/// The word for tensors of a role in reports.
fn kind_of(role: u16) -> &'static str {
    let bias = Role::Bias as u16;
    match role {
        r if r == Role::Embed as u16 => "embed",
        r if r == Role::Head as u16 => "head",
        r if r < Role::Weight as u16 => "norm",
        r if r >= bias => "bias",
        r => Module::from_number(r - Role::Weight as u16)
            .and_then(|m| m.path().rsplit('.').next())
            .unwrap_or("weight"),
    }
}

/// A missing head may be a tied one.
fn head_hint(mut e: PackError, item: &Item) -> PackError {
    if item.role == Role::Head as u16 && e.cause.ends_with("is missing") {
        e.cure = "set tie_word_embeddings to true in config.json if the head is the embedding table, else save the base again".into();
    }
    e
}

/// FNV-1a of a matrix's values.
pub(crate) fn hash_of(m: &Matrix) -> u64 {
    let mut h = Fnv1a::new();
    h.floats(&m.data);
    h.value()
}

/// How a tensor of base or classifier lies where weights lie in `weights`: look-ups of a table that is not the head too
/// read single rows.
pub(crate) fn layout_of(role: u16, tied: bool, weights: Layout) -> Layout {
    match is_vector(role) || (role == Role::Embed as u16 && !tied) {
        true => Layout::Rows,
        false => weights,
    }
}

/// Norm weights and biases are vectors, stored as f32.
fn is_vector(role: u16) -> bool {
    let norm = [
        Role::FinalNorm,
        Role::AttnNorm,
        Role::MlpNorm,
        Role::QNorm,
        Role::KNorm,
    ]
    .iter()
    .any(|r| *r as u16 == role);
    let bias = Role::Bias as u16..Role::ClassifierWeight as u16;
    norm || bias.contains(&role) || role == Role::ClassifierBias as u16
}

/// The tensors in the file's order.
fn list(config: &BaseConfig) -> impl Iterator<Item = Item> {
    let c = config.record;
    let (hidden, vocab) = (c.hidden as usize, c.vocab as usize);
    let global = |name: &str, role: Role, rows| Item {
        name: name.into(),
        role: role as u16,
        layer: NO_LAYER,
        rows,
        cols: hidden,
        bytes: 0,
    };
    let mut first = Vec::with_capacity(tensors_before_layers(&c));
    first.push(global("model.embed_tokens.weight", Role::Embed, vocab));
    if !c.tied {
        first.push(global("lm_head.weight", Role::Head, vocab));
    }
    first.push(global("model.norm.weight", Role::FinalNorm, 1));
    let bias_mask = config.bias_mask;
    let head_norms: &[u16] = if config.qk_norm { &QK_TENSORS } else { &[] };
    first
        .into_iter()
        .chain((0..c.layers as u16).flat_map(move |layer| {
            let mut items = Vec::new();
            let biases = Module::LAYER
                .into_iter()
                .filter(|m| bias_mask & m.bit() != 0)
                .map(|m| Role::Bias as u16 + m as u16);
            let norms = head_norms.iter().copied();
            for role in LAYER_TENSORS.into_iter().chain(norms).chain(biases) {
                let (name, rows, cols) = match role {
                    r if r == Role::AttnNorm as u16 => ("input_layernorm.weight".into(), 1, hidden),
                    r if r == Role::MlpNorm as u16 => {
                        ("post_attention_layernorm.weight".into(), 1, hidden)
                    }
                    r if r == Role::QNorm as u16 => {
                        ("self_attn.q_norm.weight".into(), 1, c.head_dim as usize)
                    }
                    r if r == Role::KNorm as u16 => {
                        ("self_attn.k_norm.weight".into(), 1, c.head_dim as usize)
                    }
                    r => {
                        let bias = r >= Role::Bias as u16;
                        let number = r - if bias {
                            Role::Bias as u16
                        } else {
                            Role::Weight as u16
                        };
                        let module = Module::from_number(number).unwrap_or(Module::Q);
                        let (outputs, inputs) = features(&c, Place { module, layer });
                        if bias {
                            (format!("{}.bias", module.path()), 1, outputs)
                        } else {
                            (format!("{}.weight", module.path()), outputs, inputs)
                        }
                    }
                };
                items.push(Item {
                    name: format!("model.layers.{layer}.{name}"),
                    role,
                    layer,
                    rows,
                    cols,
                    bytes: 0,
                });
            }
            items
        }))
}

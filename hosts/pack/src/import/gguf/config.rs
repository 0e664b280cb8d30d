//! The metadata of an architecture: dimensions and constants.

use super::file::Gguf;
use super::metadata::Metadata;
use super::names;
use crate::error::Result;
use crate::import::base::{BaseConfig, LayerKind, MAX_DIM, MAX_HEADS, MAX_LAYERS};
use pleach::blob::format::{ConfigRecord, Module, NO_TOKEN};

const ARCHITECTURES: &str = "use a base of architecture llama (Llama, Mistral, SmolLM2, TinyLlama), qwen2, qwen3 or smollm3";
/// The scaling factors of the rotary embedding's frequencies.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// What an architecture of llama.cpp computes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Architecture {
    pub(super) name: &'static str,
    /// Whether the converter reorders the rows of q and k.
    pub(super) permuted: bool,
    /// Whether each head of q and k is normed.
    pub(super) qk_norm: bool,
    /// Every how many layers one is not rotated; 0 for none.
    no_rope_every: u32,
}

const fn architecture(name: &'static str, permuted: bool) -> Architecture {
    Architecture {
        name,
        permuted,
        qk_norm: false,
        no_rope_every: 0,
    }
}

static KNOWN: [Architecture; 4] = [
    architecture("llama", true),
    architecture("qwen2", false),
    Architecture {
        qk_norm: true,
        ..architecture("qwen3", false)
    },
    Architecture {
        no_rope_every: 4,
        ..architecture("smollm3", true)
    },
];

/// What a file says about its model.
#[derive(Debug)]
pub(crate) struct Model {
    /// For the config section.
    pub(crate) config: BaseConfig,
    /// Rows of a head, where the rows of heads are reordered.
    pub(crate) permuted: Option<usize>,
}

/// The architecture that the metadata names.
pub(super) fn known(metadata: &Metadata) -> Result<Architecture> {
    let name = metadata.text("general.architecture")?.unwrap_or_default();
    KNOWN
        .iter()
        .find(|a| a.name == name)
        .copied()
        .ok_or_else(|| {
            metadata.refuse(
                format!("architecture {name:?} is not supported"),
                ARCHITECTURES,
            )
        })
}

/// Reads metadata and the names of tensors.
pub(crate) fn read(file: &mut Gguf, group: u32) -> Result<Model> {
    let m = &file.metadata;
    if let Some(kind) = m.text("general.type")?
        && kind != "model"
    {
        return Err(m.refuse(
            format!("general.type is {kind:?}, a model is expected"),
            "pass an adapter with --adapter KEY=FILE.gguf, and its base with --base",
        ));
    }
    let arch = known(m)?;
    let keys = Keys { m, arch: arch.name };
    keys.refuse_variants()?;
    let mut record = dimensions(file, &keys, group)?;
    tokens(m, &mut record)?;
    let layers = layers(&keys, arch, record.layers)?;
    check_names(file, arch, record.layers)?;
    let factors = rope_factors(file, record.head_dim)?;
    let keys = Keys {
        m: &file.metadata,
        arch: arch.name,
    };
    let inv_freq = inverse_frequencies(&keys, record.head_dim, &factors)?;
    let permuted = arch.permuted.then_some(record.head_dim as usize);
    let notes = keys.notes();
    Ok(Model {
        config: BaseConfig {
            architecture: arch.name,
            record,
            inv_freq,
            bias_mask: bias_mask(file),
            qk_norm: arch.qk_norm,
            layers,
            notes,
        },
        permuted,
    })
}

/// The keys of an architecture.
struct Keys<'m> {
    m: &'m Metadata,
    arch: &'static str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.m.number(&self.key(key))
    }

    fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.m.u32(&self.key(key))
    }

    /// A number of 1 to `most`.
    fn size(&self, key: &str, most: u32) -> Result<u32> {
        let n = self.m.required_u32(&self.key(key))?;
        if n == 0 || n > most {
            let key = self.key(key);
            return Err(self.m.refuse(
                format!("metadata {key} is {n}; 1 to {most} is possible"),
                "convert the model again",
            ));
        }
        Ok(n)
    }

    fn refuse(
        &self,
        key: &str,
        cause: impl std::fmt::Display,
        cure: &str,
    ) -> crate::error::PackError {
        self.m
            .refuse(format!("metadata {}: {cause}", self.key(key)), cure)
    }

    /// Keys that change what the model computes, in ways that are not supported.
    fn refuse_variants(&self) -> Result<()> {
        if let Some(n) = self.u32("expert_count")?.filter(|n| *n > 0) {
            let why = format!("a mixture of {n} feed-forward experts");
            return Err(self.refuse("expert_count", why, "use a dense base"));
        }
        for (key, neutral) in [
            ("attention.scale", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("attention.clamp_kqv", 0.0),
            ("logit_scale", 1.0),
            ("embedding_scale", 1.0),
            ("residual_scale", 1.0),
            ("attn_logit_softcapping", 0.0),
            ("final_logit_softcapping", 0.0),
            ("rope.scaling.attn_factor", 1.0),
            ("rope.scaling.yarn_log_multiplier", 0.0),
        ] {
            if let Some(n) = self.number(key)?.filter(|n| *n != neutral) {
                let why = format!("{n} is not supported");
                return Err(self.refuse(key, why, "use another base"));
            }
        }
        if self.m.bool(&self.key("attention.causal"))? == Some(false) {
            return Err(self.refuse(
                "attention.causal",
                "false is not supported",
                "use another base",
            ));
        }
        Ok(())
    }

    /// Keys of the architecture that nobody asked for.
    fn notes(&self) -> Vec<String> {
        let expected = ["vocab_size", "block_count"].map(|k| self.key(k));
        let mut keys = self.m.not_asked(&self.key(""));
        keys.retain(|k| !expected.iter().any(|e| e == k));
        match keys.first() {
            None => Vec::new(),
            Some(_) => vec![format!(
                "{}: metadata that is not known, ignored: {}",
                self.m.path().display(),
                keys.join(", ")
            )],
        }
    }
}

fn dimensions(file: &Gguf, keys: &Keys<'_>, group: u32) -> Result<ConfigRecord> {
    let hidden = keys.size("embedding_length", MAX_DIM)?;
    let heads = keys.size("attention.head_count", MAX_HEADS)?;
    let kv_heads = match keys.u32("attention.head_count_kv")? {
        Some(_) => keys.size("attention.head_count_kv", MAX_HEADS)?,
        None => heads,
    };
    if !heads.is_multiple_of(kv_heads) {
        let why = format!("{heads} is not a multiple of head_count_kv, {kv_heads}");
        return Err(keys.refuse("attention.head_count", why, "convert the model again"));
    }
    let head_dim = match keys.u32("attention.key_length")? {
        Some(_) => keys.size("attention.key_length", MAX_HEADS)?,
        None if hidden.is_multiple_of(heads) && hidden / heads <= MAX_HEADS => hidden / heads,
        None => {
            let why = format!("{hidden} is not {heads} heads of at most {MAX_HEADS}");
            return Err(keys.refuse("embedding_length", why, "convert the model again"));
        }
    };
    if !head_dim.is_multiple_of(2) {
        let why = format!("heads of {head_dim}: rotary embeddings need an even number");
        return Err(keys.refuse("attention.head_count", why, "use another base"));
    }
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(n) = keys.u32(key)?.filter(|n| *n != head_dim) {
            let why = format!("{n}, where a head has {head_dim}: not supported");
            return Err(keys.refuse(key, why, "use another base"));
        }
    }
    let eps_key = "attention.layer_norm_rms_epsilon";
    let rms_eps = keys.m.required_number(&keys.key(eps_key))? as f32;
    if !(1e-12..=1.0).contains(&rms_eps) {
        let why = format!("{rms_eps:e}; 1e-12 to 1 is possible");
        return Err(keys.refuse(eps_key, why, "convert the model again"));
    }
    Ok(ConfigRecord {
        hidden,
        layers: keys.size("block_count", MAX_LAYERS)?,
        vocab: vocabulary(file, keys)?,
        heads,
        kv_heads,
        head_dim,
        intermediate: keys.size("feed_forward_length", MAX_DIM)?,
        max_position: keys.size("context_length", u32::MAX)?,
        group,
        rms_eps,
        attn_scale: (1.0 / libm::sqrt(f64::from(head_dim))) as f32,
        embed_scale: 1.0,
        residual_scale: 1.0,
        bos: NO_TOKEN,
        eos: [NO_TOKEN; 4],
        rope_dim: head_dim,
        tied: file.tensor("output.weight").is_none(),
    })
}

/// The rows of the embedding table; what the metadata says must agree.
fn vocabulary(file: &Gguf, keys: &Keys<'_>) -> Result<u32> {
    let info = file.required("token_embd.weight")?;
    let rows = info.shape.get(1).copied().unwrap_or(0);
    let Some(vocab) = u32::try_from(rows)
        .ok()
        .filter(|v| (1..=MAX_DIM).contains(v))
    else {
        return Err(keys.m.refuse(
            format!("tensor token_embd.weight has shape {:?}; two dimensions and 1 to {MAX_DIM} tokens are possible", info.shape),
            "convert the model again",
        ));
    };
    if let Some(n) = keys.u32("vocab_size")?.filter(|n| *n != vocab) {
        let why = format!("{n}, but token_embd.weight has {vocab} rows");
        return Err(keys.refuse("vocab_size", why, "convert the model again"));
    }
    let tokens = "tokenizer.ggml.tokens";
    if let Some(n) = keys.m.count(tokens)?.filter(|n| *n > u64::from(vocab)) {
        return Err(keys.m.refuse(
            format!("metadata {tokens} has {n} tokens, but token_embd.weight {vocab} rows"),
            "convert the model again",
        ));
    }
    Ok(vocab)
}

/// Begin and end of text.
fn tokens(m: &Metadata, record: &mut ConfigRecord) -> Result<()> {
    let token = |name: &str| {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match m.u32(&key)? {
            Some(id) if id >= record.vocab => Err(m.refuse(
                format!(
                    "metadata {key} {id} is outside the vocabulary of {}",
                    record.vocab
                ),
                "convert the model again",
            )),
            id => Ok(id),
        }
    };
    let bos = token("bos")?;
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(token(name)?.filter(|id| !ends.contains(id)));
    }
    record.bos = bos.unwrap_or(NO_TOKEN);
    for (slot, id) in record.eos.iter_mut().zip(ends) {
        *slot = id;
    }
    Ok(())
}

fn layers(keys: &Keys<'_>, arch: Architecture, count: u32) -> Result<Vec<LayerKind>> {
    let window = keys.u32("attention.sliding_window")?.unwrap_or(0);
    Ok((1..=count)
        .map(|n| LayerKind {
            rope: arch.no_rope_every == 0 || !n.is_multiple_of(arch.no_rope_every),
            window,
        })
        .collect())
}

/// Every tensor must be one that the architecture has.
fn check_names(file: &Gguf, arch: Architecture, layers: u32) -> Result<()> {
    for name in file.names().filter(|n| *n != ROPE_FREQS) {
        let known = names::to_hugging_face(name).is_some();
        let inside = names::layer(name).is_none_or(|n| n < layers);
        let fits = arch.qk_norm || !name.ends_with("_norm.weight") || {
            let end = name.rsplit('.').nth(1);
            !matches!(end, Some("attn_q_norm" | "attn_k_norm"))
        };
        if !(known && inside && fits) {
            return Err(file.metadata.refuse(
                format!(
                    "tensor {name} is not one that {} of {layers} layers is known to have",
                    arch.name
                ),
                "use another base: what it would do is not supported",
            ));
        }
    }
    Ok(())
}

/// Modules with a bias in any layer.
fn bias_mask(file: &Gguf) -> u8 {
    let biases = file.names().filter(|n| n.ends_with(".bias"));
    let modules = biases.filter_map(|n| {
        let name = names::to_hugging_face(n)?;
        let path = name.strip_suffix(".bias")?.splitn(4, '.').nth(3)?;
        Module::LAYER.into_iter().find(|m| m.path() == path)
    });
    modules.fold(0, |mask, m| mask | m.bit())
}

/// What each frequency is divided by.
fn rope_factors(file: &mut Gguf, head_dim: u32) -> Result<Vec<f32>> {
    let pairs = head_dim as usize / 2;
    if file.tensor(ROPE_FREQS).is_none() {
        return Ok(vec![1.0; pairs]);
    }
    let decode = file.check(ROPE_FREQS, 1, pairs)?.kind.decode;
    let mut factors = Vec::with_capacity(pairs);
    file.pieces(ROPE_FREQS, usize::MAX, |b| decode(b, &mut factors))?;
    Ok(factors)
}

/// f32(1 / theta^(2i / dim) / factor_i), as llama.cpp divides them.
fn inverse_frequencies(keys: &Keys<'_>, dim: u32, factors: &[f32]) -> Result<Vec<f32>> {
    let theta = keys.number("rope.freq_base")?.unwrap_or(10000.0);
    if !(1.0..=1e12).contains(&theta) {
        let why = format!("{theta}; 1 to 1e12 is possible");
        return Err(keys.refuse("rope.freq_base", why, "convert the model again"));
    }
    let linear = linear_factor(keys)?;
    let frequency = |(i, factor): (u32, &f32)| {
        let f = 1.0 / libm::pow(theta, f64::from(2 * i) / f64::from(dim));
        (f / f64::from(*factor) / linear) as f32
    };
    let frequencies: Vec<f32> = (0..).zip(factors).map(frequency).collect();
    match frequencies.iter().find(|f| !(3.725_290_3e-9..=1.0).contains(*f)) {
        None => Ok(frequencies),
        Some(f) => Err(keys.refuse(
            "rope.freq_base",
            format!("{theta}, rope.scaling and {ROPE_FREQS} give an inverse frequency of {f:e}, outside 2^-28 to 1"),
            "convert the model again",
        )),
    }
}

/// By how much all positions are stretched.
fn linear_factor(keys: &Keys<'_>) -> Result<f64> {
    let kind_key = keys.key("rope.scaling.type");
    let kind = keys.m.text(&kind_key)?;
    let (key, factor) = match (
        keys.number("rope.scaling.factor")?,
        keys.number("rope.scale_linear")?,
    ) {
        (None, old) => ("rope.scale_linear", old),
        (new, _) => ("rope.scaling.factor", new),
    };
    // What longer contexts were trained with does not change the computation.
    for key in ["original_context_length", "finetuned"] {
        keys.m.has(&keys.key(&format!("rope.scaling.{key}")));
    }
    match kind {
        Some("none") => Ok(1.0),
        None | Some("linear") => match factor {
            None | Some(0.0) => Ok(1.0),
            Some(f) if f > 0.0 => Ok(f),
            Some(f) => Err(keys.refuse(key, format!("{f}; a number above 0 is possible"), "convert the model again")),
        },
        Some(other) => Err(keys.m.refuse(
            format!("metadata {kind_key} is {other:?}"),
            "use a base with none or linear scaling, or with the factors of Llama 3: the others are not supported",
        )),
    }
}

//! `config.json` of a base: dimensions and constants.

use super::family::Family;
use super::json::Json;
use super::rope;
use crate::error::{PackError, Result};
use pleach::blob::format::{ConfigRecord, NO_TOKEN};
use std::path::Path;

/// Largest dimension in blob format 1.
pub(crate) const MAX_DIM: u32 = 1 << 24;
/// Most heads, and their largest width.
pub(crate) const MAX_HEADS: u32 = 4096;
/// Most layers.
pub(crate) const MAX_LAYERS: u32 = 4096;

/// What the config section needs.
#[derive(Debug)]
pub(crate) struct BaseConfig {
    /// llama.cpp's name for the architecture.
    pub(crate) architecture: &'static str,
    /// Dimensions and constants.
    pub(crate) record: ConfigRecord,
    /// Inverse frequencies, `rope_dim / 2` of them.
    pub(crate) inv_freq: Vec<f32>,
    /// Modules of every layer that have a bias.
    pub(crate) bias_mask: u8,
    /// Whether each head of q and k is normed before the rotary embedding (`q_norm`, `k_norm`).
    pub(crate) qk_norm: bool,
    /// What may differ from layer to layer, a row per layer.
    pub(crate) layers: Vec<LayerKind>,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
}

/// What may differ from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerKind {
    /// Whether q and k are rotated.
    pub(crate) rope: bool,
    /// Positions that attention looks back on, its own included; 0 for all.
    pub(crate) window: u32,
}

impl LayerKind {
    /// Rotated, with full attention.
    pub(crate) const FULL: LayerKind = LayerKind {
        rope: true,
        window: 0,
    };
}

impl BaseConfig {
    /// Reads `config.json`, and `generation_config.json` if there is one.
    pub(crate) fn read(folder: &Path, group: u32) -> Result<Self> {
        check_folder(folder)?;
        let json = Json::read(&folder.join("config.json"))?;
        let family = Family::of(&json)?;
        family.check(&json)?;
        let mut record = dimensions(&json, family, group)?;
        record.rms_eps = eps(&json)?;
        let (theta, scaling) = rope::import(&json, family.theta)?;
        let inv_freq = rope::inverse_frequencies(theta, scaling, record.head_dim);
        if let Some(f) = inv_freq
            .iter()
            .find(|f| !(3.725_290_3e-9..=1.0).contains(*f))
        {
            return Err(json.refuse(
                format!("rope_theta {theta} and rope_scaling give an inverse frequency of {f:e}, outside 2^-28 to 1"),
                "correct rope_theta or rope_scaling",
            ));
        }
        let mut notes = Vec::new();
        tokens(&json, folder, &mut record, &mut notes)?;
        let bias_mask = family.bias_mask(&json)?;
        let layers = family.layers(&json, record.layers)?;
        notes.extend(json.assumed());
        Ok(Self {
            architecture: family.architecture(),
            record,
            inv_freq,
            bias_mask,
            qk_norm: family.qk_norm,
            layers,
            notes,
        })
    }
}

impl BaseConfig {
    /// Puts a token before the other ends of text: chat templates write the first. One that is outside the
    /// vocabulary is none of the model's.
    pub(crate) fn prefer_eos(&mut self, id: u32) {
        if id >= self.record.vocab {
            return;
        }
        let others = self
            .record
            .eos
            .into_iter()
            .filter(|e| *e != id && *e != NO_TOKEN);
        let mut ends: Vec<u32> = std::iter::once(id).chain(others).collect();
        if let Some(last) = ends.get(self.record.eos.len()) {
            self.notes.push(format!(
                "eos_token of tokenizer_config.json is token {id}: kept as an end of text in the place of {last}"
            ));
        }
        ends.resize(self.record.eos.len(), NO_TOKEN);
        for (slot, id) in self.record.eos.iter_mut().zip(ends) {
            *slot = id;
        }
    }
}

fn check_folder(folder: &Path) -> Result<()> {
    let name = folder.display();
    if !folder.is_dir() {
        return Err(PackError::refused(
            format!("{name}: no such folder"),
            "pass the base's folder with --base: config.json and model.safetensors",
        ));
    }
    if !folder.join("config.json").is_file() {
        return Err(PackError::refused(
            format!("{name}: config.json is missing"),
            "pass the base's folder with --base: config.json and model.safetensors",
        ));
    }
    Ok(())
}

fn dimensions(json: &Json, family: &Family, group: u32) -> Result<ConfigRecord> {
    let size = |key: &str, most: u32| {
        let n = json.required_u32(key)?;
        if n == 0 || n > most {
            return Err(json.refuse(
                format!("{key} is {n}; 1 to {most} is possible"),
                format!("correct {key}"),
            ));
        }
        Ok(n)
    };
    let hidden = size("hidden_size", MAX_DIM)?;
    let heads = size("num_attention_heads", MAX_HEADS)?;
    let kv_heads = match json.get("num_key_value_heads") {
        Some(_) => size("num_key_value_heads", MAX_HEADS)?,
        None => {
            let default = match json.has("num_key_value_heads") {
                true => heads,
                false => family.kv_heads.unwrap_or(heads),
            };
            json.note_assumed("num_key_value_heads", &default.to_string());
            default
        }
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(json.refuse(
            format!(
                "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
            ),
            "correct the two keys",
        ));
    }
    let head_dim = match json.get("head_dim") {
        Some(_) => size("head_dim", MAX_HEADS)?,
        None if family.head_dim_stated => size("head_dim", MAX_HEADS)?,
        None if hidden.is_multiple_of(heads) && hidden / heads <= MAX_HEADS => hidden / heads,
        None => {
            return Err(json.refuse(
                format!("hidden_size {hidden} is not num_attention_heads {heads} times a head of at most {MAX_HEADS}"),
                "add head_dim, or correct the two keys",
            ));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(json.refuse(
            format!("head_dim is {head_dim}: rotary embeddings need an even number"),
            "correct head_dim, or hidden_size and num_attention_heads",
        ));
    }
    Ok(ConfigRecord {
        hidden,
        layers: size("num_hidden_layers", MAX_LAYERS)?,
        vocab: size("vocab_size", MAX_DIM)?,
        heads,
        kv_heads,
        head_dim,
        intermediate: size("intermediate_size", MAX_DIM)?,
        max_position: size("max_position_embeddings", u32::MAX)?,
        group,
        rms_eps: 0.0,
        attn_scale: (1.0 / libm::sqrt(f64::from(head_dim))) as f32,
        embed_scale: 1.0,
        residual_scale: 1.0,
        bos: NO_TOKEN,
        eos: [NO_TOKEN; 4],
        rope_dim: head_dim,
        tied: json.bool_or("tie_word_embeddings", family.tied)?,
    })
}

fn eps(json: &Json) -> Result<f32> {
    let eps = json.required_number("rms_norm_eps")? as f32;
    if !(1e-12..=1.0).contains(&eps) {
        return Err(json.refuse(
            format!("rms_norm_eps is {eps:e}; 1e-12 to 1 is possible"),
            "correct rms_norm_eps",
        ));
    }
    Ok(eps)
}

/// Begin and end of text: `generation_config.json` adds to what `config.json` says.
fn tokens(
    json: &Json,
    folder: &Path,
    record: &mut ConfigRecord,
    notes: &mut Vec<String>,
) -> Result<()> {
    let generation = folder.join("generation_config.json");
    let generation = match generation.is_file() {
        true => Some(Json::read(&generation)?),
        false => None,
    };
    let mut eos = Vec::new();
    for file in generation.iter().chain([json]) {
        if let Some(bos) = file.u32("bos_token_id")? {
            record.bos = in_vocabulary(file, "bos_token_id", bos, record.vocab)?;
        }
        for id in file.u32s("eos_token_id")?.unwrap_or_default() {
            let id = in_vocabulary(file, "eos_token_id", id, record.vocab)?;
            if !eos.contains(&id) {
                eos.push(id);
            }
        }
    }
    if eos.len() > record.eos.len() {
        notes.push(format!(
            "{}: {} end-of-text tokens; only the first 4 are kept: {:?}",
            json.path().display(),
            eos.len(),
            &eos.iter().take(4).collect::<Vec<_>>()
        ));
    }
    for (slot, id) in record.eos.iter_mut().zip(eos) {
        *slot = id;
    }
    Ok(())
}

fn in_vocabulary(file: &Json, key: &str, id: u32, vocab: u32) -> Result<u32> {
    if id >= vocab {
        return Err(file.refuse(
            format!("{key} {id} is outside the vocabulary of {vocab}"),
            format!("correct {key}, or vocab_size"),
        ));
    }
    Ok(id)
}

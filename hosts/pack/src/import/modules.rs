//! The modules of a Llama-like base under the names that checkpoints use.

use pleach::blob::format::{Module, NO_LAYER};

/// A module that LoRA may target, in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The module.
    pub(crate) module: Module,
    /// Its layer, or [`NO_LAYER`] for the embedding.
    pub(crate) layer: u16,
}

impl Place {
    /// All places of a base, in the order of sites.
    pub(crate) fn all(layers: u32) -> impl Iterator<Item = Place> {
        let embed = Place {
            module: Module::Embed,
            layer: NO_LAYER,
        };
        std::iter::once(embed).chain((0..layers as u16).flat_map(|layer| {
            Module::LAYER
                .into_iter()
                .map(move |module| Place { module, layer })
        }))
    }

    /// The full name, as `model.layers.0.self_attn.q_proj`.
    pub(crate) fn name(self) -> String {
        match self.module {
            Module::Embed => "model.embed_tokens".into(),
            m => format!("model.layers.{}.{}", self.layer, m.path()),
        }
    }
}

/// What decides which modules a base has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modules {
    /// Number of its layers.
    pub(crate) layers: u32,
    /// Whether the heads of q and k are normed.
    pub(crate) qk_norm: bool,
}

impl Modules {
    /// Modules of the base that LoRA cannot target here. PEFT matches patterns against them all the same.
    pub(crate) fn others(self) -> impl Iterator<Item = String> {
        let fixed = [
            "model",
            "model.layers",
            "model.norm",
            "model.rotary_emb",
            "lm_head",
        ];
        let per_layer = [
            "",
            ".self_attn",
            ".mlp",
            ".mlp.act_fn",
            ".input_layernorm",
            ".post_attention_layernorm",
        ];
        let norms: &[&str] = match self.qk_norm {
            true => &[".self_attn.q_norm", ".self_attn.k_norm"],
            false => &[],
        };
        fixed
            .into_iter()
            .map(String::from)
            .chain((0..self.layers).flat_map(move |n| {
                let parts = per_layer.into_iter().chain(norms.iter().copied());
                parts.map(move |part| format!("model.layers.{n}{part}"))
            }))
    }
}

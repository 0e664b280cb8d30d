//! The model: its sizes, its layers, its sites, and how experts are mixed.

use super::bytes::{f32_at, put, u8_at, u16_at, u32_at};
use super::{LAYER_TENSORS, QK_TENSORS};

/// Bytes of the fixed part of the config section.
pub const CONFIG_BYTES: usize = 128;
/// Bytes of a [`LayerRecord`].
pub const LAYER_BYTES: usize = 16;
/// Bytes of a [`SiteRecord`].
pub const SITE_BYTES: usize = 16;
/// Bytes of the [`OptionsRecord`].
pub const OPTIONS_BYTES: usize = 32;
/// "None" in the token fields of the config.
pub const NO_TOKEN: u32 = u32::MAX;

/// The fixed part of the config section. It is followed by `f32 inv_freq[rope_dim / 2]` and one
/// [`LayerRecord`] per layer; nothing else.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u32 | hidden |
/// | 4 | u32 | layers |
/// | 8 | u32 | vocab |
/// | 12 | u32 | heads |
/// | 16 | u32 | kv_heads |
/// | 20 | u32 | head_dim |
/// | 24 | u32 | intermediate |
/// | 28 | u32 | max_position |
/// | 32 | u32 | group: 32, 64, 128 or 256 |
/// | 36 | f32 | rms_eps |
/// | 40 | f32 | attn_scale |
/// | 44 | f32 | embed_scale |
/// | 48 | f32 | residual_scale |
/// | 52 | u32 | bos, or [`NO_TOKEN`] |
/// | 56 | u32 x 4 | eos, unused ones [`NO_TOKEN`] |
/// | 72 | u32 | rope_dim: 0, or head_dim |
/// | 76 | u8 | 1 if the head is the embedding table |
/// | 77 | 51 bytes | reserved |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfigRecord {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Number of blocks.
    pub layers: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the MLP.
    pub intermediate: u32,
    /// Longest context that the base was made for.
    pub max_position: u32,
    /// Quantisation group along k.
    pub group: u32,
    /// Epsilon of every RMSNorm.
    pub rms_eps: f32,
    /// Factor of attention scores: f32(1 / sqrt(head_dim)).
    pub attn_scale: f32,
    /// Factor of embeddings; 1 for the families that are imported.
    pub embed_scale: f32,
    /// Factor of what a block adds to the residual stream; 1 for the families that are imported.
    pub residual_scale: f32,
    /// Begin-of-text token, or [`NO_TOKEN`].
    pub bos: u32,
    /// End-of-text tokens; unused ones are [`NO_TOKEN`].
    pub eos: [u32; 4],
    /// Rotated dimensions of a head: 0, or head_dim.
    pub rope_dim: u32,
    /// Whether the head is the embedding table.
    pub tied: bool,
}

impl ConfigRecord {
    /// Reads the fields.
    pub const fn decode(b: &[u8; CONFIG_BYTES]) -> Self {
        Self {
            hidden: u32_at(b, 0),
            layers: u32_at(b, 4),
            vocab: u32_at(b, 8),
            heads: u32_at(b, 12),
            kv_heads: u32_at(b, 16),
            head_dim: u32_at(b, 20),
            intermediate: u32_at(b, 24),
            max_position: u32_at(b, 28),
            group: u32_at(b, 32),
            rms_eps: f32_at(b, 36),
            attn_scale: f32_at(b, 40),
            embed_scale: f32_at(b, 44),
            residual_scale: f32_at(b, 48),
            bos: u32_at(b, 52),
            eos: [u32_at(b, 56), u32_at(b, 60), u32_at(b, 64), u32_at(b, 68)],
            rope_dim: u32_at(b, 72),
            tied: u8_at(b, 76) != 0,
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; CONFIG_BYTES] {
        let mut b = [0; CONFIG_BYTES];
        let words = [
            self.hidden,
            self.layers,
            self.vocab,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.intermediate,
            self.max_position,
            self.group,
            self.rms_eps.to_bits(),
            self.attn_scale.to_bits(),
            self.embed_scale.to_bits(),
            self.residual_scale.to_bits(),
            self.bos,
            self.eos[0],
            self.eos[1],
            self.eos[2],
            self.eos[3],
            self.rope_dim,
        ];
        for (i, w) in words.iter().enumerate() {
            put(&mut b, 4 * i, &w.to_le_bytes());
        }
        put(&mut b, 76, &[self.tied as u8]);
        b
    }
}

/// How a layer keeps what later tokens need. Only `Full` is read by this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CacheKind {
    /// Keys and values of every position.
    Full = 0,
    /// Reserved: the last `window` positions.
    Window = 1,
    /// Reserved: recurrent state.
    State = 2,
}

/// In [`LayerRecord::norm_flags`]: each head of q and k passes an RMSNorm before the rotary embedding.
pub const NORM_QK: u8 = 4;

/// One row of the layer table. A model family is data here, not code.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u8 | norm: 1 = RMSNorm before attention and MLP |
/// | 1 | u8 | norm flags: 0 or [`NORM_QK`] (1, 2 are reserved for 1 + w, post) |
/// | 2 | u8 | activation: 1 = SwiGLU |
/// | 3 | u8 | cache: [`CacheKind`] |
/// | 4 | u8 | mask of the [`Module`](super::Module)s with a bias |
/// | 5 | u8 | mask of the modules that are sites |
/// | 6 | u8 | rope: 0 = none, 1 = pairs (i, i + dim/2), where the config has a rope_dim |
/// | 7 | u8 | causal: 1 |
/// | 8 | u32 | window: positions that attention looks back on, its own included; 0 = all |
/// | 12 | u16 | number of the layer's first tensor in the base's table |
/// | 14 | u16 | number of the layer's first site |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerRecord {
    /// Kind of norm.
    pub norm: u8,
    /// Flags of the norm: 0 or [`NORM_QK`].
    pub norm_flags: u8,
    /// Activation.
    pub act: u8,
    /// Kind of cache.
    pub cache: u8,
    /// Modules with a bias.
    pub bias_mask: u8,
    /// Modules that are sites.
    pub site_mask: u8,
    /// Kind of rotary embedding.
    pub rope: u8,
    /// Whether attention is causal.
    pub causal: u8,
    /// Attention window, 0 for none. No session is longer than it, so it never hides a position.
    pub window: u32,
    /// First tensor.
    pub first_tensor: u16,
    /// First site.
    pub first_site: u16,
}

impl LayerRecord {
    /// Whether the heads of q and k are normed.
    pub const fn qk_norm(&self) -> bool {
        self.norm_flags & NORM_QK != 0
    }

    /// The layer's tensors in the base's table: [`LAYER_TENSORS`], [`QK_TENSORS`] with
    /// [`NORM_QK`], a bias for each bit of `bias_mask`.
    pub const fn tensors(&self) -> usize {
        self.before_biases() + self.bias_mask.count_ones() as usize
    }

    /// Those of them that come before the biases.
    pub(crate) const fn before_biases(&self) -> usize {
        let qk = if self.qk_norm() { QK_TENSORS.len() } else { 0 };
        LAYER_TENSORS.len() + qk
    }

    /// Reads the fields.
    pub const fn decode(b: &[u8; LAYER_BYTES]) -> Self {
        Self {
            norm: u8_at(b, 0),
            norm_flags: u8_at(b, 1),
            act: u8_at(b, 2),
            cache: u8_at(b, 3),
            bias_mask: u8_at(b, 4),
            site_mask: u8_at(b, 5),
            rope: u8_at(b, 6),
            causal: u8_at(b, 7),
            window: u32_at(b, 8),
            first_tensor: u16_at(b, 12),
            first_site: u16_at(b, 14),
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; LAYER_BYTES] {
        let mut b = [0; LAYER_BYTES];
        put(
            &mut b,
            0,
            &[
                self.norm,
                self.norm_flags,
                self.act,
                self.cache,
                self.bias_mask,
                self.site_mask,
                self.rope,
                self.causal,
            ],
        );
        put(&mut b, 8, &self.window.to_le_bytes());
        put(&mut b, 12, &self.first_tensor.to_le_bytes());
        put(&mut b, 14, &self.first_site.to_le_bytes());
        b
    }
}

/// One row of the site table, which is preceded by `u32` count and 12 reserved bytes.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u16 | [`Module`](super::Module) |
/// | 2 | u16 | layer, or [`NO_LAYER`](super::NO_LAYER) for `Embed` |
/// | 4 | u32 | input features (`Embed`: vocab) |
/// | 8 | u32 | output features |
/// | 12 | u32 | kind: 0 linear, 1 embedding (2 is reserved for Conv2d) |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiteRecord {
    /// Number of the module.
    pub module: u16,
    /// Layer, or [`NO_LAYER`](super::NO_LAYER).
    pub layer: u16,
    /// Input features.
    pub inputs: u32,
    /// Output features.
    pub outputs: u32,
    /// Kind of layer.
    pub kind: u32,
}

impl SiteRecord {
    /// Reads the fields.
    pub const fn decode(b: &[u8; SITE_BYTES]) -> Self {
        Self {
            module: u16_at(b, 0),
            layer: u16_at(b, 2),
            inputs: u32_at(b, 4),
            outputs: u32_at(b, 8),
            kind: u32_at(b, 12),
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; SITE_BYTES] {
        let mut b = [0; SITE_BYTES];
        put(&mut b, 0, &self.module.to_le_bytes());
        put(&mut b, 2, &self.layer.to_le_bytes());
        put(&mut b, 4, &self.inputs.to_le_bytes());
        put(&mut b, 8, &self.outputs.to_le_bytes());
        put(&mut b, 12, &self.kind.to_le_bytes());
        b
    }
}

/// The X-LoRA options.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u16 | experts |
/// | 2 | u16 | top_k_lora, 0 for none |
/// | 4 | u8 | enable_softmax |
/// | 5 | u8 | enable_softmax_topk |
/// | 6 | u8 | layerwise_scalings |
/// | 7 | u8 | reserved |
/// | 8 | f32 | softmax_temperature |
/// | 12 | f32 | scaling_pass_value (`None` is stored as f32(1 / experts)) |
/// | 16 | f32 | global_scaling_weight |
/// | 20 | 12 bytes | reserved |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionsRecord {
    /// Number of experts.
    pub experts: u16,
    /// Experts kept per token and site; 0 keeps all.
    pub top_k_lora: u16,
    /// Softmax over experts in the classifier.
    pub enable_softmax: bool,
    /// Softmax over the selected experts.
    pub enable_softmax_topk: bool,
    /// One row of scalings per site.
    pub layerwise_scalings: bool,
    /// Divides the classifier's logits.
    pub softmax_temperature: f32,
    /// Constant of pass 1.
    pub scaling_pass_value: f32,
    /// Factor of every expert's output.
    pub global_scaling_weight: f32,
}

impl OptionsRecord {
    /// Reads the fields.
    pub const fn decode(b: &[u8; OPTIONS_BYTES]) -> Self {
        Self {
            experts: u16_at(b, 0),
            top_k_lora: u16_at(b, 2),
            enable_softmax: u8_at(b, 4) != 0,
            enable_softmax_topk: u8_at(b, 5) != 0,
            layerwise_scalings: u8_at(b, 6) != 0,
            softmax_temperature: f32_at(b, 8),
            scaling_pass_value: f32_at(b, 12),
            global_scaling_weight: f32_at(b, 16),
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; OPTIONS_BYTES] {
        let mut b = [0; OPTIONS_BYTES];
        put(&mut b, 0, &self.experts.to_le_bytes());
        put(&mut b, 2, &self.top_k_lora.to_le_bytes());
        put(
            &mut b,
            4,
            &[
                self.enable_softmax as u8,
                self.enable_softmax_topk as u8,
                self.layerwise_scalings as u8,
            ],
        );
        put(&mut b, 8, &self.softmax_temperature.to_le_bytes());
        put(&mut b, 12, &self.scaling_pass_value.to_le_bytes());
        put(&mut b, 16, &self.global_scaling_weight.to_le_bytes());
        b
    }
}

//! The records of a blob: field, offset, type, with one `decode` and one `encode` each.
//!
//! This module is the letter of *blob format 1*; [the parent](super) tells how the records fit
//! together and which rules [`Model::parse`](crate::Model::parse) checks. All integers are little-endian; reserved
//! bytes are 0, else the file is refused.

use crate::kernels::layout::{Dtype, Layout};

/// The format version that this build reads and writes.
pub const VERSION: u16 = 1;
/// The first 8 bytes of a model file.
pub const MAGIC: [u8; 8] = *b"PLEACH\x1a\n";
/// The first 8 bytes of an expert section, which is also an expert file.
pub const EXPERT_MAGIC: [u8; 8] = *b"PLEXPERT";
/// Alignment of sections within the file, in bytes.
pub const SECTION_ALIGN: usize = 64;
/// Alignment of tensor data within a section, in bytes.
pub const DATA_ALIGN: usize = 16;
/// Longest chat template, in bytes.
pub const MAX_TEMPLATE: usize = 1 << 16;
/// "None" in the token fields of the config.
pub const NO_TOKEN: u32 = u32::MAX;
/// "No layer" in a tensor's `layer` field.
pub const NO_LAYER: u16 = u16::MAX;

/// Bytes of the [`Header`].
pub const HEADER_BYTES: usize = 64;
/// Bytes of a [`SectionEntry`].
pub const SECTION_ENTRY_BYTES: usize = 32;
/// Bytes of a [`TensorEntry`].
pub const TENSOR_ENTRY_BYTES: usize = 32;
/// Bytes before the tensor table of the base and classifier sections: `u32` count, `u32` flags, 8 reserved.
pub const TABLE_HEAD_BYTES: usize = 16;
/// Bytes of the fixed part of the config section.
pub const CONFIG_BYTES: usize = 128;
/// Bytes of a [`LayerRecord`].
pub const LAYER_BYTES: usize = 16;
/// Bytes of a [`SiteRecord`].
pub const SITE_BYTES: usize = 16;
/// Bytes of the [`OptionsRecord`].
pub const OPTIONS_BYTES: usize = 32;
/// Bytes of an [`ExpertHeader`].
pub const EXPERT_HEADER_BYTES: usize = 64;
/// Bytes of an [`ExpertSite`].
pub const EXPERT_SITE_BYTES: usize = 32;

/// `b[at..at + N]`, if it is there.
pub(crate) const fn array<const N: usize>(b: &[u8], at: usize) -> Option<&[u8; N]> {
    match b.split_at_checked(at) {
        Some((_, tail)) => tail.first_chunk::<N>(),
        None => None,
    }
}

/// `b[at..at + len]`, if it is there.
pub(crate) const fn slice(b: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    match b.split_at_checked(at) {
        Some((_, tail)) => match tail.split_at_checked(len) {
            Some((head, _)) => Some(head),
            None => None,
        },
        None => None,
    }
}

/// Whether `b[at..at + len]` is there and all 0: reserved bytes, in which a later version may put a meaning
/// that this one does not know.
pub(crate) const fn is_zero(b: &[u8], at: usize, len: usize) -> bool {
    let Some(mut rest) = slice(b, at, len) else {
        return false;
    };
    while let Some((v, tail)) = rest.split_first() {
        if *v != 0 {
            return false;
        }
        rest = tail;
    }
    true
}

const fn u16_at<const N: usize>(b: &[u8; N], at: usize) -> u16 {
    match array::<2>(b, at) {
        Some(a) => u16::from_le_bytes(*a),
        None => 0,
    }
}

pub(crate) const fn u32_at<const N: usize>(b: &[u8; N], at: usize) -> u32 {
    match array::<4>(b, at) {
        Some(a) => u32::from_le_bytes(*a),
        None => 0,
    }
}

const fn u64_at<const N: usize>(b: &[u8; N], at: usize) -> u64 {
    match array::<8>(b, at) {
        Some(a) => u64::from_le_bytes(*a),
        None => 0,
    }
}

const fn f32_at<const N: usize>(b: &[u8; N], at: usize) -> f32 {
    f32::from_bits(u32_at(b, at))
}

pub(crate) const fn u8_at<const N: usize>(b: &[u8; N], at: usize) -> u8 {
    match array::<1>(b, at) {
        Some([v]) => *v,
        None => 0,
    }
}

/// Writes `v` at `at`; a field that would not fit is a mistake of this module, caught by its test.
fn put<const N: usize>(b: &mut [u8; N], at: usize, v: &[u8]) {
    if let Some(field) = b.get_mut(at..at + v.len()) {
        field.copy_from_slice(v);
    }
}

/// What a section holds. Sections lie in the order of these numbers, experts by class index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum SectionKind {
    /// [`ConfigRecord`], inverse frequencies, layer table.
    Config = 1,
    /// Tensor table and data of the base.
    Base = 2,
    /// Site table.
    Sites = 3,
    /// [`OptionsRecord`].
    Options = 4,
    /// Tensor table and data of the classifier. Absent without X-LoRA routing.
    Classifier = 5,
    /// One expert; as many sections as experts.
    Expert = 6,
    /// Module names of the sites. May be stripped.
    Names = 7,
    /// The tokenizer. May be absent.
    Tokenizer = 8,
    /// JSON for people: source names and versions. May be absent.
    Provenance = 9,
    /// The chat template: UTF-8 Jinja of at most [`MAX_TEMPLATE`] bytes. May be absent.
    Template = 10,
}

impl SectionKind {
    /// The kind with this number.
    pub const fn from_number(n: u16) -> Option<Self> {
        Some(match n {
            1 => SectionKind::Config,
            2 => SectionKind::Base,
            3 => SectionKind::Sites,
            4 => SectionKind::Options,
            5 => SectionKind::Classifier,
            6 => SectionKind::Expert,
            7 => SectionKind::Names,
            8 => SectionKind::Tokenizer,
            9 => SectionKind::Provenance,
            10 => SectionKind::Template,
            _ => return None,
        })
    }

    /// A word for messages.
    pub const fn name(self) -> &'static str {
        match self {
            SectionKind::Config => "config",
            SectionKind::Base => "base",
            SectionKind::Sites => "sites",
            SectionKind::Options => "options",
            SectionKind::Classifier => "classifier",
            SectionKind::Expert => "expert",
            SectionKind::Names => "names",
            SectionKind::Tokenizer => "tokenizer",
            SectionKind::Provenance => "provenance",
            SectionKind::Template => "template",
        }
    }

    /// Whether it holds text, which no forward pass reads, rather than tensors or tables.
    pub const fn is_text(self) -> bool {
        matches!(
            self,
            SectionKind::Names
                | SectionKind::Tokenizer
                | SectionKind::Provenance
                | SectionKind::Template
        )
    }
}

/// The first 64 bytes of a model file.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | 8 bytes | [`MAGIC`] |
/// | 8 | u16 | [`VERSION`] |
/// | 10 | u16 | number of sections |
/// | 12 | u32 | reserved |
/// | 16 | u64 | length of the file |
/// | 24 | u64 | base hash: [`fnv1a`](crate::hash::fnv1a) of the base section |
/// | 32 | u64 | site hash: the same of the site table |
/// | 40 | u64 | classifier hash: the same of the classifier section, 0 without one |
/// | 48 | u32 | CRC-32 of the section table |
/// | 52 | 8 bytes | reserved |
/// | 60 | u32 | CRC-32 of bytes 0..60 |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Number of sections.
    pub sections: u16,
    /// Length of the file.
    pub length: u64,
    /// Hash of the base section.
    pub base_hash: u64,
    /// Hash of the site table.
    pub site_hash: u64,
    /// Hash of the classifier section, or 0.
    pub classifier_hash: u64,
    /// CRC-32 of the section table.
    pub table_crc: u32,
}

impl Header {
    /// Reads the fields; magic, version and CRC are the parser's.
    pub const fn decode(b: &[u8; HEADER_BYTES]) -> Self {
        Self {
            sections: u16_at(b, 10),
            length: u64_at(b, 16),
            base_hash: u64_at(b, 24),
            site_hash: u64_at(b, 32),
            classifier_hash: u64_at(b, 40),
            table_crc: u32_at(b, 48),
        }
    }

    /// The record with magic, version and its own CRC.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        put(&mut b, 0, &MAGIC);
        put(&mut b, 8, &VERSION.to_le_bytes());
        put(&mut b, 10, &self.sections.to_le_bytes());
        put(&mut b, 16, &self.length.to_le_bytes());
        put(&mut b, 24, &self.base_hash.to_le_bytes());
        put(&mut b, 32, &self.site_hash.to_le_bytes());
        put(&mut b, 40, &self.classifier_hash.to_le_bytes());
        put(&mut b, 48, &self.table_crc.to_le_bytes());
        let crc = crate::hash::crc32(slice(&b, 0, 60).unwrap_or(&[]));
        put(&mut b, 60, &crc.to_le_bytes());
        b
    }
}

/// One row of the section table, which follows the header.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u16 | [`SectionKind`] |
/// | 2 | u16 | class index of an expert, else 0 |
/// | 4 | u32 | CRC-32 of the section's bytes |
/// | 8 | u64 | offset in the file, a multiple of 64 |
/// | 16 | u64 | length in bytes, without the padding to the next section |
/// | 24 | 8 bytes | reserved |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SectionEntry {
    /// The kind's number; unknown ones are refused.
    pub kind: u16,
    /// Class index of an expert, else 0.
    pub index: u16,
    /// CRC-32 of the section's bytes.
    pub crc: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl SectionEntry {
    /// Reads the fields.
    pub const fn decode(b: &[u8; SECTION_ENTRY_BYTES]) -> Self {
        Self {
            kind: u16_at(b, 0),
            index: u16_at(b, 2),
            crc: u32_at(b, 4),
            offset: u64_at(b, 8),
            length: u64_at(b, 16),
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; SECTION_ENTRY_BYTES] {
        let mut b = [0; SECTION_ENTRY_BYTES];
        put(&mut b, 0, &self.kind.to_le_bytes());
        put(&mut b, 2, &self.index.to_le_bytes());
        put(&mut b, 4, &self.crc.to_le_bytes());
        put(&mut b, 8, &self.offset.to_le_bytes());
        put(&mut b, 16, &self.length.to_le_bytes());
        b
    }
}

/// What a tensor of the base or classifier is. The numbers order a layer's tensors in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Role {
    /// `[vocab][hidden]` token embeddings; also the head when tied.
    Embed = 0,
    /// `[vocab][hidden]` untied head.
    Head = 1,
    /// `[1][hidden]` f32 weight of the final norm.
    FinalNorm = 2,
    /// `[1][hidden]` f32 weight of the norm before attention.
    AttnNorm = 3,
    /// `[1][hidden]` f32 weight of the norm before the MLP.
    MlpNorm = 4,
    /// `[1][head_dim]` f32 weight of the norm of each query head.
    QNorm = 5,
    /// `[1][head_dim]` f32 weight of the norm of each key head.
    KNorm = 6,
    /// A [`Module`]'s `[out][in]` weight: 16 + its number.
    Weight = 16,
    /// A [`Module`]'s `[1][out]` f32 bias: 32 + its number.
    Bias = 32,
    /// `[out][in]` weight of a classifier layer.
    ClassifierWeight = 48,
    /// `[1][out]` f32 bias of a classifier layer.
    ClassifierBias = 49,
}

/// A module that holds a weight and may be a site. The numbers give the site order within a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Module {
    /// `self_attn.q_proj`
    Q = 0,
    /// `self_attn.k_proj`
    K = 1,
    /// `self_attn.v_proj`
    V = 2,
    /// `self_attn.o_proj`
    O = 3,
    /// `mlp.gate_proj`
    Gate = 4,
    /// `mlp.up_proj`
    Up = 5,
    /// `mlp.down_proj`
    Down = 6,
    /// `embed_tokens`, the only one outside the layers. It comes first in the site order.
    Embed = 7,
}

impl Module {
    /// The modules of a layer in registration order.
    pub const LAYER: [Module; 7] = [
        Module::Q,
        Module::K,
        Module::V,
        Module::O,
        Module::Gate,
        Module::Up,
        Module::Down,
    ];

    /// The module with this number.
    pub const fn from_number(n: u16) -> Option<Self> {
        Some(match n {
            0 => Module::Q,
            1 => Module::K,
            2 => Module::V,
            3 => Module::O,
            4 => Module::Gate,
            5 => Module::Up,
            6 => Module::Down,
            7 => Module::Embed,
            _ => return None,
        })
    }

    /// Its name within its layer, as the checkpoints of all families have it.
    pub const fn path(self) -> &'static str {
        match self {
            Module::Q => "self_attn.q_proj",
            Module::K => "self_attn.k_proj",
            Module::V => "self_attn.v_proj",
            Module::O => "self_attn.o_proj",
            Module::Gate => "mlp.gate_proj",
            Module::Up => "mlp.up_proj",
            Module::Down => "mlp.down_proj",
            Module::Embed => "embed_tokens",
        }
    }

    /// The bit of this module in a layer's masks.
    pub const fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// One row of a tensor table.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u64 | offset from the section's start, a multiple of 16 |
/// | 8 | u64 | length: [`packed_size`](crate::kernels::layout::packed_size) |
/// | 16 | u32 | rows |
/// | 20 | u32 | columns |
/// | 24 | u16 | [`Role`] (+ [`Module`]) |
/// | 26 | u16 | layer, or [`NO_LAYER`] |
/// | 28 | u8 | [`Dtype`] |
/// | 29 | u8 | [`Layout`] |
/// | 30 | i8 | `scale_exp`, -10..=0: effective scale = f16 * 2^scale_exp |
/// | 31 | u8 | flags, 0 (a `has_min` bit is reserved for q4) |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorEntry {
    /// Offset from the section's start.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub cols: u32,
    /// Role, plus the module's number for weights and biases.
    pub role: u16,
    /// Layer, or [`NO_LAYER`].
    pub layer: u16,
    /// Tag of the dtype.
    pub dtype: u8,
    /// Tag of the layout.
    pub layout: u8,
    /// Power of two on every scale.
    pub scale_exp: i8,
    /// 0.
    pub flags: u8,
}

impl TensorEntry {
    /// Reads the fields.
    pub const fn decode(b: &[u8; TENSOR_ENTRY_BYTES]) -> Self {
        Self {
            offset: u64_at(b, 0),
            length: u64_at(b, 8),
            rows: u32_at(b, 16),
            cols: u32_at(b, 20),
            role: u16_at(b, 24),
            layer: u16_at(b, 26),
            dtype: u8_at(b, 28),
            layout: u8_at(b, 29),
            scale_exp: u8_at(b, 30) as i8,
            flags: u8_at(b, 31),
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; TENSOR_ENTRY_BYTES] {
        let mut b = [0; TENSOR_ENTRY_BYTES];
        put(&mut b, 0, &self.offset.to_le_bytes());
        put(&mut b, 8, &self.length.to_le_bytes());
        put(&mut b, 16, &self.rows.to_le_bytes());
        put(&mut b, 20, &self.cols.to_le_bytes());
        put(&mut b, 24, &self.role.to_le_bytes());
        put(&mut b, 26, &self.layer.to_le_bytes());
        put(
            &mut b,
            28,
            &[self.dtype, self.layout, self.scale_exp as u8, self.flags],
        );
        b
    }
}

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
/// | 4 | u8 | mask of the [`Module`]s with a bias |
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
/// | 0 | u16 | [`Module`] |
/// | 2 | u16 | layer, or [`NO_LAYER`] for `Embed` |
/// | 4 | u32 | input features (`Embed`: vocab) |
/// | 8 | u32 | output features |
/// | 12 | u32 | kind: 0 linear, 1 embedding (2 is reserved for Conv2d) |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SiteRecord {
    /// Number of the module.
    pub module: u16,
    /// Layer, or [`NO_LAYER`].
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

/// The first 64 bytes of an expert. [`ExpertSite`] records follow, one per site; then the name and the
/// key (UTF-8, no terminator), padded to 16; then the panels in site order, A before B, each at a
/// multiple of 16.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | 8 bytes | [`EXPERT_MAGIC`] |
/// | 8 | u16 | [`VERSION`] |
/// | 10 | u16 | class index |
/// | 12 | u32 | sites of the model |
/// | 16 | u64 | length of the section |
/// | 24 | u64 | base hash |
/// | 32 | u64 | site hash |
/// | 40 | u64 | classifier hash that the expert was packed with, 0 for none |
/// | 48 | u16 | group |
/// | 50 | u8 | bytes of the name |
/// | 51 | u8 | bytes of the key in the X-LoRA config's `adapters` |
/// | 52 | u32 | reserved |
/// | 56 | u32 | CRC-32 of bytes 0..56 |
/// | 60 | u32 | CRC-32 of bytes 64.. |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertHeader {
    /// Class index.
    pub class: u16,
    /// Sites of the model.
    pub sites: u32,
    /// Length of the section.
    pub length: u64,
    /// Hash of the base.
    pub base_hash: u64,
    /// Hash of the site table.
    pub site_hash: u64,
    /// Hash of the classifier.
    pub classifier_hash: u64,
    /// Quantisation group.
    pub group: u16,
    /// Bytes of the name.
    pub name_len: u8,
    /// Bytes of the key.
    pub key_len: u8,
    /// CRC-32 of what follows the header.
    pub body_crc: u32,
}

impl ExpertHeader {
    /// Reads the fields.
    pub const fn decode(b: &[u8; EXPERT_HEADER_BYTES]) -> Self {
        Self {
            class: u16_at(b, 10),
            sites: u32_at(b, 12),
            length: u64_at(b, 16),
            base_hash: u64_at(b, 24),
            site_hash: u64_at(b, 32),
            classifier_hash: u64_at(b, 40),
            group: u16_at(b, 48),
            name_len: u8_at(b, 50),
            key_len: u8_at(b, 51),
            body_crc: u32_at(b, 60),
        }
    }

    /// The record with magic, version and its own CRC.
    pub fn encode(&self) -> [u8; EXPERT_HEADER_BYTES] {
        let mut b = [0; EXPERT_HEADER_BYTES];
        put(&mut b, 0, &EXPERT_MAGIC);
        put(&mut b, 8, &VERSION.to_le_bytes());
        put(&mut b, 10, &self.class.to_le_bytes());
        put(&mut b, 12, &self.sites.to_le_bytes());
        put(&mut b, 16, &self.length.to_le_bytes());
        put(&mut b, 24, &self.base_hash.to_le_bytes());
        put(&mut b, 32, &self.site_hash.to_le_bytes());
        put(&mut b, 40, &self.classifier_hash.to_le_bytes());
        put(&mut b, 48, &self.group.to_le_bytes());
        put(&mut b, 50, &[self.name_len, self.key_len]);
        let crc = crate::hash::crc32(slice(&b, 0, 56).unwrap_or(&[]));
        put(&mut b, 56, &crc.to_le_bytes());
        put(&mut b, 60, &self.body_crc.to_le_bytes());
        b
    }
}

/// What an expert has at one site. `rank` 0: nothing.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u32 | offset of A from the expert's start, in units of 16 bytes |
/// | 4 | u32 | offset of B, likewise |
/// | 8 | u32 | bytes of A: [`packed_size`](crate::kernels::layout::packed_size) of `[rank][inputs]` (embedding site: `[vocab][rank]`) |
/// | 12 | u32 | bytes of B: [`packed_b_size`](crate::kernels::layout::packed_b_size) of `[outputs][rank]` |
/// | 16 | f32 | scale: alpha / r, or alpha / sqrt(r) |
/// | 20 | u16 | rank |
/// | 22 | u8 | dtype of A |
/// | 23 | u8 | layout of A (embedding site: `rows`) |
/// | 24 | i8 | `scale_exp` of A |
/// | 25 | u8 | dtype of B |
/// | 26 | i8 | `scale_exp` of B |
/// | 27 | 5 bytes | reserved |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertSite {
    /// Offset of A, in units of 16 bytes.
    pub a_offset: u32,
    /// Offset of B, in units of 16 bytes.
    pub b_offset: u32,
    /// Bytes of A.
    pub a_length: u32,
    /// Bytes of B.
    pub b_length: u32,
    /// LoRA scale.
    pub scale: f32,
    /// Rank; 0 if the expert does not target the site.
    pub rank: u16,
    /// Tag of A's dtype.
    pub a_dtype: u8,
    /// Tag of A's layout.
    pub a_layout: u8,
    /// Power of two on A's scales.
    pub a_scale_exp: i8,
    /// Tag of B's dtype.
    pub b_dtype: u8,
    /// Power of two on B's scales.
    pub b_scale_exp: i8,
}

impl ExpertSite {
    /// A site that the expert does not target: 32 zero bytes.
    pub const NONE: ExpertSite = ExpertSite {
        a_offset: 0,
        b_offset: 0,
        a_length: 0,
        b_length: 0,
        scale: 0.0,
        rank: 0,
        a_dtype: 0,
        a_layout: 0,
        a_scale_exp: 0,
        b_dtype: 0,
        b_scale_exp: 0,
    };

    /// Reads the fields.
    pub const fn decode(b: &[u8; EXPERT_SITE_BYTES]) -> Self {
        Self {
            a_offset: u32_at(b, 0),
            b_offset: u32_at(b, 4),
            a_length: u32_at(b, 8),
            b_length: u32_at(b, 12),
            scale: f32_at(b, 16),
            rank: u16_at(b, 20),
            a_dtype: u8_at(b, 22),
            a_layout: u8_at(b, 23),
            a_scale_exp: u8_at(b, 24) as i8,
            b_dtype: u8_at(b, 25),
            b_scale_exp: u8_at(b, 26) as i8,
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; EXPERT_SITE_BYTES] {
        let mut b = [0; EXPERT_SITE_BYTES];
        put(&mut b, 0, &self.a_offset.to_le_bytes());
        put(&mut b, 4, &self.b_offset.to_le_bytes());
        put(&mut b, 8, &self.a_length.to_le_bytes());
        put(&mut b, 12, &self.b_length.to_le_bytes());
        put(&mut b, 16, &self.scale.to_le_bytes());
        put(&mut b, 20, &self.rank.to_le_bytes());
        put(
            &mut b,
            22,
            &[
                self.a_dtype,
                self.a_layout,
                self.a_scale_exp as u8,
                self.b_dtype,
                self.b_scale_exp as u8,
            ],
        );
        b
    }

    /// Dtype and layout of A, if both are known.
    pub(crate) const fn a_kind(&self) -> Option<(Dtype, Layout)> {
        match (
            Dtype::from_tag(self.a_dtype),
            Layout::from_tag(self.a_layout),
        ) {
            (Some(d), Some(l)) => Some((d, l)),
            _ => None,
        }
    }
}

/// The tensors of a layer, in the order in which they stand in the base's table: both norms and seven
/// weights (attn_norm, q, k, v, o, mlp_norm, gate, up, down); then, with [`NORM_QK`], [`QK_TENSORS`]; then
/// the biases of `bias_mask` in module order.
pub const LAYER_TENSORS: [u16; 9] = [
    Role::AttnNorm as u16,
    Role::Weight as u16 + Module::Q as u16,
    Role::Weight as u16 + Module::K as u16,
    Role::Weight as u16 + Module::V as u16,
    Role::Weight as u16 + Module::O as u16,
    Role::MlpNorm as u16,
    Role::Weight as u16 + Module::Gate as u16,
    Role::Weight as u16 + Module::Up as u16,
    Role::Weight as u16 + Module::Down as u16,
];

/// The norms of q's and k's heads, of layers with [`NORM_QK`].
pub const QK_TENSORS: [u16; 2] = [Role::QNorm as u16, Role::KNorm as u16];

//! The tensors of the base and the classifier: what each is, and where it lies.

use super::bytes::{put, u8_at, u16_at, u32_at, u64_at};

/// Bytes before the tensor table of the base and classifier sections: `u32` count, `u32` flags, 8 reserved.
pub const TABLE_HEAD_BYTES: usize = 16;
/// Bytes of a [`TensorEntry`].
pub const TENSOR_ENTRY_BYTES: usize = 32;
/// Alignment of tensor data within a section, in bytes.
pub const DATA_ALIGN: usize = 16;
/// "No layer" in a tensor's `layer` field.
pub const NO_LAYER: u16 = u16::MAX;

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
/// | 28 | u8 | [`Dtype`](crate::kernels::layout::Dtype) |
/// | 29 | u8 | [`Layout`](crate::kernels::layout::Layout) |
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

/// The tensors of a layer, in the order in which they stand in the base's table: both norms and seven
/// weights (attn_norm, q, k, v, o, mlp_norm, gate, up, down); then, with [`NORM_QK`](super::NORM_QK), [`QK_TENSORS`]; then
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

/// The norms of q's and k's heads, of layers with [`NORM_QK`](super::NORM_QK).
pub const QK_TENSORS: [u16; 2] = [Role::QNorm as u16, Role::KNorm as u16];

//! Config, layer table and X-LoRA options.

use super::*;
use crate::kernels::layout::is_group;

pub(super) const fn config(b: &[u8]) -> Result<ConfigRecord, Error> {
    let Some(head) = format::array(b, 0) else {
        return Err(Error::Config {
            why: "the section is too short",
        });
    };
    let c = ConfigRecord::decode(head);
    let why = if c.hidden == 0 || c.hidden > MAX_DIM {
        "hidden is outside 1..=2^24"
    } else if c.vocab == 0 || c.vocab > MAX_DIM {
        "vocab is outside 1..=2^24"
    } else if c.intermediate == 0 || c.intermediate > MAX_DIM {
        "intermediate is outside 1..=2^24"
    } else if c.layers == 0 || c.layers > MAX_LAYERS {
        "layers is outside 1..=4096"
    } else if c.kv_heads == 0
        || c.heads > MAX_HEADS
        || !c.heads.is_multiple_of(c.kv_heads)
        || c.heads == 0
    {
        "heads must be a multiple of kv_heads, at most 4096"
    } else if c.head_dim == 0 || c.head_dim > MAX_HEAD_DIM {
        "head_dim is outside 1..=4096"
    } else if c.rope_dim != 0 && (c.rope_dim != c.head_dim || !c.head_dim.is_multiple_of(2)) {
        "rope_dim must be 0 or an even head_dim"
    } else if c.max_position == 0 {
        "max_position is 0"
    } else if !is_group(c.group as usize) {
        "group must be 32, 64, 128 or 256"
    } else if !(c.rms_eps >= MIN_EPS && c.rms_eps <= 1.0) {
        "rms_eps is outside 1e-12..=1"
    } else if !is_factor(c.attn_scale) {
        "attn_scale is outside 2^-24..=65504"
    } else if !is_factor(c.embed_scale) {
        "embed_scale is outside 2^-24..=65504"
    } else if !is_factor(c.residual_scale) {
        "residual_scale is outside 2^-24..=65504"
    } else if format::u8_at(head, 76) > 1 || !format::is_zero(head, 77, 51) {
        "the flag tied is neither 0 nor 1, or reserved bytes are not 0"
    } else if b.len()
        != format::CONFIG_BYTES
            + (c.rope_dim as usize / 2) * 4
            + c.layers as usize * format::LAYER_BYTES
    {
        "the section's length does not fit layers and rope_dim"
    } else {
        let mut i = 0;
        while i < c.rope_dim as usize / 2 {
            let f = match format::array::<4>(b, format::CONFIG_BYTES + 4 * i) {
                Some(v) => f32::from_le_bytes(*v),
                None => 0.0,
            };
            if !(f >= MIN_FREQ && f <= 1.0) {
                return Err(Error::Config {
                    why: "an inverse frequency is outside 2^-28..=1",
                });
            }
            i += 1;
        }
        return Ok(c);
    };
    Err(Error::Config { why })
}

pub(super) const fn layers(model: &Model<'_>) -> Result<(), Error> {
    let mut tensor = if model.config.tied { 2 } else { 3 };
    let mut site = if model.embed_site().is_some() { 1 } else { 0 };
    let mut i = 0;
    while i < model.config.layers as usize {
        let Some(l) = model.layer(i) else {
            return Err(Error::Corrupt);
        };
        let LayerRecord {
            norm,
            norm_flags,
            act,
            cache,
            bias_mask,
            site_mask,
            rope,
            causal,
            ..
        } = l;
        let why = if norm != 1 || norm_flags & !format::NORM_QK != 0 {
            "a layer's norm is of a kind that this build does not know"
        } else if act != 1 {
            "a layer's activation is of a kind that this build does not know"
        } else if cache != CacheKind::Full as u8 {
            "a layer's cache is of a kind that this build does not know"
        } else if causal != 1 {
            "a layer's attention is not causal"
        } else if rope > 1 || (rope == 1 && model.config.rope_dim == 0) {
            "a layer's rotary embedding does not fit rope_dim"
        } else if bias_mask > 127 || site_mask > 127 {
            "a layer's mask names a module that there is not"
        } else if l.first_tensor as usize != tensor {
            "a layer's first tensor is not the one after the layer before"
        } else if l.first_site as usize != site {
            "a layer's first site is not the one after the layer before"
        } else {
            tensor += l.tensors();
            site += site_mask.count_ones() as usize;
            if tensor > u16::MAX as usize || site > u16::MAX as usize {
                return Err(Error::Config {
                    why: "more than 65535 tensors or sites",
                });
            }
            i += 1;
            continue;
        };
        return Err(Error::Config { why });
    }
    Ok(())
}

/// Output and input features of a layer's module.
pub(crate) const fn module_shape(c: &ConfigRecord, module: Module) -> (u32, u32) {
    let q = c.heads * c.head_dim;
    let kv = c.kv_heads * c.head_dim;
    match module {
        Module::Q => (q, c.hidden),
        Module::K | Module::V => (kv, c.hidden),
        Module::O => (c.hidden, q),
        Module::Gate | Module::Up => (c.intermediate, c.hidden),
        Module::Down => (c.hidden, c.intermediate),
        Module::Embed => (c.hidden, c.vocab),
    }
}

pub(super) const fn xlora_options(b: &[u8]) -> Result<OptionsRecord, Error> {
    let (Some(head), true) = (format::array(b, 0), b.len() == format::OPTIONS_BYTES) else {
        return Err(Error::Config {
            why: "the options' length is not 32",
        });
    };
    let o = OptionsRecord::decode(head);
    let why = if o.top_k_lora > o.experts {
        "top_k_lora is larger than the number of experts"
    } else if o.top_k_lora != 0 && o.scaling_pass_value != 0.0 {
        "top_k_lora with a scaling_pass_value: every value ties"
    } else if !is_factor(o.softmax_temperature) {
        "softmax_temperature is outside 2^-24..=65504"
    } else if !is_signed_factor(o.scaling_pass_value) {
        "scaling_pass_value is neither 0 nor within 2^-24..=65504"
    } else if !is_signed_factor(o.global_scaling_weight) {
        "global_scaling_weight is neither 0 nor within 2^-24..=65504"
    } else if format::u8_at(head, 4) > 1 || format::u8_at(head, 5) > 1 || format::u8_at(head, 6) > 1
    {
        "a flag of the options is neither 0 nor 1"
    } else if !format::is_zero(head, 7, 1) || !format::is_zero(head, 20, 12) {
        "reserved bytes of the options are not 0"
    } else {
        return Ok(o);
    };
    Err(Error::Config { why })
}

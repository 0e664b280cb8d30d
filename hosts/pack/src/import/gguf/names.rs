//! llama.cpp's names for tensors, Hugging Face's, and the order of rows.

/// Names that do not belong to a layer: Hugging Face, GGUF.
const GLOBAL: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("lm_head.weight", "output.weight"),
    ("model.norm.weight", "output_norm.weight"),
];

/// Names within a layer, without `.weight` or `.bias`.
const LAYER: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_proj", Q),
    ("self_attn.k_proj", K),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

const Q: &str = "attn_q";
const K: &str = "attn_k";

/// GGUF's name for a tensor of Hugging Face.
pub(crate) fn to_gguf(name: &str) -> Option<String> {
    if let Some((_, g)) = GLOBAL.iter().find(|(h, _)| *h == name) {
        return Some((*g).into());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, end) = rest.rsplit_once('.')?;
    let (_, g) = LAYER.iter().find(|(h, _)| *h == module)?;
    Some(format!("blk.{layer}.{g}.{end}"))
}

/// Hugging Face's name for a tensor of GGUF.
pub(crate) fn to_hugging_face(name: &str) -> Option<String> {
    if let Some((h, _)) = GLOBAL.iter().find(|(_, g)| *g == name) {
        return Some((*h).into());
    }
    let (layer, module, end) = split(name)?;
    let (h, _) = LAYER.iter().find(|(_, g)| *g == module)?;
    Some(format!("model.layers.{layer}.{h}.{end}"))
}

/// `blk.N.module.end`
fn split(name: &str) -> Option<(u32, &str, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, end) = rest.rsplit_once('.')?;
    let number: u32 = layer.parse().ok()?;
    // Llama-like norms have no bias: it would change the model.
    let known = match end {
        "weight" => true,
        "bias" => !module.ends_with("_norm"),
        _ => false,
    };
    let known = known && number.to_string() == layer;
    known.then_some((number, module, end))
}

/// The layer that a tensor belongs to.
pub(crate) fn layer(name: &str) -> Option<u32> {
    split(name).map(|(n, _, _)| n)
}

/// Whether a tensor (or its LoRA B) is one whose rows `convert_hf_to_gguf.py` reorders, for architectures
/// where it does.
pub(crate) fn is_permuted(name: &str) -> bool {
    split(name).is_some_and(|(_, module, _)| matches!(module, Q | K))
}

/// Puts the rows of heads back into Hugging Face's order: there rows `i` and `i + dim/2` of a head make a
/// pair of the rotary embedding, in GGUF rows `2i` and `2i + 1` do. `row` counts in items of `heads`.
pub(crate) fn unpermute<T: Copy>(heads: &[T], row: usize, dim: usize, out: &mut Vec<T>) {
    for head in heads.chunks((dim * row).max(1)) {
        for odd in [0, 1] {
            let rows = head.chunks(row.max(1)).skip(odd).step_by(2);
            rows.for_each(|r| out.extend_from_slice(r));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        for (h, g) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            (
                "model.layers.12.self_attn.o_proj.bias",
                "blk.12.attn_output.bias",
            ),
            (
                "model.layers.0.self_attn.k_norm.weight",
                "blk.0.attn_k_norm.weight",
            ),
        ] {
            assert_eq!(to_gguf(h).as_deref(), Some(g));
            assert_eq!(to_hugging_face(g).as_deref(), Some(h));
        }
        for other in [
            "blk.0.ffn_gate_inp.weight",
            "blk.01.attn_q.weight",
            "blk.0.attn_q.scale",
            "blk.0.attn_norm.bias",
            "blk.0.attn_q_norm.bias",
            "output_norm.bias",
            "x",
        ] {
            assert_eq!(to_hugging_face(other), None);
        }
    }

    #[test]
    fn pairs_become_halves() {
        // Two heads of four rows of one: GGUF has (0, 2), (1, 3) as neighbours.
        let mut out = Vec::new();
        unpermute(&[0, 2, 1, 3, 10, 12, 11, 13], 1, 4, &mut out);
        assert_eq!(out, [0, 1, 2, 3, 10, 11, 12, 13]);
    }
}

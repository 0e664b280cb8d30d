//! An inspection for scripts.

use super::{Inspection, kind};
use pleach::blob::format::{LayerRecord, NO_TOKEN, VERSION};
use pleach_pack::Target;
use serde_json::{Value, json};

/// The inspection as one JSON object.
pub(crate) fn json(x: &Inspection<'_>, name: &str) -> Value {
    let c = x.model.config();
    let token = |t: u32| (t != NO_TOKEN).then_some(t);
    let h = x.model.header();
    let hash = |h: u64| format!("{h:016x}");
    json!({
        "file": name,
        "format": VERSION,
        "bytes": x.model.file_len(),
        "for": x.target.map(Target::name),
        "config": {
            "hidden": c.hidden,
            "layers": c.layers,
            "vocab": c.vocab,
            "heads": c.heads,
            "kv_heads": c.kv_heads,
            "head_dim": c.head_dim,
            "intermediate": c.intermediate,
            "max_position": c.max_position,
            "window": x.model.window(),
            "qk_norm": !x.layers_where(LayerRecord::qk_norm).is_empty(),
            "no_rope_layers": x.layers_where(|l| l.rope == 0),
            "rms_eps": decimal(c.rms_eps),
            "rope_dim": c.rope_dim,
            "tied": c.tied,
            "bos": token(c.bos),
            "eos": c.eos.into_iter().filter_map(token).collect::<Vec<_>>(),
            "group": c.group,
        },
        "base_weights": x.base_numbers(),
        "classifier": x.model.has_classifier(),
        "options": options(x),
        "tokenizer": x.model.tokenizer().map(|t| json!({"vocab": t.vocab(), "bos": t.bos(), "eos": t.eos()})),
        "experts": x.experts.iter().enumerate().map(|(class, e)| json!({
            "class": class,
            "name": e.name,
            "key": e.key,
            "bytes": e.bytes,
            "sites": e.sites(),
            "ranks": e.ranks,
            "replaced": e.replaced,
            "bindings": {
                "base": hash(e.bound[0]),
                "sites": hash(e.bound[1]),
                "classifier": hash(e.bound[2]),
            },
            "matches": {
                "base": e.matches[0],
                "sites": e.matches[1],
                "classifier": e.matches[2],
            },
        })).collect::<Vec<_>>(),
        "sites": x.sites.iter().map(|s| json!({
            "name": s.name,
            "kind": if s.embedding { "embedding" } else { "linear" },
            "inputs": s.inputs,
            "outputs": s.outputs,
        })).collect::<Vec<_>>(),
        "tensors": x.tensors.iter().map(|g| json!({
            "part": g.part,
            "dtype": g.dtype.name(),
            "layout": g.layout.name(),
            "tensors": g.tensors,
            "numbers": g.numbers,
            "bytes": g.bytes,
            "padding_bytes": g.bytes - g.net_bytes,
        })).collect::<Vec<_>>(),
        "sections": x.sections.iter().map(|s| json!({
            "kind": kind(s),
            "index": s.index,
            "offset": s.offset,
            "bytes": s.length,
            "crc32": format!("{:08x}", s.crc),
        })).collect::<Vec<_>>(),
        "table_bytes": x.table_bytes,
        "padding_bytes": x.padding_bytes,
        "table_and_padding_share": x.table_and_padding_share(),
        "bindings": {
            "base": hash(h.base_hash),
            "sites": hash(h.site_hash),
            "classifier": x.model.has_classifier().then(|| hash(h.classifier_hash)),
        },
        "storage_errors": x.errors.json(),
        "provenance": x.model.provenance().map(|p| {
            serde_json::from_str(p).unwrap_or_else(|_| Value::String(p.to_owned()))
        }),
        "verified": x.verified.is_ok(),
    })
}

fn options(x: &Inspection<'_>) -> Value {
    if !x.model.has_classifier() {
        return Value::Null;
    }
    let o = x.model.xlora_config();
    json!({
        "top_k_lora": o.top_k_lora,
        "enable_softmax": o.enable_softmax,
        "enable_softmax_topk": o.enable_softmax_topk,
        "softmax_temperature": decimal(o.softmax_temperature),
        "layerwise_scalings": o.layerwise_scalings,
        "scaling_pass_value": decimal(o.scaling_pass_value),
        "global_scaling_weight": decimal(o.global_scaling_weight),
    })
}

/// The shortest decimal that is this number: 0.1, not 0.10000000149011612.
pub(super) fn decimal(v: f32) -> Value {
    let shortest: Result<f64, _> = v.to_string().parse();
    json!(shortest.unwrap_or(f64::from(v)))
}

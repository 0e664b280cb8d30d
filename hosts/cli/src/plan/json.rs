//! A plan for scripts.

use super::{Figures, Section};
use pleach::KvType;
use pleach::session::CostRange;
use pleach::{Caches, Speculate};
use serde_json::{Value, json};

/// The figures as one JSON object.
pub(crate) fn json(x: &Figures<'_>, name: &str) -> Value {
    let (m, o) = (&x.model, &x.options);
    let section = |s: &Section<'_>| {
        json!({
            "kind": s.kind,
            "class": s.expert.map(|(class, _)| class),
            "expert": s.expert.map(|(_, name)| name),
            "bytes": s.bytes,
        })
    };
    json!({
        "file": name,
        "bytes": m.file_len(),
        "sections": x.sections.iter().map(section).collect::<Vec<_>>(),
        "table_bytes": x.table_bytes,
        "experts": (0..m.n_experts()).filter_map(|c| m.expert(c)).map(|e| json!({
            "class": e.class(),
            "name": e.name(),
            "bytes": e.bytes(),
            "cost": cost(&CostRange { least: m.expert_cost(e.class()), most: m.expert_cost(e.class()) }),
        })).collect::<Vec<_>>(),
        "session": {
            "context": o.context,
            "chunk": o.chunk,
            "kv": match o.kv { KvType::F32 => "f32", KvType::F16 => "f16" },
            "caches": match o.caches { Caches::One => 1, Caches::Two => 2 },
            "routing": x.routing,
            "speculate": speculation(o.speculate),
        },
        "arena": {
            "bytes": x.arena_bytes,
            "align": 16,
            "parts": x.parts.iter().map(|p| json!({
                "name": p.name,
                "holds": p.holds,
                "offset": p.offset,
                "bytes": p.bytes,
            })).collect::<Vec<_>>(),
            "kv_bytes_per_token": m.kv_bytes_per_token(o),
            "by_speculation": x.speculation.iter().map(|(name, bytes)| ((*name).to_owned(), json!(bytes))).collect::<serde_json::Map<_, _>>(),
        },
        "ram": x.ram.as_ref().map(|r| json!({
            "bytes": r.bytes,
            "largest_context": r.fits.map(|(n, _)| n),
            "arena_bytes": r.fits.map(|(_, bytes)| bytes),
            "arena_bytes_of_one_token": r.least,
        })),
        "column": x.column.iter().map(|(name, range)| ((*name).to_owned(), cost(range))).collect::<serde_json::Map<_, _>>(),
        "selected": x.selection,
        "attention": {
            "macs_per_position": m.attention_macs(0),
            "kv_bytes_per_position": m.attention_bytes(0, o.kv),
        },
        "tokens": x.tokens.iter().map(|t| json!({
            "name": t.name,
            "when": t.when,
            "sweeps": t.sweeps,
            "columns": t.columns,
            "weight_bytes": { "least": t.weight_bytes.0, "most": t.weight_bytes.1 },
            "macs": { "least": t.macs.0, "most": t.macs.1 },
        })).collect::<Vec<_>>(),
    })
}

fn cost(range: &CostRange) -> Value {
    json!({
        "weight_bytes": { "least": range.least.bytes(), "most": range.most.bytes() },
        "macs": { "least": range.least.macs, "most": range.most.macs },
    })
}

/// The word for a kind of speculation.
pub(crate) fn speculation(s: Speculate) -> &'static str {
    match s {
        Speculate::Off => "off",
        Speculate::Auto => "auto",
        Speculate::Base => "base",
        Speculate::Held => "held",
    }
}

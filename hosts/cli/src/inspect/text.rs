//! An inspection for people.

use super::{Inspection, kind, rank_range};
use crate::model::target_name;
use crate::output::{bytes, count, labelled};
use pleach::blob::format::{LayerRecord, NO_TOKEN};
use std::fmt::Write;

const INDENT: usize = 12;

/// The inspection as lines of at most `width` columns, where words allow.
pub(crate) fn text(x: &Inspection<'_>, name: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(out, "{}", labelled(label, INDENT, text, width));
    };
    line(
        "file",
        &format!(
            "{name}, {}, laid out for {}",
            bytes(x.model.file_len() as u64),
            target_name(x.target)
        ),
    );
    line("base", &base(x));
    line("attention", &attention(x));
    line("tokens", &tokens(x));
    line("routing", &routing(x));
    for (class, e) in x.experts.iter().enumerate() {
        let ranks = rank_range(&e.ranks);
        let label = if class == 0 { "experts" } else { "" };
        line(
            label,
            &format!(
                "{class} {} (key {}): rank {ranks} at {} of {} sites, {}{}; bound to {}",
                e.name,
                e.key,
                e.sites(),
                x.sites.len(),
                bytes(e.bytes as u64),
                if e.replaced {
                    ", from a file of its own"
                } else {
                    ""
                },
                bound(e)
            ),
        );
    }
    for (n, s) in x.sites.iter().enumerate() {
        let label = if n == 0 { "sites" } else { "" };
        let kind = if s.embedding { ", embedding" } else { "" };
        line(
            label,
            &format!("{n} {}: {} to {}{kind}", s.name, s.inputs, s.outputs),
        );
    }
    for (n, g) in x.tensors.iter().enumerate() {
        let label = if n == 0 { "tensors" } else { "" };
        line(
            label,
            &format!(
                "{}: {} in {} {}, {} numbers, {}",
                g.part,
                g.tensors,
                g.dtype.name(),
                g.layout.name(),
                count(g.numbers),
                bytes(g.bytes)
            ),
        );
    }
    for (n, k) in x.errors.kinds.iter().enumerate() {
        let label = if n == 0 { "errors" } else { "" };
        let (low, high) = k.range();
        let flushed = match k.flushed {
            0 => String::new(),
            n => format!(", {n} values became 0"),
        };
        let largest = k
            .largest
            .map_or(String::new(), |v| format!(", largest of one value {v:.1e}"));
        line(
            label,
            &format!(
                "{}: {:.4} % to {:.4} % in {} tensors{largest}{flushed}",
                k.name,
                100.0 * low,
                100.0 * high,
                k.tensors.len()
            ),
        );
    }
    for (n, s) in x.sections.iter().enumerate() {
        let label = if n == 0 { "sections" } else { "" };
        let name = match kind(s) {
            "expert" => format!("expert {}", s.index),
            other => other.to_owned(),
        };
        line(
            label,
            &format!("{name}: {} at {}", bytes(s.length), s.offset),
        );
    }
    line(
        "overhead",
        &format!(
            "tables {}, padding {}: {:.1} %",
            bytes(x.table_bytes),
            bytes(x.padding_bytes),
            100.0 * x.table_and_padding_share()
        ),
    );
    let h = x.model.header();
    line(
        "bindings",
        &format!(
            "base {:016x} sites {:016x} classifier {:016x}",
            h.base_hash, h.site_hash, h.classifier_hash
        ),
    );
    if let Some(provenance) = x.model.provenance() {
        line("provenance", &readable(provenance));
    }
    let verified = match &x.verified {
        Ok(()) => "checksums, bindings and values are sound".to_owned(),
        Err(e) => e.to_string(),
    };
    line("verified", &verified);
    out
}

/// The storage error of every tensor, a line each.
pub(crate) fn tensors(x: &Inspection<'_>) -> String {
    let mut out = String::new();
    let all = x.errors.kinds.iter().flat_map(|k| &k.tensors);
    for (name, relative) in all {
        let _ = writeln!(out, "{:.4} %  {name}", 100.0 * relative);
    }
    match out.is_empty() {
        true => "storage errors: none are noted in the file\n".into(),
        false => out,
    }
}

/// What an expert is bound to.
fn bound(e: &super::ExpertInfo<'_>) -> String {
    let names = ["base", "sites", "classifier"];
    let with = |want: bool| {
        let all = names.iter().zip(e.matches);
        let list: Vec<&str> = all.filter(|(_, m)| *m == want).map(|(n, _)| *n).collect();
        list.join(", ")
    };
    match e.matches {
        [true, true, true] => "this base, its sites and classifier".into(),
        _ => format!(
            "this {}; another {} ({:016x})",
            with(true),
            with(false),
            e.bound[2]
        ),
    }
}

fn base(x: &Inspection<'_>) -> String {
    let c = x.model.config();
    format!(
        "{} weights: {} layers, hidden {}, MLP {}, vocabulary {}, head {}; groups of {}",
        count(x.base_numbers()),
        c.layers,
        c.hidden,
        c.intermediate,
        c.vocab,
        if c.tied { "tied" } else { "untied" },
        c.group
    )
}

fn attention(x: &Inspection<'_>) -> String {
    let c = x.model.config();
    let mut text = format!(
        "{} heads, {} of keys and values, {} wide; up to {} positions",
        c.heads, c.kv_heads, c.head_dim, c.max_position
    );
    if let Some(window) = x.model.window() {
        let _ = write!(text, ", within a window of {window}");
    }
    if !x.layers_where(LayerRecord::qk_norm).is_empty() {
        text += "; heads of q and k are normed";
    }
    let unrotated = x.layers_where(|l| l.rope == 0);
    if !unrotated.is_empty() {
        let list: Vec<String> = unrotated.iter().map(usize::to_string).collect();
        let _ = write!(text, "; no rotary embedding in layers {}", list.join(", "));
    }
    text
}

fn tokens(x: &Inspection<'_>) -> String {
    let c = x.model.config();
    let name = |t: u32| {
        if t == NO_TOKEN {
            "none".to_owned()
        } else {
            t.to_string()
        }
    };
    let ends: Vec<String> = c
        .eos
        .iter()
        .filter(|t| **t != NO_TOKEN)
        .map(|t| name(*t))
        .collect();
    let tokenizer = match x.model.tokenizer() {
        Some(t) => format!("byte-level BPE of {} tokens", t.vocab()),
        None => "none".into(),
    };
    let ends = if ends.is_empty() {
        "none".into()
    } else {
        ends.join(", ")
    };
    format!("begin {}, end {ends}; tokenizer: {tokenizer}", name(c.bos))
}

fn routing(x: &Inspection<'_>) -> String {
    if !x.model.has_classifier() {
        return match x.experts.len() {
            0 => "no experts".into(),
            1 => "no classifier: all-ones unless told".into(),
            _ => "no classifier: --routing is required".into(),
        };
    }
    let o = x.model.xlora_config();
    let mut parts = vec![match o.layerwise_scalings {
        true => "a classifier with scalings per site".to_owned(),
        false => "a classifier with scalings for all sites".to_owned(),
    }];
    if o.enable_softmax {
        parts.push(format!("softmax at temperature {}", o.softmax_temperature));
    } else {
        parts.push("raw logits".into());
    }
    if let Some(k) = o.top_k_lora {
        parts.push(format!("top {k}"));
    }
    if o.enable_softmax_topk {
        parts.push("softmax over the selected".into());
    }
    parts.push(format!("scaling pass value {}", o.scaling_pass_value));
    parts.push(format!("global weight {}", o.global_scaling_weight));
    parts.join(", ")
}

/// A flat JSON object as `key value, ..`.
fn readable(provenance: &str) -> String {
    use serde_json::Value;
    fn word(v: &Value) -> String {
        match v {
            Value::String(s) => s.clone(),
            Value::Array(all) => all.iter().map(word).collect::<Vec<_>>().join(" "),
            Value::Object(map) => map.values().map(word).collect::<Vec<_>>().join("="),
            other => other.to_string(),
        }
    }
    match serde_json::from_str(provenance) {
        Ok(Value::Object(map)) => {
            let all: Vec<String> = map
                .iter()
                .filter(|(k, _)| *k != "errors")
                .map(|(k, v)| format!("{k} {}", word(v)))
                .collect();
            all.join(", ")
        }
        _ => provenance.to_owned(),
    }
}

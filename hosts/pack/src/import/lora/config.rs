//! `adapter_config.json` of an adapter: rank and alpha, what is refused, what is passed over.

use crate::error::Result;
use crate::import::json::Json;
use crate::import::modules::Place;
use crate::import::targets::Patterns;
use serde_json::Value;

/// Rank and alpha of a module.
pub(super) struct Ranks {
    r: u32,
    alpha: f64,
    rslora: bool,
    rank_pattern: Patterns,
    alpha_pattern: Patterns,
}

impl Ranks {
    /// Reads `r`, `lora_alpha`, `use_rslora` and the patterns, for these places.
    pub(super) fn read(json: &Json, places: &[Place]) -> Result<Self> {
        let names: Vec<String> = places.iter().map(|p| p.name()).collect();
        for key in ["rank_pattern", "alpha_pattern"] {
            if !json.has(key) {
                json.note_assumed(key, "{}");
            }
        }
        Ok(Self {
            r: json.required_u32("r")?,
            alpha: json.required_number("lora_alpha")?,
            rslora: json.bool_or("use_rslora", false)?,
            rank_pattern: Patterns::read(json, "rank_pattern", &names)?,
            alpha_pattern: Patterns::read(json, "alpha_pattern", &names)?,
        })
    }

    pub(super) fn rank(&self, name: &str) -> f64 {
        self.rank_pattern.find(name).unwrap_or(f64::from(self.r))
    }

    /// alpha / r or alpha / sqrt(r) in f64, rounded once.
    pub(super) fn scale(&self, name: &str) -> f32 {
        let r = self.rank(name);
        let alpha = self.alpha_pattern.find(name).unwrap_or(self.alpha);
        (alpha / if self.rslora { libm::sqrt(r) } else { r }) as f32
    }
}

const RETRAIN: &str = "train the expert without it";

/// Refuses by name what X-LoRA cannot gate or this version cannot compute.
pub(super) fn check(json: &Json) -> Result<()> {
    match json.text("peft_type")? {
        Some("LORA") => {}
        found => {
            return Err(json.refuse(
                format!(
                    "peft_type is {:?}, an expert must be LORA",
                    found.unwrap_or("missing")
                ),
                "pass a LoRA folder as the expert",
            ));
        }
    }
    if let Some(bias) = json.text("bias")?
        && bias != "none"
    {
        return Err(json.refuse(
            format!("bias is {bias:?}: biases are not supported, X-LoRA could not gate them"),
            "train the expert with bias = \"none\"",
        ));
    }
    if let Some(Value::String(init)) = json.get("init_lora_weights") {
        let altering = init.starts_with("pissa")
            || matches!(init.as_str(), "olora" | "corda" | "loftq" | "lora_ga");
        if altering {
            return Err(json.refuse(
                format!("init_lora_weights is {init:?}: the base itself was altered, so that this base would answer wrongly"),
                "convert the adapter with PEFT's path_initial_model_for_weight_conversion, or train it without",
            ));
        }
        if !matches!(init.as_str(), "gaussian" | "eva" | "orthogonal") {
            return Err(json.refuse(
                format!("init_lora_weights is {init:?}, which is not known: it may have altered the base"),
                "train the expert with a known initialisation",
            ));
        }
    }
    let because = |key: &str| match key {
        "use_dora" => "DoRA is not supported, as in PEFT's X-LoRA",
        "lora_bias" => "B's bias would not be gated",
        "modules_to_save" => "whole modules are not swapped with an expert",
        "trainable_token_indices" => "token rows are not swapped with an expert",
        "layer_replication" => "the base would have other layers",
        "ensure_weight_tying" => "an adapter on the tied head is not supported",
        _ => "not supported",
    };
    const DEFAULT_ONLY: [&str; 14] = [
        "use_dora",
        "lora_bias",
        "modules_to_save",
        "trainable_token_indices",
        "target_parameters",
        "layer_replication",
        "use_qalora",
        "alora_invocation_tokens",
        "arrow_config",
        "megatron_config",
        "use_bdlora",
        "ensure_weight_tying",
        "lora_ga_config",
        "corda_config",
    ];
    for key in DEFAULT_ONLY {
        if let Some(value) = json.get(key).filter(|v| !is_empty(v)) {
            return Err(json.refuse(
                format!("{key} is {}: {}", short(value), because(key)),
                RETRAIN,
            ));
        }
    }
    Ok(())
}

/// What PEFT ignores, and keys that it did not have.
pub(super) fn notes(json: &Json) -> Result<Vec<String>> {
    const KNOWN: [&str; 26] = [
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "alpha_pattern",
        "rank_pattern",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
        "runtime_config",
    ];
    let mut notes = Vec::new();
    if json.bool_or("fan_in_fan_out", false)? {
        notes.push(format!(
            "{}: fan_in_fan_out is true; ignored, as PEFT does for Linear modules",
            json.path().display()
        ));
    }
    for key in ["bias", "use_dora", "lora_bias"] {
        if !json.has(key) {
            json.note_assumed(key, if key == "bias" { "none" } else { "false" });
        }
    }
    let unknown: Vec<_> = json
        .entries()
        .filter(|(k, v)| !KNOWN.contains(&k.as_str()) && !is_empty(v))
        .map(|(k, _)| k.as_str())
        .collect();
    if !unknown.is_empty() {
        notes.push(format!(
            "{}: not known to PEFT 0.19.1, ignored: {}",
            json.path().display(),
            unknown.join(", ")
        ));
    }
    Ok(notes)
}

/// Null, false, or an empty text, list or object.
fn is_empty(v: &Value) -> bool {
    match v {
        Value::Null | Value::Bool(false) => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn short(v: &Value) -> String {
    let text = v.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

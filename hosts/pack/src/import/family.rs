//! Model families as `config.json` tells them: which keys a `model_type` reads, with which defaults
//! (transformers 4.57), what follows for the layers, and which keys no family here can follow.

use super::base::LayerKind;
use super::json::Json;
use crate::error::Result;
use pleach::blob::format::Module;
use serde_json::Value;

/// What a `model_type` means.
pub(crate) struct Family {
    /// Its `model_type`.
    name: &'static str,
    /// `num_key_value_heads` where the key is missing; `None`: as many as heads.
    pub(crate) kv_heads: Option<u32>,
    /// Whether `head_dim` must be stated.
    pub(crate) head_dim_stated: bool,
    /// `rope_theta` where the key is missing.
    pub(crate) theta: f64,
    /// `tie_word_embeddings` where the key is missing.
    pub(crate) tied: bool,
    /// Whether each head of q and k is normed.
    pub(crate) qk_norm: bool,
    /// Biases of the attention's modules.
    attention_bias: Bias,
    /// Biases of the MLP's modules.
    mlp_bias: Bias,
    /// Which layers have a window.
    windows: Windows,
    /// Whether `no_rope_layers` is read.
    no_rope: bool,
}

impl Family {
    /// llama.cpp's name for it, `general.architecture`.
    pub(crate) fn architecture(&self) -> &'static str {
        match self.name {
            "mistral" => "llama",
            name => name,
        }
    }
}

/// Where a bias comes from.
enum Bias {
    /// The config's key says so: all modules, or none.
    Stated,
    /// q, k and v always have one, o never.
    Qkv,
    /// There are none.
    Never,
}

/// Which layers `sliding_window` is for.
enum Windows {
    /// None: the key is not read.
    Never,
    /// All.
    All,
    /// With `use_sliding_window`, those of `layer_types`; without it those from `max_window_layers` on.
    From,
    /// With `use_sliding_window`, those of `layer_types`; without it those that are not rotated.
    NotRotated,
}

/// What most families agree on.
const LLAMA: Family = Family {
    name: "llama",
    kv_heads: None,
    head_dim_stated: false,
    theta: 10000.0,
    tied: false,
    qk_norm: false,
    attention_bias: Bias::Stated,
    mlp_bias: Bias::Stated,
    windows: Windows::Never,
    no_rope: false,
};

/// Llama 2 and 3, TinyLlama and SmolLM2 are `llama`; Qwen2.5 is `qwen2`.
const FAMILIES: [Family; 5] = [
    LLAMA,
    Family {
        name: "mistral",
        kv_heads: Some(8),
        attention_bias: Bias::Never,
        mlp_bias: Bias::Never,
        windows: Windows::All,
        ..LLAMA
    },
    Family {
        name: "qwen2",
        kv_heads: Some(32),
        attention_bias: Bias::Qkv,
        mlp_bias: Bias::Never,
        windows: Windows::From,
        ..LLAMA
    },
    Family {
        name: "qwen3",
        kv_heads: Some(32),
        head_dim_stated: true,
        qk_norm: true,
        mlp_bias: Bias::Never,
        windows: Windows::From,
        ..LLAMA
    },
    Family {
        name: "smollm3",
        kv_heads: Some(4),
        theta: 2_000_000.0,
        tied: true,
        windows: Windows::NotRotated,
        no_rope: true,
        ..LLAMA
    },
];

/// Keys of other architectures, which change what is computed unless they are null, false, 0 or empty.
const FOREIGN: [&str; 20] = [
    "attention_chunk_size",
    "attention_multiplier",
    "attn_logit_softcapping",
    "clip_qkv",
    "final_logit_softcapping",
    "first_k_dense_replace",
    "kv_lora_rank",
    "mlp_only_layers",
    "moe_intermediate_size",
    "n_routed_experts",
    "num_experts",
    "num_local_experts",
    "q_lora_rank",
    "qk_layernorm",
    "query_pre_attn_scalar",
    "rope_interleaved",
    "scale_depth",
    "use_bidirectional_attention",
    "use_mrope",
    "use_parallel_residual",
];

/// Factors of other architectures, which change what is computed unless they are null or 1.
const FACTORS: [&str; 6] = [
    "embedding_multiplier",
    "logit_scale",
    "logits_scaling",
    "residual_multiplier",
    "rotary_pct",
    "scale_emb",
];

/// Window and number of layers that are kept full where the keys are missing.
const WINDOW: u32 = 4096;
const FULL_LAYERS: u32 = 28;

impl Family {
    /// The family of a `model_type`.
    pub(crate) fn of(json: &Json) -> Result<&'static Family> {
        let known = FAMILIES.map(|f| f.name).join(", ");
        let cure = format!("use a base whose model_type is one of {known}");
        let Some(name) = json.text("model_type")? else {
            return Err(json.refuse("model_type is missing", cure));
        };
        FAMILIES
            .iter()
            .find(|f| f.name == name)
            .ok_or_else(|| json.refuse(format!("model_type {name:?} is not supported"), cure))
    }

    /// Refuses keys that change what the model computes in ways that no layer here can follow.
    pub(crate) fn check(&self, json: &Json) -> Result<()> {
        if let Some(act) = json.text("hidden_act")?
            && !matches!(act, "silu" | "swish")
        {
            return Err(json.refuse(
                format!("hidden_act {act:?} is not supported"),
                "use a base with silu: SwiGLU is the only activation",
            ));
        }
        let foreign = FOREIGN
            .iter()
            .filter(|key| !json.get(key).is_none_or(is_off));
        let factors = FACTORS.iter().filter(|key| {
            json.get(key)
                .is_some_and(|v| !v.as_f64().is_some_and(|v| v == 1.0))
        });
        if let Some(key) = foreign.chain(factors).next() {
            return Err(self.not_ours(json, key));
        }
        for key in ["qk_norm", "use_qk_norm"] {
            if json.has(key) && json.bool_or(key, self.qk_norm)? != self.qk_norm {
                return Err(self.not_ours(json, key));
            }
        }
        if !self.no_rope && json.get("no_rope_layers").is_some() {
            return Err(self.not_ours(json, "no_rope_layers"));
        }
        if json.get("quantization_config").is_some() {
            return Err(json.refuse(
                "quantization_config: the weights are quantised already",
                "pass the original base in F32, F16 or BF16",
            ));
        }
        Ok(())
    }

    fn not_ours(&self, json: &Json, key: &str) -> crate::PackError {
        let mut value = json.get(key).map(Value::to_string).unwrap_or_default();
        if value.len() > 40 {
            value = value.chars().take(37).chain("...".chars()).collect();
        }
        json.refuse(
            format!("{key} is {value}, which {} models do not have", self.name),
            "use a base that is computed as its model_type says, or remove the key if it has no effect",
        )
    }

    /// The modules of every layer that have a bias.
    pub(crate) fn bias_mask(&self, json: &Json) -> Result<u8> {
        let mask = |modules: &[Module]| modules.iter().fold(0, |m, x| m | x.bit());
        let attention = mask(match self.attention_bias {
            Bias::Stated if json.bool_or("attention_bias", false)? => {
                &[Module::Q, Module::K, Module::V, Module::O]
            }
            Bias::Qkv => &[Module::Q, Module::K, Module::V],
            _ => &[],
        });
        let mlp = mask(match self.mlp_bias {
            Bias::Stated if json.bool_or("mlp_bias", false)? => {
                &[Module::Gate, Module::Up, Module::Down]
            }
            _ => &[],
        });
        for (key, bias) in [
            ("attention_bias", &self.attention_bias),
            ("mlp_bias", &self.mlp_bias),
        ] {
            if matches!(bias, Bias::Never) && json.has(key) && json.bool_or(key, false)? {
                return Err(self.not_ours(json, key));
            }
        }
        Ok(attention | mlp)
    }

    /// Rope and window of each of `n` layers.
    pub(crate) fn layers(&self, json: &Json, n: u32) -> Result<Vec<LayerKind>> {
        let mut layers = vec![LayerKind::FULL; n as usize];
        if self.no_rope {
            self.rotate(json, &mut layers)?;
        }
        let sliding = sliding(json, n)?;
        let window = match self.windows {
            Windows::Never => {
                let window = json.get("sliding_window").map(|_| "sliding_window");
                let layer = sliding.is_some_and(|l| l.contains(&true));
                if let Some(key) = window.or(layer.then_some("layer_types")) {
                    return Err(json.refuse(
                        format!(
                            "{key} asks for sliding window attention, which {} models do not have",
                            self.name
                        ),
                        "correct model_type, or use a base with full attention in every layer",
                    ));
                }
                return Ok(layers);
            }
            Windows::All => match json.has("sliding_window") {
                false => {
                    json.note_assumed("sliding_window", &WINDOW.to_string());
                    Some(WINDOW)
                }
                true => json.u32("sliding_window")?,
            },
            Windows::From | Windows::NotRotated => {
                let used =
                    json.has("use_sliding_window") && json.bool_or("use_sliding_window", false)?;
                if used {
                    json.u32("sliding_window")?
                } else {
                    None
                }
            }
        };
        let from = match self.windows {
            Windows::From if json.has("max_window_layers") => {
                json.u32("max_window_layers")?.unwrap_or(FULL_LAYERS)
            }
            _ => FULL_LAYERS,
        };
        for (i, layer) in layers.iter_mut().enumerate() {
            let of_list = sliding.as_ref().and_then(|l| l.get(i).copied());
            let has = match self.windows {
                Windows::All => window.is_some(),
                Windows::From => of_list.unwrap_or(window.is_some() && i as u64 >= u64::from(from)),
                _ => of_list.unwrap_or(window.is_some() && !layer.rope),
            };
            layer.window = match (has, window) {
                (false, _) => 0,
                (true, Some(w)) if w > 0 => w,
                (true, _) => {
                    let why = match json.get("sliding_window") {
                        None => "sliding_window is missing".into(),
                        Some(Value::Number(n)) if window.is_none() => {
                            format!("use_sliding_window is not true for sliding_window {n}")
                        }
                        Some(v) => format!("sliding_window is {v}"),
                    };
                    return Err(json.refuse(
                        format!("layer {i} has sliding window attention, but {why}"),
                        "state sliding_window and use_sliding_window as the base was trained with",
                    ));
                }
            };
        }
        Ok(layers)
    }

    /// `no_rope_layers`, 1 for a layer that is rotated; else each `no_rope_layer_interval`th is not.
    fn rotate(&self, json: &Json, layers: &mut [LayerKind]) -> Result<()> {
        let n = layers.len();
        let Some(list) = json.get("no_rope_layers") else {
            let interval = match json.has("no_rope_layer_interval") {
                true => json.required_u32("no_rope_layer_interval")?,
                false => {
                    json.note_assumed("no_rope_layer_interval", "4");
                    4
                }
            };
            if interval == 0 {
                return Err(json.refuse(
                    "no_rope_layer_interval is 0; 1 or more is possible",
                    "correct no_rope_layer_interval",
                ));
            }
            for (i, layer) in (1u64..).zip(layers) {
                layer.rope = i % u64::from(interval) != 0;
            }
            return Ok(());
        };
        let flag = |v: &Value| match (v.as_u64(), v.as_bool()) {
            (Some(0), _) | (_, Some(false)) => Some(false),
            (Some(1), _) | (_, Some(true)) => Some(true),
            _ => None,
        };
        let flags: Option<Vec<bool>> = list.as_array().and_then(|l| l.iter().map(flag).collect());
        let Some(flags) = flags else {
            return Err(json.refuse(
                "no_rope_layers is not a list of 0 (not rotated) and 1 (rotated)",
                "correct no_rope_layers, one entry a layer",
            ));
        };
        if flags.len() != n {
            return Err(json.refuse(
                format!("no_rope_layers has {} entries for {n} layers", flags.len()),
                "correct no_rope_layers or num_hidden_layers: one entry a layer",
            ));
        }
        for (layer, rope) in layers.iter_mut().zip(flags) {
            layer.rope = rope;
        }
        Ok(())
    }
}

/// Which of `n` layers `layer_types` gives a window; `None` if it is not stated.
fn sliding(json: &Json, n: u32) -> Result<Option<Vec<bool>>> {
    let Some(types) = json.texts("layer_types")? else {
        return Ok(None);
    };
    if types.len() != n as usize {
        return Err(json.refuse(
            format!("layer_types has {} entries for {n} layers", types.len()),
            "correct layer_types or num_hidden_layers: one entry a layer",
        ));
    }
    let kind = |t: &&str| match *t {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        other => Err(json.refuse(
            format!("layer_types has {other:?}, which is not supported"),
            "use a base whose layers have full_attention or sliding_attention",
        )),
    };
    types.iter().map(kind).collect::<Result<_>>().map(Some)
}

/// Whether a key's value switches nothing on.
fn is_off(v: &Value) -> bool {
    match v {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

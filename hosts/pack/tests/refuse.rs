//! What is refused beyond the broken checkpoints of the fixtures: by name, before anything is allocated.

mod common;

use common::edit::{Checkpoint, refusal};
use common::{fixtures, options};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;

const XLORA: &str = "case/adapter_config.json";
const EXPERT: &str = "experts/llama-a/adapter_config.json";
const BASE: &str = "base/config.json";

/// Asserts that the cause holds every part.
#[track_caller]
fn says(cause: &str, parts: &[&str]) {
    for part in parts {
        assert!(cause.contains(part), "{part:?} not in: {cause}");
    }
}

#[track_caller]
fn changed(file: &str, key: &str, value: Value, parts: &[&str]) {
    let e = Checkpoint::of("case-layerwise-top2")
        .set(file, key, value)
        .refusal();
    says(&e.cause, &[file.rsplit('/').next().unwrap(), key]);
    says(&e.cause, parts);
}

#[track_caller]
fn missing(file: &str, key: &str) {
    let e = Checkpoint::of("case-layerwise-top2")
        .unset(file, key)
        .refusal();
    says(
        &e.cause,
        &[file.rsplit('/').next().unwrap(), key, "missing"],
    );
}

#[test]
fn keys_that_must_be_there() {
    for key in [
        "model_type",
        "hidden_size",
        "vocab_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "rms_norm_eps",
    ] {
        missing(BASE, key);
    }
    for key in ["peft_type", "hidden_size", "adapters"] {
        missing(XLORA, key);
    }
    for key in ["peft_type", "r", "lora_alpha", "target_modules"] {
        missing(EXPERT, key);
    }
}

#[test]
fn a_broken_tokenizer() {
    let checkpoint = Checkpoint::of("case-plain");
    for text in ["", "{", "[1, 2]", "not JSON"] {
        fs::write(checkpoint.path("base/tokenizer.json"), text).unwrap();
        says(&checkpoint.refusal().cause, &["tokenizer.json"]);
    }
}

#[test]
fn bases_of_another_kind() {
    changed(BASE, "hidden_act", json!("gelu"), &["gelu"]);
    changed(BASE, "sliding_window", json!(4096), &["sliding window"]);
    changed(
        BASE,
        "layer_types",
        json!([
            "full_attention",
            "sliding_attention",
            "full_attention",
            "full_attention"
        ]),
        &["sliding window"],
    );
    changed(
        BASE,
        "quantization_config",
        json!({"bits": 4}),
        &["quantised already"],
    );
    changed(BASE, "partial_rotary_factor", json!(0.5), &["not 1"]);
    changed(
        BASE,
        "rope_scaling",
        json!({"rope_type": "yarn", "factor": 4.0}),
        &["yarn"],
    );
    changed(
        BASE,
        "rope_scaling",
        json!({"type": "dynamic", "factor": 4.0}),
        &["dynamic"],
    );
    changed(BASE, "rope_scaling", json!({"type": "linear"}), &["factor"]);
    changed(BASE, "model_type", json!("gemma3"), &["gemma3"]);
}

#[test]
fn dimensions_that_cannot_be() {
    changed(BASE, "num_attention_heads", json!(0), &["0"]);
    changed(
        BASE,
        "num_key_value_heads",
        json!(3),
        &["4", "3", "multiple"],
    );
    changed(BASE, "head_dim", json!(15), &["15", "even"]);
    changed(
        BASE,
        "hidden_size",
        json!(4_294_967_296u64),
        &["4294967296"],
    );
    changed(BASE, "hidden_size", json!(-64), &["-64"]);
    changed(BASE, "hidden_size", json!("64"), &["whole number"]);
    changed(BASE, "vocab_size", json!(4_000_000_000u32), &["4000000000"]);
    changed(
        BASE,
        "num_hidden_layers",
        json!(1_000_000_000),
        &["1000000000"],
    );
    changed(BASE, "rms_norm_eps", json!(1e-20), &["1e-20"]);
    changed(BASE, "rms_norm_eps", json!(0), &[]);
    changed(BASE, "rope_theta", json!(-1), &["-1"]);
    changed(BASE, "bos_token_id", json!(256), &["256", "vocabulary"]);
    changed(BASE, "eos_token_id", json!([2, 999]), &["999"]);
    // No head_dim, and hidden_size 64 does not divide by 5 heads.
    let e = Checkpoint::of("case-plain")
        .unset(BASE, "head_dim")
        .set(BASE, "num_attention_heads", json!(5))
        .set(BASE, "num_key_value_heads", json!(5))
        .refusal();
    says(&e.cause, &["hidden_size 64", "5"]);
    // The largest dimensions that pass the config end at the shape of the first tensor.
    let e = Checkpoint::of("case-plain")
        .set(BASE, "vocab_size", json!(1 << 24))
        .set(BASE, "intermediate_size", json!(1 << 24))
        .refusal();
    says(&e.cause, &["embed_tokens", "16777216"]);
    let e = Checkpoint::of("case-plain")
        .set(BASE, "num_hidden_layers", json!(4096))
        .refusal();
    says(&e.cause, &["model.layers.4."]);
}

#[test]
fn a_missing_head_may_be_a_tied_one() {
    let e = Checkpoint::of("case-plain")
        .unset(BASE, "tie_word_embeddings")
        .refusal();
    says(&e.cause, &["lm_head.weight is missing"]);
    says(&e.cure, &["tie_word_embeddings"]);
}

#[test]
fn options_of_xlora_outside_their_range() {
    changed(XLORA, "top_k_lora", json!(0), &["0", "4 experts"]);
    changed(XLORA, "top_k_lora", json!(-1), &["-1"]);
    changed(XLORA, "softmax_temperature", json!(0), &["0"]);
    changed(XLORA, "softmax_temperature", json!(-1.0), &["-1"]);
    changed(XLORA, "global_scaling_weight", json!(1e9), &["1e9"]);
    changed(XLORA, "scaling_pass_value", json!(1e-30), &["top_k_lora"]);
    changed(XLORA, "enable_softmax", json!(1), &["true or false"]);
    changed(XLORA, "xlora_size", json!(0), &["0"]);
    changed(XLORA, "adapters", json!({}), &["0 experts"]);
    changed(XLORA, "adapters", json!({"0": 3}), &["adapters.0"]);
    changed(
        XLORA,
        "adapters",
        json!(["../experts/llama-a"]),
        &["object"],
    );
    // The classifier's width and depth must be those of the tensors.
    let e = Checkpoint::of("case-layerwise-top2")
        .set(XLORA, "xlora_size", json!(32))
        .refusal();
    says(&e.cause, &["layers.0.weight", "[48, 64]", "[32, 64]"]);
    let e = Checkpoint::of("case-layerwise-top2")
        .set(XLORA, "xlora_depth", json!(1))
        .refusal();
    says(&e.cause, &["layers.3.", "xlora_depth 1"]);
    let e = Checkpoint::of("case-layerwise-top2")
        .set(XLORA, "xlora_dropout_p", json!(0.0))
        .refusal();
    says(&e.cause, &["xlora_dropout_p", "layers.2.", "layers.3."]);
    let e = Checkpoint::of("case-layerwise-top2")
        .set(XLORA, "layerwise_scalings", json!(false))
        .refusal();
    says(&e.cause, &["112 rows", "4 (one per expert)"]);
}

#[test]
fn lora_keys_that_are_not_their_default() {
    for (key, value) in [
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["embed_tokens"])),
        ("trainable_token_indices", json!([1, 2])),
        ("target_parameters", json!(["mlp.gate_proj.weight"])),
        ("layer_replication", json!([[0, 2], [1, 3]])),
        ("use_qalora", json!(true)),
        ("alora_invocation_tokens", json!([5])),
        ("arrow_config", json!({"top_k": 2})),
        ("megatron_config", json!({"a": 1})),
        ("use_bdlora", json!({"nblocks": 2})),
        ("ensure_weight_tying", json!(true)),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("never-heard-of")),
    ] {
        changed(EXPERT, key, value, &[]);
    }
    changed(EXPERT, "peft_type", json!("IA3"), &["IA3"]);
    changed(EXPERT, "r", json!(8), &["r"]);
    let e = Checkpoint::of("case-plain")
        .set(EXPERT, "r", json!(8))
        .refusal();
    says(&e.cause, &["lora_A.weight", "rank 4", "8"]);
    let e = Checkpoint::of("case-plain")
        .set(EXPERT, "lora_alpha", json!(0))
        .refusal();
    says(&e.cause, &["lora_alpha", "scale of 0e0"]);
    let e = Checkpoint::of("case-plain")
        .set(EXPERT, "alpha_pattern", json!({"q_proj": -4}))
        .refusal();
    says(&e.cause, &["self_attn.q_proj", "-1e0"]);
}

#[test]
fn targets_that_cannot_be() {
    let with = |value: Value| {
        Checkpoint::of("case-plain")
            .set(EXPERT, "target_modules", value)
            .refusal()
            .cause
    };
    says(
        &with(json!(["q_proj", "lm_head"])),
        &["lm_head", "cannot be a site"],
    );
    says(&with(json!(".*norm")), &["model.norm", "cannot be a site"]);
    says(&with(json!(["query"])), &["target_modules", "no module"]);
    says(&with(json!("(?<!x)q_proj")), &["target_modules", "look"]);
    says(&with(json!("(q_proj")), &["target_modules", "pattern"]);
    says(&with(json!([1])), &["target_modules", "list of texts"]);
    says(&with(json!(["q_proj"])), &["target_modules does not name"]);
    let e = Checkpoint::of("case-plain")
        .set(EXPERT, "target_modules", json!(".*q_proj"))
        .set(EXPERT, "layers_to_transform", json!([1]))
        .refusal();
    says(&e.cause, &["layers_to_transform", "pattern"]);
    let e = Checkpoint::of("case-plain")
        .set(EXPERT, "layers_to_transform", json!([9]))
        .refusal();
    says(&e.cause, &["layers_to_transform", "no module"]);
}

#[test]
fn folders_and_files_that_are_not_there() {
    let empty = tempfile::tempdir().expect("folder");
    let e = refusal(&options(empty.path()));
    says(&e.cause, &["config.json is missing"]);
    says(
        &refusal(&options(empty.path().join("nothing"))).cause,
        &["no such folder"],
    );
    says(
        &refusal(&options("model.gguf")).cause,
        &["model.gguf", "cannot read"],
    );
    fs::write(
        empty.path().join("config.json"),
        "{\n \"model_type\": llama\n}",
    )
    .expect("write");
    says(
        &refusal(&options(empty.path())).cause,
        &["config.json", "not JSON", "line 2 column 16"],
    );
    fs::write(empty.path().join("config.json"), "[]").expect("write");
    says(
        &refusal(&options(empty.path())).cause,
        &["config.json", "object"],
    );
    fs::copy(
        fixtures().join("peft/base-llama/config.json"),
        empty.path().join("config.json"),
    )
    .expect("copy");
    says(
        &refusal(&options(empty.path())).cause,
        &["model.safetensors", "model.safetensors.index.json"],
    );

    let c = Checkpoint::of("case-plain");
    fs::remove_file(c.path("case/adapter_model.safetensors")).expect("remove");
    says(
        &c.refusal().cause,
        &["adapter_model.safetensors is missing"],
    );
    let c = Checkpoint::of("case-plain");
    fs::rename(c.path(XLORA), c.path("case/xlora_config.json")).expect("rename");
    says(
        &c.refusal().cause,
        &["xlora_classifier.safetensors is missing"],
    );
    let c = Checkpoint::of("case-plain");
    fs::remove_file(c.path("experts/llama-b/adapter_model.safetensors")).expect("remove");
    says(
        &c.refusal().cause,
        &["llama-b", "adapter_model.safetensors is missing"],
    );
    let c = Checkpoint::of("case-plain");
    fs::remove_file(c.path(EXPERT)).expect("remove");
    let e = c.refusal();
    says(&e.cause, &["llama-a", "adapter_config.json is missing"]);
    says(&e.cure, &["--adapter 0=DIR"]);
    let c = Checkpoint::of("case-trainable-adapters");
    fs::remove_dir_all(c.path("case/1")).expect("remove");
    let e = c.refusal();
    says(&e.cause, &["use_trainable_adapters", "1"]);
    says(&e.cure, &["--adapter 1=DIR"]);
}

#[test]
fn options_of_the_command() {
    let c = Checkpoint::of("case-plain");
    for group in [0, 1, 48, 512, u32::MAX] {
        let mut o = c.options();
        o.group = group;
        let e = refusal(&o);
        says(&e.cause, &["--group", &group.to_string()]);
        says(&e.cure, &["32, 64, 128 or 256"]);
    }
    let adapters = |list: &[&str]| {
        let mut o = c.options();
        o.adapters = list
            .iter()
            .map(|k| (k.to_string(), c.path("experts/llama-b")))
            .collect();
        refusal(&o).cause
    };
    says(
        &adapters(&["7"]),
        &[
            "--adapter 7",
            "0 (../experts/llama-a)",
            "1 (../experts/llama-b)",
        ],
    );
    says(&adapters(&["0", "0"]), &["--adapter 0", "twice"]);
    says(
        &adapters(&["0", "llama-a"]),
        &["--adapter llama-a", "twice"],
    );
    says(&adapters(&[""]), &["empty"]);
    let mut o = c.options();
    o.adapters = vec![("0".into(), c.path("nowhere"))];
    says(&refusal(&o).cause, &["nowhere", "does not exist"]);
}

#[test]
fn headers_that_lie() {
    let weights = "base/model.safetensors";
    let with = |bytes: &[u8]| {
        let c = Checkpoint::of("case-plain");
        fs::write(c.path(weights), bytes).expect("write");
        c.refusal().cause
    };
    says(&with(b""), &["at least 8 bytes", "0"]);
    says(
        &with(&u64::MAX.to_le_bytes()),
        &["18446744073709551615", "0 after"],
    );
    says(
        &with(b"\x02\0\0\0\0\0\0\0{}"),
        &["model.embed_tokens.weight is missing"],
    );
    let header = |json: &str| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        with(&bytes)
    };
    says(&header("{\"a\": 1}"), &["header"]);
    says(&header("[]"), &["header"]);
    says(
        &header("{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}"),
        &["bytes expected"],
    );
    says(
        &header(
            "{\"a\":{\"dtype\":\"F16\",\"shape\":[18446744073709551615,9],\"data_offsets\":[0,4]}}",
        ),
        &["header"],
    );
    says(
        &header("{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,0]}}"),
        &["header"],
    );
}

#[test]
fn a_million_tensors_are_not_read() {
    let c = Checkpoint::of("case-plain");
    let mut json = String::from("{");
    for i in 0..1_000_000 {
        json += &format!("\"t{i}\":{{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[0,0]}},");
    }
    json.pop();
    json.push('}');
    let mut file = fs::File::create(c.path("base/model.safetensors")).expect("create");
    file.write_all(&(json.len() as u64).to_le_bytes())
        .expect("write");
    file.write_all(json.as_bytes()).expect("write");
    drop(file);
    says(&c.refusal().cause, &["header of", "at most"]);
}

#[test]
fn an_index_that_leaves_its_folder() {
    for (file, why) in [
        ("../other.safetensors", "no file"),
        ("", "no file"),
        ("gone.safetensors", "cannot read"),
    ] {
        let c = Checkpoint::of("case-plain");
        fs::remove_file(c.path("base/model.safetensors")).expect("remove");
        let index = json!({"weight_map": {"model.embed_tokens.weight": file}}).to_string();
        fs::write(c.path("base/model.safetensors.index.json"), index).expect("write");
        says(&c.refusal().cause, &[why]);
    }
}

#[test]
fn tensors_that_do_not_belong() {
    let file = "experts/llama-a/adapter_model.safetensors";
    let with = |name: &str| {
        Checkpoint::of("case-plain")
            .tensors(file, Dtype::F16, |t| {
                t.push((name.into(), vec![2], vec![1.0, 2.0]))
            })
            .refusal()
            .cause
    };
    says(
        &with("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"),
        &["DoRA"],
    );
    says(
        &with("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"),
        &["bias"],
    );
    says(
        &with("base_model.model.lm_head.weight"),
        &["lm_head.weight", "no LoRA tensor"],
    );
    says(
        &with("base_model.model.model.norm.lora_A.weight"),
        &["model.norm", "does not name"],
    );
    says(&with("whatever"), &["whatever"]);
    // The same module under another prefix.
    let e = Checkpoint::of("case-plain")
        .tensors(file, Dtype::F16, |t| {
            let (_, shape, values) = t[0].clone();
            let name = t[0].0.replace("base_model.model.", "");
            t.push((name, shape, values));
        })
        .refusal();
    says(&e.cause, &["the same to PEFT"]);
    let e = Checkpoint::of("case-plain")
        .tensors("case/adapter_model.safetensors", Dtype::F16, |t| {
            t.push((
                "base_model.internal_xlora_classifier.layers.9.bias".into(),
                vec![1],
                vec![0.0],
            ));
        })
        .refusal();
    says(&e.cause, &["layers.9.bias", "no place"]);
}

#[test]
fn values_that_cannot_be_stored() {
    let weights = "base/model.safetensors";
    for (value, word) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (-65505.0, "65504"),
    ] {
        let e = Checkpoint::of("case-plain")
            .tensors(weights, Dtype::F32, |t| {
                let t = t
                    .iter_mut()
                    .find(|t| t.0 == "model.layers.3.mlp.up_proj.weight")
                    .expect("tensor");
                t.2[2 * 64 + 5] = value;
            })
            .refusal();
        says(
            &e.cause,
            &[
                "model.safetensors",
                "model.layers.3.mlp.up_proj.weight[2, 5]",
                word,
            ],
        );
    }
    let c = Checkpoint::of("case-embedding-site");
    let e = c
        .tensors(
            "experts/llama-f/adapter_model.safetensors",
            Dtype::F16,
            |t| {
                let t = t
                    .iter_mut()
                    .find(|t| t.0.ends_with("embed_tokens.base_layer.weight"))
                    .expect("copy");
                t.2[7] += 1.0;
            },
        )
        .refusal();
    says(&e.cause, &["embed_tokens.base_layer.weight", "differs"]);
}

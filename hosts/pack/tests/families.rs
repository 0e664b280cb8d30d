//! What `config.json` says of each family: the rows of the layer table that follow, and what is refused by name.

mod common;

use common::edit::Checkpoint;
use common::reader::{File, u32_at};
use pleach_pack::{Silent, pack};
use safetensors::Dtype;
use serde_json::{Value, json};

const BASE: &str = "base/config.json";
const WEIGHTS: &str = "base/model.safetensors";

/// Norm flags, mask of biases, rope and window of each layer, by the letter of blob format 1.
fn layers(c: &Checkpoint) -> Vec<(u8, u8, u8, u32)> {
    let packed = pack(&c.options(), &mut Silent).unwrap_or_else(|e| panic!("{e}"));
    let file = File::read(&packed.bytes);
    let config = file.section(1);
    let table = &config[128 + u32_at(config, 72) as usize / 2 * 4..];
    assert_eq!(table.len(), 16 * u32_at(config, 4) as usize);
    let row = |r: &[u8]| (r[1], r[4], r[6], u32_at(r, 8));
    table.chunks(16).map(row).collect()
}

#[track_caller]
fn refused(c: Checkpoint, parts: &[&str]) {
    let e = c.refusal();
    for part in parts {
        assert!(e.cause.contains(part), "{part:?} not in: {}", e.cause);
    }
}

/// One key of a family's config.
#[track_caller]
fn changed(family: &str, key: &str, value: Value, parts: &[&str]) {
    let c = Checkpoint::family(family).set(BASE, key, value);
    refused(c, &[&["config.json", key], parts].concat());
}

const QKV: u8 = 0b111;

#[test]
fn a_family_is_rows_of_the_layer_table() {
    let plain = (0, 0, 1, 0);
    for (name, expected) in [
        ("llama32", vec![plain; 3]),
        ("smollm2", vec![plain; 3]),
        ("tinyllama", vec![plain; 2]),
        ("mistral", vec![(0, 0, 1, 48); 3]),
        ("qwen25", vec![(0, QKV, 1, 0); 3]),
        ("qwen3", vec![(4, 0, 1, 0); 3]),
        ("smollm3", vec![plain, (0, 0, 0, 0), plain, (0, 0, 0, 0)]),
    ] {
        assert_eq!(layers(&Checkpoint::family(name)), expected, "{name}");
    }
}

#[test]
fn qk_norms_are_vectors_behind_the_matrices() {
    let packed = pack(&Checkpoint::family("qwen3").options(), &mut Silent).expect("packed");
    let tensors = File::read(&packed.bytes).tensors(2);
    let of_layer: Vec<_> = tensors.iter().filter(|t| t.layer == 1).collect();
    // attn_norm, q, k, v, o, mlp_norm, gate, up, down, q_norm, k_norm.
    let roles: Vec<u16> = of_layer.iter().map(|t| t.role).collect();
    assert_eq!(roles, [3, 16, 17, 18, 19, 4, 20, 21, 22, 5, 6]);
    for t in &of_layer[9..] {
        assert_eq!((t.rows, t.cols, t.dtype, t.layout), (1, 18, 3, 1));
    }
    let source = common::source::Source::open(Checkpoint::family("qwen3").path(WEIGHTS).as_path());
    let (_, values) = source.tensor("model.layers.1.self_attn.k_norm.weight");
    assert_eq!(of_layer[10].values(64), values);
}

#[test]
fn layers_without_rope() {
    let unset = |c: Checkpoint| c.unset(BASE, "no_rope_layers");
    let rope = |c: Checkpoint| layers(&c).iter().map(|l| l.2).collect::<Vec<_>>();
    let smollm3 = || Checkpoint::family("smollm3");
    // transformers: layer i is rotated where (i + 1) % interval is not 0.
    assert_eq!(rope(unset(smollm3())), [1, 0, 1, 0]);
    for (interval, expected) in [(1, [0, 0, 0, 0]), (3, [1, 1, 0, 1]), (4, [1, 1, 1, 0])] {
        let c = unset(smollm3()).set(BASE, "no_rope_layer_interval", json!(interval));
        assert_eq!(rope(c), expected);
    }
    let c = unset(smollm3()).unset(BASE, "no_rope_layer_interval");
    assert_eq!(rope(c), [1, 1, 1, 0]);
    let flags = json!([true, true, false, true]);
    assert_eq!(
        rope(smollm3().set(BASE, "no_rope_layers", flags)),
        [1, 1, 0, 1]
    );

    let key = "no_rope_layers";
    changed(
        "smollm3",
        key,
        json!([1, 0, 1]),
        &["3 entries for 4 layers"],
    );
    changed("smollm3", key, json!([]), &["0 entries for 4 layers"]);
    for wrong in [
        json!([1, 0, 1, 2]),
        json!([1, 0, 1, "a"]),
        json!(4),
        json!({}),
    ] {
        changed("smollm3", key, wrong, &["list of 0"]);
    }
    refused(
        unset(smollm3()).set(BASE, "no_rope_layer_interval", json!(0)),
        &["no_rope_layer_interval is 0"],
    );
    // Where the family does not read it, transformers would not either.
    changed("llama32", key, json!([1, 0, 1]), &["llama models"]);
    changed("qwen3", key, json!([1, 0, 1]), &["qwen3 models"]);
}

#[test]
fn windows() {
    let window = |c: Checkpoint| layers(&c).iter().map(|l| l.3).collect::<Vec<_>>();
    let mistral = || Checkpoint::family("mistral");
    assert_eq!(
        window(mistral().set(BASE, "sliding_window", json!(null))),
        [0; 3]
    );
    assert_eq!(window(mistral().unset(BASE, "sliding_window")), [4096; 3]);

    let qwen = |family: &str, full: u32| {
        Checkpoint::family(family)
            .unset(BASE, "layer_types")
            .set(BASE, "use_sliding_window", json!(true))
            .set(BASE, "sliding_window", json!(32))
            .set(BASE, "max_window_layers", json!(full))
    };
    for family in ["qwen25", "qwen3"] {
        assert_eq!(window(qwen(family, 0)), [32; 3]);
        assert_eq!(window(qwen(family, 2)), [0, 0, 32]);
        assert_eq!(window(qwen(family, 3)), [0; 3]);
        // The key is not read unless it is switched on.
        let off = qwen(family, 0).set(BASE, "use_sliding_window", json!(false));
        assert_eq!(window(off), [0; 3]);
        // The list counts more than the number.
        let types = json!(["full_attention", "sliding_attention", "full_attention"]);
        assert_eq!(
            window(qwen(family, 0).set(BASE, "layer_types", types)),
            [0, 32, 0]
        );
    }
    let smollm3 = Checkpoint::family("smollm3")
        .unset(BASE, "layer_types")
        .set(BASE, "use_sliding_window", json!(true))
        .set(BASE, "sliding_window", json!(24));
    assert_eq!(window(smollm3), [0, 24, 0, 24]);
}

#[test]
fn windows_that_cannot_be() {
    changed("mistral", "sliding_window", json!(0), &["is 0"]);
    changed("mistral", "sliding_window", json!(-4), &["-4"]);
    changed("mistral", "sliding_window", json!("4k"), &["4k"]);
    let on = |family: &str| {
        Checkpoint::family(family)
            .unset(BASE, "layer_types")
            .set(BASE, "use_sliding_window", json!(true))
            .set(BASE, "max_window_layers", json!(1))
    };
    // transformers' default window is none of the file's.
    let types = json!(["full_attention", "full_attention", "sliding_attention"]);
    let listed = || Checkpoint::family("qwen3").set(BASE, "layer_types", types.clone());
    refused(listed(), &["layer 2", "sliding_window is missing"]);
    refused(
        listed().set(BASE, "sliding_window", json!(32)),
        &["layer 2", "use_sliding_window is not true"],
    );
    refused(
        on("qwen3").set(BASE, "sliding_window", json!(0)),
        &["layer 1", "sliding_window is 0"],
    );
    for (list, parts) in [
        (
            json!(["full_attention"]),
            ["layer_types", "1 entries for 3 layers"],
        ),
        (
            json!(["full_attention", "chunked_attention", "full_attention"]),
            ["layer_types", "chunked_attention"],
        ),
        (
            json!(["full_attention", "linear_attention", "full_attention"]),
            ["layer_types", "linear_attention"],
        ),
    ] {
        for family in ["llama32", "mistral", "qwen25", "qwen3"] {
            let c = Checkpoint::family(family).set(BASE, "layer_types", list.clone());
            refused(c, &parts);
        }
    }
    changed("llama32", "sliding_window", json!(64), &["llama models"]);
    changed("llama32", "layer_types", types.clone(), &["llama models"]);
}

#[test]
fn norms_of_heads_that_are_missing_or_of_another_shape() {
    let name = "model.layers.2.self_attn.q_norm.weight";
    type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;
    let edit = |change: &dyn Fn(&mut Tensors)| {
        Checkpoint::family("qwen3").tensors(WEIGHTS, Dtype::F16, change)
    };
    refused(
        edit(&|t| t.retain(|t| t.0 != name)),
        &["model.safetensors", name, "missing"],
    );
    for width in [17, 52] {
        let c = edit(&|t| {
            for t in t.iter_mut().filter(|t| t.0 == name) {
                (t.1, t.2) = (vec![width], vec![1.0; width]);
            }
        });
        refused(c, &[name, "[18]", &format!("[{width}]")]);
    }
    // A model without them is no qwen3.
    let c = Checkpoint::family("qwen25").set(BASE, "model_type", json!("qwen3"));
    refused(
        c.set(BASE, "head_dim", json!(14)),
        &["q_norm.weight", "missing"],
    );
}

#[test]
fn biases() {
    // Where the key is read, the tensors must be there.
    for family in ["llama32", "qwen3", "smollm3"] {
        let c = Checkpoint::family(family).set(BASE, "attention_bias", json!(true));
        refused(c, &["q_proj.bias", "missing"]);
    }
    let c = Checkpoint::family("smollm3").set(BASE, "mlp_bias", json!(true));
    refused(c, &["gate_proj.bias", "missing"]);
    // Where it is not, it may not be on.
    changed(
        "mistral",
        "attention_bias",
        json!(true),
        &["mistral models"],
    );
    for family in ["mistral", "qwen25", "qwen3"] {
        changed(family, "mlp_bias", json!(true), &["do not have"]);
    }
}

#[test]
fn keys_that_must_be_stated() {
    let c = Checkpoint::family("qwen3").unset(BASE, "head_dim");
    refused(c, &["head_dim is missing"]);
    let c = Checkpoint::family("mistral").set(BASE, "model_type", json!("mixtral"));
    refused(c, &["mixtral"]);
    let e = Checkpoint::family("mistral")
        .set(BASE, "model_type", json!("phi3"))
        .refusal();
    assert!(
        e.cure.contains("llama, mistral, qwen2, qwen3, smollm3"),
        "{}",
        e.cure
    );
}

/// Keys under which other architectures compute something else.
#[test]
fn architectures_that_only_look_alike() {
    for (key, value) in [
        ("num_experts", json!(8)),
        ("num_local_experts", json!(8)),
        ("n_routed_experts", json!(64)),
        ("mlp_only_layers", json!([0])),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("query_pre_attn_scalar", json!(256)),
        ("attention_multiplier", json!(0.0156)),
        ("residual_multiplier", json!(0.22)),
        ("embedding_multiplier", json!(12)),
        ("logits_scaling", json!(8)),
        ("attention_chunk_size", json!(8192)),
        ("use_bidirectional_attention", json!(true)),
        ("rope_interleaved", json!(true)),
        ("rotary_pct", json!(0.25)),
        ("clip_qkv", json!(8.0)),
        ("kv_lora_rank", json!(512)),
        ("use_qk_norm", json!(true)),
        ("qk_norm", json!(true)),
    ] {
        changed("llama32", key, value.clone(), &["llama models"]);
    }
    changed("qwen3", "qk_norm", json!(false), &["qwen3 models"]);
    changed("qwen3", "partial_rotary_factor", json!(0.5), &["not 1"]);
    // Values that switch nothing on are what many exporters write.
    let mut c = Checkpoint::family("qwen3").set(BASE, "qk_norm", json!(true));
    for (key, value) in [
        ("mlp_only_layers", json!([])),
        ("num_experts", json!(0)),
        ("attn_logit_softcapping", json!(null)),
        ("rope_interleaved", json!(false)),
        ("residual_multiplier", json!(1.0)),
        ("partial_rotary_factor", json!(1.0)),
    ] {
        c = c.set(BASE, key, value);
    }
    assert_eq!(layers(&c).len(), 3);
}

#[test]
fn rotary_embeddings_that_are_not_followed() {
    for kind in ["yarn", "dynamic", "longrope", "su", "proportional"] {
        let value = json!({"rope_type": kind, "factor": 4.0});
        changed("qwen3", "rope_scaling", value, &[kind]);
    }
    let key = "rope_scaling";
    changed("qwen3", key, json!({"rope_type": 3}), &["not a text"]);
    // transformers 4.57.6 takes type, and has no default for it; newer versions take rope_type.
    let value = json!({"rope_type": "default", "type": "linear", "factor": 4.0});
    let words = [
        "rope_scaling.type is \"linear\"",
        "rope_type is \"default\"",
    ];
    changed("qwen3", key, value, &words);
    for value in [json!({"factor": 4.0}), json!({"type": null, "factor": 4.0})] {
        let words = ["rope_scaling.factor", "rope_scaling.rope_type is missing"];
        changed("qwen3", key, value, &words);
    }
    let value = json!({"type": "default", "mrope_section": [2, 3, 4]});
    changed("qwen3", key, value, &["mrope_section"]);
    let value = json!({"full_attention": {"rope_type": "default", "rope_theta": 10000.0}});
    changed("qwen3", "rope_parameters", value, &["full_attention"]);
}

/// PEFT matches targets against the norms of heads too, where the base has them, and cannot follow.
#[test]
fn experts_that_target_norms_of_heads() {
    const EXPERT: &str = "case/experts/1/adapter_config.json";
    let targets = json!(".*self_attn.(q|k)_(proj|norm)");
    let c = Checkpoint::family("qwen3").set(EXPERT, "target_modules", targets.clone());
    refused(c, &["target_modules", "model.layers.0.self_attn.q_norm"]);
    // In qwen25 the same pattern names projections alone.
    let c = Checkpoint::family("qwen25").set(EXPERT, "target_modules", targets);
    refused(c, &["down_proj", "target_modules does not name"]);
}

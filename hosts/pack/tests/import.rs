//! What is imported beyond the plain fixtures: orders of keys, places of experts, targets, forms of bases.

mod common;

use common::edit::Checkpoint;
use common::reader::{File, f32_at, u16_at, u32_at};
use common::source::{Source, save};
use common::{Heard, fixtures, options};
use pleach_pack::{PackOptions, pack};
use safetensors::Dtype;
use serde_json::json;
use std::fs;

const XLORA: &str = "case/adapter_config.json";
const A: &str = "experts/llama-a/adapter_config.json";

#[track_caller]
fn packed(o: &PackOptions) -> (File, Vec<String>) {
    let mut heard = Heard::default();
    let bytes = pack(o, &mut heard).unwrap_or_else(|e| panic!("{e}")).bytes;
    (File::read(&bytes), heard.notes)
}

/// Name and key of each class's expert.
fn experts(f: &File) -> Vec<(String, String)> {
    f.experts().into_iter().map(|e| (e.name, e.key)).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(n, k)| (n.to_string(), k.to_string()))
        .collect()
}

#[test]
fn keys_in_another_order_permute_the_classes_as_in_peft() {
    // PEFT loads a, b, c under the names 0, 1, 2 and activates 1, 2, 0: class 0 is b, 1 is c, 2 is a.
    let c = Checkpoint::of("case-raw-scalings").set(
        XLORA,
        "adapters",
        json!({"1": "../experts/llama-a", "2": "../experts/llama-b", "0": "../experts/llama-c"}),
    );
    let (f, notes) = packed(&c.options());
    assert_eq!(
        experts(&f),
        pairs(&[("llama-b", "2"), ("llama-c", "0"), ("llama-a", "1")])
    );
    assert!(notes.iter().any(|n| n.contains("1, 2, 0")), "{notes:?}");
    // --adapter replaces the entry of that key, wherever it goes.
    let mut o = c.options();
    o.adapters = vec![("2".into(), c.path("experts/llama-d"))];
    assert_eq!(experts(&packed(&o).0)[0], ("llama-d".into(), "2".into()));
}

#[test]
fn keys_that_peft_cannot_run_keep_the_order_of_the_file() {
    for adapters in [
        json!({"maths": "../experts/llama-c", "code": "../experts/llama-a", "law": "../experts/llama-d"}),
        json!({"1": "../experts/llama-c", "2": "../experts/llama-a", "3": "../experts/llama-d"}),
        json!({"00": "../experts/llama-c", "1": "../experts/llama-a", "2": "../experts/llama-d"}),
    ] {
        let keys: Vec<String> = adapters
            .as_object()
            .expect("object")
            .keys()
            .cloned()
            .collect();
        let c = Checkpoint::of("case-raw-scalings").set(XLORA, "adapters", adapters);
        let (f, notes) = packed(&c.options());
        let names = ["llama-c", "llama-a", "llama-d"];
        let expected: Vec<_> = names.iter().map(|n| n.to_string()).zip(keys).collect();
        assert_eq!(experts(&f), expected);
        assert!(notes.iter().any(|n| n.contains("not 0 to 2")), "{notes:?}");
    }
}

#[test]
fn experts_are_named_by_folder_or_by_key_where_that_is_ambiguous() {
    let c = Checkpoint::of("case-plain");
    fs::create_dir(c.path("more")).expect("folder");
    fs::rename(c.path("experts/llama-b"), c.path("more/llama-a")).expect("rename");
    let c = c.set(
        XLORA,
        "adapters",
        json!({"0": "../experts/llama-a", "1": "../more/llama-a/"}),
    );
    assert_eq!(
        experts(&packed(&c.options()).0),
        pairs(&[("0", "0"), ("1", "1")])
    );
}

/// Folders that are named like each other's keys, and one whose name another expert falls back to.
#[test]
fn no_name_is_the_key_of_another_expert() {
    let root = tempfile::tempdir().expect("folder");
    let named = |list: &[(&str, &str)]| {
        let mut o = options(fixtures().join("peft/base-llama"));
        for (key, folder) in list {
            let to = root.path().join(folder);
            fs::create_dir_all(&to).expect("folder");
            for file in ["adapter_config.json", "adapter_model.safetensors"] {
                let from = fixtures().join("peft/experts/llama-a").join(file);
                fs::copy(from, to.join(file)).expect("copy");
            }
            o.adapters.push((key.to_string(), to));
        }
        experts(&packed(&o).0)
    };
    assert_eq!(
        named(&[("0", "1"), ("1", "0")]),
        pairs(&[("0", "0"), ("1", "1")])
    );
    assert_eq!(
        named(&[("a", "x/same"), ("b", "y/same"), ("c", "a"), ("d", "d")]),
        pairs(&[("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")])
    );
}

#[test]
fn stale_paths_are_replaced_by_key_or_by_name() {
    let stale = json!({"0": "/home/somebody/llama-a", "1": "/home/somebody/llama-b"});
    let c = Checkpoint::of("case-plain").set(XLORA, "adapters", stale);
    let mut o = c.options();
    o.adapters = vec![
        ("llama-b".into(), c.path("experts/llama-b")),
        ("0".into(), c.path("experts/llama-a")),
    ];
    let whole = packed(&Checkpoint::of("case-plain").options()).0;
    assert_eq!(packed(&o).0.sections, whole.sections);
}

#[test]
fn experts_that_peft_saved_itself_stand_in_for_stale_paths() {
    let c = Checkpoint::of("case-trainable-adapters").set(
        XLORA,
        "use_trainable_adapters",
        json!(false),
    );
    // The paths exist: they win, and hold the values from before the training.
    assert_eq!(experts(&packed(&c.options()).0)[1].0, "llama-c");
    fs::remove_dir_all(c.path("experts")).expect("remove");
    let (f, notes) = packed(&c.options());
    assert_eq!(experts(&f), pairs(&[("0", "0"), ("1", "1"), ("2", "2")]));
    assert_eq!(
        notes
            .iter()
            .filter(|n| n.contains("does not exist; taken from"))
            .count(),
        3
    );
    // With use_trainable_adapters they are the only true copy, and --adapter still wins.
    let c = Checkpoint::of("case-trainable-adapters");
    let mut o = c.options();
    o.adapters = vec![("1".into(), c.path("experts/llama-c"))];
    assert_eq!(
        experts(&packed(&o).0),
        pairs(&[("0", "0"), ("llama-c", "1"), ("2", "2")])
    );
}

#[test]
fn assumed_defaults_are_noted() {
    let c = Checkpoint::of("case-plain")
        .unset(XLORA, "softmax_temperature")
        .unset(XLORA, "top_k_lora")
        .unset(A, "use_rslora")
        .set(A, "invented_in_2030", json!("yes"))
        .set(A, "fan_in_fan_out", json!(true));
    let (_, notes) = packed(&c.options());
    let note = |parts: [&str; 2]| notes.iter().any(|n| parts.iter().all(|p| n.contains(p)));
    assert!(
        note(["softmax_temperature = 1", "top_k_lora = none"]),
        "{notes:?}"
    );
    assert!(note(["llama-a", "use_rslora = false"]), "{notes:?}");
    assert!(note(["llama-a", "invented_in_2030"]), "{notes:?}");
    assert!(note(["llama-a", "fan_in_fan_out"]), "{notes:?}");
    let (_, notes) = packed(&Checkpoint::of("case-plain").options());
    assert_eq!(notes.len(), 1, "only that there is no tokenizer: {notes:?}");
}

#[test]
fn a_scaling_pass_value_of_null_is_one_over_the_experts() {
    let c = Checkpoint::of("case-raw-scalings").set(XLORA, "scaling_pass_value", json!(null));
    assert_eq!(f32_at(packed(&c.options()).0.section(4), 12), 1.0 / 3.0);
}

/// Names of the sites of `llama-a` alone, with another configuration and the tensors that it asks for.
fn sites(change: &[(&str, serde_json::Value)]) -> Vec<String> {
    let mut c = Checkpoint::of("case-plain");
    let keep = |n: &str, hits: &[String]| hits.iter().any(|h| n.contains(&format!("model.{h}.")));
    for (key, value) in change {
        c = c.set(A, key, value.clone());
    }
    // Find the targets with a file from which everything is missing: the tensors must be exactly those.
    let all: Vec<String> = (0..4)
        .flat_map(|l| {
            [
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            ]
            .map(|m| format!("model.layers.{l}.{m}"))
        })
        .collect();
    let mut o = options(c.path("base"));
    o.adapters = vec![("a".into(), c.path("experts/llama-a"))];
    let mut hits = all.clone();
    // Drop the tensors that are refused as not targeted, one after the other, until the rest is accepted.
    loop {
        match pack(&o, &mut Heard::default()) {
            Ok(p) => return File::read(&p.bytes).names(),
            Err(e) if e.cause.contains("does not name") => {
                let gone = all
                    .iter()
                    .find(|m| e.cause.contains(&format!("model.{m}.")))
                    .expect("module");
                hits.retain(|h| h != gone);
                c = c.tensors(
                    "experts/llama-a/adapter_model.safetensors",
                    Dtype::F16,
                    |t| {
                        t.retain(|t| keep(&t.0, &hits));
                    },
                );
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn targets_follow_pefts_rules() {
    let layers = |list: &[usize], modules: &[&str]| -> Vec<String> {
        list.iter()
            .flat_map(|l| modules.iter().map(move |m| format!("model.layers.{l}.{m}")))
            .collect()
    };
    let (q, v, up) = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj");
    let every = [0, 1, 2, 3];
    let target = |v| ("target_modules", v);
    assert_eq!(sites(&[target(json!("all-linear"))]).len(), 28);
    assert_eq!(sites(&[target(json!("ALL-Linear"))]).len(), 28);
    assert_eq!(
        sites(&[target(json!(["v_proj", "q_proj", "nothing"]))]),
        layers(&every, &[q, v])
    );
    // The end of a name counts only from a dot on.
    assert_eq!(
        sites(&[target(json!(["up_proj", "_proj"]))]),
        layers(&every, &[up])
    );
    // A pattern must match the whole name.
    assert_eq!(
        sites(&[target(json!(r".*\.(q|v)_proj"))]),
        layers(&every, &[q, v])
    );
    assert_eq!(
        sites(&[target(json!(r"model\.layers\.[12]\.self_attn\.q_proj"))]),
        layers(&[1, 2], &[q])
    );
    assert_eq!(
        sites(&[
            target(json!(["q_proj", "up_proj"])),
            ("layers_to_transform", json!([1, 3]))
        ]),
        layers(&[1, 3], &[q, up])
    );
    assert_eq!(
        sites(&[
            target(json!(["q_proj"])),
            ("layers_to_transform", json!(2)),
            ("layers_pattern", json!("layers"))
        ]),
        layers(&[2], &[q])
    );
    // A full name is taken whatever its layer.
    assert_eq!(
        sites(&[
            target(json!(["up_proj", "model.layers.0.self_attn.q_proj"])),
            ("layers_to_transform", json!([1]))
        ]),
        [layers(&[0], &[q]), layers(&[1], &[up])].concat()
    );
    assert_eq!(
        sites(&[
            target(json!(["q_proj", "v_proj"])),
            (
                "exclude_modules",
                json!(["layers.2.self_attn.q_proj", "v_proj"])
            )
        ]),
        layers(&[0, 1, 3], &[q])
    );
    assert_eq!(
        sites(&[
            target(json!(["q_proj"])),
            ("exclude_modules", json!(r".*layers\.[01]\..*"))
        ]),
        layers(&[2, 3], &[q])
    );
}

#[test]
fn patterns_match_ends_of_names_from_a_dot_on_and_the_first_wins() {
    let c = Checkpoint::of("case-plain").set(
        A,
        "alpha_pattern",
        // roj ends no module from a dot on; the pattern of layer 0 comes before that of all.
        json!({"roj": 400, "layers.0.self_attn.q_proj": 12, "q_proj": 16, "^model.layers.1.mlp.(up|gate)_proj": 20, ".*down_proj": 24}),
    );
    let (f, _) = packed(&c.options());
    for (site, name) in f.experts()[0].sites.iter().zip(f.names()) {
        let alpha = match name.as_str() {
            "model.layers.0.self_attn.q_proj" => 12.0,
            n if n.ends_with("q_proj") => 16.0,
            "model.layers.1.mlp.up_proj" | "model.layers.1.mlp.gate_proj" => 20.0,
            n if n.ends_with("down_proj") => 24.0,
            _ => 8.0,
        };
        assert_eq!(site.as_ref().expect("site").scale, alpha / 4.0, "{name}");
    }
}

#[test]
fn shards_and_dtypes_give_the_same_file() {
    let whole = packed(&Checkpoint::of("case-plain").options()).0;
    let f32s = Checkpoint::of("case-plain").tensors("base/model.safetensors", Dtype::F32, |_| {});
    assert_eq!(packed(&f32s.options()).0.sections, whole.sections);

    let c = Checkpoint::of("case-plain");
    let source = Source::open(c.path("base/model.safetensors"));
    let mut map = serde_json::Map::new();
    let mut shards = [Vec::new(), Vec::new(), Vec::new()];
    for (i, name) in source.names().into_iter().enumerate() {
        let (shape, values) = source.tensor(&name);
        map.insert(name.clone(), json!(format!("model-{}.safetensors", i % 3)));
        shards[i % 3].push((name, shape, values));
    }
    for (i, tensors) in shards.iter().enumerate() {
        save(
            &c.path(&format!("base/model-{i}.safetensors")),
            Dtype::F16,
            tensors,
        );
    }
    fs::remove_file(c.path("base/model.safetensors")).expect("remove");
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    fs::write(c.path("base/model.safetensors.index.json"), index).expect("write");
    assert_eq!(packed(&c.options()).0.sections, whole.sections);
}

#[test]
fn bf16_is_read_exactly() {
    let c = Checkpoint::of("case-plain").tensors("base/model.safetensors", Dtype::BF16, |_| {});
    let source = Source::open(c.path("base/model.safetensors"));
    let mut o = c.options();
    o.quant = pleach_pack::BaseQuant::F16;
    let (f, _) = packed(&o);
    // bf16 within the range of f16 that the fixtures have: exact again.
    let embed = &f.tensors(2)[0];
    assert_eq!(
        embed.values(64),
        source.tensor("model.embed_tokens.weight").1
    );
}

#[test]
fn ends_of_text_from_both_files() {
    let eos = |c: &Checkpoint| {
        let (f, notes) = packed(&c.options());
        (
            (0..5)
                .map(|i| u32_at(f.section(1), 52 + 4 * i))
                .collect::<Vec<_>>(),
            notes.len(),
        )
    };
    let none = u32::MAX;
    let c = Checkpoint::of("case-plain").set("base/config.json", "eos_token_id", json!([5, 6]));
    assert_eq!(eos(&c), (vec![1, 5, 6, none, none], 1));
    let c = c.set("base/generation_config.json", "eos_token_id", json!([6, 7]));
    assert_eq!(eos(&c), (vec![1, 6, 7, 5, none], 1));
    let c = c.set("base/config.json", "eos_token_id", json!([1, 2, 3]));
    assert_eq!(eos(&c), (vec![1, 6, 7, 1, 2], 2));
    let c = Checkpoint::of("case-plain")
        .set("base/config.json", "eos_token_id", json!(null))
        .set("base/config.json", "bos_token_id", json!(null));
    assert_eq!(eos(&c), (vec![none; 5], 1));
}

/// Chat templates write the first: the `eos_token` of the tokenizer, wherever generation lists it.
#[test]
fn the_tokenizers_end_of_text_comes_first() {
    let intent = fixtures().join("xlora-intent/base");
    let text = fs::read_to_string(intent.join("tokenizer.json")).expect("read");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let added = json["added_tokens"].as_array().expect("added");
    let last = added.last().expect("a token");
    let id = last["id"].as_u64().expect("id") as u32;
    let content = last["content"].as_str().expect("content");
    let root = tempfile::tempdir().expect("folder");
    for e in fs::read_dir(&intent).expect("folder") {
        let e = e.expect("entry");
        fs::copy(e.path(), root.path().join(e.file_name())).expect("copy");
    }
    let c = Checkpoint { root };
    let none = u32::MAX;
    let (a, b) = (id + 1, id + 2);
    for eos in [json!(content), json!({"content": content, "special": true})] {
        for (listed, expected) in [
            (json!([a, b, id]), [id, a, b, none]),
            (json!([a, b]), [id, a, b, none]),
            (json!([a, b, 70, 71]), [id, a, b, 70]),
        ] {
            for (file, key, value) in [
                ("tokenizer_config.json", "eos_token", &eos),
                ("generation_config.json", "eos_token_id", &listed),
                ("config.json", "eos_token_id", &json!(null)),
            ] {
                let path = c.path(file);
                let text = fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
                let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                json[key] = value.clone();
                fs::write(path, json.to_string()).expect("write");
            }
            let (f, notes) = packed(&options(c.path("")));
            let found = [56, 60, 64, 68].map(|at| u32_at(f.section(1), at));
            assert_eq!(found, expected, "{notes:?}");
        }
    }
}

#[test]
fn rope_scalings_reach_the_file() {
    let frequencies = |c: &Checkpoint| {
        let (f, _) = packed(&c.options());
        (0..8)
            .map(|i| f64::from(f32_at(f.section(1), 128 + 4 * i)))
            .collect::<Vec<_>>()
    };
    let plain: Vec<f64> = (0..8)
        .map(|i| 10000f64.powf(-2.0 * f64::from(i) / 16.0))
        .collect();
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a / b - 1.0).abs() < 1e-7);
    let with = |value| Checkpoint::of("case-plain").set("base/config.json", "rope_scaling", value);
    let linear = with(json!({"type": "linear", "factor": 8.0}));
    assert!(close(
        &frequencies(&linear),
        &plain.iter().map(|f| f / 8.0).collect::<Vec<_>>()
    ));
    // Keys of transformers 4 and 5 side by side, as 4.57.6 itself saves them: it takes type.
    let expected = frequencies(&linear);
    for kinds in [
        json!({"rope_type": null, "type": "linear", "factor": 8.0}),
        json!({"rope_type": "linear", "type": "linear", "factor": 8.0}),
        json!({"rope_type": "linear", "type": null, "factor": 8.0}),
    ] {
        assert_eq!(frequencies(&with(kinds)), expected);
    }
    // Original context 64, factors 1 and 4: wavelengths below 16 stay, above 64 shrink, between are mixed.
    let llama3 = with(json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64
    }));
    let mixed: Vec<f64> = plain
        .iter()
        .map(|f| {
            let wavelength = std::f64::consts::TAU / f;
            let smooth = ((64.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 - smooth) * f / 8.0 + smooth * f
        })
        .collect();
    assert!(close(&frequencies(&llama3), &mixed));
    // The form of transformers 5.
    let c = Checkpoint::of("case-plain")
        .unset("base/config.json", "rope_scaling")
        .unset("base/config.json", "rope_theta")
        .set(
            "base/config.json",
            "rope_parameters",
            json!({"rope_theta": 500.0, "rope_type": "default"}),
        );
    let by_hand: Vec<f64> = (0..8)
        .map(|i| 500f64.powf(-2.0 * f64::from(i) / 16.0))
        .collect();
    assert!(close(&frequencies(&c), &by_hand));
    // Old and new keys beside each other must say the same.
    let c = c.set("base/config.json", "rope_theta", json!(500));
    let c = c.set(
        "base/config.json",
        "rope_scaling",
        json!({"type": "default"}),
    );
    assert!(close(&frequencies(&c), &by_hand));
    let c = c.set("base/config.json", "rope_theta", json!(10000.0));
    let e = c.refusal();
    assert!(
        e.cause
            .contains("rope_theta is 10000, but 500 in rope_parameters"),
        "{e}"
    );
    let scaling = json!({"type": "linear", "factor": 8.0});
    let c =
        c.unset("base/config.json", "rope_theta")
            .set("base/config.json", "rope_scaling", scaling);
    let e = c.refusal();
    assert!(e.cause.contains("rope_scaling says Linear"), "{e}");
    assert!(e.cause.contains("rope_parameters says None"), "{e}");
}

#[test]
fn biases_of_llama() {
    let c = Checkpoint::of("case-plain")
        .set("base/config.json", "attention_bias", json!(true))
        .set("base/config.json", "mlp_bias", json!(true))
        .tensors("base/model.safetensors", Dtype::F32, |t| {
            for (name, rows) in [
                ("self_attn.q_proj", 64),
                ("self_attn.k_proj", 32),
                ("self_attn.v_proj", 32),
                ("self_attn.o_proj", 64),
                ("mlp.gate_proj", 160),
                ("mlp.up_proj", 160),
                ("mlp.down_proj", 64),
            ] {
                for l in 0..4 {
                    let values = (0..rows).map(|i| (i + l) as f32 * 0.5).collect();
                    t.push((format!("model.layers.{l}.{name}.bias"), vec![rows], values));
                }
            }
        });
    let (f, _) = packed(&c.options());
    assert_eq!(f.section(1)[160 + 4], 127);
    let tensors = f.tensors(2);
    assert_eq!(tensors.len(), 2 + 4 * 16);
    let down: Vec<f32> = (0..64).map(|i| (i + 3) as f32 * 0.5).collect();
    let last = tensors.last().expect("bias of down");
    assert_eq!(
        (last.role, last.layer, last.rows, last.dtype),
        (38, 3, 1, 3)
    );
    assert_eq!(last.values(64), down);
}

#[test]
fn a_deep_classifier_in_f32_stays_f32() {
    let file = "case/adapter_model.safetensors";
    let c = Checkpoint::of("case-raw-scalings").tensors(file, Dtype::F32, |t| {
        let t = t
            .iter_mut()
            .find(|t| t.0.ends_with("layers.2.weight"))
            .expect("tensor");
        t.2[3] = 0.1;
        t.2[4] = 1e-9;
    });
    let source = Source::open(c.path(file));
    let (f, _) = packed(&c.options());
    let t = f.tensors(5);
    assert_eq!(
        t.iter().map(|t| t.dtype).collect::<Vec<_>>(),
        [2, 3, 3, 3, 2, 3]
    );
    let mut expected = source
        .tensor("base_model.internal_xlora_classifier.layers.2.weight")
        .1;
    expected[4] = 0.0;
    assert_eq!(t[2].values(64), expected);
}

#[test]
fn plain_adapters_and_a_base_alone() {
    let experts_of = |list: &[&str]| {
        let mut o = options(fixtures().join("peft/base-llama"));
        o.adapters = list
            .iter()
            .map(|n| (format!("my-{n}"), fixtures().join("peft/experts").join(n)))
            .collect();
        packed(&o).0
    };
    let f = experts_of(&["llama-b", "llama-a"]);
    assert_eq!(
        experts(&f),
        pairs(&[("llama-b", "my-llama-b"), ("llama-a", "my-llama-a")])
    );
    assert!(!f.has(5));
    let o = f.section(4);
    assert_eq!(
        (u16_at(o, 0), u16_at(o, 2), o[4], o[5], o[6]),
        (2, 0, 1, 0, 0)
    );
    assert_eq!(
        (f32_at(o, 8), f32_at(o, 12), f32_at(o, 16)),
        (1.0, 0.0, 1.0)
    );
    // The union of targets: b has q and v only.
    assert_eq!(
        (
            f.sites().len(),
            f.experts()[0].sites.iter().flatten().count()
        ),
        (28, 8)
    );
    assert_eq!(experts_of(&["llama-b"]).sites().len(), 8);
    let f = experts_of(&[]);
    assert_eq!((f.sites().len(), f.experts().len()), (0, 0));
}

#[test]
fn provenance_names_folders_and_nothing_else() {
    let c = Checkpoint::of("case-plain");
    let (f, _) = packed(&c.options());
    let text = std::str::from_utf8(f.section(9)).expect("UTF-8");
    let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(
        (json["base"].as_str(), json["xlora"].as_str()),
        (Some("base"), Some("case"))
    );
    assert_eq!(json["experts"][1]["folder"], "llama-b");
    assert!(!text.contains('/') && !text.contains('\n'), "{text}");
}

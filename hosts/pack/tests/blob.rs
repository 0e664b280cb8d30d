//! What lies in a packed file, read back by an independent reader and held against the checkpoint.

mod common;

use common::reader::{File, Tensor, f32_at, u16_at, u32_at};
use common::source::Source;
use common::{AlignedCopy as Copy, Heard, base_of, cases, expected, fixtures, options};
use pleach::{Blob, ExpertFile, Model};
use pleach_pack::{AdapterQuant, BaseQuant, PackOptions, Silent, Target, pack};
use std::path::{Path, PathBuf};

const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

fn all() -> Vec<PathBuf> {
    let mut all = cases();
    all.push(fixtures().join("xlora-intent/xlora"));
    all
}

fn options_of(case: &Path) -> PackOptions {
    let base = if case.ends_with("xlora-intent/xlora") {
        case.join("../base")
    } else {
        base_of(case)
    };
    let mut o = options(base);
    o.xlora = Some(case.into());
    o
}

fn file(o: &PackOptions) -> File {
    File::read(&pack(o, &mut Silent).unwrap_or_else(|e| panic!("{e}")).bytes)
}

/// The checkpoint's name of a tensor of the base.
fn base_name(t: &Tensor) -> String {
    let layer = |part: String| format!("model.layers.{}.{part}", t.layer);
    match t.role {
        0 => "model.embed_tokens.weight".into(),
        1 => "lm_head.weight".into(),
        2 => "model.norm.weight".into(),
        3 => layer("input_layernorm.weight".into()),
        4 => layer("post_attention_layernorm.weight".into()),
        r @ 16..=22 => layer(format!("{}.weight", MODULES[r as usize - 16])),
        r @ 32..=38 => layer(format!("{}.bias", MODULES[r as usize - 32])),
        r => panic!("role {r}"),
    }
}

#[test]
fn f16_weights_are_those_of_the_checkpoint_in_every_layout() {
    for case in all() {
        for target in Target::ALL {
            let mut o = options_of(&case);
            (o.quant, o.target) = (BaseQuant::F16, target);
            let f = file(&o);
            let source = Source::open(o.base.join("model.safetensors"));
            let tied = f.section(1)[76] == 1;
            let mut last = None;
            for t in f.tensors(2) {
                let (_, values) = source.tensor(&base_name(&t));
                assert_eq!(t.values(f.group), values, "{}", base_name(&t));
                let vector = t.rows == 1;
                let plain = vector || target != Target::Linux || (t.role == 0 && !tied);
                assert_eq!(
                    (t.dtype, t.layout),
                    (if vector { 3 } else { 2 }, if plain { 1 } else { 2 })
                );
                // Globals first, then layer by layer.
                assert!(last.is_none_or(|l| t.layer == u16::MAX || l == u16::MAX || l <= t.layer));
                last = Some(t.layer);
            }
            for (n, pair) in f.tensors(5).chunks(2).enumerate() {
                let dropout = classifier_step(&case);
                let name = format!(
                    "base_model.internal_xlora_classifier.layers.{}",
                    n * dropout
                );
                let source = Source::open(case.join("adapter_model.safetensors"));
                let plain = target != Target::Linux;
                assert_eq!(
                    (pair[0].role, pair[0].dtype, pair[0].layout),
                    (48, 2, if plain { 1 } else { 2 })
                );
                assert_eq!((pair[1].role, pair[1].dtype, pair[1].layout), (49, 3, 1));
                assert_eq!(
                    pair[0].values(f.group),
                    source.tensor(&format!("{name}.weight")).1
                );
                assert_eq!(
                    pair[1].values(f.group),
                    source.tensor(&format!("{name}.bias")).1
                );
            }
            assert_eq!(
                u32_at(f.section(5), 4),
                1,
                "ReLU between the classifier's layers"
            );
        }
    }
}

fn classifier_step(case: &Path) -> usize {
    let text = std::fs::read_to_string(case.join("adapter_config.json")).expect("config");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    if json["xlora_dropout_p"].as_f64() > Some(0.0) {
        3
    } else {
        2
    }
}

/// The folder of each expert of a case, in class order.
fn folders(case: &Path) -> Vec<PathBuf> {
    if case.ends_with("xlora-intent/xlora") {
        return ["en", "de", "fr", "es"]
            .iter()
            .map(|e| case.join("../experts").join(e))
            .collect();
    }
    let experts = expected(case)["experts"]
        .as_array()
        .expect("experts")
        .clone();
    experts
        .iter()
        .map(|e| {
            let e = e.as_str().expect("name");
            match e.strip_prefix("case-trainable-adapters/") {
                Some(own) => case.join(own),
                None => fixtures().join("peft/experts").join(e),
            }
        })
        .collect()
}

/// A of shape `[rank][inputs]` (or transposed, at the embedding) and B of a module, from an expert's folder.
fn lora(source: &Source, site: &str) -> Option<(Vec<f32>, Vec<f32>)> {
    let names = source.names();
    let own = names
        .iter()
        .any(|n| n.starts_with("base_model.lora_model."));
    let prefix = if own {
        "base_model.lora_model.model."
    } else {
        "base_model.model."
    };
    let name = |part: &str| format!("{prefix}{site}.{part}");
    if site == "model.embed_tokens" {
        if !names.contains(&name("lora_embedding_A")) {
            return None;
        }
        let (shape, a) = source.tensor(&name("lora_embedding_A"));
        let (r, vocab) = (shape[0], shape[1]);
        let a = (0..vocab)
            .flat_map(|v| (0..r).map(move |j| (v, j)))
            .map(|(v, j)| a[j * vocab + v])
            .collect();
        return Some((a, source.tensor(&name("lora_embedding_B")).1));
    }
    names.contains(&name("lora_A.weight")).then(|| {
        (
            source.tensor(&name("lora_A.weight")).1,
            source.tensor(&name("lora_B.weight")).1,
        )
    })
}

#[test]
fn experts_and_sites_are_those_of_the_checkpoint() {
    for case in all() {
        for (target, quant) in [
            (Target::Linux, AdapterQuant::F16),
            (Target::Portable, AdapterQuant::F16),
            (Target::Linux, AdapterQuant::F32),
            (Target::CortexM, AdapterQuant::F16),
            (Target::Mve, AdapterQuant::F32),
        ] {
            let mut o = options_of(&case);
            (o.target, o.adapter_quant) = (target, Some(quant));
            let f = file(&o);
            if !case.ends_with("xlora") {
                let sites: Vec<String> =
                    serde_json::from_value(expected(&case)["sites"].clone()).expect("sites");
                assert_eq!(f.names(), sites, "PEFT's site order");
            }
            let folders = folders(&case);
            assert_eq!(f.experts().len(), folders.len());
            for (e, folder) in f.experts().iter().zip(folders) {
                assert_eq!(e.name, folder.file_name().expect("name").to_string_lossy());
                let source = Source::open(folder.join("adapter_model.safetensors"));
                for (site, name) in e.sites.iter().zip(f.names()) {
                    let Some((a, b)) = lora(&source, &name) else {
                        assert!(site.is_none(), "{}: {name}", folder.display());
                        continue;
                    };
                    let site = site
                        .as_ref()
                        .unwrap_or_else(|| panic!("{}: {name}", folder.display()));
                    assert_eq!(site.a.values(f.group), a);
                    assert_eq!(site.b.b_values(), b);
                    let embed = name == "model.embed_tokens";
                    let tag = if quant == AdapterQuant::F32 { 3 } else { 2 };
                    let layout = if target == Target::Linux && !embed {
                        3
                    } else {
                        1
                    };
                    assert_eq!(
                        (site.a.dtype, site.a.layout, site.b.dtype),
                        (tag, layout, tag)
                    );
                }
            }
        }
    }
}

#[test]
fn ranks_and_scales_follow_the_patterns() {
    // llama-e: r 4, alpha 6; rank_pattern q_proj 8, layers.1.mlp.down_proj 2; alpha_pattern q_proj 4, v_proj 20.
    let f = file(&options_of(
        &fixtures().join("peft/case-trainable-adapters"),
    ));
    let experts = f.experts();
    let by_hand = |name: &str| {
        if name.ends_with("q_proj") {
            (8, 0.5)
        } else if name == "model.layers.1.mlp.down_proj" {
            (2, 3.0)
        } else if name.ends_with("v_proj") {
            (4, 5.0)
        } else {
            (4, 1.5)
        }
    };
    for (site, name) in experts[2].sites.iter().zip(f.names()) {
        let site = site.as_ref().expect("llama-e targets every module");
        assert_eq!((site.rank, site.scale), by_hand(&name), "{name}");
    }
    // llama-c: r 16, alpha 8, rsLoRA: 8 / sqrt(16); llama-g: r 2, alpha 4, rsLoRA: 4 / sqrt(2).
    let c = experts[1].sites.iter().flatten().next().expect("a site");
    assert_eq!((c.rank, c.scale), (16, 2.0));
    let f = file(&options_of(&fixtures().join("peft/case-six-experts-top3")));
    let g = f.experts()[5]
        .sites
        .iter()
        .flatten()
        .next()
        .expect("a site")
        .clone();
    assert_eq!((g.rank, g.scale), (2, (4.0 / 2f64.sqrt()) as f32));
}

/// |w - q s| <= s / 2 with the stored scale, exactly: q s and its half fit f64.
fn within_half_a_step(w: f32, q: i8, s: f32, what: &str) {
    let error = (f64::from(w) - f64::from(q) * f64::from(s)).abs();
    assert!(error <= f64::from(s) / 2.0, "{what}: {w} as {q} x {s}");
    assert!(q != i8::MIN, "{what}");
}

#[test]
fn q8_is_within_half_a_step_everywhere() {
    for (case, group, target) in [
        ("peft/case-layerwise-top2", 64, Target::Linux),
        ("peft/case-qwen2-embedding", 128, Target::Linux),
        ("peft/case-six-experts-top3", 32, Target::Portable),
        ("xlora-intent/xlora", 256, Target::Linux),
        ("peft/case-qwen2-embedding", 64, Target::CortexM),
        ("peft/case-six-experts-top3", 32, Target::CortexM),
        ("peft/case-layerwise-top2", 128, Target::Mve),
        ("xlora-intent/xlora", 64, Target::Mve),
    ] {
        let case = fixtures().join(case);
        let mut o = options_of(&case);
        (o.group, o.target) = (group, target);
        let f = file(&o);
        assert_eq!(f.group, group as usize);
        let source = Source::open(o.base.join("model.safetensors"));
        for t in f.tensors(2).iter().filter(|t| t.rows > 1) {
            let (_, values) = source.tensor(&base_name(t));
            q8_matrix(t, &values, f.group, &base_name(t));
        }
        for (e, folder) in f.experts().iter().zip(folders(&case)) {
            let source = Source::open(folder.join("adapter_model.safetensors"));
            for (site, name) in e.sites.iter().zip(f.names()) {
                let (Some(site), Some((a, b))) = (site, lora(&source, &name)) else {
                    continue;
                };
                if name == "model.embed_tokens" {
                    assert_eq!((site.a.dtype, site.a.values(f.group)), (2, a));
                } else {
                    q8_matrix(&site.a, &a, f.group, &name);
                }
                let panel = site.b.b_values();
                for (i, (w, v)) in b.iter().zip(panel).enumerate() {
                    let s = site.b.b_scale(i % site.rank);
                    within_half_a_step(*w, (v / s).round() as i8, s, &name);
                }
            }
        }
    }
}

fn q8_matrix(t: &Tensor, values: &[f32], group: usize, name: &str) {
    assert_eq!(t.dtype, 1, "{name}");
    for r in 0..t.rows {
        for c in 0..t.cols {
            let s = t.scale(r, c, group);
            let row = &values[r * t.cols..][..t.cols];
            let absmax = row[c / group * group..]
                .iter()
                .take(group)
                .fold(0f32, |m, v| m.max(v.abs()));
            let step = absmax / 127.0;
            assert!((s - step).abs() <= step / 2048.0, "{name}: {s} for {step}");
            within_half_a_step(row[c], t.q(r, c, group), s, name);
        }
    }
}

#[test]
fn config_holds_what_the_base_says() {
    let f = file(&options_of(&fixtures().join("peft/case-plain")));
    let c = f.section(1);
    let words: Vec<u32> = (0..9).map(|i| u32_at(c, 4 * i)).collect();
    // hidden, layers, vocab, heads, kv_heads, head_dim, intermediate, max_position, group.
    assert_eq!(words, [64, 4, 256, 4, 2, 16, 160, 256, 64]);
    assert_eq!(
        (f32_at(c, 36), f32_at(c, 40), f32_at(c, 44), f32_at(c, 48)),
        (1e-5, 0.25, 1.0, 1.0)
    );
    assert_eq!(
        (u32_at(c, 52), u32_at(c, 56), u32_at(c, 60)),
        (1, 2, u32::MAX)
    );
    assert_eq!((u32_at(c, 72), c[76]), (16, 1));
    for i in 0..8 {
        let exact = 1.0 / 10000f64.powf(2.0 * i as f64 / 16.0);
        assert!((f64::from(f32_at(c, 128 + 4 * i)) / exact - 1.0).abs() < 6e-8);
    }
    // The layer table: first tensor after embedding and norm, nine per layer, no bias.
    let layer = |n: usize| &c[160 + 16 * n..][..16];
    assert_eq!(
        (layer(3)[0], layer(3)[2], layer(3)[4], layer(3)[7]),
        (1, 1, 0, 1)
    );
    assert_eq!(
        (u16_at(layer(3), 12), u16_at(layer(3), 14)),
        (2 + 27, 3 * 7)
    );
    let f = file(&options_of(&fixtures().join("peft/case-qwen2")));
    let c = f.section(1);
    assert_eq!((c[76], c[160 + 4], u16_at(&c[160..], 12)), (0, 0b111, 3));
    assert_eq!(u16_at(&c[176..], 12), 3 + 12);
}

#[test]
fn options_hold_what_the_checkpoint_says() {
    let options = |case: &str| {
        let f = file(&options_of(&fixtures().join("peft").join(case)));
        let o = f.section(4).to_vec();
        (
            u16_at(&o, 0),
            u16_at(&o, 2),
            [o[4], o[5], o[6]],
            [f32_at(&o, 8), f32_at(&o, 12), f32_at(&o, 16)],
        )
    };
    assert_eq!(options("case-plain"), (2, 0, [1, 0, 0], [1.0, 0.0, 1.0]));
    assert_eq!(
        options("case-layerwise-top2"),
        (4, 2, [1, 0, 1], [1.0, 0.0, 1.0])
    );
    assert_eq!(options("case-raw-top3"), (6, 3, [0, 0, 1], [1.0, 0.0, 1.0]));
    for case in cases() {
        let text = std::fs::read_to_string(case.join("adapter_config.json")).expect("config");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let number = |key: &str| json[key].as_f64().unwrap_or(0.0) as f32;
        let flag = |key: &str| u8::from(json[key].as_bool().expect("flag"));
        let name = case
            .file_name()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        assert_eq!(
            options(&name),
            (
                json["adapters"].as_object().expect("adapters").len() as u16,
                number("top_k_lora") as u16,
                [
                    flag("enable_softmax"),
                    flag("enable_softmax_topk"),
                    flag("layerwise_scalings")
                ],
                [
                    "softmax_temperature",
                    "scaling_pass_value",
                    "global_scaling_weight"
                ]
                .map(number),
            )
        );
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for case in all() {
        let o = options_of(&case);
        let once = pack(&o, &mut Silent).expect("packs").bytes;
        assert_eq!(once, pack(&o, &mut Silent).expect("packs").bytes);
        // From another place, under an absolute path.
        let mut elsewhere = o.clone();
        elsewhere.base = o.base.canonicalize().expect("base");
        elsewhere.xlora = Some(case.canonicalize().expect("case"));
        assert_eq!(once, pack(&elsewhere, &mut Silent).expect("packs").bytes);
    }
}

#[test]
fn the_core_accepts_and_verifies_every_file() {
    for case in all() {
        for (quant, adapters, group, target) in [
            (BaseQuant::Q8, None, 64, Target::Linux),
            (BaseQuant::Q8, None, 32, Target::Portable),
            (BaseQuant::Q8, Some(AdapterQuant::F32), 256, Target::Linux),
            (BaseQuant::Q8, None, 64, Target::CortexM),
            (BaseQuant::Q8, None, 128, Target::Mve),
            (BaseQuant::F16, None, 64, Target::Linux),
            (BaseQuant::F16, Some(AdapterQuant::Q8), 64, Target::CortexM),
            (BaseQuant::F16, None, 64, Target::Mve),
            (
                BaseQuant::F16,
                Some(AdapterQuant::Q8),
                128,
                Target::Portable,
            ),
        ] {
            let mut o = options_of(&case);
            (o.quant, o.adapter_quant, o.group, o.target) = (quant, adapters, group, target);
            let bytes = Copy::of(&pack(&o, &mut Silent).expect("packs").bytes);
            let model = Model::parse(Blob::new(bytes.get()).expect("aligned"))
                .unwrap_or_else(|e| panic!("{}: {e}", case.display()));
            model
                .verify()
                .unwrap_or_else(|e| panic!("{}: {e}", case.display()));
            let names = File::read(bytes.get()).names();
            assert_eq!(model.n_sites(), names.len());
            assert!(
                names
                    .iter()
                    .enumerate()
                    .all(|(n, name)| model.site_name(n) == Some(name))
            );
            assert_eq!(
                model.tokenizer().is_some(),
                case.ends_with("xlora-intent/xlora")
            );
            for n in 0..model.n_experts() {
                // Each section is an expert file as well.
                let e = File::read(bytes.get())
                    .sections
                    .into_iter()
                    .filter(|s| s.0 == 6)
                    .nth(n);
                let e = Copy::of(&e.expect("expert").2);
                let e =
                    ExpertFile::parse(Blob::new(e.get()).expect("aligned")).expect("expert file");
                assert!(e.class() == n && e.knows_classifier(&model));
            }
        }
    }
}

#[test]
fn progress_ends_at_its_total_and_the_fixtures_need_few_notes() {
    for case in all() {
        let mut heard = Heard::default();
        pack(&options_of(&case), &mut heard).expect("packs");
        assert!(heard.total > 0 && heard.total == heard.done, "{heard:?}");
    }
}

#[test]
fn the_report_adds_up_and_the_intent_model_wastes_little() {
    for (quant, target) in [
        (BaseQuant::Q8, Target::Linux),
        (BaseQuant::F16, Target::Portable),
    ] {
        let mut o = options_of(&fixtures().join("xlora-intent/xlora"));
        (o.quant, o.target) = (quant, target);
        let packed = pack(&o, &mut Silent).expect("packs");
        let r = &packed.report;
        assert_eq!(r.file_bytes, packed.bytes.len() as u64);
        let sum: u64 = r.sections.iter().map(|s| s.bytes).sum();
        assert!(sum < r.file_bytes && r.file_bytes - sum < 64 * (r.sections.len() as u64 + 9));
        let shares = (r.table_share(), r.padding_share());
        assert!(shares.0 <= 0.025 && shares.1 <= 0.035, "{shares:?}");
        assert_eq!(r.flushed(), 0);
        let worst = r.worst().expect("tensors").loss.relative();
        assert!(
            if quant == BaseQuant::Q8 {
                worst > 1e-3 && worst < 0.02
            } else {
                worst == 0.0
            },
            "{worst}"
        );
    }
}

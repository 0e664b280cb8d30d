//! Checkpoints made to hurt the importer: each is refused with cause and cure, without a panic, in little
//! memory and time: measured in a process of its own for each.

use parity::adversarial::Folder;
use parity::fixture;
use pleach_pack::{Kind, PackOptions, Silent, pack};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const BASE: &str = "base/config.json";
const XLORA: &str = "case/adapter_config.json";
const LORA: &str = "experts/llama-a/adapter_config.json";
const WEIGHTS: &str = "base/model.safetensors";
const EXPERT: &str = "experts/llama-a/adapter_model.safetensors";
const CLASSIFIER: &str = "case/adapter_model.safetensors";

/// What one attack does to a copy of `case-plain`.
type Spoil = Box<dyn Fn(&Path)>;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for e in fs::read_dir(from).expect("a folder") {
        let e = e.expect("an entry");
        fs::copy(e.path(), to.join(e.file_name())).expect("a copy");
    }
}

/// Largest resident size of this process so far, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let number = line.and_then(|l| l.split_whitespace().nth(1));
    number.map_or(0, |n| n.parse().expect("KiB"))
}

fn set(file: &'static str, key: &'static str, value: Value) -> Spoil {
    Box::new(move |root| {
        let path = root.join(file);
        let mut json = fixture::json(&fs::read(&path).expect(file));
        json[key] = value.clone();
        fs::write(path, json.to_string()).expect(file);
    })
}

/// The raw text of a key's value, for numbers that no value can hold.
fn raw(file: &'static str, key: &'static str, text: &'static str) -> Spoil {
    Box::new(move |root| {
        set(file, key, json!("HERE"))(root);
        let path = root.join(file);
        let json = fs::read_to_string(&path).expect(file);
        fs::write(path, json.replace("\"HERE\"", text)).expect(file);
    })
}

fn bytes(file: &'static str, bytes: Vec<u8>) -> Spoil {
    Box::new(move |root| fs::write(root.join(file), &bytes).expect(file))
}

/// A safetensors file of this header and so many bytes of data.
fn header(file: &'static str, header: impl Into<Vec<u8>>, data: usize) -> Spoil {
    let header = header.into();
    let mut all = (header.len() as u64).to_le_bytes().to_vec();
    all.extend(&header);
    all.resize(all.len() + data, 0);
    bytes(file, all)
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}")
}

fn list(n: usize, entry: impl Fn(usize) -> String) -> String {
    let entries: Vec<_> = (0..n).map(entry).collect();
    format!("{{{}}}", entries.join(","))
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

fn attacks() -> Vec<(&'static str, Spoil)> {
    let embed = "model.embed_tokens.weight";
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{{}}}", tensor(embed, dtype, shape, offsets))
    };
    let twice = format!(
        "{{{},{}}}",
        tensor(embed, "F16", "[1]", "[0,2]"),
        tensor(embed, "F16", "[2]", "[2,6]")
    );
    let overlap = format!(
        "{{{},{}}}",
        tensor(embed, "F16", "[4]", "[0,8]"),
        tensor("b", "F16", "[4]", "[4,12]")
    );
    let lora = |n: usize| format!("base_model.model.model.layers.{n}.mlp.up_proj.lora_A.weight");
    let many = list(60_000, |n| tensor(&lora(n), "F16", "[0]", "[0,0]"));
    let million = list(1_000_000, |n| {
        tensor(&format!("t{n}"), "F16", "[0]", "[0,0]")
    });
    let patterns = |n: usize| {
        let entries = (0..n).map(|i| (format!("p{i}.*(a|b){{9}}"), json!(4)));
        Value::Object(entries.collect())
    };
    let strings = |n: usize| (0..n).map(|i| format!("x{i}")).collect::<Vec<_>>();
    let mut all: Vec<(&'static str, Spoil)> = vec![
        (
            "a header of 2^60",
            bytes(WEIGHTS, (1u64 << 60).to_le_bytes().to_vec()),
        ),
        ("a header of 2^64 - 1", bytes(EXPERT, vec![0xff; 64])),
        ("a million tensors", header(WEIGHTS, million, 0)),
        ("60,000 tensors", header(EXPERT, many, 0)),
        (
            "deep JSON in a header",
            header(WEIGHTS, nested("[", "]", 1_000_000), 0),
        ),
        (
            "deep objects in a header",
            header(CLASSIFIER, nested("{\"a\":", "}", 500_000), 0),
        ),
        (
            "deep JSON in a config",
            bytes(BASE, nested("[", "]", 4_000_000).into()),
        ),
        (
            "deep objects in a config",
            bytes(LORA, nested("{\"a\":", "}", 1_000_000).into()),
        ),
        ("a tensor named twice", header(WEIGHTS, twice, 6)),
        ("overlapping tensors", header(WEIGHTS, overlap, 12)),
        (
            "a product beyond 2^64",
            header(WEIGHTS, one("F32", "[4294967296,4294967296,4]", "[0,4]"), 4),
        ),
        (
            "a product of exactly 2^64",
            header(WEIGHTS, one("F16", "[4294967296,2147483648,4]", "[0,0]"), 0),
        ),
        (
            "a huge dimension beside 0",
            header(WEIGHTS, one("F32", "[18446744073709551615,0]", "[0,0]"), 0),
        ),
        (
            "a dimension of 2^64",
            header(WEIGHTS, one("F32", "[18446744073709551616]", "[0,4]"), 4),
        ),
        (
            "a negative dimension",
            header(WEIGHTS, one("F32", "[-1]", "[0,4]"), 4),
        ),
        (
            "negative offsets",
            header(WEIGHTS, one("F32", "[1]", "[-4,0]"), 4),
        ),
        (
            "offsets at the end of 64 bits",
            header(
                WEIGHTS,
                one("U8", "[1]", "[18446744073709551614,18446744073709551615]"),
                1,
            ),
        ),
        (
            "an unknown dtype",
            header(WEIGHTS, one("Q3", "[1]", "[0,4]"), 4),
        ),
        (
            "a dtype that is not read",
            header(WEIGHTS, one("I64", "[256,64]", "[0,131072]"), 131072),
        ),
        (
            "no elements",
            header(WEIGHTS, one("F16", "[0,64]", "[0,0]"), 0),
        ),
        (
            "no dimensions",
            header(WEIGHTS, one("F32", "[]", "[0,4]"), 4),
        ),
        (
            "a hundred thousand dimensions",
            header(
                WEIGHTS,
                one("F32", &format!("[{}1]", "1,".repeat(100_000)), "[0,4]"),
                4,
            ),
        ),
        (
            "metadata that is no text",
            header(WEIGHTS, "{\"__metadata__\":{\"a\":1}}", 0),
        ),
        (
            "a name that is not UTF-8",
            header(
                EXPERT,
                b"{\"\xff\xfe\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[0,0]}}".to_vec(),
                0,
            ),
        ),
        (
            "half a surrogate",
            header(
                EXPERT,
                one("F16", "[0]", "[0,0]").replace("model", "\\ud800"),
                0,
            ),
        ),
        (
            "a line break in a name",
            header(
                EXPERT,
                one("F16", "[0]", "[0,0]").replace("model", "lora_\\nx\\u0000"),
                0,
            ),
        ),
        (
            "a name of a megabyte",
            header(
                EXPERT,
                one("F16", "[0]", "[0,0]")
                    .replace("model", &format!("lora_{}", "x".repeat(1 << 20))),
                0,
            ),
        ),
        ("an empty header", header(WEIGHTS, "", 0)),
        ("an empty tensor file", bytes(WEIGHTS, vec![])),
        ("an empty config", bytes(BASE, vec![])),
        ("an empty adapter config", bytes(LORA, vec![])),
        ("a config of zeros", bytes(XLORA, vec![0; 100_000])),
        (
            "a config that is not UTF-8",
            bytes(LORA, b"{\"r\": \"\xc3\x28\"}".to_vec()),
        ),
        ("a config of 40 MB", bytes(BASE, vec![b' '; 40 << 20])),
        ("a number beyond f64", raw(BASE, "rms_norm_eps", "1e999")),
        (
            "a number of a million digits",
            raw(
                BASE,
                "rope_theta",
                Box::leak("9".repeat(1_000_000).into_boxed_str()),
            ),
        ),
        ("NaN", raw(BASE, "rms_norm_eps", "NaN")),
        (
            "a line break in a family",
            set(BASE, "model_type", json!("lla\nma\r\u{1b}[2J")),
        ),
        (
            "a long family",
            set(BASE, "model_type", json!("x".repeat(1 << 20))),
        ),
        (
            "layer types without end",
            set(BASE, "layer_types", json!(strings(150_000))),
        ),
        (
            "end of text without end",
            set(
                BASE,
                "eos_token_id",
                json!((0..200_000).map(|n| n % 300).collect::<Vec<_>>()),
            ),
        ),
        (
            "rope scaling of nothing",
            set(
                BASE,
                "rope_scaling",
                json!({"rope_type": "llama3", "factor": 0, "low_freq_factor": 0, "high_freq_factor": 0, "original_max_position_embeddings": 0}),
            ),
        ),
        (
            "rope scaling beyond bounds",
            set(
                BASE,
                "rope_scaling",
                json!({"rope_type": "llama3", "factor": 1e308, "low_freq_factor": 1e-308, "high_freq_factor": 1e308, "original_max_position_embeddings": 1}),
            ),
        ),
        ("a theta of 1e308", set(BASE, "rope_theta", json!(1e308))),
        (
            "a pattern that explodes",
            set(
                LORA,
                "target_modules",
                json!("((((a{99}){99}){99}){99}){99}"),
            ),
        ),
        (
            "a counted pattern",
            set(LORA, "target_modules", json!("x{0,99999999}")),
        ),
        (
            "a deep pattern",
            set(
                LORA,
                "target_modules",
                json!(format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000))),
            ),
        ),
        (
            "a pattern that leaves its frame",
            set(LORA, "target_modules", json!("a)|(?:.*")),
        ),
        (
            "a pattern that backtracks",
            set(LORA, "target_modules", json!("(a*)*(a*)*(.*)*(.*)*x")),
        ),
        (
            "a long pattern",
            set(
                LORA,
                "target_modules",
                json!(format!("(\\w|{})", "\\pL|".repeat(3_000))),
            ),
        ),
        (
            "a class of patterns",
            set(LORA, "exclude_modules", json!("[\\pL\\pN]{2000}")),
        ),
        (
            "a rank pattern that explodes",
            set(LORA, "rank_pattern", json!({"((a{999}){999}){999}": 4})),
        ),
        (
            "rank patterns without end",
            set(LORA, "rank_pattern", patterns(20_000)),
        ),
        (
            "rank patterns, as many as are read",
            Box::new(move |root| {
                set(LORA, "rank_pattern", patterns(4096))(root);
                set(LORA, "r", json!(5))(root);
            }),
        ),
        (
            "patterns of a megabyte",
            Box::new(|root| {
                set(LORA, "layers_pattern", json!(vec!["[\\pL]{20}"; 16]))(root);
                set(LORA, "layers_to_transform", json!([0, 1, 2]))(root);
            }),
        ),
        (
            "ranks that are huge",
            set(LORA, "rank_pattern", json!({"q_proj": 1e300})),
        ),
        (
            "ranks that are texts",
            set(LORA, "rank_pattern", json!({"q_proj": "4"})),
        ),
        (
            "layer patterns without end",
            set(LORA, "layers_pattern", json!(strings(100_000))),
        ),
        (
            "targets without end",
            set(LORA, "target_modules", json!(strings(150_000))),
        ),
        (
            "layers without end",
            set(
                LORA,
                "layers_to_transform",
                json!((5..200_000).collect::<Vec<u32>>()),
            ),
        ),
        ("a rank of 2^32", set(LORA, "r", json!(1u64 << 32))),
        ("a rank of 2^32 - 1", set(LORA, "r", json!(u32::MAX))),
        ("an alpha of 1e300", set(LORA, "lora_alpha", json!(1e300))),
        ("an alpha of 1e-300", set(LORA, "lora_alpha", json!(1e-300))),
        (
            "a depth of 2^32",
            set(XLORA, "xlora_depth", json!(1u64 << 32)),
        ),
        (
            "a classifier of 2^31 columns",
            Box::new(|root| {
                set(XLORA, "xlora_depth", json!(2))(root);
                set(XLORA, "xlora_size", json!(1u64 << 31))(root);
            }),
        ),
        (
            "a temperature of 1e-300",
            set(XLORA, "softmax_temperature", json!(1e-300)),
        ),
        ("a top k of 2^16", set(XLORA, "top_k_lora", json!(65536))),
        (
            "2,000 adapters",
            set(
                XLORA,
                "adapters",
                Value::Object(
                    (0..2000)
                        .map(|n| (n.to_string(), json!("../experts/llama-a")))
                        .collect(),
                ),
            ),
        ),
        (
            "an adapter of NUL",
            set(XLORA, "adapters", json!({"0": "a\u{0}b"})),
        ),
        (
            "an adapter of nothing",
            set(
                XLORA,
                "adapters",
                json!({"0": "../experts/llama-a", "1": "/proc/self/mem"}),
            ),
        ),
        (
            "an adapter that is the checkpoint",
            set(XLORA, "adapters", json!({"0": "."})),
        ),
        (
            "a long key",
            set(
                XLORA,
                "adapters",
                json!({"0".repeat(100_000): "../experts/llama-a"}),
            ),
        ),
        ("a base of 4,096 layers", Box::new(many_layers)),
    ];
    let sizes = [
        "hidden_size",
        "vocab_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_position_embeddings",
    ];
    for key in sizes {
        for text in [
            "1099511627776",
            "1000000000",
            "-1",
            "0",
            "1.5",
            "1e3",
            "\"64\"",
            "[64]",
            "{}",
            "true",
        ] {
            // Those that are a legal length of the context.
            if key != "max_position_embeddings" || !text.starts_with("10000") {
                all.push((key, raw(BASE, key, text)));
            }
        }
    }
    for file in [BASE, XLORA, LORA, WEIGHTS, EXPERT, CLASSIFIER] {
        all.push((
            "a folder in the place of a file",
            Box::new(move |root| {
                fs::remove_file(root.join(file)).expect(file);
                fs::create_dir(root.join(file)).expect(file);
            }),
        ));
        #[cfg(unix)]
        all.push((
            "a link to itself",
            Box::new(move |root| {
                fs::remove_file(root.join(file)).expect(file);
                std::os::unix::fs::symlink(root.join(file), root.join(file)).expect(file);
            }),
        ));
        #[cfg(unix)]
        all.push((
            "a device without end",
            Box::new(move |root| {
                fs::remove_file(root.join(file)).expect(file);
                std::os::unix::fs::symlink("/dev/zero", root.join(file)).expect(file);
            }),
        ));
    }
    all
}

/// A base of as many layers as the format allows, two wide, and an adapter for all of them that lacks its
/// last tensor.
fn many_layers(root: &Path) {
    let modules = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let mut at = 0;
    let mut add = |name: String, shape: &str, bytes: usize| {
        at += bytes;
        tensor(&name, "F16", shape, &format!("[{},{at}]", at - bytes))
    };
    let mut base = vec![
        add("model.embed_tokens.weight".into(), "[4,2]", 16),
        add("model.norm.weight".into(), "[2]", 4),
    ];
    for n in 0..4096 {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            base.push(add(format!("model.layers.{n}.{norm}.weight"), "[2]", 4));
        }
        for m in modules {
            base.push(add(format!("model.layers.{n}.{m}.weight"), "[2,2]", 8));
        }
    }
    header(WEIGHTS, format!("{{{}}}", base.join(",")), at)(root);
    let sizes = [
        ("hidden_size", 2),
        ("vocab_size", 4),
        ("num_hidden_layers", 4096),
        ("num_attention_heads", 1),
        ("num_key_value_heads", 1),
        ("head_dim", 2),
        ("intermediate_size", 2),
    ];
    sizes
        .iter()
        .for_each(|(key, n)| set(BASE, key, json!(n))(root));
    set(XLORA, "hidden_size", json!(2))(root);
    let mut expert = Vec::new();
    let mut at = 0;
    for n in 0..4096 {
        for m in modules {
            for (ab, shape) in [("A", "[4,2]"), ("B", "[2,4]")] {
                let name = format!("base_model.model.model.layers.{n}.{m}.lora_{ab}.weight");
                expert.push(tensor(&name, "F16", shape, &format!("[{at},{}]", at + 16)));
                at += 16;
            }
        }
    }
    expert.pop();
    header(EXPERT, format!("{{{}}}", expert.join(",")), at - 16)(root);
}

/// Tells the process that packs which folder.
const FOLDER: &str = "PLEACH_HOSTILE_FOLDER";

/// What a process that packed reports: seconds, KiB beyond what it had before, and the message.
struct Report {
    took: Duration,
    more: u64,
    kind: String,
    cause: String,
    cure: String,
}

/// Packs `root` in a process of its own: this test program, with only the test `packs_in_a_process`.
fn pack_apart(root: &Path) -> Result<Report, String> {
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program)
        .args(["--exact", "packs_in_a_process", "--nocapture"])
        .env(FOLDER, root)
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().find_map(|l| l.strip_prefix("report "));
    let Some(report) = report else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {errors:.1000}", output.status));
    };
    let report = fixture::json(report.as_bytes());
    let text = |key: &str| report[key].as_str().expect(key).to_string();
    Ok(Report {
        took: Duration::from_micros(report["micros"].as_u64().expect("micros")),
        more: report["more"].as_u64().expect("more"),
        kind: text("kind"),
        cause: text("cause"),
        cure: text("cure"),
    })
}

#[test]
fn packs_in_a_process() {
    let Some(root) = std::env::var_os(FOLDER) else {
        return; // Not asked to: `each_is_refused_with_cause_and_cure_in_little_memory` asks.
    };
    let root = Path::new(&root);
    let options = PackOptions {
        xlora: Some(root.join("case")),
        ..PackOptions::new(root.join("base"))
    };
    let (before, began) = (peak(), Instant::now());
    let result = pack(&options, &mut Silent);
    let (micros, more) = (began.elapsed().as_micros() as u64, peak() - before);
    let (kind, cause, cure) = match result {
        Ok(_) => ("packed", String::new(), String::new()),
        Err(e) if e.kind == Kind::Refused => ("refused", e.cause, e.cure),
        Err(e) => ("machine", e.cause, e.cure),
    };
    let report =
        json!({"micros": micros, "more": more, "kind": kind, "cause": cause, "cure": cure});
    println!("\nreport {report}");
}

#[test]
fn each_is_refused_with_cause_and_cure_in_little_memory() {
    let root = Folder::new("hostile");
    let peft = fixture::root().join("peft");
    let experts = ["llama-a", "llama-b", "llama-c", "llama-d"].map(|n| format!("experts/{n}"));
    let mut slowest = (Duration::ZERO, "");
    let mut most = (0, "");
    let mut wrong = Vec::new();
    for (name, spoil) in attacks() {
        copy(&peft.join("case-plain"), &root.0.join("case"));
        copy(&peft.join("base-llama"), &root.0.join("base"));
        experts
            .iter()
            .for_each(|f| copy(&peft.join(f), &root.0.join(f)));
        spoil(&root.0);
        match pack_apart(&root.0) {
            Ok(r) => {
                let announced = ["a header of 2^60", "a million tensors"].contains(&name);
                assert!(!announced || r.more < 4096, "{name}: {} KiB", r.more);
                slowest = slowest.max((r.took, name));
                most = most.max((r.more, name));
                println!(
                    "{:>9.1?} {:>7} KiB  {name}\n  {:.150}\n  {:.150}",
                    r.took, r.more, r.cause, r.cure
                );
                wrong.extend(objection(&r).map(|o| format!("{name}: {o}")));
            }
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
        fs::remove_dir_all(&root.0).expect("a clean folder");
    }
    println!("slowest {slowest:?}, most memory in KiB {most:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Headers of 8 MiB are read; in memory they take a dozen times as much.
    assert!(most.0 < 96 << 10, "{most:?}");
    assert!(slowest.0 < Duration::from_secs(30), "{slowest:?}");
}

/// What is wrong with a message.
fn objection(r: &Report) -> Option<String> {
    if r.kind != "refused" {
        return Some(format!("{}: {:.200}", r.kind, r.cause));
    }
    for line in [&r.cause, &r.cure] {
        if line.is_empty() || line.len() > 3000 {
            return Some(format!("a line of {} bytes", line.len()));
        }
        if line.chars().any(char::is_control) {
            return Some(format!("control characters: {line:.300?}"));
        }
    }
    // File or option, so that the user knows where to look.
    let named = [
        "config.json",
        "safetensors",
        "base",
        "case",
        "experts",
        "--adapter",
    ];
    let names = named.iter().any(|n| r.cause.contains(n));
    (!names).then(|| format!("no file: {:.200}", r.cause))
}

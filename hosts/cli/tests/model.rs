//! `run`, `trace` and `inspect` on sound models.

mod common;

use common::{fixtures, intent, pleach, pleach_with, text};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::PathBuf;

/// case-plain, packed, and what PEFT expects of it.
struct Plain {
    folder: tempfile::TempDir,
    file: PathBuf,
    expected: Value,
}

impl Plain {
    fn new() -> Self {
        let peft = fixtures().join("peft");
        let case = peft.join("case-plain");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain.pleach");
        let (base, file_text) = (peft.join("base-llama"), text(&file));
        pleach(&[
            "pack",
            "--base",
            text(&base),
            "--xlora",
            text(&case),
            "--quant",
            "f16",
            "-o",
            file_text,
        ])
        .code_ok();
        let expected = std::fs::read_to_string(case.join("expected.json")).unwrap();
        Self {
            folder,
            file,
            expected: serde_json::from_str(&expected).unwrap(),
        }
    }

    fn list(&self, key: &str) -> Vec<u64> {
        let list = self.expected[key].as_array().unwrap();
        list.iter().map(|v| v.as_u64().unwrap()).collect()
    }

    fn prompt(&self) -> String {
        let ids: Vec<String> = self.list("prompt").iter().map(u64::to_string).collect();
        ids.join(",")
    }
}

/// Success, whatever notes there were.
trait CodeOk {
    fn code_ok(self) -> String;
}

impl CodeOk for common::Ran {
    fn code_ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

#[test]
fn trace_writes_the_promised_tensors() {
    let plain = Plain::new();
    let out = plain.folder.path().join("out.safetensors");
    let n = plain.list("generated").len();
    let (file, prompt) = (text(&plain.file), plain.prompt());
    let arguments = [
        "trace",
        file,
        "--tokens",
        &prompt,
        "--generate",
        &n.to_string(),
        "-o",
        text(&out),
    ];
    let printed = pleach(&arguments).ok();
    assert!(printed.contains("generated "), "{printed}");

    let bytes = std::fs::read(&out).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = all.names();
    names.sort_unstable();
    assert_eq!(names, ["effective", "generated", "logits", "scalings"]);
    let metadata = header.metadata().as_ref().unwrap();
    let json = |key: &str| -> Value { serde_json::from_str(&metadata[key]).unwrap() };
    assert_eq!(json("sites"), plain.expected["sites"]);
    assert_eq!(json("experts"), plain.expected["experts"]);

    // PEFT's tensors, which the fixture holds for the prompt.
    let case = fixtures().join("peft/case-plain/expected.safetensors");
    let peft = std::fs::read(case).unwrap();
    let peft = SafeTensors::deserialize(&peft).unwrap();
    let prompt = plain.list("prompt").len();
    let positions = prompt + n - 1;
    for name in ["scalings", "effective", "logits"] {
        let (ours, theirs) = (all.tensor(name).unwrap(), peft.tensor(name).unwrap());
        assert_eq!(ours.dtype(), Dtype::F32);
        assert_eq!((ours.shape()[0], theirs.shape()[0]), (positions, prompt));
        assert_eq!(ours.shape()[1..], theirs.shape()[1..], "{name}");
        let difference = floats(ours.data())
            .zip(floats(theirs.data()))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        let largest = floats(theirs.data()).map(f32::abs).fold(1.0, f32::max);
        let limit = if name == "logits" {
            1e-4 * largest
        } else {
            1e-4
        };
        assert!(difference <= limit, "{name}: {difference}");
    }
    let generated = all.tensor("generated").unwrap();
    assert_eq!(
        (generated.dtype(), generated.shape()),
        (Dtype::I64, &[n][..])
    );
    let ids: Vec<u64> = generated
        .data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| i64::from_le_bytes(*b) as u64)
        .collect();
    assert_eq!(ids, plain.list("generated"));

    let again = plain.folder.path().join("again.safetensors");
    let mut arguments = arguments.map(str::to_owned);
    *arguments.last_mut().unwrap() = text(&again).to_owned();
    pleach(&arguments).ok();
    assert_eq!(std::fs::read(&again).unwrap(), bytes);
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
}

#[test]
fn trace_without_a_scaling_pass_has_no_scalings() {
    let plain = Plain::new();
    let out = plain.folder.path().join("out.safetensors");
    let file = text(&plain.file);
    for routing in ["base", "all-ones", "static:0.5,0.5", "only:llama-b"] {
        pleach(&[
            "trace",
            file,
            "--tokens",
            "1,2,3",
            "--routing",
            routing,
            "-o",
            text(&out),
        ])
        .ok();
        let bytes = std::fs::read(&out).unwrap();
        let all = SafeTensors::deserialize(&bytes).unwrap();
        assert!(all.tensor("scalings").is_err(), "{routing}");
        assert_eq!(all.tensor("effective").unwrap().shape(), [3, 28, 2]);
        assert_eq!(all.tensor("generated").unwrap().shape(), [0]);
    }
}

#[test]
fn the_hash_is_one_line_and_the_same_in_every_mode() {
    let file = intent();
    let trace = |options: &str| {
        let fixed = [
            "trace",
            &file,
            "--tokens",
            "1,90,33,270,31",
            "--generate",
            "12",
            "--hash",
        ];
        let arguments: Vec<&str> = fixed
            .into_iter()
            .chain(options.split_whitespace())
            .collect();
        pleach(&arguments).ok()
    };
    let reference = trace("--chunk 1 --speculate off --threads 1");
    let digits = reference
        .strip_prefix("hash ")
        .and_then(|h| h.strip_suffix('\n'))
        .unwrap();
    assert!(
        digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()),
        "{reference}"
    );
    for options in [
        "",
        "--chunk 2",
        "--chunk 7",
        "--speculate base",
        "--speculate held",
        "--threads 3",
    ] {
        assert_eq!(trace(options), reference, "{options}");
    }
    assert_ne!(trace("--kv f16"), reference);

    // FNV-1a over, position by position, scalings and then logits, computed here from the tensors.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("t.safetensors");
    trace(&format!("-o {}", text(&out)));
    let bytes = std::fs::read(out).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let (scalings, logits) = (
        all.tensor("scalings").unwrap(),
        all.tensor("logits").unwrap(),
    );
    let positions = logits.shape()[0];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for p in 0..positions {
        for tensor in [&scalings, &logits] {
            let row = tensor.data().len() / positions;
            for byte in &tensor.data()[p * row..(p + 1) * row] {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    assert_eq!(format!("hash {hash:016x}\n"), reference);
}

#[test]
fn trace_json_and_the_end_of_text() {
    let file = intent();
    // BOS, a sentence of the evaluation set, newline: what the demo answers with four tokens and the end.
    let expected = std::fs::read_to_string(fixtures().join("xlora-intent/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let case = &expected["cases"][0];
    let ids: Vec<String> = case["prompt"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let prompt = ids.join(",");
    let fixed = [
        "trace",
        &file,
        "--tokens",
        &prompt,
        "--generate",
        "40",
        "--json",
    ];
    let json = |more: &[&str]| -> Value {
        let arguments: Vec<&str> = fixed.iter().chain(more).copied().collect();
        serde_json::from_str(&pleach(&arguments).ok()).unwrap()
    };
    let whole = json(&[]);
    assert_eq!(whole["generated"].as_array().unwrap().len(), 40);
    assert_eq!(whole["ended"], "limit");
    let stopped = json(&["--stop-at-eos"]);
    assert_eq!(stopped["generated"], case["generated"]);
    assert_eq!(stopped["ended"], "eos");
    let positions = ids.len() + case["generated"].as_array().unwrap().len() - 1;
    assert_eq!(
        stopped["shapes"]["logits"],
        serde_json::json!([positions, 512])
    );
    assert_eq!(stopped["sites"].as_array().unwrap().len(), 35);
    assert!(stopped["counters"]["sweeps"].as_u64().unwrap() > 0);
}

#[test]
fn run_prints_the_continuation_only() {
    let expected = std::fs::read_to_string(fixtures().join("xlora-intent/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let file = intent();
    for case in expected["cases"].as_array().unwrap() {
        let prompt = format!("{}\n", case["sentence"].as_str().unwrap());
        let ran = pleach(&["run", &file, "--prompt", &prompt]).ok();
        let piped = pleach_with(prompt.as_bytes(), &["run", &file, "--prompt-file", "-"]).ok();
        assert_eq!(ran, piped);
        assert_eq!(ran, case["text"].as_str().unwrap());
    }
}

#[test]
fn run_counts_tokens_and_says_when_the_context_is_full() {
    let file = intent();
    assert_eq!(
        pleach(&["run", &file, "--prompt", "wie spät ist es\n", "-n", "0"]).ok(),
        ""
    );
    let one = pleach(&["run", &file, "--prompt", "wie spät ist es\n", "-n", "1"]).ok();
    let all = pleach(&["run", &file, "--prompt", "wie spät ist es\n"]).ok();
    assert!(all.starts_with(&one) && one.len() < all.len());
    let full = pleach(&["run", &file, "--prompt", "a", "--context", "3"]);
    assert_eq!(full.code, 0);
    assert!(full.err.contains("context of 3 tokens is full"), "{full:?}");
}

#[test]
fn adapters_without_a_classifier_need_a_routing() {
    let peft = fixtures().join("peft");
    let folder = tempfile::tempdir().unwrap();
    let adapter = |n: &str| format!("{n}={}", text(&peft.join("experts").join(n)));
    let (a, b) = (adapter("llama-a"), adapter("llama-b"));
    let base = peft.join("base-llama");
    let pack = |name: &str, adapters: &[&str]| {
        let file = folder.path().join(name);
        let mut arguments = vec!["pack", "--base", text(&base), "-o", text(&file)];
        adapters
            .iter()
            .for_each(|a| arguments.extend(["--adapter", *a]));
        pleach(&arguments).code_ok();
        text(&file).to_owned()
    };
    let trace = |file: &str, more: &[&str]| {
        let fixed = ["trace", file, "--tokens", "1,2,3", "--hash"];
        pleach(&fixed.iter().chain(more).copied().collect::<Vec<_>>())
    };

    let two = pack("two", &[&a, &b]);
    let refused = trace(&two, &[]);
    let (cause, cure) = refused.refused(2);
    assert!(
        cause.contains("2 experts and no classifier: --routing is required"),
        "{cause}"
    );
    assert!(cure.contains("llama-a, llama-b"), "{cure}");
    let refused = trace(&two, &["--routing", "exact"]);
    assert!(refused.refused(2).0.contains("no classifier"));
    let only_a = trace(&two, &["--routing", "only:llama-a"]).ok();
    assert_eq!(trace(&two, &["--routing", "static:1,0"]).ok(), only_a);

    let one = pack("one", &[&a]);
    assert_eq!(
        trace(&one, &[]).ok(),
        trace(&one, &["--routing", "all-ones"]).ok()
    );
    let none = pack("none", &[]);
    assert_eq!(
        trace(&none, &[]).ok(),
        trace(&two, &["--routing", "base"]).ok()
    );
}

#[test]
fn inspect_for_people_and_for_scripts() {
    let file = intent();
    let text = pleach(&["inspect", &file]).ok();
    for word in [
        "5 layers",
        "rank 8 at 35 of 35 sites",
        "top 2",
        "model.layers.4.mlp.down_proj",
        "sound",
    ] {
        assert!(text.contains(word), "{word}:\n{text}");
    }
    let all: Value = serde_json::from_str(&pleach(&["inspect", "--json", &file]).ok()).unwrap();
    assert_eq!(all["bytes"], std::fs::metadata(&file).unwrap().len());
    assert_eq!(all["verified"], true);
    assert_eq!(all["config"]["hidden"], 64);
    assert_eq!(all["options"]["top_k_lora"], 2);
    assert_eq!(all["sites"].as_array().unwrap().len(), 35);
    let names: Vec<&str> = all["experts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["en", "de", "fr", "es"]);
    // Every byte is accounted for: tensors, texts, and what is neither.
    let sum = |list: &str, of: &dyn Fn(&Value) -> bool| -> u64 {
        let all = all[list].as_array().unwrap().iter();
        all.filter(|v| of(v))
            .map(|v| v["bytes"].as_u64().unwrap())
            .sum()
    };
    let texts = sum("sections", &|s| {
        ["names", "tokenizer", "provenance"].contains(&s["kind"].as_str().unwrap())
    });
    let tensors = sum("tensors", &|_| true);
    let tables = all["table_bytes"].as_u64().unwrap();
    assert_eq!(all["bytes"], tensors + texts + tables);
}

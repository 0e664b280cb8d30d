//! Every broken checkpoint: exit code 2, cause, cure, no file left.

mod common;

use common::{fixtures, pleach_in, text};
use std::path::Path;

/// What each message must say, from `tests/fixtures/peft/bad/README.md`: words of cause or cure.
const CASES: [(&str, &[&str]); 25] = [
    ("adapter-path-missing", &["nowhere", "--adapter 1=DIR"]),
    (
        "base-missing-tensor",
        &["model.layers.2.mlp.up_proj.weight"],
    ),
    ("base-unsupported", &["rwkv", "llama", "qwen2"]),
    ("base-vocab", &["250", "256"]),
    ("classifier-empty", &["0.20.0 to 0.21.2", "0.19.1"]),
    ("classifier-lost-tensors", &["0.20.0 to 0.21.2", "0.19.1"]),
    (
        "classifier-too-wide",
        &["140", "112", "4 experts", "28 sites"],
    ),
    ("depth-zero", &["xlora_depth", "at least 1"]),
    ("expert-bias", &["bias", "lora_only", "not supported"]),
    ("expert-dora", &["use_dora", "X-LoRA"]),
    (
        "expert-half-pair",
        &["self_attn.q_proj.lora_B.weight", "missing"],
    ),
    ("expert-huge-value", &["lora_A", "1e6", "65504"]),
    ("expert-modules-to-save", &["modules_to_save", "lm_head"]),
    ("expert-nan", &["lora_B", "[1, 1]", "NaN"]),
    ("expert-pissa", &["init_lora_weights", "pissa", "altered"]),
    ("expert-rank", &["lora_B", "[64, 3]", "[4, 64]"]),
    ("expert-unknown-layer", &["layers.9", "4 layers"]),
    ("expert-without-lora", &["lora_", "original adapter folder"]),
    ("hidden-size", &["128", "64"]),
    ("not-xlora", &["LORA", "--adapter"]),
    ("safetensors-bad-json", &["JSON", "byte 9"]),
    ("safetensors-huge-header", &["1152921504606846976"]),
    ("safetensors-truncated", &["42776", "21388"]),
    ("topk-too-large", &["9", "4 experts"]),
    (
        "topk-with-scaling-pass",
        &["ambiguous", "scaling_pass_value", "top_k_lora"],
    ),
];

#[test]
fn every_broken_checkpoint_is_refused_by_name() {
    let bad = fixtures().join("peft/bad");
    for (name, words) in CASES {
        let folder = bad.join(name);
        let base = std::fs::read_to_string(folder.join("base.txt")).unwrap();
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("out.pleach");
        let arguments = [
            "pack",
            "--base",
            base.trim(),
            "--xlora",
            ".",
            "-o",
            text(&file),
        ];
        let ran = pleach_in(&folder, &arguments);
        let (cause, cure) = ran.refused(2);
        let all = format!("{cause}\n{cure}");
        for word in words {
            assert!(all.contains(word), "{name}: {word:?} is not in\n{all}");
        }
        assert!(is_empty(out.path()), "{name} left a file");
    }
}

#[test]
fn no_broken_checkpoint_is_forgotten() {
    let mut folders: Vec<String> = std::fs::read_dir(fixtures().join("peft/bad"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|e| e.file_type().unwrap().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, CASES.map(|(name, _)| name));
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

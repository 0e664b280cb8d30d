//! Every broken checkpoint of the fixtures, held against what its README asks of the message.

mod common;

use common::{base_of, fixtures, options};
use pleach_pack::{Kind, Silent, pack};
use std::collections::BTreeSet;
use std::fs;

/// Folder, what the first line must contain, what the second line must contain: the README's demands.
const DEMANDS: [(&str, &[&str], &[&str]); 25] = [
    (
        "classifier-lost-tensors",
        &["0.20.0", "0.21.2", "internal_xlora_classifier.layers.0."],
        &["again", "0.19.1"],
    ),
    (
        "classifier-empty",
        &["0.20.0", "0.21.2", "internal_xlora_classifier.layers.0."],
        &["again", "0.19.1"],
    ),
    (
        "classifier-too-wide",
        &["140", "112", "4 experts x 28 sites"],
        &["experts"],
    ),
    ("hidden-size", &["hidden_size", "128", "64"], &["base"]),
    (
        "depth-zero",
        &["xlora_depth", "at least 1"],
        &["xlora_depth"],
    ),
    (
        "topk-with-scaling-pass",
        &["top_k_lora", "scaling_pass_value", "0.25", "ambiguous"],
        &["scaling_pass_value", "or top_k_lora"],
    ),
    (
        "not-xlora",
        &["LORA", "peft_type"],
        &["--adapter", "without --xlora"],
    ),
    (
        "adapter-path-missing",
        &["does not exist", "nowhere"],
        &["--adapter", "=DIR"],
    ),
    (
        "topk-too-large",
        &["top_k_lora", "9", "4 experts"],
        &["1 to 4"],
    ),
    (
        "expert-without-lora",
        &["no lora_"],
        &["original adapter folder"],
    ),
    ("expert-nan", &["lora_B.weight[", "NaN"], &["checkpoint"]),
    ("expert-rank", &["lora_A.weight has [4, ", "3]"], &["again"]),
    (
        "expert-unknown-layer",
        &["layers.9.self_attn.q_proj", "4 layers"],
        &["base"],
    ),
    (
        "expert-dora",
        &["use_dora", "DoRA is not supported", "as in PEFT's X-LoRA"],
        &["train"],
    ),
    (
        "expert-half-pair",
        &["lora_B.weight is missing"],
        &["again"],
    ),
    (
        "expert-huge-value",
        &["lora_", "1e6", "65504"],
        &["smaller"],
    ),
    (
        "safetensors-truncated",
        &["bytes expected", "42776", "21388 found"],
        &["again"],
    ),
    (
        "safetensors-huge-header",
        &["1152921504606846976"],
        &["again"],
    ),
    (
        "safetensors-bad-json",
        &[
            "adapter_model.safetensors",
            "not JSON",
            "line 1 column 2",
            "byte 9",
        ],
        &["again"],
    ),
    (
        "base-missing-tensor",
        &["model.layers.2.mlp.up_proj.weight is missing"],
        &["again"],
    ),
    ("base-vocab", &["embed_tokens", "250", "256"], &["together"]),
    (
        "base-unsupported",
        &["model_type", "rwkv"],
        &["llama", "qwen2"],
    ),
    (
        "expert-bias",
        &["bias", "lora_only", "not supported"],
        &["none"],
    ),
    (
        "expert-pissa",
        &["init_lora_weights", "pissa", "the base itself was altered"],
        &["train"],
    ),
    (
        "expert-modules-to-save",
        &["modules_to_save", "lm_head"],
        &["train"],
    ),
];

#[test]
fn every_message_says_what_the_readme_demands() {
    for (folder, cause, cure) in DEMANDS {
        let xlora = fixtures().join("peft/bad").join(folder);
        let mut o = options(base_of(&xlora));
        o.xlora = Some(xlora);
        let e = match pack(&o, &mut Silent) {
            Ok(_) => panic!("{folder} was packed"),
            Err(e) => e,
        };
        assert_eq!(e.kind, Kind::Refused, "{folder}: {e}");
        for part in cause {
            assert!(
                e.cause.contains(part),
                "{folder}: {part:?} not in the cause: {}",
                e.cause
            );
        }
        for part in cure {
            assert!(
                e.cure.contains(part),
                "{folder}: {part:?} not in the cure: {}",
                e.cure
            );
        }
        assert!(
            !e.cause.contains('\n') && !e.cure.contains('\n'),
            "{folder}: {e}"
        );
        println!("{folder}\n{e}\n");
    }
}

#[test]
fn no_folder_is_left_out() {
    let there: BTreeSet<String> = fs::read_dir(fixtures().join("peft/bad"))
        .expect("fixtures")
        .map(|e| e.expect("entry"))
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let here: BTreeSet<String> = DEMANDS.iter().map(|d| d.0.to_string()).collect();
    assert_eq!(there, here);
}

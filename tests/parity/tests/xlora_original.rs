//! Checkpoints of the original `xlora` package, against what follows from its definition in f64 (see
//! `tests/fixtures/xlora-original/make.py`, which shares no code with it or with us).

use parity::{File, Guesses, Mode, Setup, Storage, Text, fixture, run};
use pleach::{KvType, Speculate};
use pleach_pack::{PackOptions, Silent, pack};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const CASES: [&str; 3] = ["deep-linear", "relu-no-bias", "depth-one"];

fn folder(name: &str) -> PathBuf {
    fixture::root().join("xlora-original").join(name)
}

fn options(folder: &Path) -> PackOptions {
    let base = fixture::root().join("peft/base-llama");
    Storage::F16.options(base, Some(folder.into()))
}

/// Token by token, pipelined, and with both guesses: one hash.
fn modes() -> [Mode; 4] {
    [
        Mode::NAIVE,
        Mode::whole(7),
        Mode::whole(32).speculating(Speculate::Base, Guesses::Natural),
        Mode::whole(2).speculating(Speculate::Held, Guesses::Natural),
    ]
}

/// Largest difference of two lists of one length.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs);
    pairs.fold(0.0, |m, (a, b)| f32::max(m, (a - b).abs()))
}

#[test]
fn scalings_logits_and_tokens() {
    for name in CASES {
        let folder = folder(name);
        let about = fixture::json(&std::fs::read(folder.join("expected.json")).unwrap());
        let expected = std::fs::read(folder.join("expected.safetensors")).unwrap();
        let file = File::pack(&options(&folder));
        let model = file.model();
        model.verify().unwrap();
        let experts: Vec<&str> = (0..model.n_experts())
            .map(|n| model.expert(n).unwrap().key())
            .collect();
        let sites: Vec<&str> = (0..model.n_sites())
            .map(|n| model.site_name(n).unwrap())
            .collect();
        assert_eq!(about["experts"], json!(experts), "{name}");
        assert_eq!(about["sites"], json!(sites), "{name}");

        let prompt = fixture::tokens(&expected, "prompt");
        let generated = fixture::tokens(&expected, "generated");
        let text = Text::new(&prompt, generated.len());
        let setup = Setup::exact(KvType::F32);
        let mut hashes = Vec::new();
        for mode in modes() {
            let trace = run(model, &mode, &setup, &text).unwrap();
            hashes.push(trace.hash());
            assert_eq!(trace.generated, generated, "{name}");
            let n = prompt.len();
            let (width, vocab) = (trace.width, trace.vocab);
            let (logits, after) = (
                fixture::floats(&expected, "logits"),
                fixture::floats(&expected, "generated_logits"),
            );
            let largest = |v: &[f32]| v.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            // The tolerances of tests/fixtures/README.md for PEFT in f32; the reference here is f64. Raw scalings
            // are relative to the largest.
            for (what, ours, theirs, share) in [
                (
                    "scalings",
                    &trace.scalings[..n * width],
                    fixture::floats(&expected, "scalings"),
                    1e-4,
                ),
                (
                    "effective",
                    &trace.effective[..n * width],
                    fixture::floats(&expected, "effective"),
                    1e-4,
                ),
                ("logits", &trace.logits[..n * vocab], logits, 1e-4),
                ("generated", &trace.logits[(n - 1) * vocab..], after, 3e-4),
            ] {
                let (d, limit) = (difference(ours, &theirs), share * largest(&theirs));
                println!("{name:<14}{what:<12}{d:.1e} of {limit:.1e}");
                assert!(
                    d <= limit,
                    "{name}: {what} differ by {d:.2e}, allowed {limit:.2e}"
                );
            }
        }
        assert!(
            hashes.iter().all(|h| *h == hashes[0]),
            "{name}: {hashes:x?}"
        );
    }
}

/// A copy of a case's folder whose configuration is changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&folder(name), copy.path());
    let path = copy.path().join("xlora_config.json");
    let mut config = fixture::json(&std::fs::read(&path).unwrap());
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(std::fs::copy(&path, &target).unwrap()),
        }
    }
}

/// Notes are kept.
#[derive(Default)]
struct Notes(Vec<String>);

impl pleach_pack::Progress for Notes {
    fn start(&mut self, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, text: &str) {
        self.0.push(text.into());
    }
}

fn notes(folder: &Path) -> String {
    let mut notes = Notes::default();
    pack(&options(folder), &mut notes).unwrap();
    notes.0.join("\n")
}

#[test]
fn what_is_assumed_or_passed_over_is_noted() {
    let depth_one = notes(&folder("depth-one"));
    for part in [
        "ordering.json: an ordering file, ignored",
        "scaling_pass_value is 0.5: taken as 0",
    ] {
        assert!(depth_one.contains(part), "{part}: {depth_one}");
    }
    let bare = changed("deep-linear", |c| {
        let c = c.as_object_mut().unwrap();
        for key in ["enable_relu_and_dropout", "use_bias", "softmax_temperature"] {
            c.remove(key).unwrap();
        }
        c.insert("enable_softmax_topk".into(), true.into());
        c.insert("stop_token_id".into(), Value::Null);
    });
    let bare = notes(bare.path());
    for part in [
        "not stated, assumed: enable_relu_and_dropout = false, use_bias = true, softmax_temperature = 1",
        "the package's softmax ran over all tokens at once",
    ] {
        assert!(bare.contains(part), "{part}: {bare}");
    }
}

#[test]
fn the_order_is_the_configurations() {
    // The same experts in another order: another list, the same folders.
    let names = ["beta", "gamma", "alpha"];
    let list = changed("deep-linear", |c| c["adapters"] = json!(names));
    let missing = changed("deep-linear", |c| {
        c.as_object_mut().unwrap().remove("adapters");
    });
    let mut options_of = options(missing.path());
    options_of.adapters = names
        .map(|n| (n.to_string(), missing.path().join(n)))
        .to_vec();
    for options in [options(list.path()), options_of] {
        let file = File::pack(&options);
        let found: Vec<&str> = (0..3)
            .map(|n| file.model().expert(n).unwrap().name())
            .collect();
        assert_eq!(found, names);
    }
}

#[test]
fn given_folders_win() {
    let mut o = options(&folder("relu-no-bias"));
    let given = fixture::root().join("peft/experts/llama-d");
    o.adapters = vec![("eta".into(), given)];
    let file = File::pack(&o);
    // llama-d targets up and down with rank 3, which the folder's own eta does not.
    let up = file
        .model()
        .find_site("model.layers.0.mlp.up_proj")
        .unwrap();
    assert_eq!(file.model().expert(1).unwrap().rank(up.number), 3);
    assert_eq!(file.model().expert(1).unwrap().key(), "eta");
}

#[test]
fn what_cannot_be_right_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str, &str); 14] = [
        (
            "deep-linear",
            |c| c["use_mean_pool"] = true.into(),
            "use_mean_pool",
            "with PEFT",
        ),
        (
            "deep-linear",
            |c| c["use_bias"] = false.into(),
            "use_bias is false, but the layers have biases",
            "set use_bias",
        ),
        (
            "relu-no-bias",
            |c| c["use_bias"] = true.into(),
            "use_bias is true, stated or by default, but no layer has a bias: early versions",
            "only if it was trained with that",
        ),
        (
            "relu-no-bias",
            |c| drop(c.as_object_mut().unwrap().remove("use_bias")),
            "but no layer has a bias: early versions",
            "with PEFT",
        ),
        (
            "deep-linear",
            |c| c["stop_token_id"] = 2.into(),
            "stop_token_id is 2: versions that use it have one row of scalings for a whole text",
            "with PEFT",
        ),
        (
            "deep-linear",
            |c| c["enable_relu_and_dropout"] = true.into(),
            "do not fit enable_relu_and_dropout = true",
            "inner.0, inner.3",
        ),
        (
            "relu-no-bias",
            |c| drop(c.as_object_mut().unwrap().remove("enable_relu_and_dropout")),
            "do not fit enable_relu_and_dropout = false",
            "inner.0, inner.3",
        ),
        (
            "deep-linear",
            |c| c["xlora_depth"] = 2.into(),
            "inner.1.bias has no place",
            "xlora_depth",
        ),
        (
            "deep-linear",
            |c| c["xlora_depth"] = 4.into(),
            "inner.2.weight is missing",
            "xlora_depth",
        ),
        (
            "deep-linear",
            |c| c["adapters"] = json!(["gamma", "gamma", "beta"]),
            "names \"gamma\" twice",
            "an expert per class",
        ),
        (
            "deep-linear",
            |c| c["adapters"] = json!(["gamma", "../x", "beta"]),
            "no name of a subfolder",
            "plain name",
        ),
        (
            "deep-linear",
            |c| c["adapters"] = json!(["gamma", "delta", "beta"]),
            "the adapter delta has no subfolder",
            "--adapter delta=DIR",
        ),
        (
            "deep-linear",
            |c| drop(c.as_object_mut().unwrap().remove("adapters")),
            "adapters is missing",
            "--adapter NAME=DIR",
        ),
        (
            "deep-linear",
            |c| c["hidden_size"] = 4096.into(),
            "hidden_size is 4096, the base has 64",
            "pass the base",
        ),
    ];
    for (name, change, cause, cure) in cases {
        let folder = changed(name, change);
        let e = pack(&options(folder.path()), &mut Silent).unwrap_err();
        assert!(e.cause.contains(cause), "{}", e.cause);
        assert!(e.cure.contains(cure), "{}", e.cure);
    }
}

#[test]
fn a_trained_adapter_is_not_taken_from_a_stale_path() {
    let folder = changed("relu-no-bias", |c| {
        c["adapters"]["eta"] = json!(fixture::root().join("peft/experts/llama-g"));
    });
    std::fs::remove_dir_all(folder.path().join("adapters/eta")).unwrap();
    let e = pack(&options(folder.path()), &mut Silent).unwrap_err();
    assert!(
        e.cause
            .contains("use_trainable_adapters: the trained adapter eta"),
        "{}",
        e.cause
    );
}

#[test]
fn an_ordering_file_that_contradicts_is_refused() {
    let folder = changed("depth-one", |_| {});
    let path = folder.path().join("ordering.json");
    std::fs::write(&path, r#"{"order": ["default", "second"], "layers": {}}"#).unwrap();
    let e = pack(&options(folder.path()), &mut Silent).unwrap_err();
    assert!(
        e.cause.contains("its order is default, second"),
        "{}",
        e.cause
    );
    // A file that is no ordering file, and one that is broken, are none of our business.
    std::fs::write(&path, "{").unwrap();
    assert!(!notes(folder.path()).contains("ordering"));
}

#[test]
fn a_pickled_classifier_is_refused() {
    let folder = changed("depth-one", |_| {});
    std::fs::rename(
        folder.path().join("xlora_classifier.safetensors"),
        folder.path().join("xlora_classifier.pt"),
    )
    .unwrap();
    let e = pack(&options(folder.path()), &mut Silent).unwrap_err();
    assert!(
        e.cause.contains("xlora_classifier.safetensors is missing"),
        "{}",
        e.cause
    );
    assert!(e.cure.contains(".pt"), "{}", e.cure);
}

//! Experts as files: `pack --expert-only`, and `--expert` for the commands that run a model.

mod common;

use common::{Ran, fixtures, pleach, pleach_with, text};
use std::path::{Path, PathBuf};

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Packs the checkpoint of a case of tests/fixtures/peft, with more arguments.
    fn pack(&self, case: &str, output: &str, more: &[&str]) -> Ran {
        let base = match case.contains("qwen2") {
            true => "peft/base-qwen2",
            false => "peft/base-llama",
        };
        let (base, case) = (fixtures().join(base), fixtures().join("peft").join(case));
        let output = self.path(output);
        let mut all = vec!["pack", "--base", text(&base), "--xlora", text(&case)];
        all.extend_from_slice(&["-o", text(&output)]);
        all.extend_from_slice(more);
        pleach(&all)
    }

    /// Packs one adapter for a model file.
    fn replace(&self, model: &str, key: &str, folder: &Path, output: &str, more: &[&str]) -> Ran {
        let (model, output) = (self.path(model), self.path(output));
        let adapter = format!("{key}={}", folder.display());
        let mut all = vec!["pack", "--expert-only", key, "--model", text(&model)];
        all.extend_from_slice(&["--adapter", &adapter, "-o", text(&output)]);
        all.extend_from_slice(more);
        pleach(&all)
    }

    fn trace(&self, model: &str, experts: &[&str]) -> Ran {
        let model = self.path(model);
        let experts: Vec<PathBuf> = experts.iter().map(|e| self.path(e)).collect();
        let mut all = vec!["trace", text(&model), "--tokens", "5,9,77,3,200"];
        all.extend_from_slice(&["--generate", "6", "--hash"]);
        for e in &experts {
            all.extend_from_slice(&["--expert", text(e)]);
        }
        pleach(&all)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

fn done(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn expert(name: &str) -> PathBuf {
    fixtures().join("peft/experts").join(name)
}

/// The bytes of an expert's section, by the section table.
fn section(file: &[u8], class: u16) -> Vec<u8> {
    use pleach::blob::format::{SectionEntry, SectionKind};
    let rows = file[64..].as_chunks::<32>().0;
    let entry = rows
        .iter()
        .map(SectionEntry::decode)
        .find(|e| e.kind == SectionKind::Expert as u16 && e.index == class)
        .unwrap();
    file[entry.offset as usize..][..entry.length as usize].to_vec()
}

#[test]
fn a_file_holds_the_bytes_of_the_section() {
    let c = Case::new();
    for more in [
        &["--quant", "q8"][..],
        &["--quant", "f16"],
        &["--for", "portable"],
    ] {
        done(c.pack("case-six-experts-top3", "m.pleach", more));
        let whole = c.bytes("m.pleach");
        for (class, name) in ["a", "b", "c", "d", "e", "g"].iter().enumerate() {
            let (key, folder) = (class.to_string(), expert(&format!("llama-{name}")));
            done(c.replace("m.pleach", &key, &folder, "model.pleachx", &[]));
            assert_eq!(
                c.bytes("model.pleachx"),
                section(&whole, class as u16),
                "{more:?} {name}"
            );
        }
        let only = [more, &["--expert-only", "llama-c"]].concat();
        done(c.pack("case-six-experts-top3", "base.pleachx", &only));
        assert_eq!(c.bytes("base.pleachx"), section(&whole, 2), "{more:?}");
    }
    // An embedding site, whose adapter carries a copy of the base's table.
    done(c.pack("case-embedding-site", "e.pleach", &[]));
    let whole = c.bytes("e.pleach");
    let names: Vec<String> = keys(&c.path("e.pleach"));
    for (class, name) in names.iter().enumerate() {
        done(c.replace(
            "e.pleach",
            &class.to_string(),
            &expert(name),
            "e.pleachx",
            &[],
        ));
        assert_eq!(
            c.bytes("e.pleachx"),
            section(&whole, class as u16),
            "{name}"
        );
    }
}

/// The names of a model file's experts, which are the folders'.
fn keys(file: &Path) -> Vec<String> {
    let json = done(pleach(&["inspect", text(file), "--json"])).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let experts = json["experts"].as_array().unwrap();
    experts
        .iter()
        .map(|e| e["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_replaced_expert_answers_as_a_model_packed_with_it() {
    let c = Case::new();
    // Class 0 of case-plain is llama-a; llama-e targets the same modules with other ranks.
    let given = format!("0={}", expert("llama-e").display());
    done(c.pack("case-plain", "old.pleach", &[]));
    done(c.pack("case-plain", "new.pleach", &["--adapter", &given]));
    done(c.replace("old.pleach", "0", &expert("llama-e"), "e.pleachx", &[]));
    let new = done(c.trace("new.pleach", &[])).out;
    assert_ne!(done(c.trace("old.pleach", &[])).out, new);
    let replaced = done(c.trace("old.pleach", &["e.pleachx"]));
    assert_eq!(
        (replaced.out.as_str(), replaced.err.as_str()),
        (new.as_str(), "")
    );
    // Another storage of the expert is legal.
    done(c.replace(
        "old.pleach",
        "0",
        &expert("llama-e"),
        "f32.pleachx",
        &["--adapter-quant", "f32"],
    ));
    assert_ne!(done(c.trace("old.pleach", &["f32.pleachx"])).out, new);
}

/// By itself, an expert file says what the model says of it.
#[test]
fn inspect_describes_an_expert_file() {
    let c = Case::new();
    done(c.pack("case-six-experts-top3", "m.pleach", &["--for", "mve"]));
    let more = ["--for", "mve", "--expert-only", "llama-c"];
    done(c.pack("case-six-experts-top3", "e.pleachx", &more));
    let (model, file) = (c.path("m.pleach"), c.path("e.pleachx"));
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&pleach(&["inspect", text(path), "--json"]).ok()).unwrap()
    };
    let (m, e) = (json(&model), json(&file));
    for key in [
        "class", "name", "key", "bytes", "sites", "ranks", "bindings",
    ] {
        assert_eq!(e[key], m["experts"][2][key], "{key}");
    }
    assert_eq!((&e["kind"], &e["for"]), (&"expert".into(), &"mve".into()));
    assert_eq!(e["group"], m["config"]["group"]);
    assert_eq!(e["sites_of_model"], m["sites"].as_array().unwrap().len());
    assert_eq!(e["verified"], true);
    assert_eq!(e["bytes"], c.bytes("e.pleachx").len());
    // By the config of PEFT's adapter: alpha over rank, or over its root.
    let config = std::fs::read(expert("llama-c").join("adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let number = |key: &str| config[key].as_f64().unwrap();
    let scale = number("lora_alpha")
        / match config["use_rslora"].as_bool().unwrap() {
            true => number("r").sqrt(),
            false => number("r"),
        };
    let ranks = e["ranks"].as_array().unwrap().iter();
    for (scale_of_site, rank) in e["scales"].as_array().unwrap().iter().zip(ranks) {
        match rank.as_u64().unwrap() {
            0 => assert!(scale_of_site.is_null()),
            _ => assert_eq!(scale_of_site.as_f64(), Some(scale)),
        }
    }
    let panels = e["tensors"].as_array().unwrap();
    let of = |part: &str| panels.iter().find(|p| p["part"] == part).unwrap();
    assert_eq!(of("A")["layout"], "r4k16");
    assert_eq!(of("A")["tensors"], e["sites"]);
    assert_eq!(of("B")["tensors"], e["sites"]);

    let people = pleach(&["inspect", text(&file)]).ok();
    for words in [
        ", an expert, laid out for mve",
        "2 llama-c (key ",
        "A: ",
        " in q8 r4k16",
        "its checksums are sound",
        e["bindings"]["base"].as_str().unwrap(),
    ] {
        assert!(people.contains(words), "{words}: {people}");
    }

    // Damage is found, and what does not go together is refused.
    let mut bytes = c.bytes("e.pleachx");
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let ran = pleach(&["inspect", text(&file), "--json"]);
    assert!(ran.code == 2 && ran.err.contains("CRC-32"), "{ran:?}");
    let told: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(told["verified"], false);
    for (more, why) in [
        (&["--expert", text(&file)][..], "--expert: "),
        (&["--tensors"], "--tensors: "),
    ] {
        let ran = pleach(&[&["inspect", text(&file)], more].concat());
        assert!(ran.refused(2).0.starts_with(why), "{ran:?}");
    }
    std::fs::write(&file, &c.bytes("e.pleachx")[..100]).unwrap();
    pleach(&["inspect", text(&file)]).refused(2);
}

#[test]
fn another_classifier_is_noted() {
    let c = Case::new();
    done(c.pack("case-plain", "plain.pleach", &[]));
    // The same experts, hence base and sites, under another classifier.
    done(c.pack("case-top1", "top1.pleach", &[]));
    let names = keys(&c.path("top1.pleach"));
    done(c.replace("top1.pleach", "0", &expert(&names[0]), "x.pleachx", &[]));
    let ran = done(c.trace("plain.pleach", &["x.pleachx"]));
    assert!(ran.err.starts_with("note: expert 0 "), "{ran:?}");
    assert!(ran.err.contains("another classifier"), "{ran:?}");
    let (model, file) = (c.path("plain.pleach"), c.path("x.pleachx"));
    let json = done(pleach(&[
        "inspect",
        text(&model),
        "--expert",
        text(&file),
        "--json",
    ]))
    .out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let first = &json["experts"][0];
    let expected = serde_json::json!({"base": true, "sites": true, "classifier": false});
    assert_eq!(
        (&first["matches"], &first["replaced"]),
        (&expected, &true.into())
    );
    assert_eq!(json["experts"][1]["matches"]["classifier"], true);
}

#[test]
fn what_does_not_belong_is_refused() {
    let c = Case::new();
    done(c.pack("case-plain", "plain.pleach", &[]));
    done(c.pack("case-plain", "f16.pleach", &["--quant", "f16"]));
    done(c.pack(
        "case-plain",
        "group.pleach",
        &["--group", "32", "--quant", "f16"],
    ));
    done(c.pack("case-layerwise-top2", "four.pleach", &[]));
    done(c.pack("case-qwen2", "qwen2.pleach", &[]));
    let a = expert("llama-a");
    done(c.replace("plain.pleach", "0", &a, "plain.pleachx", &[]));
    done(c.replace("plain.pleach", "0", &a, "again.pleachx", &[]));
    done(c.replace("f16.pleach", "0", &a, "f16.pleachx", &[]));
    let four = keys(&c.path("four.pleach"));
    let last = four.len() - 1;
    done(c.replace(
        "four.pleach",
        &last.to_string(),
        &expert(&four[last]),
        "last.pleachx",
        &[],
    ));
    done(c.replace(
        "qwen2.pleach",
        "0",
        &expert("qwen2-a"),
        "qwen2.pleachx",
        &[],
    ));
    done(c.pack("case-embedding-site", "embed.pleach", &[]));
    done(c.replace("embed.pleach", "0", &a, "embed.pleachx", &[]));
    let bytes = c.bytes("plain.pleachx");
    std::fs::write(c.path("cut.pleachx"), &bytes[..bytes.len() - 1]).unwrap();
    std::fs::write(c.path("short.pleachx"), &bytes[..20]).unwrap();
    std::fs::write(c.path("empty.pleachx"), b"").unwrap();
    std::fs::write(c.path("noise.pleachx"), vec![7; 5000]).unwrap();

    let cases: [(&[&str], &str, &str); 9] = [
        (
            &["qwen2.pleachx"],
            "bound to another base",
            "pack --expert-only KEY --model",
        ),
        (
            &["f16.pleachx"],
            "bound to another base",
            "pack --expert-only KEY --model",
        ),
        (&["cut.pleachx"], "truncated", "copy it again"),
        (&["short.pleachx"], "truncated", "copy it again"),
        (
            &["empty.pleachx"],
            "not an expert file: it is empty",
            "--expert-only KEY",
        ),
        (
            &["noise.pleachx"],
            "not an expert file",
            "--expert-only KEY",
        ),
        (
            &["plain.pleach"],
            "not an expert file: it is a whole model file",
            "--expert-only KEY",
        ),
        (
            &["plain.pleachx", "again.pleachx"],
            "it replaces expert 0 (llama-a), as",
            "pass one of them",
        ),
        (&["missing.pleachx"], "missing.pleachx", "check the path"),
    ];
    for (files, cause, cure) in cases {
        let ran = c.trace("plain.pleach", files);
        let (first, second) = ran.refused(2);
        assert!(first.contains(files[files.len() - 1]), "{first}");
        assert!(first.contains(cause), "{first}");
        assert!(second.contains(cure), "{second}");
    }
    // Only the group differs: f16 weights of the base are the same bytes.
    let (group, _) = (c.trace("group.pleach", &["f16.pleachx"]), ());
    assert!(
        group
            .refused(2)
            .0
            .contains("its groups are of 64, the model's of 32"),
        "{group:?}"
    );
    let e = c.trace("plain.pleach", &["embed.pleachx"]);
    assert!(e.refused(2).0.contains("another table of sites"), "{e:?}");
    let e = c.trace("plain.pleach", &["last.pleachx"]);
    assert!(
        e.refused(2).0.contains("it is expert 3, the model has 2"),
        "{e:?}"
    );
    // run and inspect open files in the same place.
    let (model, file) = (c.path("plain.pleach"), c.path("qwen2.pleachx"));
    for command in [
        &["inspect", text(&model)][..],
        &["run", text(&model), "--prompt", "x"],
    ] {
        let ran = pleach(&[command, &["--expert", text(&file)]].concat());
        assert!(
            ran.refused(2).0.contains("bound to another base"),
            "{command:?}"
        );
    }
}

/// The errors of the report, tensor by tensor, are those of the file.
#[test]
fn inspect_shows_what_storage_cost() {
    let c = Case::new();
    let printed = done(c.pack("case-layerwise-top2", "m.pleach", &[])).out;
    let model = c.path("m.pleach");
    let all = done(pleach(&["inspect", text(&model), "--tensors"])).out;
    // Four layers of seven matrices and the embedding; four experts, of which the sites count twice.
    let json = done(pleach(&["inspect", text(&model), "--json"])).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let targeted = json["experts"].as_array().unwrap().iter();
    let panels: u64 = targeted.map(|e| 2 * e["sites"].as_u64().unwrap()).sum();
    assert_eq!(all.lines().count() as u64, 29 + panels, "{all}");
    for kind in json["storage_errors"].as_array().unwrap() {
        let name = kind["kind"].as_str().unwrap();
        let worst = kind["tensors"].as_array().unwrap().iter();
        let worst = worst.fold(0.0, |m: f64, t| m.max(t["relative"].as_f64().unwrap()));
        let line = printed.lines().find(|l| l.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {printed}"));
        assert!(
            line.contains(&format!("{:.4} %", 100.0 * worst)),
            "{worst} {line}"
        );
        // int8 with a scale for 64 values: about half a percent of normal numbers.
        assert!(worst > 1e-3 && worst < 1.5e-2, "{name} {worst}");
    }
    let people = done(pleach(&["inspect", text(&model)])).out;
    let people = people.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(people.contains("errors embed: "), "{people}");
    assert!(
        people.contains("bound to this base, its sites and classifier"),
        "{people}"
    );
}

#[test]
fn an_expert_that_cannot_be_packed_is_refused() {
    let c = Case::new();
    done(c.pack("case-plain", "plain.pleach", &[]));
    done(c.pack("case-qwen2", "qwen2.pleach", &[]));
    let plain = keys(&c.path("plain.pleach"));
    let refuse = |ran: Ran, cause: &str, cure: &str| {
        let (first, second) = ran.refused(2);
        assert!(first.contains(cause), "{first}");
        assert!(second.contains(cure), "{second}");
    };
    refuse(
        c.replace("plain.pleach", "7", &expert("llama-a"), "x", &[]),
        "--expert-only 7: no expert of that key or name",
        &format!("0 ({})", plain[0]),
    );
    refuse(
        c.replace("plain.pleach", "0", &expert("llama-f"), "x", &[]),
        "targets model.embed_tokens, which is no site of",
        "pack the whole model file again",
    );
    // An adapter of another base: by shape.
    refuse(
        c.replace(
            "qwen2.pleach",
            "0",
            &fixtures().join("xlora-intent/experts/de"),
            "x",
            &[],
        ),
        "tensor base_model",
        "pass the base that the adapter was trained on",
    );
    // By vocabulary: A of an embedding site has a column per token.
    let intent = fixtures().join("xlora-intent/base");
    let other = format!("x={}", expert("llama-f").display());
    let out = c.path("x");
    refuse(
        pleach(&[
            "pack",
            "--base",
            text(&intent),
            "--adapter",
            &other,
            "-o",
            text(&out),
        ]),
        "embed_tokens.lora_embedding_A has shape [4, 256], the base asks for [4, ",
        "pass the base that the adapter was trained on",
    );
    refuse(
        c.pack("case-plain", "x", &["--expert-only", "nobody"]),
        "--expert-only nobody: no expert of that key or name",
        "use one of",
    );
    let model = c.path("plain.pleach");
    let out = c.path("x");
    for (arguments, cause) in [
        (
            vec!["pack", "--model", text(&model), "-o", text(&out)],
            "missing: --expert-only",
        ),
        (
            vec![
                "pack",
                "--model",
                text(&model),
                "--expert-only",
                "0",
                "-o",
                text(&out),
            ],
            "--model: 0 adapters",
        ),
        (
            vec![
                "pack",
                "--model",
                text(&model),
                "--expert-only",
                "0",
                "--group",
                "32",
                "-o",
                text(&out),
            ],
            "exclude each other",
        ),
        (vec!["pack", "-o", text(&out)], "missing: --base"),
    ] {
        let ran = pleach(&arguments);
        assert!(ran.refused(2).0.contains(cause), "{ran:?}");
    }
}

/// A terminal would obey it. Keys and names come from what was packed: an adapter's folder gives its name.
#[test]
fn an_escape_sequence_in_a_name_stays_in_the_file() {
    let c = Case::new();
    let intent = fixtures().join("xlora-intent");
    let folder = c.path("\x1b7de");
    std::fs::create_dir(&folder).unwrap();
    for file in std::fs::read_dir(intent.join("experts/de")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let adapter = format!("\x1b8={}", folder.display());
    let (model, base) = (c.path("model.pleach"), intent.join("base"));
    let model = text(&model);
    let packed = pleach(&[
        "pack",
        "--base",
        text(&base),
        "--adapter",
        &adapter,
        "-o",
        model,
    ]);
    let prompt = ["--prompt", "licht an", "-n", "2"];
    let run = |more: &[&str]| pleach(&[&["run", model][..], &prompt, more].concat());
    let chat = ["chat", model, "--template", "chatml", "-n", "2"];
    let input = b"/routing\n/experts on\nlicht an\n/routing only:none\n";
    let shown = [
        packed,
        pleach(&["inspect", model]),
        pleach(&["inspect", "--tensors", model]),
        pleach(&["plan", model]),
        run(&["--show-experts"]),
        run(&["--routing", "only:none"]),
        pleach_with(input, &chat),
    ];
    for ran in shown {
        let all = ran.out.clone() + &ran.err;
        assert!(!all.contains('\x1b') && all.len() > 20, "{ran:?}");
    }
    let named = pleach(&["inspect", model]).ok();
    assert!(named.contains("\u{fffd}7de (key \u{fffd}8)"), "{named}");
}

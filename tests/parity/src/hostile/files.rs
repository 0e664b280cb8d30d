//! Checkpoints of which one file is the input.

use super::model::{self, exercise};
use crate::fixture;
use crate::memory::Bytes;
use crate::synth::{Checkpoint, Expert};
use pleach::{Blob, Model};
use pleach_pack::{Kind, PackError, PackOptions, Silent, pack};
use std::fs;
use std::path::{Path, PathBuf};

/// A small checkpoint in a folder of this thread, one for each target.
pub struct Stage {
    root: PathBuf,
}

/// The smallest model that has everything: a base, two experts, a classifier.
fn tiny() -> Checkpoint {
    let expert = |rank, targets: &[&'static str]| Expert {
        rank,
        targets: targets.to_vec(),
    };
    Checkpoint {
        hidden: 32,
        vocab: 40,
        intermediate: 32,
        heads: 2,
        kv_heads: 1,
        layers: 1,
        experts: vec![
            expert(2, &["q_proj", "down_proj"]),
            expert(3, &["down_proj", "up_proj"]),
        ],
        options: serde_json::json!({ "top_k_lora": 1, "layerwise_scalings": true }),
        ..Checkpoint::SMALL
    }
}

impl Stage {
    /// The stage of `name`, set on first use.
    pub fn new(name: &str) -> Self {
        let process = format!("pleach-hostile-{}", std::process::id());
        let thread = format!("{:?}", std::thread::current().id());
        let root = std::env::temp_dir().join(process).join(thread).join(name);
        if !root.exists() {
            tiny().write(&root);
        }
        Self { root }
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file of the stage")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("a file of the stage");
    }

    fn whole(&self) -> PackOptions {
        PackOptions {
            xlora: Some(self.path("xlora")),
            group: 32,
            ..PackOptions::new(self.path("base"))
        }
    }

    fn base(&self) -> PackOptions {
        PackOptions {
            xlora: None,
            ..self.whole()
        }
    }

    fn adapter(&self) -> PackOptions {
        PackOptions {
            adapters: vec![("a".into(), self.path("expert-0"))],
            ..self.base()
        }
    }
}

/// Packs. What is refused must be the input's fault, what is packed must pass its own checks and run.
fn packs(options: &PackOptions) {
    match pack(options, &mut Silent) {
        Ok(packed) => {
            let bytes = Bytes::copy_of(&packed.bytes);
            let parsed = Blob::new(bytes.get()).and_then(Model::parse);
            let model = parsed.unwrap_or_else(|e| panic!("packed, but not sound: {e}"));
            if let Err(e) = model.verify() {
                panic!("packed, but not sound: {e}");
            }
            exercise(model);
        }
        Err(e) => refused(&e),
    }
}

pub(super) fn refused(e: &PackError) {
    assert_eq!(e.kind, Kind::Refused, "{}\n  {}", e.cause, e.cure);
    for line in [&e.cause, &e.cure] {
        assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
    }
}

/// One file of a stage is the input.
fn with(name: &str, file: &str, data: &[u8], options: fn(&Stage) -> PackOptions) {
    let stage = Stage::new(name);
    stage.write(file, data);
    packs(&options(&stage));
}

pub(super) fn gguf(data: &[u8]) {
    let stage = Stage::new("gguf");
    let file = stage.path("input.gguf");
    fs::write(&file, data).expect("a file of the stage");
    packs(&PackOptions {
        group: 32,
        ..PackOptions::new(&file)
    });
    packs(&PackOptions {
        adapters: vec![("a".into(), file)],
        ..stage.base()
    });
}

pub(super) fn gguf_seeds() -> Vec<Vec<u8>> {
    let folder = fixture::root().join("gguf");
    let smallest = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let files = entries.map(|e| e.path());
        let mut all: Vec<Vec<u8>> = files
            .filter(|p| p.extension().is_some_and(|e| e == "gguf"))
            .filter_map(|p| fs::read(p).ok())
            .filter(|b| b.len() < 64 << 10)
            .collect();
        all.sort_by_key(Vec::len);
        all.truncate(3);
        all
    };
    let mut seeds = smallest(&folder);
    seeds.extend(smallest(&folder.join("lora")));
    assert!(!seeds.is_empty(), "{}: no GGUF", folder.display());
    seeds
}

pub(super) fn safetensors(data: &[u8]) {
    with("safetensors", "base/model.safetensors", data, Stage::base);
}

pub(super) fn safetensors_seeds() -> Vec<Vec<u8>> {
    vec![Stage::new("seeds").read("base/model.safetensors")]
}

pub(super) fn index(data: &[u8]) {
    let stage = Stage::new("index");
    let whole = stage.path("base/model.safetensors");
    if whole.exists() {
        let part = stage.path("base/model-00001-of-00001.safetensors");
        fs::rename(whole, part).expect("a part");
    }
    stage.write("base/model.safetensors.index.json", data);
    packs(&stage.base());
}

pub(super) fn index_seeds() -> Vec<Vec<u8>> {
    let base = Stage::new("seeds").read("base/model.safetensors");
    let names = crate::synth::read(&base).into_iter().map(|t| t.name);
    let part = serde_json::json!("model-00001-of-00001.safetensors");
    let map: serde_json::Map<_, _> = names.map(|n| (n, part.clone())).collect();
    let index = serde_json::json!({"metadata": {"total_size": base.len()}, "weight_map": map});
    vec![index.to_string().into_bytes()]
}

pub(super) fn base_config(data: &[u8]) {
    with("base-config", "base/config.json", data, Stage::base);
}

pub(super) fn base_config_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Stage::new("seeds").read("base/config.json")];
    seeds.extend(fixtures("config.json"));
    seeds
}

pub(super) fn lora_config(data: &[u8]) {
    with(
        "lora-config",
        "expert-0/adapter_config.json",
        data,
        Stage::adapter,
    );
}

pub(super) fn lora_config_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Stage::new("seeds").read("expert-0/adapter_config.json")];
    seeds.extend(fixtures("adapter_config.json"));
    seeds
}

pub(super) fn lora(data: &[u8]) {
    with(
        "lora",
        "expert-0/adapter_model.safetensors",
        data,
        Stage::adapter,
    );
}

pub(super) fn lora_seeds() -> Vec<Vec<u8>> {
    vec![Stage::new("seeds").read("expert-0/adapter_model.safetensors")]
}

pub(super) fn xlora_config(data: &[u8]) {
    with(
        "xlora-peft",
        "xlora/adapter_config.json",
        data,
        Stage::whole,
    );
    // The original package: another name, another classifier file, adapters in subfolders.
    let stage = Stage::new("xlora-original");
    if stage.path("xlora/adapter_config.json").exists() {
        let path = |name: &str| stage.path(name);
        fs::rename(
            path("xlora/adapter_model.safetensors"),
            path("xlora/xlora_classifier.safetensors"),
        )
        .expect("a classifier");
        fs::remove_file(path("xlora/adapter_config.json")).expect("PEFT's config");
        for n in 0..2 {
            let to = path(&format!("xlora/{n}"));
            fs::rename(path(&format!("expert-{n}")), to).expect("an adapter");
        }
    }
    stage.write("xlora/xlora_config.json", data);
    packs(&stage.whole());
}

pub(super) fn xlora_config_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Stage::new("seeds").read("xlora/adapter_config.json")];
    seeds.extend(fixtures("xlora_config.json"));
    seeds
}

/// Every small file of that name in the fixtures, each text once.
fn fixtures(name: &str) -> Vec<Vec<u8>> {
    fn find(folder: &Path, name: &str, all: &mut Vec<Vec<u8>>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                find(&path, name, all);
            } else if entry.file_name() == name {
                all.extend(fs::read(path).ok().filter(|b| b.len() < 4096));
            }
        }
    }
    let mut all = Vec::new();
    find(&fixture::root(), name, &mut all);
    all.sort();
    all.dedup();
    assert!(!all.is_empty(), "no {name} in the fixtures");
    all
}

/// The stage's model, packed.
pub(super) fn packed() -> Vec<u8> {
    let stage = Stage::new("seeds");
    match pack(&stage.whole(), &mut Silent) {
        Ok(packed) => packed.bytes,
        Err(e) => panic!("{}\n  {}", e.cause, e.cure),
    }
}

/// The same with a tokenizer.
pub(super) fn packed_with(tokenizer: &[u8]) -> Vec<u8> {
    model::replaced(
        &packed(),
        pleach::blob::format::SectionKind::Tokenizer,
        tokenizer,
    )
}

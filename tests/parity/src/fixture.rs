//! The fixtures on disk, packed as a test asks for them.

use crate::memory::Bytes;
use pleach::{Blob, Model};
use pleach_pack::{AdapterQuant, BaseQuant, PackOptions, Silent, Target, pack};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `tests/fixtures`.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// How a model file stores its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The base's weights.
    pub quant: BaseQuant,
    /// A and B of the experts.
    pub adapters: AdapterQuant,
    /// Quantisation group.
    pub group: u32,
    /// Whose layouts.
    pub target: Target,
}

impl Storage {
    /// f16 for base and experts.
    pub const F16: Storage = Storage {
        quant: BaseQuant::F16,
        adapters: AdapterQuant::F16,
        group: 64,
        target: Target::Linux,
    };
    /// q8 for base and experts: what `pleach pack` does unless told.
    pub const Q8: Storage = Storage {
        quant: BaseQuant::Q8,
        adapters: AdapterQuant::Q8,
        group: 64,
        target: Target::Linux,
    };

    /// The same with another group.
    pub const fn group(self, group: u32) -> Storage {
        Storage { group, ..self }
    }

    /// The same in another layout.
    pub const fn target(self, target: Target) -> Storage {
        Storage { target, ..self }
    }

    /// What decides the bits: quantisation and group, but not the layout. `q8-q8-64`.
    pub fn bits_name(&self) -> String {
        format!(
            "{}-{}-{}",
            self.quant.name(),
            self.adapters.name(),
            self.group
        )
    }

    /// All of it, for a file's name: `q8-q8-64-linux`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.bits_name(), self.target.name())
    }

    /// Options that pack `base` so.
    pub fn options(&self, base: impl Into<PathBuf>, xlora: Option<PathBuf>) -> PackOptions {
        PackOptions {
            xlora,
            quant: self.quant,
            adapter_quant: Some(self.adapters),
            group: self.group,
            target: self.target,
            ..PackOptions::new(base)
        }
    }
}

/// A model file in memory.
pub struct File {
    bytes: Bytes,
}

impl File {
    /// A copy of `bytes` at a blob's alignment.
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: Bytes::copy_of(bytes),
        }
    }

    /// What `options` pack to. Panics with cause and cure if they are refused.
    pub fn pack(options: &PackOptions) -> Self {
        match pack(options, &mut Silent) {
            Ok(p) => Self::new(&p.bytes),
            Err(e) => panic!("{}\n  {}", e.cause, e.cure),
        }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// The model in it.
    pub fn model(&self) -> Model<'_> {
        let model = Blob::new(self.bytes.get()).and_then(Model::parse);
        model.unwrap_or_else(|e| panic!("a packed file must parse: {e}"))
    }
}

/// The intent model: base, four language experts, classifier, tokenizer.
pub fn intent(storage: Storage) -> File {
    let folder = root().join("xlora-intent");
    File::pack(&storage.options(folder.join("base"), Some(folder.join("xlora"))))
}

/// A folder `case-*` of `peft` or `families`: a checkpoint, and what PEFT computed with it.
pub struct Case {
    /// `case-plain`.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// `expected.json`.
    pub json: Value,
    expected: Vec<u8>,
}

impl Case {
    /// All of them, by name.
    pub fn all() -> Vec<Case> {
        let folders = std::fs::read_dir(root().join("peft")).expect("tests/fixtures/peft");
        let mut names: Vec<String> = folders
            .map(|e| e.expect("a folder").file_name().to_string_lossy().into())
            .filter(|n: &String| n.starts_with("case-"))
            .collect();
        names.sort();
        assert_eq!(names.len(), 19, "cases of tests/fixtures/peft");
        names.iter().map(|n| Case::open(n)).collect()
    }

    /// A small model of each family with an X-LoRA checkpoint, `families/case-*`: also what transformers
    /// computed with the base alone.
    pub fn families() -> Vec<Case> {
        let names = [
            "llama32",
            "smollm2",
            "tinyllama",
            "mistral",
            "qwen25",
            "qwen3",
            "smollm3",
        ];
        names.iter().map(|n| Case::family(n)).collect()
    }

    /// The case of that family.
    pub fn family(name: &str) -> Case {
        let name = format!("case-{name}");
        Case::at(&name, root().join("families").join(&name))
    }

    /// The case of that name.
    pub fn open(name: &str) -> Case {
        Case::at(name, root().join("peft").join(name))
    }

    fn at(name: &str, folder: PathBuf) -> Case {
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        Case {
            name: name.into(),
            json: json(&read("expected.json")),
            expected: read("expected.safetensors"),
            folder,
        }
    }

    /// The folder of its base.
    pub fn base(&self) -> PathBuf {
        self.folder
            .join(self.json["base"].as_str().expect("base in expected.json"))
    }

    /// The folders of its experts, in class order.
    pub fn experts(&self) -> Vec<PathBuf> {
        let names = self.json["experts"].as_array().expect("experts");
        let peft = root().join("peft");
        let folder = |n: &Value| {
            let n = n.as_str().expect("a name");
            let (own, shared) = (self.folder.join(n), peft.join("experts").join(n));
            match (own.is_dir(), shared.is_dir()) {
                (true, _) => own,
                (_, true) => shared,
                _ => peft.join(n),
            }
        };
        names.iter().map(folder).collect()
    }

    /// The case as one model file.
    pub fn pack(&self, storage: Storage) -> File {
        File::pack(&storage.options(self.base(), Some(self.folder.clone())))
    }

    /// A tensor of PEFT's results in f32.
    pub fn floats(&self, tensor: &str) -> Vec<f32> {
        floats(&self.expected, tensor)
    }

    /// A tensor of tokens.
    pub fn tokens(&self, tensor: &str) -> Vec<u32> {
        tokens(&self.expected, tensor)
    }

    /// The scaling pass value that was set at run time: `Some(None)` means 1 / experts.
    pub fn set_scaling_pass_value(&self) -> Option<Option<f32>> {
        match &self.json["set_scaling_pass_value"] {
            Value::Null => None,
            Value::String(s) if s == "1/n" => Some(None),
            v => Some(Some(v.as_f64().expect("a number") as f32)),
        }
    }
}

/// JSON, or a panic that shows it.
pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("bad JSON: {e}"))
}

/// A tensor of a safetensors file, f32 or f16.
pub fn floats(file: &[u8], tensor: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(file).expect("a safetensors file");
    let t = file.tensor(tensor).expect(tensor);
    let data = t.data();
    match t.dtype() {
        Dtype::F32 => {
            let values = data.as_chunks::<4>().0.iter();
            values.map(|b| f32::from_le_bytes(*b)).collect()
        }
        Dtype::F16 => {
            let values = data.as_chunks::<2>().0.iter();
            values
                .map(|b| pleach::math::from_f16(u16::from_le_bytes(*b)))
                .collect()
        }
        other => panic!("{tensor} is {other:?}"),
    }
}

/// An int64 tensor of a safetensors file.
pub fn tokens(file: &[u8], tensor: &str) -> Vec<u32> {
    let file = SafeTensors::deserialize(file).expect("a safetensors file");
    let t = file.tensor(tensor).expect(tensor);
    assert_eq!(t.dtype(), Dtype::I64, "{tensor}");
    t.data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| u32::try_from(i64::from_le_bytes(*b)).expect("a token"))
        .collect()
}

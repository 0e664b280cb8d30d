//! Copies of the fixtures that a test may spoil.

use super::source::{Source, save};
use pleach_pack::{Kind, PackError, PackOptions, Silent, pack};
use safetensors::Dtype;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A base, an X-LoRA folder and its experts in a folder of their own.
pub struct Checkpoint {
    pub root: TempDir,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for e in fs::read_dir(from).expect("folder") {
        let e = e.expect("entry");
        if e.path().is_dir() {
            copy(&e.path(), &to.join(e.file_name()));
        } else {
            fs::copy(e.path(), to.join(e.file_name())).expect("copy");
        }
    }
}

impl Checkpoint {
    /// A case of the PEFT fixtures with its base and all experts; paths keep their meaning.
    pub fn of(case: &str) -> Self {
        let root = tempfile::tempdir().expect("temporary folder");
        let peft = super::fixtures().join("peft");
        copy(&peft.join(case), &root.path().join("case"));
        copy(&super::base_of(&peft.join(case)), &root.path().join("base"));
        copy(&peft.join("experts"), &root.path().join("experts"));
        Self { root }
    }

    /// The small model of a family with its experts; paths keep their meaning.
    pub fn family(name: &str) -> Self {
        let root = tempfile::tempdir().expect("temporary folder");
        let case = super::fixtures()
            .join("families")
            .join(format!("case-{name}"));
        copy(&case, &root.path().join("case"));
        copy(&case.join("base"), &root.path().join("base"));
        Self { root }
    }

    pub fn path(&self, part: &str) -> PathBuf {
        self.root.path().join(part)
    }

    /// Changes a JSON file.
    pub fn json(self, part: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let path = self.path(part);
        let text = fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        change(json.as_object_mut().expect("object"));
        fs::write(path, json.to_string()).expect("write");
        self
    }

    /// Sets one key of a JSON file.
    pub fn set(self, part: &str, key: &str, value: Value) -> Self {
        self.json(part, |j| {
            j.insert(key.into(), value);
        })
    }

    /// Removes one key of a JSON file.
    pub fn unset(self, part: &str, key: &str) -> Self {
        self.json(part, |j| {
            j.shift_remove(key);
        })
    }

    /// Changes the tensors of a safetensors file, in names, shapes or values.
    pub fn tensors(
        self,
        part: &str,
        dtype: Dtype,
        change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<f32>)>),
    ) -> Self {
        let path = self.path(part);
        let source = Source::open(&path);
        let mut names = source.names();
        names.sort();
        let mut tensors = names
            .into_iter()
            .map(|n| {
                let (shape, values) = source.tensor(&n);
                (n, shape, values)
            })
            .collect();
        change(&mut tensors);
        save(&path, dtype, &tensors);
        self
    }

    pub fn options(&self) -> PackOptions {
        let mut o = PackOptions::new(self.path("base"));
        o.xlora = Some(self.path("case"));
        o
    }

    /// The refusal, which must be one line of cause and one of cure, and the input's fault.
    pub fn refusal(&self) -> PackError {
        refusal(&self.options())
    }
}

/// The refusal of some options.
pub fn refusal(o: &PackOptions) -> PackError {
    match pack(o, &mut Silent) {
        Ok(_) => panic!("it was packed"),
        Err(e) => {
            assert_eq!(e.kind, Kind::Refused, "{e}");
            assert!(
                !e.cause.contains('\n') && !e.cure.contains('\n') && !e.cure.is_empty(),
                "{e}"
            );
            e
        }
    }
}

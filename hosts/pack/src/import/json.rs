//! A JSON file whose keys are asked for by name; every complaint names file and key.

use crate::error::{PackError, Result};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest configuration that is read. In memory a value takes up to 16 times its text.
const MAX_CONFIG: u64 = 2 << 20;
/// Longest vocabulary or index of tensors that is read.
const MAX_TABLE: u64 = 16 << 20;
/// Longest `tokenizer.json` that is read. Llama 3's has 17.2 MB where each merge is a list of two texts.
const MAX_TOKENIZER: u64 = 40 << 20;

/// One JSON object from a file.
#[derive(Debug)]
pub(crate) struct Json {
    path: PathBuf,
    map: Map<String, Value>,
    assumed: RefCell<Vec<String>>,
}

impl Json {
    /// Reads a configuration, which must be an object.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Self::read_at_most(path, MAX_CONFIG)
    }

    /// Reads an object with an entry per token or tensor.
    pub(crate) fn read_table(path: &Path) -> Result<Self> {
        Self::read_at_most(path, MAX_TABLE)
    }

    /// Reads a `tokenizer.json`.
    pub(crate) fn read_tokenizer(path: &Path) -> Result<Self> {
        Self::read_at_most(path, MAX_TOKENIZER)
    }

    fn read_at_most(path: &Path, most: u64) -> Result<Self> {
        let io = |e| PackError::io("read", path, e);
        let mut text = Vec::new();
        let size = File::open(path)
            .and_then(|f| f.take(most + 1).read_to_end(&mut text))
            .map_err(io)? as u64;
        let name = path.display();
        if size > most {
            return Err(PackError::refused(
                format!("{name}: longer than {most} bytes"),
                "check the path: no such file is that long",
            ));
        }
        match serde_json::from_slice(&text) {
            Ok(Value::Object(map)) => Ok(Self {
                path: path.into(),
                map,
                assumed: RefCell::default(),
            }),
            Ok(_) => Err(PackError::refused(
                format!("{name}: an object {{...}} is expected"),
                "check that it is the file that the training wrote",
            )),
            Err(e) => Err(PackError::refused(
                format!("{name}: not JSON: {e}"),
                "correct the file at that place, or save it again",
            )
            .with_source(e)),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keys and values in the file's order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }

    /// The value of a key; `None` if it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is there, be it null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A refusal that names the file.
    pub(crate) fn refuse(
        &self,
        cause: impl std::fmt::Display,
        cure: impl Into<String>,
    ) -> PackError {
        PackError::refused(format!("{}: {cause}", self.path.display()), cure)
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> PackError {
        let mut found = found.to_string();
        if found.len() > 60 {
            found = found.chars().take(57).chain("...".chars()).collect();
        }
        self.refuse(
            format!("{key} is {found}, {wanted} is expected"),
            format!("correct {key}"),
        )
    }

    /// A key that must be there and not null.
    pub(crate) fn required(&self, key: &str) -> Result<&Value> {
        self.get(key).ok_or_else(|| {
            self.refuse(
                format!("{key} is missing"),
                format!(
                    "add {key} as the model was made with: its default differs between versions"
                ),
            )
        })
    }

    fn assume<T: std::fmt::Display>(&self, key: &str, default: T) -> T {
        self.assumed.borrow_mut().push(format!("{key} = {default}"));
        default
    }

    /// Notes that a key is missing and what stands in for it.
    pub(crate) fn note_assumed(&self, key: &str, default: &str) {
        self.assume(key, default);
    }

    /// What was assumed so far, for a note; `None` if nothing.
    pub(crate) fn assumed(&self) -> Option<String> {
        let list = self.assumed.borrow();
        (!list.is_empty()).then(|| {
            format!(
                "{}: not stated, assumed: {}",
                self.path.display(),
                list.join(", ")
            )
        })
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v
                .as_str()
                .map(Some)
                .ok_or_else(|| self.wrong(key, "a text", v)),
        }
    }

    /// A whole number of at least 0 that fits 32 bits.
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .map(Some)
                .ok_or_else(|| self.wrong(key, "a whole number below 2^32", v)),
        }
    }

    /// A whole number that must be there.
    pub(crate) fn required_u32(&self, key: &str) -> Result<u32> {
        self.required(key)?;
        Ok(self.u32(key)?.unwrap_or_default())
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v
                .as_f64()
                .filter(|n| n.is_finite())
                .map(Some)
                .ok_or_else(|| self.wrong(key, "a number", v)),
        }
    }

    /// A number that must be there.
    pub(crate) fn required_number(&self, key: &str) -> Result<f64> {
        self.required(key)?;
        Ok(self.number(key)?.unwrap_or_default())
    }

    /// A number, or the default, which is then noted.
    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(match self.number(key)? {
            Some(n) => n,
            None => self.assume(key, default),
        })
    }

    /// true or false, or the default, which is then noted.
    pub(crate) fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(self.assume(key, default)),
            Some(v) => v
                .as_bool()
                .ok_or_else(|| self.wrong(key, "true or false", v)),
        }
    }

    /// An object; `None` if missing or null.
    pub(crate) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v
                .as_object()
                .map(Some)
                .ok_or_else(|| self.wrong(key, "an object", v)),
        }
    }

    /// One text or a list of texts; `None` if missing or null.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(vec![s])),
            Some(v) => v
                .as_array()
                .and_then(|a| a.iter().map(Value::as_str).collect())
                .map(Some)
                .ok_or_else(|| self.wrong(key, "a list of texts", v)),
        }
    }

    /// One whole number or a list of them; `None` if missing or null.
    pub(crate) fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.get(key) {
            None => Ok(None),
            Some(v) => match v.as_array() {
                Some(a) => a.iter().map(one).collect(),
                None => one(v).map(|n| vec![n]),
            }
            .map(Some)
            .ok_or_else(|| self.wrong(key, "a whole number or a list of them", v)),
        }
    }
}

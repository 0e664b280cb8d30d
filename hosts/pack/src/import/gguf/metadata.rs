//! The keys and values of a file. Long texts and arrays stay where they are until somebody asks.

use super::reader::Reader;
use crate::error::{PackError, Result};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most keys; a model has fewer than a hundred.
const MAX_KEYS: u64 = 4096;
/// Longest key.
const MAX_KEY: u64 = 1024;
/// Longest text that is kept.
const MAX_TEXT: u64 = 1 << 16;
/// Most bytes of texts that are kept.
const MAX_KEPT: u64 = 4 << 20;
/// Most items of an array that is read: more than any vocabulary or list of merges has.
const MAX_ITEMS: u64 = 1 << 20;

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// A value, or where it lies.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Whole(i128),
    Real(f64),
    Bool(bool),
    Text(String),
    /// A text that is longer than any that is asked for.
    LongText(u64),
    /// Type and number of its items; where the first lies.
    Array {
        kind: u32,
        count: u64,
        at: u64,
    },
}

/// The metadata of a file.
#[derive(Debug)]
pub(crate) struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
    asked: RefCell<BTreeSet<String>>,
}

/// Bytes and name of a number's type; `None` for texts, arrays and what does not exist.
fn number_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn number(kind: u32, bits: u64) -> Value {
    match kind {
        1 => Value::Whole(i128::from(bits as i8)),
        3 => Value::Whole(i128::from(bits as i16)),
        5 => Value::Whole(i128::from(bits as i32)),
        11 => Value::Whole(i128::from(bits as i64)),
        6 => Value::Real(f64::from(f32::from_bits(bits as u32))),
        12 => Value::Real(f64::from_bits(bits)),
        7 => Value::Bool(bits != 0),
        _ => Value::Whole(i128::from(bits)),
    }
}

impl Metadata {
    /// Reads `count` keys with their values.
    pub(super) fn read(path: &Path, count: u64, r: &mut Reader<'_>) -> Result<Self> {
        // A key of no bytes with the shortest value takes 13.
        if count > MAX_KEYS || count * 13 > r.left() {
            return Err(r.refuse(format!("{count} keys; at most {MAX_KEYS} are read")));
        }
        let mut values = BTreeMap::new();
        let mut kept = 0;
        for n in 0..count {
            r.now(format!("metadata key number {n}"));
            let key = r.text(MAX_KEY)?;
            r.now(format!("metadata {key}"));
            let value = value(r)?;
            if let Value::Text(t) = &value {
                kept += t.len() as u64;
            }
            if kept > MAX_KEPT {
                return Err(r.refuse_with(
                    format!("more than {MAX_KEPT} bytes of texts"),
                    "remove the keys that are not the model's",
                ));
            }
            if values.insert(key, value).is_some() {
                return Err(r.refuse("the key is there twice"));
            }
        }
        Ok(Self {
            path: path.into(),
            values,
            asked: RefCell::default(),
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A refusal that names the file.
    pub(crate) fn refuse(
        &self,
        cause: impl std::fmt::Display,
        cure: impl Into<String>,
    ) -> PackError {
        PackError::refused(format!("{}: {cause}", self.path.display()), cure)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(key.into());
        self.values.get(key)
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys with this beginning that nobody asked for.
    pub(crate) fn not_asked(&self, prefix: &str) -> Vec<&str> {
        let asked = self.asked.borrow();
        let keys = self.values.keys().map(String::as_str);
        keys.filter(|k| k.starts_with(prefix) && !asked.contains(*k))
            .collect()
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> PackError {
        let found = match found {
            Value::Whole(n) => n.to_string(),
            Value::Real(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Text(t) => format!("{:?}", t.chars().take(60).collect::<String>()),
            Value::LongText(n) => format!("a text of {n} bytes"),
            Value::Array { count, .. } => format!("an array of {count} values"),
        };
        self.refuse(
            format!("metadata {key} is {found}, {wanted} is expected"),
            format!("convert the model again, or correct {key}"),
        )
    }

    fn missing(&self, key: &str) -> PackError {
        self.refuse(
            format!("metadata {key} is missing"),
            "convert the model again with a current convert_hf_to_gguf.py",
        )
    }

    /// A text of at most 64 KiB.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(t)) => Ok(Some(t)),
            Some(v) => Err(self.wrong(key, "a text of at most 65536 bytes", v)),
        }
    }

    /// The bytes of a text that is too long to be read.
    pub(crate) fn long_text(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Value::LongText(bytes)) => Some(*bytes),
            _ => None,
        }
    }

    /// A whole number that fits 32 bits.
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>> {
        match self.get(key) {
            None => Ok(None),
            Some(v @ Value::Whole(n)) => u32::try_from(*n)
                .map(Some)
                .map_err(|_| self.wrong(key, "a whole number below 2^32", v)),
            Some(v) => Err(self.wrong(key, "a whole number", v)),
        }
    }

    /// Such a number that must be there.
    pub(crate) fn required_u32(&self, key: &str) -> Result<u32> {
        self.u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Real(n)) if n.is_finite() => Ok(Some(*n)),
            Some(Value::Whole(n)) => Ok(Some(*n as f64)),
            Some(v) => Err(self.wrong(key, "a number", v)),
        }
    }

    /// Such a number that must be there.
    pub(crate) fn required_number(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    /// true or false.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(v) => Err(self.wrong(key, "true or false", v)),
        }
    }

    /// Number of an array's items.
    pub(crate) fn count(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array { count, .. }) => Ok(Some(*count)),
            Some(v) => Err(self.wrong(key, "an array", v)),
        }
    }

    /// Goes to an array of items that `fits`, and says how many there are.
    fn array(
        &self,
        key: &str,
        wanted: &str,
        fits: fn(u32) -> bool,
    ) -> Result<Option<(Reader<'_>, u32, u64)>> {
        match self.get(key) {
            None => Ok(None),
            Some(v @ Value::Array { kind, count, at }) => {
                if !fits(*kind) || *count > MAX_ITEMS {
                    let wanted = format!("an array of at most {MAX_ITEMS} {wanted}");
                    return Err(self.wrong(key, &wanted, v));
                }
                let mut r = Reader::open(&self.path)?;
                r.now(format!("metadata {key}"));
                r.back_to(*at)?;
                Ok(Some((r, *kind, *count)))
            }
            Some(v) => Err(self.wrong(key, &format!("an array of {wanted}"), v)),
        }
    }

    /// An array of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some((mut r, _, count)) = self.array(key, "texts", |kind| kind == TEXT)? else {
            return Ok(None);
        };
        (0..count)
            .map(|_| r.text(MAX_TEXT))
            .collect::<Result<_>>()
            .map(Some)
    }

    /// An array of numbers.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let fits = |kind| number_bytes(kind).is_some();
        let Some((mut r, kind, count)) = self.array(key, "numbers", fits)? else {
            return Ok(None);
        };
        let bytes = number_bytes(kind).unwrap_or(8);
        let one = |_| {
            Ok(match number(kind, r.scalar(bytes)?) {
                Value::Whole(n) => n as f64,
                Value::Real(x) => x,
                other => f64::from(u8::from(other == Value::Bool(true))),
            })
        };
        (0..count).map(one).collect::<Result<_>>().map(Some)
    }
}

/// Reads a value, or passes over it.
fn value(r: &mut Reader<'_>) -> Result<Value> {
    let kind = r.u32()?;
    if let Some(bytes) = number_bytes(kind) {
        return Ok(number(kind, r.scalar(bytes)?));
    }
    match kind {
        TEXT => {
            let at = r.position();
            let length = r.u64()?;
            if length > MAX_TEXT {
                r.skip(length)?;
                return Ok(Value::LongText(length));
            }
            r.back_to(at)?;
            r.text(MAX_TEXT).map(Value::Text)
        }
        ARRAY => array(r),
        _ => Err(r.refuse(format!("a value of type {kind}, which is not known"))),
    }
}

/// Passes over an array. Items of numbers are passed in one step; each text has its length before it.
fn array(r: &mut Reader<'_>) -> Result<Value> {
    let (kind, count) = (r.u32()?, r.u64()?);
    let at = r.position();
    match (number_bytes(kind), kind) {
        (Some(bytes), _) => {
            let total = count.checked_mul(bytes as u64);
            r.skip(total.unwrap_or(u64::MAX))?;
        }
        (None, TEXT) => {
            if count > r.left() / 8 {
                return Err(r.refuse(format!(
                    "an array of {count} texts, the file has {} more bytes",
                    r.left()
                )));
            }
            for _ in 0..count {
                let length = r.u64()?;
                r.skip(length)?;
            }
        }
        (None, ARRAY) => return Err(r.refuse("an array of arrays, which no model's metadata has")),
        _ => return Err(r.refuse(format!("an array of type {kind}, which is not known"))),
    }
    Ok(Value::Array { kind, count, at })
}

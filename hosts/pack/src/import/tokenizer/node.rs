//! A component of `tokenizer.json`, with its path for messages.

use super::super::json::Json;
use super::write::MOST_TOKENS;
use crate::error::{PackError, Result};
use serde_json::{Map, Value};

/// A refusal of something that `tokenizers` would do and the core does not.
pub(super) fn unsupported(json: &Json, key: &str, found: &str) -> PackError {
    json.refuse(
        format!("{key}: {found} is not supported"),
        "the kinds of GPT-2, SmolLM, Llama 2 and 3, Mistral, Qwen2 and Qwen3 are; others pack without a \
         tokenizer, for token ids only",
    )
}

/// The `type` of a component, or the value as a short text.
pub(super) fn kind_or_text(v: &Value) -> String {
    match v.get("type").and_then(Value::as_str) {
        Some(kind) => kind.into(),
        None => v.to_string().chars().take(60).collect(),
    }
}

/// An object somewhere in a file, with its path for messages.
pub(super) struct Node<'j> {
    pub(super) json: &'j Json,
    pub(super) path: String,
    pub(super) map: &'j Map<String, Value>,
}

impl<'j> Node<'j> {
    pub(super) fn of(json: &'j Json, key: &str) -> Result<Self> {
        Self::new(json, key.into(), json.required(key)?)
    }

    pub(super) fn new(json: &'j Json, path: String, value: &'j Value) -> Result<Self> {
        match value.as_object() {
            Some(map) => Ok(Self { json, path, map }),
            None => Err(json.refuse(
                format!("{path} is not an object"),
                "save the tokenizer again",
            )),
        }
    }

    /// The value of a key that is neither missing nor null.
    pub(super) fn get(&self, key: &str) -> Option<&'j Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn wrong(&self, key: &str, wanted: &str) -> PackError {
        let path = &self.path;
        self.json.refuse(
            format!("{path}.{key} is not {wanted}"),
            "save the tokenizer again",
        )
    }

    pub(super) fn text(&self, key: &str) -> Result<&'j str> {
        let text = self.get(key).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(key, "a text"))
    }

    pub(super) fn kind(&self) -> Result<&'j str> {
        self.text("type")
    }

    pub(super) fn array(&self, key: &str) -> Result<&'j [Value]> {
        let array = self.get(key).and_then(Value::as_array);
        Ok(array.ok_or_else(|| self.wrong(key, "a list"))?)
    }

    pub(super) fn child(&self, key: &str) -> Result<Node<'j>> {
        let value = self.get(key).ok_or_else(|| self.wrong(key, "an object"))?;
        Node::new(self.json, format!("{}.{key}", self.path), value)
    }

    /// true or false; `missing`: what stands for a missing key.
    pub(super) fn flag(&self, key: &str, missing: Option<bool>) -> Result<bool> {
        match (self.get(key), missing) {
            (None, Some(value)) => Ok(value),
            (value, _) => {
                (value.and_then(Value::as_bool)).ok_or_else(|| self.wrong(key, "true or false"))
            }
        }
    }

    pub(super) fn token(&self, key: &str) -> Result<u32> {
        let id = self.get(key).and_then(token_number);
        id.ok_or_else(|| self.wrong(key, "a token below 2^24"))
    }
}

/// A token's number. The bound keeps a stray number from asking for a table of 2^32 rows.
pub(super) fn token_number(v: &Value) -> Option<u32> {
    let id = v.as_u64().and_then(|n| u32::try_from(n).ok())?;
    ((id as usize) < MOST_TOKENS).then_some(id)
}

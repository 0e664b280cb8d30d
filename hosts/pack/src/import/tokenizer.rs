//! `tokenizer.json` of the `tokenizers` crate: byte-level BPE, read into a tokenizer section.
//!
//! | key | taken | refused |
//! |---|---|---|
//! | `model` | `BPE` | other types; `dropout`, `ignore_merges`, a prefix or suffix of subwords; `unk_token` or `byte_fallback` where a byte has no token |
//! | `pre_tokenizer` | `ByteLevel` with `use_regex` | others |
//! | `decoder` | `ByteLevel` | others |
//! | `post_processor` | none, `ByteLevel`, `TemplateProcessing` with at most one token on each side, a `Sequence` of them | others |
//! | `added_tokens` | `special`, `normalized` | `single_word`, `lstrip`, `rstrip` |
//! | `normalizer`, `truncation`, `padding` | none | others |

mod config;
mod template;
mod vocabulary;
mod write;

use super::json::Json;
use crate::error::{PackError, Result};
use pleach::tokenizer::PreTokenizer;
use serde_json::{Map, Value};
use std::path::Path;
use vocabulary::Vocabulary;

/// All that a section holds, by name.
struct Source {
    vocabulary: Vocabulary,
    pre_tokenizer: PreTokenizer,
    add_prefix_space: bool,
    bos: Option<u32>,
    eos: Option<u32>,
}

/// The tokenizer section of a blob, from `tokenizer.json`. The same files give the same bytes.
///
/// With `tokenizer_config.json` the section does what `transformers` 4 makes of the two files:
/// `add_prefix_space` is the config's, and for the classes `LlamaTokenizer*` so are BOS and EOS.
///
/// Errors: a file that cannot be read; anything in it that the core's tokenizer does not do, by key.
pub fn section(tokenizer_json: &Path, tokenizer_config: Option<&Path>) -> Result<Vec<u8>> {
    let json = Json::read_table(tokenizer_json)?;
    let mut source = read(&json)?;
    if let Some(path) = tokenizer_config {
        config::apply(&Json::read(path)?, &mut source)?;
    }
    write::write(&json, &source)
}

fn read(json: &Json) -> Result<Source> {
    if let Some(v) = json.get("version")
        && v != "1.0"
    {
        return Err(unsupported(json, "version", &v.to_string()));
    }
    for key in ["normalizer", "truncation", "padding"] {
        if let Some(v) = json.get(key) {
            return Err(unsupported(json, key, &kind_or_text(v)));
        }
    }
    let vocabulary = Vocabulary::read(json)?;
    let (pre_tokenizer, add_prefix_space) = pre_tokenizer(json)?;
    let decoder = Node::of(json, "decoder")?;
    match decoder.kind()? {
        "ByteLevel" => {}
        other => return Err(unsupported(json, "decoder", other)),
    }
    let (bos, eos) = template::read(json, &vocabulary)?;
    Ok(Source {
        vocabulary,
        pre_tokenizer,
        add_prefix_space,
        bos,
        eos,
    })
}

/// The pre-tokeniser and its `add_prefix_space`.
fn pre_tokenizer(json: &Json) -> Result<(PreTokenizer, bool)> {
    let node = Node::of(json, "pre_tokenizer")?;
    match node.kind()? {
        "ByteLevel" if node.flag("use_regex", Some(true))? => {
            Ok((PreTokenizer::Gpt2, node.flag("add_prefix_space", None)?))
        }
        "ByteLevel" => Err(unsupported(json, "pre_tokenizer.use_regex", "false")),
        other => Err(unsupported(json, "pre_tokenizer", other)),
    }
}

/// A refusal of something that `tokenizers` would do and the core does not.
fn unsupported(json: &Json, key: &str, found: &str) -> PackError {
    json.refuse(
        format!("{key}: {found} is not supported"),
        "byte-level BPE as GPT-2's is: ByteLevel pre-tokenizer and decoder, no normalizer; \
         or pack without a tokenizer",
    )
}

/// The `type` of a component, or the value as a short text.
fn kind_or_text(v: &Value) -> String {
    match v.get("type").and_then(Value::as_str) {
        Some(kind) => kind.into(),
        None => v.to_string().chars().take(60).collect(),
    }
}

/// An object somewhere in a file, with its path for messages.
struct Node<'j> {
    json: &'j Json,
    path: String,
    map: &'j Map<String, Value>,
}

impl<'j> Node<'j> {
    fn of(json: &'j Json, key: &str) -> Result<Self> {
        Self::new(json, key.into(), json.required(key)?)
    }

    fn new(json: &'j Json, path: String, value: &'j Value) -> Result<Self> {
        match value.as_object() {
            Some(map) => Ok(Self { json, path, map }),
            None => Err(json.refuse(
                format!("{path} is not an object"),
                "save the tokenizer again",
            )),
        }
    }

    /// The value of a key that is neither missing nor null.
    fn get(&self, key: &str) -> Option<&'j Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, wanted: &str) -> PackError {
        let path = &self.path;
        self.json.refuse(
            format!("{path}.{key} is not {wanted}"),
            "save the tokenizer again",
        )
    }

    fn text(&self, key: &str) -> Result<&'j str> {
        let text = self.get(key).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(key, "a text"))
    }

    fn kind(&self) -> Result<&'j str> {
        self.text("type")
    }

    fn array(&self, key: &str) -> Result<&'j [Value]> {
        let array = self.get(key).and_then(Value::as_array);
        Ok(array.ok_or_else(|| self.wrong(key, "a list"))?)
    }

    fn child(&self, key: &str) -> Result<Node<'j>> {
        let value = self.get(key).ok_or_else(|| self.wrong(key, "an object"))?;
        Node::new(self.json, format!("{}.{key}", self.path), value)
    }

    /// true or false; `missing`: what stands for a missing key.
    fn flag(&self, key: &str, missing: Option<bool>) -> Result<bool> {
        match (self.get(key), missing) {
            (None, Some(value)) => Ok(value),
            (value, _) => {
                (value.and_then(Value::as_bool)).ok_or_else(|| self.wrong(key, "true or false"))
            }
        }
    }

    fn token(&self, key: &str) -> Result<u32> {
        let id = self.get(key).and_then(token_number);
        id.ok_or_else(|| self.wrong(key, "a token below 2^24"))
    }
}

/// A token's number. The bound keeps a stray number from asking for a table of 2^32 rows.
fn token_number(v: &Value) -> Option<u32> {
    let id = v.as_u64().and_then(|n| u32::try_from(n).ok())?;
    (id < 1 << 24).then_some(id)
}

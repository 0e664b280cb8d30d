//! `decoder`, `normalizer` and `pre_tokenizer`: which kind of tokenizer it is.

use super::super::json::Json;
use super::node::{Node, kind_or_text, unsupported};
use super::source::Prefix;
use crate::error::Result;
use pleach::tokenizer::{Normalizer, PreTokenizer};
use serde_json::Value;

/// Everything around the vocabulary.
pub(super) struct Kind {
    /// Symbols begin as bytes, else as characters.
    pub(super) bytes: bool,
    pub(super) normalizer: Normalizer,
    pub(super) pre_tokenizer: PreTokenizer,
    pub(super) prefix: Prefix,
    pub(super) strip: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn read(json: &Json) -> Result<Kind> {
    let decoder = Node::of(json, "decoder")?;
    match decoder.kind()? {
        "ByteLevel" => byte_level(json),
        "Sequence" => sentence_piece(json, strip(json, &decoder)?),
        other => Err(unsupported(json, "decoder", other)),
    }
}

fn byte_level(json: &Json) -> Result<Kind> {
    let normalizer = match json.get("normalizer") {
        None => Normalizer::None,
        Some(v) => match parts(json, "normalizer", "normalizers", v)?.as_slice() {
            [] => Normalizer::None,
            [one] if one.kind()? == "NFC" => Normalizer::Nfc,
            [one, ..] => return Err(unsupported(json, &one.path, one.kind()?)),
        },
    };
    let value = json.required("pre_tokenizer")?;
    let parts = parts(json, "pre_tokenizer", "pretokenizers", value)?;
    let (pre_tokenizer, level, expression) = match parts.as_slice() {
        [level] => (PreTokenizer::Gpt2, level, true),
        [first, level] => match first.kind()? {
            "Digits" if first.flag("individual_digits", Some(false))? => {
                (PreTokenizer::Digits, level, true)
            }
            "Digits" => {
                let path = format!("{}.individual_digits", first.path);
                return Err(unsupported(json, &path, "false"));
            }
            "Split" => (split(json, first)?, level, false),
            other => return Err(unsupported(json, &first.path, other)),
        },
        _ => return Err(unsupported(json, "pre_tokenizer", &kind_or_text(value))),
    };
    if level.kind()? != "ByteLevel" {
        return Err(unsupported(json, &level.path, level.kind()?));
    }
    if level.flag("use_regex", Some(true))? != expression {
        let path = format!("{}.use_regex", level.path);
        return Err(unsupported(json, &path, &(!expression).to_string()));
    }
    let adds = level.flag("add_prefix_space", None)?;
    if adds && parts.len() > 1 {
        let path = format!("{}.add_prefix_space", level.path);
        return Err(unsupported(json, &path, "true"));
    }
    Ok(Kind {
        bytes: true,
        normalizer,
        pre_tokenizer,
        prefix: if adds { Prefix::Missing } else { Prefix::Never },
        strip: false,
    })
}

/// A `Split` whose expression the core knows.
fn split(json: &Json, node: &Node<'_>) -> Result<PreTokenizer> {
    let behavior = node.text("behavior")?;
    if !behavior.eq_ignore_ascii_case("isolated") {
        return Err(unsupported(
            json,
            &format!("{}.behavior", node.path),
            behavior,
        ));
    }
    if node.flag("invert", None)? {
        return Err(unsupported(json, &format!("{}.invert", node.path), "true"));
    }
    let pattern = node.child("pattern")?;
    match pattern.get("Regex").and_then(Value::as_str) {
        Some(LLAMA3) => Ok(PreTokenizer::Llama3),
        Some(QWEN2) => Ok(PreTokenizer::Qwen2),
        _ => Err(unsupported(
            json,
            &pattern.path,
            &Value::Object(pattern.map.clone()).to_string(),
        )),
    }
}

/// The decoder of SentencePiece; whether it drops a space at the start.
fn strip(json: &Json, decoder: &Node<'_>) -> Result<bool> {
    let value = json.required("decoder")?;
    let parts = parts(json, "decoder", "decoders", value)?;
    let wanted = ["Replace", "ByteFallback", "Fuse", "Strip"];
    for (i, part) in parts.iter().enumerate() {
        let kind = part.kind()?;
        let good = match kind {
            _ if wanted.get(i) != Some(&kind) => false,
            "Replace" => {
                pattern(part)? == Some("▁") && part.get("content").is_some_and(|c| c == " ")
            }
            "Strip" => {
                let is = |key: &str, v: Value| part.get(key) == Some(&v);
                is("content", " ".into()) && is("start", 1.into()) && is("stop", 0.into())
            }
            _ => true,
        };
        if !good {
            return Err(unsupported(json, &part.path, kind));
        }
    }
    match parts.len() {
        3 | 4 => Ok(parts.len() == 4),
        _ => Err(unsupported(
            json,
            &decoder.path,
            "a Sequence of another length",
        )),
    }
}

fn sentence_piece(json: &Json, strip: bool) -> Result<Kind> {
    let kind = |normalizer, pre_tokenizer, prefix| Kind {
        bytes: false,
        normalizer,
        pre_tokenizer,
        prefix,
        strip,
    };
    let steps = match json.get("normalizer") {
        None => vec![],
        Some(v) => parts(json, "normalizer", "normalizers", v)?,
    };
    if let Some(value) = json.get("pre_tokenizer") {
        let node = Node::new(json, "pre_tokenizer".into(), value)?;
        if node.kind()? != "Metaspace" {
            return Err(unsupported(json, "pre_tokenizer", node.kind()?));
        }
        if let Some(step) = steps.first() {
            return Err(unsupported(
                json,
                &step.path,
                "a normalizer before Metaspace",
            ));
        }
        if node.text("replacement")? != "▁" {
            return Err(unsupported(
                json,
                "pre_tokenizer.replacement",
                node.text("replacement")?,
            ));
        }
        // Older files say only `add_prefix_space`.
        let scheme = match node.get("prepend_scheme").and_then(Value::as_str) {
            Some(scheme) => scheme,
            None if node.flag("add_prefix_space", Some(true))? => "always",
            None => "never",
        };
        let prefix = match scheme {
            "always" => Prefix::Missing,
            "first" => Prefix::First,
            "never" => Prefix::Never,
            other => return Err(unsupported(json, "pre_tokenizer.prepend_scheme", other)),
        };
        let words = match node.flag("split", Some(true))? {
            true => PreTokenizer::Spaces,
            false => PreTokenizer::Whole,
        };
        return Ok(kind(Normalizer::None, words, prefix));
    }
    let prepends = |node: &Node<'_>| -> Result<bool> {
        Ok(node.kind()? == "Prepend" && node.text("prepend")? == "▁")
    };
    let replaces = |node: &Node<'_>| -> Result<bool> {
        let space = node.kind()? == "Replace" && pattern(node)? == Some(" ");
        Ok(space && node.text("content")? == "▁")
    };
    let prefix = match steps.as_slice() {
        [first, second] if prepends(first)? && replaces(second)? => Prefix::Every,
        [one] if replaces(one)? => Prefix::Never,
        _ => {
            let found = json.get("normalizer").map_or("none".into(), kind_or_text);
            return Err(unsupported(json, "normalizer", &found));
        }
    };
    Ok(kind(Normalizer::Spaces, PreTokenizer::Whole, prefix))
}

/// A component, or the parts of a `Sequence` of them.
fn parts<'j>(json: &'j Json, key: &str, list: &str, value: &'j Value) -> Result<Vec<Node<'j>>> {
    let node = Node::new(json, key.into(), value)?;
    if node.kind()? != "Sequence" {
        return Ok(vec![node]);
    }
    let values = node.array(list)?.iter().enumerate();
    values
        .map(|(i, v)| Node::new(json, format!("{key}.{list}[{i}]"), v))
        .collect()
}

/// The text that a `Replace` looks for.
fn pattern<'j>(node: &Node<'j>) -> Result<Option<&'j str>> {
    let pattern = node.get("pattern").and_then(|p| p.get("String"));
    Ok(pattern.and_then(Value::as_str))
}

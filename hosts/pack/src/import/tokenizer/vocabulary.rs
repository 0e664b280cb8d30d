//! Tokens, merges and added tokens of `tokenizer.json`.

use super::super::json::Json;
use super::{Node, token_number, unsupported};
use crate::error::Result;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// An added token.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Added {
    pub(super) content: String,
    pub(super) normalized: bool,
    pub(super) special: bool,
}

/// What turns words into tokens and back.
pub(super) struct Vocabulary {
    /// Tokens of the model, spelled in GPT-2's printable alphabet.
    pub(super) tokens: HashMap<String, u32>,
    /// (left, right) to (place in the list, merged token). A pair that is listed twice has its last place.
    pub(super) merges: BTreeMap<(u32, u32), (usize, u32)>,
    /// Added tokens by number.
    pub(super) added: BTreeMap<u32, Added>,
}

impl Vocabulary {
    pub(super) fn read(json: &Json) -> Result<Self> {
        let model = Node::of(json, "model")?;
        // Files of old versions of `tokenizers` do not state the type.
        let kind = model
            .get("type")
            .map_or("BPE", |k| k.as_str().unwrap_or("?"));
        if kind != "BPE" || model.get("merges").is_none() {
            return Err(unsupported(json, "model.type", kind));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            match model.get(key) {
                None => {}
                Some(v) if v == "" => {}
                Some(v) => return Err(unsupported(json, &format!("model.{key}"), &v.to_string())),
            }
        }
        if let Some(v) = model.get("dropout")
            && v.as_f64() != Some(0.0)
        {
            return Err(unsupported(json, "model.dropout", &v.to_string()));
        }
        if model.flag("ignore_merges", Some(false))? {
            return Err(unsupported(json, "model.ignore_merges", "true"));
        }
        let tokens = read_tokens(&model)?;
        refuse_unknown(&model, &tokens)?;
        let merges = read_merges(&model, &tokens)?;
        let added = read_added(json, &tokens)?;
        Ok(Self {
            tokens,
            merges,
            added,
        })
    }

    /// Whether there is a token with this number.
    pub(super) fn has(&self, id: u32) -> bool {
        self.added.contains_key(&id) || self.tokens.values().any(|t| *t == id)
    }

    /// The number of an added token or a token of the model, as `tokenizers` looks it up.
    pub(super) fn find(&self, content: &str) -> Option<u32> {
        let added = self.added.iter().find(|(_, a)| a.content == content);
        added
            .map(|(id, _)| *id)
            .or_else(|| self.tokens.get(content).copied())
    }
}

fn read_tokens(model: &Node<'_>) -> Result<HashMap<String, u32>> {
    let vocab = model.child("vocab")?;
    let mut tokens = HashMap::new();
    let mut seen = HashSet::new();
    for (token, id) in vocab.map {
        let Some(id) = token_number(id) else {
            return Err(vocab.wrong(token, "a token below 2^24"));
        };
        if !seen.insert(id) {
            return Err(vocab.json.refuse(
                format!("{}: two tokens have the number {id}", vocab.path),
                "save the tokenizer again",
            ));
        }
        tokens.insert(token.clone(), id);
    }
    Ok(tokens)
}

/// `unk_token` and `byte_fallback` are of no consequence where each byte has a token.
fn refuse_unknown(model: &Node<'_>, tokens: &HashMap<String, u32>) -> Result<()> {
    let missing = alphabet()
        .iter()
        .position(|c| !tokens.contains_key(c.to_string().as_str()));
    let Some(byte) = missing else {
        return Ok(());
    };
    let key = if model.get("unk_token").is_some() {
        "unk_token"
    } else if model.flag("byte_fallback", Some(false))? {
        "byte_fallback"
    } else {
        return Ok(());
    };
    let found = format!("a vocabulary without a token for byte 0x{byte:02x}");
    Err(unsupported(model.json, &format!("model.{key}"), &found))
}

fn read_merges(
    model: &Node<'_>,
    tokens: &HashMap<String, u32>,
) -> Result<BTreeMap<(u32, u32), (usize, u32)>> {
    let mut merges = BTreeMap::new();
    for (place, merge) in model.array("merges")?.iter().enumerate() {
        let key = format!("merges[{place}]");
        let (left, right) = match merge {
            Value::String(s) if s.starts_with("#version") => continue,
            Value::String(s) => match s.split_once(' ') {
                Some((l, r)) if !r.contains(' ') => (l, r),
                _ => return Err(model.wrong(&key, "two tokens with a space between them")),
            },
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(l), Value::String(r)] => (l.as_str(), r.as_str()),
                _ => return Err(model.wrong(&key, "a pair of tokens")),
            },
            _ => return Err(model.wrong(&key, "a pair of tokens")),
        };
        let find = |token: &str| {
            tokens
                .get(token)
                .copied()
                .ok_or_else(|| model.wrong(&key, &format!("of the vocabulary: no token {token:?}")))
        };
        let pair = (find(left)?, find(right)?);
        merges.insert(pair, (place, find(&format!("{left}{right}"))?));
    }
    Ok(merges)
}

/// The added tokens, each under the number that `tokenizers` gives it: the model's, else the next one.
fn read_added(json: &Json, tokens: &HashMap<String, u32>) -> Result<BTreeMap<u32, Added>> {
    let mut added = BTreeMap::new();
    let mut contents = HashSet::new();
    let mut next = tokens.len() as u32;
    let list = json
        .get("added_tokens")
        .map_or(Some(&[][..]), |v| v.as_array().map(Vec::as_slice));
    let Some(list) = list else {
        return Err(json.refuse("added_tokens is not a list", "save the tokenizer again"));
    };
    for (i, value) in list.iter().enumerate() {
        let node = Node::new(json, format!("added_tokens[{i}]"), value)?;
        let token = read_added_token(&node)?;
        let content = &token.content;
        let refuse = |what: String| {
            Err(json.refuse(
                format!("{}: {content:?} {what}", node.path),
                "save the tokenizer again",
            ))
        };
        if content.is_empty() {
            continue;
        }
        if !contents.insert(content.clone()) {
            return refuse("is there twice".into());
        }
        let id = tokens.get(content).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        let stated = node.token("id")?;
        if id != stated {
            return refuse(format!(
                "has id {stated}, but tokenizers would give it {id}"
            ));
        }
        added.insert(id, token);
    }
    Ok(added)
}

/// The fields of an added token, here or in `tokenizer_config.json`.
pub(super) fn read_added_token(node: &Node<'_>) -> Result<Added> {
    let content = node.text("content")?;
    for key in ["single_word", "lstrip", "rstrip"] {
        if node.flag(key, None)? {
            let path = format!("{}.{key}", node.path);
            return Err(unsupported(
                node.json,
                &path,
                &format!("true ({content:?})"),
            ));
        }
    }
    Ok(Added {
        content: content.into(),
        normalized: node.flag("normalized", None)?,
        special: node.flag("special", None)?,
    })
}

/// GPT-2's printable character for each byte: itself where it is printable Latin-1, else the next from
/// U+0100 on.
pub(super) fn alphabet() -> [char; 256] {
    let mut next = 0x100..;
    std::array::from_fn(|byte| {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable {
            Some(byte as u32)
        } else {
            next.next()
        };
        code.and_then(char::from_u32).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::alphabet;

    // The published table: https://github.com/openai/gpt-2/blob/master/src/encoder.py
    #[test]
    fn gpt2_alphabet() {
        let a = alphabet();
        assert_eq!(a[0], 'Ā');
        assert_eq!(a[b'\n' as usize], 'Ċ');
        assert_eq!(a[b' ' as usize], 'Ġ');
        assert_eq!(a[b'a' as usize], 'a');
        assert_eq!(a[0x7f], 'ġ');
        assert_eq!(a[0xa0], 'ł');
        assert_eq!(a[0xad], 'Ń');
        assert_eq!(a[0xff], 'ÿ');
    }
}

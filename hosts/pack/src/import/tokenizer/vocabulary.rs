//! Tokens, merges and added tokens of `tokenizer.json`.

use super::super::json::Json;
use super::alphabet::letters;
use super::node::{Node, token_number, unsupported};
use super::source::{AddedToken, Token, TokenKind};
use crate::error::Result;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What turns words into tokens and back.
pub(super) struct Vocabulary {
    /// Tokens of the model by spelling.
    tokens: HashMap<String, u32>,
    /// The merges as they are listed.
    pub(super) merges: Vec<(String, String)>,
    /// Added tokens.
    pub(super) added: Vec<AddedToken>,
    /// Words that are tokens are not merged.
    pub(super) ignore_merges: bool,
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
        let ignore_merges = model.flag("ignore_merges", Some(false))?;
        let tokens = read_tokens(&model)?;
        let merges = read_merges(&model, &tokens)?;
        let added = read_added(json, &tokens)?;
        Ok(Self {
            tokens,
            merges,
            added,
            ignore_merges,
        })
    }

    /// `unk_token` and `byte_fallback` are of no consequence to byte-level BPE where each byte has a token.
    pub(super) fn refuse_unknown_bytes(&self, json: &Json) -> Result<()> {
        refuse_unknown(&Node::of(json, "model")?, &self.tokens)
    }

    /// SentencePiece's BPE: what has no token is spelled in bytes.
    pub(super) fn require_byte_fallback(&self, json: &Json) -> Result<()> {
        match Node::of(json, "model")?.flag("byte_fallback", Some(false))? {
            true => Ok(()),
            false => Err(unsupported(json, "model.byte_fallback", "false")),
        }
    }

    /// The tokens by number, added ones among them.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let model = self.tokens.iter().map(|(t, id)| (*id, t, TokenKind::Model));
        let mut all: BTreeMap<u32, Token> = (self.added.iter())
            .map(|a| (a.token, &a.content, TokenKind::Added))
            .chain(model)
            .map(|(id, spelling, kind)| {
                let spelling = spelling.clone();
                (id, Token { spelling, kind })
            })
            .collect();
        let count = all.keys().next_back().map_or(0, |id| id + 1);
        (0..count)
            .map(|id| all.remove(&id).unwrap_or_default())
            .collect()
    }

    /// Whether there is a token with this number.
    pub(super) fn has(&self, id: u32) -> bool {
        self.added.iter().any(|a| a.token == id) || self.tokens.values().any(|t| *t == id)
    }

    /// The number of an added token or a token of the model, as `tokenizers` looks it up.
    pub(super) fn find(&self, content: &str) -> Option<u32> {
        let added = self.added.iter().find(|a| a.content == content);
        added
            .map(|a| a.token)
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
    let missing = letters()
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

fn read_merges(model: &Node<'_>, tokens: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let mut merges = Vec::new();
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
        for token in [left, right, &format!("{left}{right}")] {
            if !tokens.contains_key(token) {
                return Err(model.wrong(&key, &format!("of the vocabulary: no token {token:?}")));
            }
        }
        merges.push((left.into(), right.into()));
    }
    Ok(merges)
}

/// The added tokens, each under the number that `tokenizers` gives it: the model's, else the next one.
fn read_added(json: &Json, tokens: &HashMap<String, u32>) -> Result<Vec<AddedToken>> {
    let mut added = Vec::new();
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
        let mut token = read_added_token(&node)?;
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
        token.token = id;
        added.push(token);
    }
    Ok(added)
}

/// The fields of an added token, here or in `tokenizer_config.json`, but for its number.
pub(super) fn read_added_token(node: &Node<'_>) -> Result<AddedToken> {
    let content = node.text("content")?;
    if node.flag("single_word", None)? {
        let path = format!("{}.single_word", node.path);
        return Err(unsupported(
            node.json,
            &path,
            &format!("true ({content:?})"),
        ));
    }
    Ok(AddedToken {
        token: 0,
        content: content.into(),
        normalized: node.flag("normalized", None)?,
        special: node.flag("special", None)?,
        lstrip: node.flag("lstrip", None)?,
        rstrip: node.flag("rstrip", None)?,
    })
}

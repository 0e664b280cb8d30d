//! What `transformers` 4 takes from `tokenizer_config.json` when it loads `tokenizer.json`.

use super::super::json::Json;
use super::node::{Node, unsupported};
use super::source::{AddedToken, Model, Prefix, Source};
use super::vocabulary::{Vocabulary, read_added_token};
use crate::error::{PackError, Result};
use pleach::tokenizer::PreTokenizer;
use serde_json::Value;

/// Applies the config, and refuses one that adds tokens which `tokenizer.json` does not have.
pub(super) fn apply(config: &Json, vocabulary: &Vocabulary, source: &mut Source) -> Result<()> {
    let flag = |key: &str, missing: bool| match config.get(key) {
        None => Ok(missing),
        Some(v) => v.as_bool().ok_or_else(|| {
            config.refuse(
                format!("{key} is {v}, true or false is expected"),
                format!("correct {key}"),
            )
        }),
    };
    if flag("split_special_tokens", false)? {
        return Err(unsupported(config, "split_special_tokens", "true"));
    }
    check_added(config, source)?;
    let prefix = source.prefix != Prefix::Never;
    match (&source.model, source.pre_tokenizer) {
        (Model::ByteLevel { .. }, PreTokenizer::Gpt2) => {
            source.prefix = match flag("add_prefix_space", false)? {
                true => Prefix::Missing,
                false => Prefix::Never,
            };
        }
        (Model::ByteLevel { .. }, _) => {}
        // `transformers` would build the tokenizer anew, from the SentencePiece model.
        (Model::SentencePiece { .. }, _) => {
            if flag("add_prefix_space", prefix)? != prefix {
                return Err(config.refuse(
                    format!(
                        "add_prefix_space is {}, tokenizer.json says otherwise",
                        !prefix
                    ),
                    "save the tokenizer again with save_pretrained, so that both files agree",
                ));
            }
        }
    }
    let class = config.text("tokenizer_class")?.unwrap_or_default();
    if class.starts_with("LlamaTokenizer") {
        let side = |flag: bool, key: &str, standard: &str| {
            let content = content(config, key)?.unwrap_or(standard);
            match vocabulary.find(content) {
                _ if !flag => Ok(None),
                None => Err(disagree(config, key, content)),
                id => Ok(id),
            }
        };
        source.bos = side(flag("add_bos_token", true)?, "bos_token", "<s>")?;
        source.eos = side(flag("add_eos_token", false)?, "eos_token", "</s>")?;
    }
    Ok(())
}

/// Every token that the config names is an added token of `tokenizer.json`, with the same flags.
fn check_added(config: &Json, source: &Source) -> Result<()> {
    let added = &source.added;
    if let Some(tokens) = config.object("added_tokens_decoder")? {
        for (id, value) in tokens {
            let node = Node::new(config, format!("added_tokens_decoder.{id}"), value)?;
            let token = read_added_token(&node)?;
            let same = added.iter().any(|a| {
                let numbered = AddedToken {
                    token: a.token,
                    ..token.clone()
                };
                id.parse() == Ok(a.token) && *a == numbered
            });
            if !same {
                return Err(disagree(config, &node.path, &token.content));
            }
        }
    }
    for (key, _) in config.entries() {
        if key.ends_with("_token")
            && let Some(content) = content(config, key)?
            && !added.iter().any(|a| a.content == content)
        {
            return Err(disagree(config, key, content));
        }
    }
    Ok(())
}

/// The content of a token: a text or an object that has one; `None` for flags such as `add_bos_token`.
fn content<'c>(config: &'c Json, key: &str) -> Result<Option<&'c str>> {
    match config.get(key) {
        None | Some(Value::Bool(_)) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(v) => Node::new(config, key.into(), v)?.text("content").map(Some),
    }
}

fn disagree(config: &Json, key: &str, content: &str) -> PackError {
    config.refuse(
        format!("{key}: {content:?} is not, or not so, among the added_tokens of tokenizer.json"),
        "save the tokenizer again with save_pretrained, so that both files agree",
    )
}

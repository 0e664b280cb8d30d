//! Tokenizer and chat template from the metadata.

use super::metadata::Metadata;
use crate::error::Result;
use crate::import::tokenizer::{Gguf as Keys, section_of};
use pleach::blob::format::MAX_TEMPLATE;

const TEMPLATE: &str = "tokenizer.chat_template";

/// The tokenizer section, or else why there is none: no tokenizer in the file, or of a kind that is not
/// supported.
///
/// Errors: keys of a wrong type; a tokenizer that contradicts itself.
pub(super) fn section(m: &Metadata) -> Result<std::result::Result<Vec<u8>, String>> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let Some(model) = m.text(&key("model"))? else {
        return Ok(Err(format!(
            "{}: no tokenizer in the metadata: packed without one, for token ids only",
            m.path().display()
        )));
    };
    let whole = |name: &str| m.u32(&key(name));
    let flag = |name: &str| m.bool(&key(name));
    let numbers = |name: &str| m.numbers(&key(name)).map(Option::unwrap_or_default);
    let texts = |name: &str| m.texts(&key(name)).map(Option::unwrap_or_default);
    let keys = Keys {
        file: m.path().display().to_string(),
        model: model.into(),
        pre: m.text(&key("pre"))?.map(String::from),
        tokens: texts("tokens")?,
        token_type: numbers("token_type")?.iter().map(|n| *n as i32).collect(),
        merges: texts("merges")?,
        scores: numbers("scores")?.iter().map(|n| *n as f32).collect(),
        bos_token_id: whole("bos_token_id")?,
        eos_token_id: whole("eos_token_id")?,
        unknown_token_id: whole("unknown_token_id")?,
        add_bos_token: flag("add_bos_token")?,
        add_eos_token: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
    };
    keys.check()?;
    match keys.unsupported() {
        Some(why) => Ok(Err(format!("packed without a tokenizer: {why}"))),
        None => section_of(&keys.source()?).map(Ok),
    }
}

/// The chat template, if there is one that a model file can hold; else perhaps why not.
pub(super) fn template(m: &Metadata) -> Result<(Option<String>, Option<String>)> {
    let left_out = |why: String| {
        let path = m.path().display();
        (
            None,
            Some(format!("{path}: packed without its chat template: {why}")),
        )
    };
    if let Some(bytes) = m.long_text(TEMPLATE) {
        return Ok(left_out(format!(
            "{bytes} bytes, at most {MAX_TEMPLATE} are possible"
        )));
    }
    Ok((
        m.text(TEMPLATE)?
            .filter(|t| !t.is_empty())
            .map(String::from),
        None,
    ))
}

//! The chat template of a Hugging Face folder, where transformers would find it.

use super::json::Json;
use crate::error::{PackError, Result};
use pleach::blob::format::MAX_TEMPLATE;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A template that a model file can hold, or else perhaps a note that says why there is none.
pub(crate) type Found = (Option<String>, Option<String>);

/// `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`: a text, or a list of named ones of
/// which `default` is taken.
///
/// Errors: a file that cannot be read, or is not UTF-8 or JSON.
pub(crate) fn read(folder: &Path) -> Result<Found> {
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        return Ok(fitting(&path, Some(jinja(&path)?)));
    }
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok((None, None));
    }
    let json = Json::read(&path)?;
    let text = match json.get("chat_template") {
        None => return Ok((None, None)),
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(list)) => list
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| Some(t.get("template")?.as_str()?.to_owned())),
        Some(_) => None,
    };
    Ok(fitting(&path, text))
}

/// A template of at most [`MAX_TEMPLATE`] bytes.
fn fitting(path: &Path, text: Option<String>) -> Found {
    let why = match text {
        Some(text) if text.is_empty() => return (None, None),
        Some(text) if text.len() <= MAX_TEMPLATE => return (Some(text), None),
        Some(_) => format!("it is longer than {MAX_TEMPLATE} bytes"),
        None => "chat_template is neither a text nor a list with one named default".into(),
    };
    let note = format!(
        "{}: packed without its chat template: {why}",
        path.display()
    );
    (None, Some(note))
}

fn jinja(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|f| f.take(MAX_TEMPLATE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| PackError::io("read", path, e))?;
    // A text that is cut within a character is too long, not broken.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(e) if e.utf8_error().error_len().is_none() && e.as_bytes().len() > MAX_TEMPLATE => {
            Ok(String::from_utf8_lossy(e.as_bytes()).into_owned())
        }
        Err(e) => Err(PackError::refused(
            format!("{}: not UTF-8: {}", path.display(), e.utf8_error()),
            "save the chat template as UTF-8",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Found {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        read(folder.path()).unwrap()
    }

    #[test]
    fn the_file_comes_before_the_configuration() {
        let config = ("tokenizer_config.json", r#"{"chat_template": "b"}"#);
        assert_eq!(found(&[config]).0.as_deref(), Some("b"));
        let all = [("chat_template.jinja", "a"), config];
        assert_eq!(found(&all).0.as_deref(), Some("a"));
        assert_eq!(found(&[]), (None, None));
        assert_eq!(found(&[("tokenizer_config.json", "{}")]), (None, None));
    }

    #[test]
    fn of_several_the_default_is_taken() {
        let list = r#"{"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}"#;
        assert_eq!(
            found(&[("tokenizer_config.json", list)]).0.as_deref(),
            Some("d")
        );
        let none = r#"{"chat_template": [{"name": "tool", "template": "t"}]}"#;
        let (template, note) = found(&[("tokenizer_config.json", none)]);
        assert!(template.is_none() && note.unwrap().contains("named default"));
    }

    #[test]
    fn a_long_one_is_left_out_with_a_note() {
        // Two bytes a character: the limit falls between two of them, and within one after a prefix.
        for prefix in ["", "x"] {
            let long = format!("{prefix}{}", "é".repeat(MAX_TEMPLATE / 2 + 1));
            let (template, note) = found(&[("chat_template.jinja", &long)]);
            assert!(template.is_none() && note.unwrap().contains("longer than 65536 bytes"));
        }
        let fits = "é".repeat(MAX_TEMPLATE / 2);
        assert_eq!(found(&[("chat_template.jinja", &fits)]).0, Some(fits));
    }

    #[test]
    fn one_that_is_not_a_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("chat_template.jinja"),
            [b'a', 0xff, b'b'],
        )
        .unwrap();
        let e = read(folder.path()).unwrap_err();
        assert!(
            e.cause.contains("chat_template.jinja: not UTF-8"),
            "{}",
            e.cause
        );
    }
}

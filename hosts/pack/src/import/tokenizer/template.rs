//! `post_processor`: the tokens around a text.

use super::super::json::Json;
use super::node::{Node, token_number, unsupported};
use super::vocabulary::Vocabulary;
use crate::error::Result;
use serde_json::Value;

/// The token before and the token after a text.
pub(super) fn read(json: &Json, vocabulary: &Vocabulary) -> Result<(Option<u32>, Option<u32>)> {
    if json.get("post_processor").is_none() {
        return Ok((None, None));
    }
    let root = Node::of(json, "post_processor")?;
    let mut templates = Vec::new();
    collect(root, &mut templates)?;
    match templates.as_slice() {
        [] => Ok((None, None)),
        [template] => single(template, vocabulary),
        _ => Err(unsupported(
            json,
            "post_processor",
            "more than one TemplateProcessing",
        )),
    }
}

/// The templates among a processor and its parts; ByteLevel changes offsets only.
fn collect<'j>(node: Node<'j>, templates: &mut Vec<Node<'j>>) -> Result<()> {
    match node.kind()? {
        "ByteLevel" => {}
        "TemplateProcessing" => templates.push(node),
        "Sequence" => {
            for (i, value) in node.array("processors")?.iter().enumerate() {
                let path = format!("{}.processors[{i}]", node.path);
                collect(Node::new(node.json, path, value)?, templates)?;
            }
        }
        other => return Err(unsupported(node.json, &node.path, other)),
    }
    Ok(())
}

/// The template of a single text: `[BOS] A [EOS]`.
fn single(template: &Node<'_>, vocabulary: &Vocabulary) -> Result<(Option<u32>, Option<u32>)> {
    let mut sides = [None, None];
    let mut after = 0;
    for (i, piece) in template.array("single")?.iter().enumerate() {
        let node = Node::new(
            template.json,
            format!("{}.single[{i}]", template.path),
            piece,
        )?;
        if let Some(sequence) = node.get("Sequence") {
            if after == 1 || sequence.get("id").and_then(Value::as_str) != Some("A") {
                return Err(unsupported(node.json, &node.path, "a second sequence"));
            }
            after = 1;
            continue;
        }
        let name = node.child("SpecialToken")?.text("id")?;
        let id = special(template, name, vocabulary)?;
        if sides[after].replace(id).is_some() {
            let path = format!("{}.single", template.path);
            return Err(unsupported(
                node.json,
                &path,
                "more than one token on a side of the text",
            ));
        }
    }
    if after == 0 {
        return Err(template.wrong("single", "a template with a sequence A"));
    }
    let [bos, eos] = sides;
    Ok((bos, eos))
}

/// The one token of a special token of the template.
fn special(template: &Node<'_>, name: &str, vocabulary: &Vocabulary) -> Result<u32> {
    let node = template.child("special_tokens")?.child(name)?;
    let ids: Option<Vec<u32>> = node.array("ids")?.iter().map(token_number).collect();
    match ids.as_deref() {
        Some([id]) if vocabulary.has(*id) => Ok(*id),
        Some([_, _, ..]) => Err(unsupported(
            node.json,
            &format!("{}.ids", node.path),
            "more than one token",
        )),
        _ => Err(node.wrong("ids", "a token of the vocabulary")),
    }
}

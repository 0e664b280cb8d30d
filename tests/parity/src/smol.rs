//! SmolLM2-135M-Instruct with four trained experts: a real language model, whose base no repository carries.

use crate::fixture::{File, Storage, json, root};
use crate::quality::Passage;
use crate::text::encode;
use pleach::Model;
use pleach_pack::PackOptions;
use serde_json::Value;
use std::path::PathBuf;

/// The variable that says where the base lies.
pub const BASE: &str = "PLEACH_SMOLLM2";

/// Names of the experts in class order.
pub const EXPERTS: [&str; 4] = ["home", "shell", "python", "verse"];

/// `tests/fixtures/xlora-smol`.
pub fn folder() -> PathBuf {
    root().join("xlora-smol")
}

/// The base: a GGUF file, or a folder. Panics without it, and says how to get it.
pub fn base() -> PathBuf {
    match std::env::var_os(BASE) {
        Some(path) => path.into(),
        None => panic!("{BASE} does not say where the base is\n  cargo xtask test smol fetches it"),
    }
}

/// Base, experts and classifier.
pub fn pack(storage: Storage) -> File {
    File::pack(&options(storage))
}

/// Options that pack them.
pub fn options(storage: Storage) -> PackOptions {
    storage.options(base(), Some(folder().join("xlora")))
}

/// PEFT's figures.
pub fn expected() -> Value {
    json(&std::fs::read(folder().join("expected.json")).expect("expected.json"))
}

/// A held-out pair.
pub struct Pair {
    /// What it is about: the name of an expert.
    pub domain: String,
    /// Prompt and answer as texts.
    pub texts: [String; 2],
    /// And as transformers' tokenizer cuts them.
    pub tokens: [Vec<u32>; 2],
}

impl Pair {
    /// The answer, to be predicted after the prompt.
    pub fn passage(&self) -> Passage {
        Passage {
            tokens: self.tokens.concat(),
            scored: self.tokens[0].len(),
        }
    }
}

/// The held-out pairs, 12 of each domain.
pub fn heldout() -> Vec<Pair> {
    let lines =
        std::fs::read_to_string(folder().join("heldout-text.jsonl")).expect("held-out text");
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    let ids = |v: &Value| -> Vec<u32> {
        let list = v.as_array().expect("a list of tokens").iter();
        list.map(|id| id.as_u64().expect("a token") as u32)
            .collect()
    };
    let rows = lines.lines().map(|line| json(line.as_bytes()));
    rows.map(|row| Pair {
        domain: text(&row["domain"]),
        texts: ["prompt", "answer"].map(|k| text(&row[k])),
        tokens: ["prompt_ids", "answer_ids"].map(|k| ids(&row[k])),
    })
    .collect()
}

/// Their answers, to be predicted.
pub fn answers() -> Vec<Passage> {
    heldout().iter().map(Pair::passage).collect()
}

/// Over 3,000 tokens of technical English in passages of 512.
pub fn english(model: &Model<'_>) -> Vec<Passage> {
    let path = root().join("english/python-reference.txt");
    let text = std::fs::read_to_string(path).expect("English");
    Passage::windows(&encode(model, &text), 512)
}

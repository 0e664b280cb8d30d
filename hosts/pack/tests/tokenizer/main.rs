//! The core's tokenizer and the import of `tokenizer.json`, against the `tokenizers` crate.

mod exact;
mod import;
mod lines;
mod mangled;
mod trained;

use lines::Random;
use pleach::tokenizer::{AddedTokens, Decoder, EncodeOptions, SpecialTokens, Template, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folder of the intent model.
fn intent() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/xlora-intent")
}

fn intent_json() -> Value {
    let text = std::fs::read(intent().join("base/tokenizer.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The sentences and the answers of `eval.jsonl`.
fn sentences() -> Vec<String> {
    let text = std::fs::read_to_string(intent().join("eval.jsonl")).unwrap();
    let lines = text.lines().flat_map(|line| {
        let v: Value = serde_json::from_str(line).unwrap();
        ["sentence", "intent"].map(|key| v[key].as_str().unwrap().to_string())
    });
    lines.collect()
}

/// Imports a tokenizer from JSON, and from `tokenizer_config.json` if there is one.
fn import(json: &Value, config: Option<&Value>) -> Result<Vec<u8>, pleach_pack::PackError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let config = config.map(|c| {
        let path = folder.path().join("tokenizer_config.json");
        std::fs::write(&path, c.to_string()).unwrap();
        path
    });
    pleach_pack::tokenizer_section(&path, config.as_deref())
}

fn encode(tokenizer: &Tokenizer<'_>, text: &[u8], options: EncodeOptions) -> Vec<u32> {
    let mut scratch = vec![0; Tokenizer::scratch_len(text.len() + 1)];
    let mut out = vec![0; text.len() + 3];
    let n = tokenizer.encode_bytes(text, options, &mut scratch, &mut out);
    out.truncate(n.unwrap());
    out
}

fn decode(tokenizer: &Tokenizer<'_>, tokens: &[u32], special: SpecialTokens) -> String {
    let mut decoder = Decoder::new(*tokenizer, special);
    let mut text = String::new();
    for token in tokens {
        text.extend(decoder.push(*token));
    }
    text.extend(decoder.finish());
    text
}

/// A tokenizer and its twin of the `tokenizers` crate.
struct Pair<'b> {
    ours: Tokenizer<'b>,
    theirs: tokenizers::Tokenizer,
}

impl<'b> Pair<'b> {
    fn new(json: &Value, section: &'b [u8]) -> Self {
        Self {
            ours: Tokenizer::parse(section).unwrap(),
            theirs: json.to_string().parse().unwrap(),
        }
    }

    /// Encodes a text in every way that both have, and decodes the tokens.
    fn check(&mut self, text: &str) {
        for template in [Template::Apply, Template::Omit] {
            for added in [AddedTokens::All, AddedTokens::Ordinary] {
                let options = EncodeOptions { added, template };
                let apply = template == Template::Apply;
                (self.theirs).set_encode_special_tokens(added == AddedTokens::Ordinary);
                let expected = self.theirs.encode(text, apply).unwrap();
                let found = encode(&self.ours, text.as_bytes(), options);
                assert_eq!(found, expected.get_ids(), "{text:?} {options:?}");
                self.check_decode(&found);
            }
        }
    }

    /// Decodes tokens with and without special ones, and as a stream: what is there after each token,
    /// with what it would end in, is what all tokens so far decode to.
    fn check_decode(&self, tokens: &[u32]) {
        for special in [SpecialTokens::Keep, SpecialTokens::Skip] {
            let skip = special == SpecialTokens::Skip;
            let expected = self.theirs.decode(tokens, skip).unwrap();
            let found = decode(&self.ours, tokens, special);
            assert_eq!(found, expected, "{tokens:?} {special:?}");
        }
        let mut decoder = Decoder::new(self.ours, SpecialTokens::Keep);
        let mut text = String::new();
        for n in 1..=tokens.len().min(12) {
            text += &decoder.push(tokens[n - 1]).to_string();
            let ended = format!("{text}{}", decoder.clone().finish());
            let expected = self.theirs.decode(&tokens[..n], false).unwrap();
            assert_eq!(ended, expected, "{:?}", &tokens[..n]);
        }
    }

    /// Decodes tokens that no text gives: broken characters, special and unknown tokens.
    fn check_random_tokens(&self, seed: u64, count: usize) {
        let mut random = Random(seed);
        for _ in 0..count {
            let tokens: Vec<u32> = (0..random.below(12))
                .map(|_| random.below(self.ours.vocab() as usize + 3) as u32)
                .collect();
            self.check_decode(&tokens);
        }
    }
}

//! The core's tokenizer and the import of `tokenizer.json`, against the `tokenizers` crate.

mod exact;
mod gguf;
mod import;
mod kinds;
mod lines;
mod mangled;
mod real;
mod trained;

use lines::Random;
use pleach::tokenizer::{
    AddedTokens, Class, Decoder, EncodeOptions, SpecialTokens, Template, Tokenizer,
};
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
    let mut scratch = vec![0; tokenizer.scratch_for(text.len())];
    let mut out = vec![0; tokenizer.tokens_for(text.len())];
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
    /// Decodes as `tokenizers` did up to 0.22. Version 0.23 takes an added token's normalised content, which it
    /// then does not know as special.
    decoder: tokenizers::Tokenizer,
}

impl<'b> Pair<'b> {
    fn new(json: &Value, section: &'b [u8]) -> Self {
        Self {
            ours: Tokenizer::parse(section).unwrap(),
            theirs: json.to_string().parse().unwrap(),
            decoder: json
                .to_string()
                .replace("\"normalized\":true", "\"normalized\":false")
                .parse()
                .unwrap(),
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

    /// Encodes a text as is usual, and decodes the tokens.
    fn check_once(&mut self, text: &str) {
        let options = EncodeOptions {
            added: AddedTokens::All,
            template: Template::Apply,
        };
        self.theirs.set_encode_special_tokens(false);
        let expected = self.theirs.encode(text, true).unwrap();
        let found = encode(&self.ours, text.as_bytes(), options);
        assert_eq!(found, expected.get_ids(), "{text:?}");
        for special in [SpecialTokens::Keep, SpecialTokens::Skip] {
            assert_eq!(
                decode(&self.ours, &found, special),
                self.expected(&found, special)
            );
        }
    }

    /// Decodes tokens with and without special ones, and as a stream: what is there after each token,
    /// with what it would end in, is what all tokens so far decode to.
    fn check_decode(&self, tokens: &[u32]) {
        for special in [SpecialTokens::Keep, SpecialTokens::Skip] {
            let expected = self.expected(tokens, special);
            let found = decode(&self.ours, tokens, special);
            assert_eq!(found, expected, "{tokens:?} {special:?}");
        }
        let mut decoder = Decoder::new(self.ours, SpecialTokens::Keep);
        let mut text = String::new();
        for n in 1..=tokens.len().min(12) {
            text += &decoder.push(tokens[n - 1]).to_string();
            let ended = format!("{text}{}", decoder.clone().finish());
            let expected = self.expected(&tokens[..n], SpecialTokens::Keep);
            assert_eq!(ended, expected, "{:?}", &tokens[..n]);
        }
    }

    /// What `tokenizers` decodes tokens to; but in a run of SentencePiece's bytes that is partly UTF-8 only
    /// the bytes that are not become U+FFFD, not all of the run: a stream cannot wait for its end.
    fn expected(&self, tokens: &[u32], special: SpecialTokens) -> String {
        let skip = special == SpecialTokens::Skip;
        let byte = |token: &u32| {
            let spelling = self.decoder.id_to_token(*token)?;
            let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
            u8::from_str_radix(digits, 16).ok()
        };
        let shown = |t: &&u32| !(skip && self.ours.is_special(**t));
        let known: Vec<u32> = (tokens.iter().filter(shown).copied())
            .filter(|t| self.decoder.id_to_token(*t).is_some())
            .collect();
        let mixed = |run: &[u32]| {
            let bytes: Option<Vec<u8>> = run.iter().map(byte).collect();
            let bytes = bytes.filter(|b| std::str::from_utf8(b).is_err())?;
            bytes
                .utf8_chunks()
                .any(|c| !c.valid().is_empty())
                .then_some(bytes)
        };
        let runs = || known.chunk_by(|a, b| byte(a).is_some() == byte(b).is_some());
        if !runs().any(|run| mixed(run).is_some()) {
            return self.decoder.decode(tokens, skip).unwrap();
        }
        let mut text = String::new();
        for run in runs() {
            match mixed(run) {
                Some(bytes) => bytes.utf8_chunks().for_each(|c| {
                    text += c.valid();
                    text.extend(c.invalid().iter().map(|_| '\u{fffd}'));
                }),
                None => {
                    // Not at the start, where a space would be dropped.
                    let first = self.decoder.token_to_id("a").unwrap();
                    let all = self
                        .decoder
                        .decode(&[&[first], run].concat(), false)
                        .unwrap();
                    text += all.strip_prefix('a').unwrap();
                }
            }
        }
        match text.strip_prefix(' ') {
            Some(rest) => rest.into(),
            None => text,
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

//! Each kind of tokenizer, made for the test: trained by the `tokenizers` crate with exactly the parts that the
//! real ones have, and compared with it on 10,000 lines.

use super::lines::{Random, lines};
use super::*;
use serde_json::json;
use std::collections::HashSet;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Theirs};

pub(crate) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(crate) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const LINES: usize = 10_000;

fn level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(key: &str, parts: Value) -> Value {
    let mut value = json!({"type": "Sequence"});
    value[key] = parts;
    value
}

fn split(regex: &str) -> Value {
    let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    sequence("pretokenizers", json!([split, level(false)]))
}

fn template() -> Value {
    json!({"type": "TemplateProcessing",
           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})
}

/// A `tokenizer.json` without a vocabulary.
fn empty(normalizer: Value, pre_tokenizer: Value, decoder: Value) -> Value {
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
           "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
           "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                     "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                     "ignore_merges": false, "vocab": {}, "merges": []}})
}

/// Trains `json`'s kind of tokenizer; the first tokens are `<unk>`, `<s>`, `</s>` and then `first`.
fn train(json: &Value, alphabet: HashSet<char>, limit: usize, first: &[String]) -> Value {
    let mut tokenizer: Theirs = json.to_string().parse().unwrap();
    let special = ["<unk>", "<s>", "</s>"].map(String::from);
    let special = special
        .iter()
        .chain(first)
        .map(|t| AddedToken::from(t.as_str(), true));
    let trainer = BpeTrainer::builder()
        .vocab_size(4000)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(alphabet)
        .limit_alphabet(limit)
        .max_token_length(Some(16))
        .special_tokens(special.collect());
    let text = [sentences(), lines(31, 1500)].concat();
    let mut trainer = TrainerWrapper::from(trainer.build());
    tokenizer.train(&mut trainer, text.iter()).unwrap();
    let mut json: Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
    json["added_tokens"].as_array_mut().unwrap().truncate(3);
    json
}

/// Adds tokens with each flag, and the template.
fn finish(mut json: Value, normalized: &[&str]) -> Value {
    json["post_processor"] = template();
    let vocab = json["model"]["vocab"].clone();
    let mut next = vocab.as_object().unwrap().len() as u64;
    let flagged = [
        ("<|l|>", true, false),
        ("<|r|>", false, true),
        ("<|lr|>", true, true),
    ];
    let plain = ["abc", "abcd", "<|im_start|>"].map(|content| (content, false, false));
    for (i, (content, lstrip, rstrip)) in flagged.into_iter().chain(plain).enumerate() {
        let id = vocab[content].as_u64().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        let token = json!({"id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": rstrip,
                           "normalized": normalized.contains(&content), "special": i < 2 || i == 5});
        json["added_tokens"].as_array_mut().unwrap().push(token);
    }
    json
}

fn byte_level(normalizer: Value, pre_tokenizer: Value) -> Value {
    let json = empty(normalizer, pre_tokenizer, level(true));
    finish(
        train(&json, ByteLevel::alphabet().into_iter().collect(), 256, &[]),
        &["abc"],
    )
}

/// SentencePiece's decoder.
fn decoder() -> Value {
    sequence(
        "decoders",
        json!([{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
               {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]),
    )
}

fn sentence_piece(normalizer: Value, pre_tokenizer: Value) -> Value {
    let bytes: Vec<String> = (0..=255).map(|b| format!("<0x{b:02X}>")).collect();
    let json = empty(normalizer, pre_tokenizer, decoder());
    let alphabet = " ▁abcdefghijklmnopqrstuvwxyz<>|_lr".chars().collect();
    let mut json = train(&json, alphabet, 300, &bytes);
    for (key, value) in [
        ("byte_fallback", json!(true)),
        ("fuse_unk", json!(true)),
        ("unk_token", json!("<unk>")),
    ] {
        json["model"][key] = value;
    }
    json
}

/// Llama 2's and TinyLlama's normalizer.
fn prepend() -> Value {
    sequence(
        "normalizers",
        json!([{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]),
    )
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split})
}

pub(crate) fn llama2() -> Value {
    finish(sentence_piece(prepend(), Value::Null), &[])
}

pub(crate) fn mistral() -> Value {
    finish(
        sentence_piece(Value::Null, metaspace("first", false)),
        &["abc"],
    )
}

pub(crate) fn smollm() -> Value {
    let digits = json!({"type": "Digits", "individual_digits": true});
    byte_level(
        Value::Null,
        sequence("pretokenizers", json!([digits, level(true)])),
    )
}

pub(crate) fn llama3() -> Value {
    let mut json = byte_level(Value::Null, split(LLAMA3));
    json["model"]["ignore_merges"] = json!(true);
    // Words that no merges give.
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    let mut place = 0;
    merges.retain(|_| {
        place += 1;
        place % 7 != 0
    });
    json
}

pub(crate) fn qwen2() -> Value {
    byte_level(json!({"type": "NFC"}), split(QWEN2))
}

fn check(json: &Value, seed: u64) {
    let section = import(json, None).unwrap();
    let mut pair = Pair::new(json, &section);
    let digits = json["pre_tokenizer"].to_string().contains("Digits");
    // `tokenizers` takes its numbers from the standard library here, which may know a later Unicode.
    let known = |c: char| c.is_numeric() == (Class::of(c) == Class::Number);
    for (i, text) in [sentences(), lines(seed, LINES)]
        .concat()
        .iter()
        .enumerate()
    {
        if digits && !text.chars().all(known) {
            continue;
        }
        match i % 10 {
            0 => pair.check(text),
            _ => pair.check_once(text),
        }
    }
    pair.check("");
    pair.check_random_tokens(seed, 2000);
}

#[test]
fn like_smollm2() {
    check(&smollm(), 41);
}

#[test]
fn like_llama3() {
    check(&llama3(), 42);
}

#[test]
fn like_qwen2() {
    check(&qwen2(), 43);
}

#[test]
fn like_llama2() {
    check(&llama2(), 44);
}

/// Old Llama 2 files: their special tokens are `normalized`, so that they match only after a space.
#[test]
fn like_llama2_with_normalized_tokens() {
    let mut json = finish(
        sentence_piece(prepend(), Value::Null),
        &["abc", "<|r|>", "<|lr|>"],
    );
    for token in json["added_tokens"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .take(3)
    {
        token["normalized"] = json!(true);
    }
    check(&json, 45);
}

#[test]
fn like_mistral() {
    check(&mistral(), 46);
}

#[test]
fn metaspace_that_splits() {
    check(
        &finish(
            sentence_piece(Value::Null, metaspace("always", true)),
            &["abc"],
        ),
        47,
    );
}

/// All strings of up to four characters of each class, where alternatives of the expressions meet.
#[test]
fn short_strings() {
    let alphabet = [
        'a', 'S', '1', ' ', '\n', '\r', '\t', '!', '\'', 'ſ', '\u{a0}', '\u{301}', '▁',
    ];
    for json in [smollm(), llama3(), qwen2(), llama2()] {
        let section = import(&json, None).unwrap();
        let pair = Pair::new(&json, &section);
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            let longer = texts
                .iter()
                .flat_map(|t| alphabet.map(|c| format!("{t}{c}")));
            texts = longer.collect();
            for text in &texts {
                let expected = pair.theirs.encode_fast(text.as_str(), false).unwrap();
                let found = encode(&pair.ours, text.as_bytes(), EncodeOptions::DEFAULT);
                assert_eq!(found, expected.get_ids(), "{text:?}");
            }
        }
    }
}

/// Bytes that are not UTF-8 come back, in the kinds that change nothing of a text.
#[test]
fn invalid_bytes_come_back() {
    let mut random = Random(48);
    for json in [smollm(), llama3(), llama2()] {
        let section = import(&json, None).unwrap();
        let tokenizer = Tokenizer::parse(&section).unwrap();
        let options = EncodeOptions {
            added: AddedTokens::None,
            template: Template::Omit,
        };
        for mut text in lines(49, 500) {
            text = text.replace('▁', "").replace("<0x", "");
            let mut bytes = text.into_bytes();
            for _ in 0..3 {
                let at = random.below(bytes.len() + 1);
                bytes.insert(at, 0x80 | random.next() as u8);
            }
            let tokens = encode(&tokenizer, &bytes, options);
            let back: Vec<u8> = (tokens.iter())
                .flat_map(|t| tokenizer.token_bytes(*t).unwrap())
                .copied()
                .collect();
            let prefix = usize::from(json["normalizer"] != Value::Null);
            assert_eq!(back[prefix..], bytes);
        }
    }
}

/// NFC keeps them too, between what it composes.
#[test]
fn invalid_bytes_and_nfc() {
    let section = import(&qwen2(), None).unwrap();
    let tokenizer = Tokenizer::parse(&section).unwrap();
    let bytes = |text: &[u8]| -> Vec<u8> {
        let tokens = encode(&tokenizer, text, EncodeOptions::DEFAULT);
        tokens
            .iter()
            .flat_map(|t| tokenizer.token_bytes(*t).unwrap())
            .copied()
            .collect()
    };
    assert_eq!(
        bytes(b"e\xcc\x81\xff\xcc\x81e\xcc"),
        b"\xc3\xa9\xff\xcc\x81e\xcc"
    );
}

/// What `scratch_for` and `tokens_for` promise, and what the errors ask for.
#[test]
fn buffers() {
    for json in [qwen2(), llama2(), llama3()] {
        let section = import(&json, None).unwrap();
        let tokenizer = Tokenizer::parse(&section).unwrap();
        // U+1D15E becomes three times as long; of the other line half is spaces before pieces.
        let texts = [
            "\u{1d15e}".repeat(50),
            "a</s>".repeat(50),
            "e\u{301}\u{1d15e} é".repeat(30),
        ];
        for text in texts.iter().chain(&lines(50, 200)) {
            let tokens = encode(&tokenizer, text.as_bytes(), EncodeOptions::DEFAULT);
            let (mut scratch, mut out) = (vec![], vec![]);
            let n = loop {
                match tokenizer.encode(text, EncodeOptions::DEFAULT, &mut scratch, &mut out) {
                    Ok(n) => break n,
                    Err(pleach::Error::Shape {
                        what: "tokens",
                        expected,
                        ..
                    }) => out.resize(expected as usize, 0),
                    Err(pleach::Error::Shape {
                        expected, found, ..
                    }) => {
                        assert!(
                            expected > found
                                && expected as usize <= tokenizer.scratch_for(text.len())
                        );
                        scratch.resize(expected as usize, 0);
                    }
                    Err(e) => panic!("{e}"),
                }
            };
            assert_eq!(out[..n], tokens, "{text:?}");
        }
    }
}

/// A megabyte without a space is one word; so is, for SentencePiece, one with spaces.
#[test]
fn a_megabyte_in_one_word() {
    for (json, part) in [
        (llama3(), "thelight"),
        (llama2(), "thelight"),
        (llama2(), "é ▁a"),
    ] {
        let section = import(&json, None).unwrap();
        let pair = Pair::new(&json, &section);
        let text = part.repeat((1 << 20) / part.len());
        let expected = pair.theirs.encode_fast(text.as_str(), false).unwrap();
        let found = encode(&pair.ours, text.as_bytes(), EncodeOptions::DEFAULT);
        assert!(found == expected.get_ids(), "{part}");
    }
}

//! Tokenizers made for the test: trained on the corpus and the lines, and made to be awkward.

use super::lines::{Random, lines};
use super::*;
use serde_json::json;
use std::collections::HashSet;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, models::TrainerWrapper};

/// `tokenizer.json` of a tokenizer trained by the `tokenizers` crate.
fn train(vocab: usize, alphabet: bool, add_prefix_space: bool) -> Value {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(
        ByteLevel::default().add_prefix_space(add_prefix_space),
    ));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(
            ["<s>", "</s>", "<|im_start|>"]
                .map(|t| AddedToken::from(t, true))
                .into(),
        );
    let trainer = if alphabet {
        trainer.initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
    } else {
        trainer
    };
    let text = [sentences(), lines(11, 2000)].concat();
    let mut trainer = TrainerWrapper::from(trainer.build());
    tokenizer.train(&mut trainer, text.iter()).unwrap();
    // Ordinary added tokens that overlap with each other and with special ones, in both groups.
    for (content, normalized) in [
        ("abc", false),
        ("abcd", true),
        ("bcd", true),
        ("s>", false),
        ("é", false),
    ] {
        let token = AddedToken::from(content, false).normalized(normalized);
        tokenizer.add_tokens([token]).unwrap();
    }
    let special = [
        ("<|im|>", false),
        ("<|im_start|>user", true),
        ("e\u{301}", true),
    ];
    for (content, normalized) in special {
        let token = AddedToken::from(content, true).normalized(normalized);
        tokenizer.add_special_tokens([token]).unwrap();
    }
    serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
}

fn check(json: &Value, seed: u64) {
    let section = import(json, None).unwrap();
    let mut pair = Pair::new(json, &section);
    for text in [sentences(), lines(seed, 2000)].concat() {
        pair.check(&text);
    }
    pair.check_random_tokens(seed, 2000);
}

#[test]
fn trained_on_the_corpus() {
    let json = train(8000, true, false);
    assert!(json["model"]["merges"].as_array().unwrap().len() > 5000);
    check(&json, 12);
}

#[test]
fn prefix_space_and_both_sides_of_the_template() {
    let mut json = train(2000, true, true);
    json["post_processor"] = json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "</s>", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                            "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}}]});
    check(&json, 13);
}

/// Bytes that the vocabulary does not have are dropped.
#[test]
fn incomplete_alphabet() {
    let mut json = train(1000, false, false);
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    for letter in ["x", "Q", "Ġ"] {
        vocab.remove(letter);
    }
    let kept: Vec<String> = vocab.keys().cloned().collect();
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    let has = |s: &str| kept.iter().any(|k| k == s);
    merges.retain(|m| has(m[0].as_str().unwrap()) && has(m[1].as_str().unwrap()));
    json["added_tokens"] = json!([]);
    check(&json, 14);
}

/// Numbers beyond 65535: ids of 4 bytes.
#[test]
fn wide_ids() {
    let mut json = train(4000, true, false);
    for id in json["model"]["vocab"].as_object_mut().unwrap().values_mut() {
        *id = json!(id.as_u64().unwrap() * 20 + 3);
    }
    let vocab = json["model"]["vocab"].clone();
    let added = json["added_tokens"].as_array_mut().unwrap();
    added.retain(|a| vocab.get(a["content"].as_str().unwrap()).is_some());
    for token in added.iter_mut() {
        token["id"] = vocab[token["content"].as_str().unwrap()].clone();
    }
    let section = import(&json, None).unwrap();
    assert!(Tokenizer::parse(&section).unwrap().vocab() > 0xffff);
    check(&json, 15);
}

/// Merges in an order that no training gives, many of them to the same token, on words in which they
/// compete.
#[test]
fn awkward_merges() {
    let mut random = Random(16);
    for _ in 0..300 {
        let mut tokens: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let mut merges: Vec<[String; 2]> = Vec::new();
        while merges.len() < 40 {
            let pair = [0; 2].map(|_| tokens[random.below(tokens.len())].clone());
            let joined = pair.concat();
            if joined.len() > 7 {
                continue;
            }
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
            merges.push(pair);
        }
        for i in (1..merges.len()).rev() {
            merges.swap(i, random.below(i + 1));
        }
        let mut json = intent_json();
        json["added_tokens"] = json!([]);
        json["post_processor"] = Value::Null;
        json["model"]["vocab"] = tokens
            .iter()
            .zip(0..)
            .map(|(t, i)| (t.clone(), json!(i)))
            .collect();
        json["model"]["merges"] = json!(merges);
        let section = import(&json, None).unwrap();
        let mut pair = Pair::new(&json, &section);
        for _ in 0..60 {
            let len = 1 + random.below(40);
            let text: String = (0..len).map(|_| random.pick(&["a", "b", "c"])).collect();
            pair.check(&text);
        }
    }
}

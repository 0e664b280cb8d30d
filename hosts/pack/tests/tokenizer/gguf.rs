//! Tokenizers from GGUF metadata give the tokens of `tokenizer.json`.

use super::kinds::{llama2, llama3, qwen2, smollm};
use super::lines::lines;
use super::*;
use pleach_pack::tokenizer::{Gguf, section_of};
use serde_json::json;
use std::collections::HashMap;

/// What llama.cpp's converter makes of a `tokenizer.json`.
fn metadata(json: &Value, model: &str, pre: Option<&str>) -> Gguf {
    let mut tokens: HashMap<u64, (String, i32)> = HashMap::new();
    for (spelling, id) in json["model"]["vocab"].as_object().unwrap() {
        let kind = if spelling.starts_with("<0x") { 6 } else { 1 };
        tokens.insert(id.as_u64().unwrap(), (spelling.clone(), kind));
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let kind = match (
            token["content"].as_str().unwrap(),
            token["special"].as_bool().unwrap(),
        ) {
            ("<unk>", _) => 2,
            (_, true) => 3,
            (_, false) => 4,
        };
        let content = token["content"].as_str().unwrap().to_string();
        tokens.insert(token["id"].as_u64().unwrap(), (content, kind));
    }
    let all = || (0..tokens.len() as u64).map(|id| &tokens[&id]);
    let merges = json["model"]["merges"].as_array().unwrap();
    Gguf {
        file: "test.gguf".into(),
        model: model.into(),
        pre: pre.map(String::from),
        tokens: all().map(|t| t.0.clone()).collect(),
        token_type: all().map(|t| t.1).collect(),
        merges: (merges.iter())
            .map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
            .collect(),
        bos_token_id: Some(1),
        eos_token_id: Some(2),
        unknown_token_id: Some(0),
        add_bos_token: Some(true),
        ..Gguf::default()
    }
}

/// GGUF knows neither `lstrip`, `rstrip` nor `normalized`, and what looks like `<|...|>` is special.
fn without_flags(mut json: Value) -> Value {
    for token in json["added_tokens"].as_array_mut().unwrap() {
        if token["content"].as_str().unwrap().starts_with("<|") {
            token["special"] = json!(true);
        }
        for flag in ["lstrip", "rstrip", "normalized"] {
            token[flag] = json!(false);
        }
    }
    json
}

fn check(json: &Value, gguf: &Gguf, seed: u64) {
    let section = section_of(&gguf.source().unwrap()).unwrap();
    let mut pair = Pair::new(json, &section);
    lines(seed, 1000)
        .iter()
        .for_each(|text| pair.check_once(text));
}

#[test]
fn byte_level() {
    for (json, pre, seed) in [
        (smollm(), "smollm", 51),
        (llama3(), "llama-bpe", 52),
        (qwen2(), "qwen2", 53),
    ] {
        let json = without_flags(json);
        check(&json, &metadata(&json, "gpt2", Some(pre)), seed);
    }
}

/// Merges from scores, in the order of `GGUFTokenizerSkeleton` of transformers 4.57, here as there.
#[test]
fn scores() {
    let mut json = without_flags(llama2());
    json["added_tokens"].as_array_mut().unwrap().truncate(3);
    let mut gguf = metadata(&json, "llama", None);
    gguf.merges.clear();
    gguf.scores = (0..gguf.tokens.len())
        .map(|id| 259.0 - id.max(259) as f32)
        .collect();

    let vocab: HashMap<&str, f32> = (gguf.tokens.iter().map(String::as_str))
        .zip(gguf.scores.iter().copied())
        .collect();
    let mut merges: Vec<(&str, &str, f32)> = Vec::new();
    for (merge, score) in gguf.tokens.iter().zip(&gguf.scores) {
        let mut local = Vec::new();
        for (index, _) in merge.char_indices().skip(1) {
            let (l, r) = merge.split_at(index);
            if vocab.contains_key(l) && vocab.contains_key(r) {
                local.push((l, r, *score));
            }
        }
        local.sort_by(|a, b| {
            (vocab[b.0], vocab[b.1])
                .partial_cmp(&(vocab[a.0], vocab[a.1]))
                .unwrap()
        });
        merges.extend(local);
    }
    merges.sort_by(|a, b| b.2.partial_cmp(&a.2).unwrap());
    json["model"]["merges"] = merges.iter().map(|m| json!([m.0, m.1])).collect();
    check(&json, &gguf, 54);
}

#[test]
fn who_adds_bos() {
    let base = metadata(&without_flags(llama3()), "gpt2", Some("llama-bpe"));
    let bos = |gguf: &Gguf| gguf.source().unwrap().bos;
    for (pre, add, expected) in [
        ("llama-bpe", None, Some(1)),
        ("llama-bpe", Some(false), None),
        ("smaug-bpe", None, None),
        ("qwen2", None, None),
        ("smollm", Some(true), Some(1)),
    ] {
        let gguf = Gguf {
            pre: Some(pre.into()),
            add_bos_token: add,
            ..base.clone()
        };
        assert_eq!(bos(&gguf), expected, "{pre}");
    }
}

#[test]
fn refused_by_key() {
    let good = metadata(&without_flags(llama2()), "llama", None);
    assert!(good.source().is_ok());
    let change = |change: &dyn Fn(&mut Gguf)| {
        let mut gguf = good.clone();
        change(&mut gguf);
        gguf
    };
    let cases: [(Gguf, &str); 12] = [
        (
            change(&|g| g.model = "bert".into()),
            "tokenizer.ggml.model: \"bert\"",
        ),
        (
            change(&|g| g.model = "gpt2".into()),
            "tokenizer.ggml.pre: \"default\"",
        ),
        (
            change(&|g| g.token_type.truncate(5)),
            "tokenizer.ggml.token_type: 5 entries",
        ),
        (
            change(&|g| g.token_type[7] = 9),
            "tokenizer.ggml.token_type: 9 (token 7)",
        ),
        (
            change(&|g| g.scores = vec![0.0]),
            "tokenizer.ggml.scores: 1 entries",
        ),
        (
            change(&|g| g.merges.clear()),
            "tokenizer.ggml.scores: neither scores nor merges",
        ),
        (
            change(&|g| g.merges[3] = "abc".into()),
            "tokenizer.ggml.merges[3]",
        ),
        (
            change(&|g| g.merges[3] = "a nowhere".into()),
            "merges[3] is not of the vocabulary: no token \"nowhere\"",
        ),
        (
            change(&|g| g.bos_token_id = Some(1 << 30)),
            "tokenizer.ggml.bos_token_id: 1073741824",
        ),
        (
            change(&|g| g.tokens[5] = "<0xZZ>".into()),
            "byte fallback without a token for byte 0x02",
        ),
        (change(&|g| g.tokens[300] = "a".into()), "are both \"a\""),
        (
            change(&|g| {
                g.merges.clear();
                g.scores = vec![f32::NAN; g.tokens.len()];
            }),
            "a score that is not finite",
        ),
    ];
    for (gguf, cause) in cases {
        let error = gguf
            .source()
            .and_then(|s| section_of(&s))
            .map(|_| ())
            .expect_err(cause);
        assert!(error.cause.contains(cause), "{error}");
        assert!(error.cause.contains("test.gguf: "), "{error}");
    }
}

/// llama.cpp makes control tokens of nothing but their whole text, and counts user-defined ones that look like
/// `<|...|>` among them (`convert_hf_to_gguf.py`, `does_token_look_special`).
#[test]
fn control_tokens_are_not_merged() {
    let mut gguf = metadata(&without_flags(llama2()), "llama", None);
    let start = gguf.tokens.len();
    gguf.merges.clear();
    // 0 is the best score: whatever may merge into the new tokens does.
    gguf.scores = vec![-10.0; start];
    for (token, kind) in [
        ("qj", 3),
        ("qz", 2),
        ("qx", 1),
        ("qy", 4),
        ("<|", 1),
        ("<|q", 1),
        ("<|q|", 1),
        ("<|q|>", 4),
    ] {
        if let Some(id) = gguf.tokens.iter().position(|t| t == token) {
            assert_eq!((token, gguf.token_type[id]), ("<|", kind));
            gguf.scores[id] = 0.0;
            continue;
        }
        gguf.tokens.push(token.into());
        gguf.token_type.push(kind);
        gguf.scores.push(0.0);
    }
    let id = |token: &str| gguf.tokens.iter().position(|t| t == token).unwrap() as u32;
    let section = section_of(&gguf.source().unwrap()).unwrap();
    let tokenizer = Tokenizer::parse(&section).unwrap();
    for (token, merges) in [
        ("qj", false),
        ("qz", false),
        ("qx", true),
        ("qy", true),
        ("<|q|>", false),
    ] {
        let plain = EncodeOptions {
            added: AddedTokens::Ordinary,
            ..EncodeOptions::default()
        };
        let ids = encode(&tokenizer, token.as_bytes(), plain);
        assert_eq!(ids.contains(&id(token)), merges, "{token}: {ids:?}");
    }
    let special = |token: &str| {
        let source = gguf.source().unwrap();
        source
            .added
            .iter()
            .find(|a| a.content == token)
            .map(|a| a.special)
    };
    assert_eq!(special("<|q|>"), Some(true));
    assert_eq!(special("qy"), Some(false));
    assert_eq!(special("qx"), None);
}

//! What the import takes and what it refuses.

use super::kinds::LLAMA3;
use super::*;
use pleach_pack::Kind;
use serde_json::json;

/// Imports the intent tokenizer with a value of `tokenizer.json` replaced; the place is a JSON pointer.
fn with(place: &str, value: Value) -> Result<Vec<u8>, pleach_pack::PackError> {
    let mut json = intent_json();
    match json.pointer_mut(place) {
        Some(slot) => *slot = value,
        None => {
            let (parent, key) = place.rsplit_once('/').unwrap();
            json.pointer_mut(parent).unwrap()[key] = value;
        }
    }
    import(&json, None)
}

#[test]
fn refused_by_name() {
    let level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": use_regex});
    let split = |regex: &str, behavior: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": false});
    let template = |pieces: Value| {
        json!({"type": "TemplateProcessing", "single": pieces, "pair": [],
               "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                                  "two": {"id": "two", "ids": [1, 2], "tokens": ["<s>", "</s>"]},
                                  "far": {"id": "far", "ids": [9999], "tokens": ["far"]}}})
    };
    let bos = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let a = json!({"Sequence": {"id": "A", "type_id": 0}});
    let cases = [
        ("/version", json!("2.0"), "version: \"2.0\""),
        ("/normalizer", json!({"type": "NFKC"}), "normalizer: NFKC"),
        (
            "/normalizer",
            json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}),
            "normalizer.normalizers[0]: NFC",
        ),
        ("/truncation", json!({"max_length": 8}), "truncation"),
        ("/padding", json!({"pad_id": 0}), "padding"),
        ("/pre_tokenizer", Value::Null, "pre_tokenizer is missing"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": []}),
            "pre_tokenizer: Sequence",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Split"}),
            "pre_tokenizer: Split",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Metaspace"}),
            "pre_tokenizer: Metaspace",
        ),
        (
            "/pre_tokenizer",
            level(false),
            "pre_tokenizer.use_regex: false",
        ),
        ("/decoder", Value::Null, "decoder is missing"),
        (
            "/decoder",
            json!({"type": "ByteFallback"}),
            "decoder: ByteFallback",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": false}, level(true)]}),
            "pre_tokenizer.pretokenizers[0].individual_digits: false",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [split("\\s+", "Isolated"), level(false)]}),
            "pre_tokenizer.pretokenizers[0].pattern: {\"Regex\":\"\\\\s+\"}",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [split(LLAMA3, "Removed"), level(false)]}),
            "pre_tokenizer.pretokenizers[0].behavior: Removed",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [split(LLAMA3, "Isolated"), level(true)]}),
            "pre_tokenizer.pretokenizers[1].use_regex: true",
        ),
        (
            "/decoder",
            json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}),
            "decoder.decoders[0]: ByteFallback",
        ),
        (
            "/post_processor",
            json!({"type": "BertProcessing"}),
            "post_processor: BertProcessing",
        ),
        (
            "/post_processor",
            json!({"type": "Sequence", "processors": [{"type": "RobertaProcessing"}]}),
            "post_processor.processors[0]: RobertaProcessing",
        ),
        (
            "/post_processor",
            template(json!([bos, bos, a])),
            "post_processor.single: more than one token",
        ),
        (
            "/post_processor",
            template(json!([a, a])),
            "post_processor.single[1]: a second sequence",
        ),
        (
            "/post_processor",
            template(json!([bos])),
            "post_processor.single",
        ),
        (
            "/post_processor",
            template(json!([{"SpecialToken": {"id": "two"}}, a])),
            "post_processor.special_tokens.two.ids: more than one token",
        ),
        (
            "/post_processor",
            template(json!([{"SpecialToken": {"id": "far"}}, a])),
            "post_processor.special_tokens.far.ids",
        ),
        (
            "/post_processor",
            template(json!([{"SpecialToken": {"id": "none"}}, a])),
            "post_processor.special_tokens.none",
        ),
        ("/model/type", json!("Unigram"), "model.type: Unigram"),
        ("/model/type", json!("WordPiece"), "model.type: WordPiece"),
        ("/model/dropout", json!(0.1), "model.dropout: 0.1"),
        (
            "/model/continuing_subword_prefix",
            json!("##"),
            "model.continuing_subword_prefix: \"##\"",
        ),
        (
            "/model/end_of_word_suffix",
            json!("</w>"),
            "model.end_of_word_suffix: \"</w>\"",
        ),
        ("/model/vocab", json!([]), "model.vocab is not an object"),
        ("/model/vocab/a", json!(-1), "model.vocab.a is not a token"),
        (
            "/model/vocab/a",
            json!(1u64 << 40),
            "model.vocab.a is not a token",
        ),
        (
            "/model/vocab/a",
            json!(4),
            "model.vocab: two tokens have the number 4",
        ),
        (
            "/model/merges/0",
            json!(["t", "nowhere"]),
            "model.merges[0] is not of the vocabulary: no token \"nowhere\"",
        ),
        (
            "/model/merges/0",
            json!(["Z", "Z"]),
            "model.merges[0] is not of the vocabulary: no token \"ZZ\"",
        ),
        (
            "/model/merges/0",
            json!("t e e"),
            "model.merges[0] is not two tokens",
        ),
        (
            "/model/merges/0",
            json!(["t"]),
            "model.merges[0] is not a pair",
        ),
        ("/added_tokens", json!({}), "added_tokens is not a list"),
        (
            "/added_tokens/0/single_word",
            json!(true),
            "added_tokens[0].single_word: true",
        ),
        (
            "/added_tokens/2/special",
            json!(1),
            "added_tokens[2].special is not true or false",
        ),
        (
            "/added_tokens/2/content",
            json!("<s>"),
            "added_tokens[2]: \"<s>\" is there twice",
        ),
        (
            "/added_tokens/2/id",
            json!(7),
            "added_tokens[2]: \"</s>\" has id 7, but tokenizers would give it 2",
        ),
    ];
    for (place, value, cause) in cases {
        let error = with(place, value).map(|_| ()).expect_err(cause);
        let lines: Vec<String> = error.to_string().lines().map(String::from).collect();
        assert!(error.cause.contains(cause), "{place}: {error}");
        assert!(error.cause.contains("tokenizer.json: "), "{error}");
        assert!(lines.len() == 2 && lines[1].starts_with("  "), "{error}");
        assert_eq!(error.kind, Kind::Refused);
    }
}

/// `unk_token` and `byte_fallback` matter only where a byte has no token.
#[test]
fn unknown_bytes() {
    for (key, value) in [("unk_token", json!("<s>")), ("byte_fallback", json!(true))] {
        let mut json = intent_json();
        json["model"][key] = value;
        assert_eq!(
            import(&json, None).unwrap(),
            import(&intent_json(), None).unwrap()
        );
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let id = vocab.remove("Ā").unwrap();
        vocab.insert("unused".into(), id);
        let error = import(&json, None).unwrap_err();
        assert!(error.cause.contains(&format!("model.{key}")), "{error}");
        assert!(error.cause.contains("byte 0x00"), "{error}");
    }
}

#[test]
fn not_a_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let missing = pleach_pack::tokenizer_section(&path, None).unwrap_err();
    assert_eq!(missing.kind, Kind::Refused);
    for text in [
        "",
        "{",
        "[]",
        "{}",
        "{\"model\": 1}",
        "{\"model\": {\"merges\": []}}",
    ] {
        std::fs::write(&path, text).unwrap();
        let error = pleach_pack::tokenizer_section(&path, None).expect_err(text);
        assert!(error.cause.contains("tokenizer.json"), "{error}");
    }
}

/// Old files have merges as texts, no model type and empty affixes; the section is the same.
#[test]
fn spellings_of_the_same_tokenizer() {
    let mut old = intent_json();
    let merges = old["model"]["merges"].as_array_mut().unwrap();
    for merge in merges.iter_mut() {
        *merge = json!(format!(
            "{} {}",
            merge[0].as_str().unwrap(),
            merge[1].as_str().unwrap()
        ));
    }
    merges.insert(0, json!("#version: 0.2"));
    let model = old["model"].as_object_mut().unwrap();
    model.remove("type");
    model["end_of_word_suffix"] = json!("");
    model["dropout"] = json!(0.0);
    let section = import(&old, None).unwrap();
    assert_eq!(section, import(&intent_json(), None).unwrap());
    assert_eq!(section, import(&intent_json(), None).unwrap());
}

/// A pair that is listed twice has its last rank, as in `tokenizers`.
#[test]
fn repeated_merge() {
    let mut json = intent_json();
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    for i in [0, 5, 9] {
        merges.push(merges[i].clone());
    }
    let section = import(&json, None).unwrap();
    let mut pair = Pair::new(&json, &section);
    sentences().iter().for_each(|text| pair.check(text));
}

#[test]
fn config_of_transformers() {
    let text = std::fs::read(intent().join("base/tokenizer_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    let plain = import(&intent_json(), None).unwrap();
    let change = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        import(&intent_json(), Some(&config))
    };
    assert_eq!(import(&intent_json(), Some(&config)).unwrap(), plain);
    // Classes other than Llama's take BOS and EOS from the post-processor.
    assert_eq!(change("add_bos_token", json!(false)).unwrap(), plain);

    let sides = |section: Vec<u8>| {
        let t = Tokenizer::parse(&section).unwrap();
        (t.bos(), t.eos())
    };
    let mut llama = config.clone();
    llama["tokenizer_class"] = json!("LlamaTokenizerFast");
    llama["add_bos_token"] = json!(false);
    llama["add_eos_token"] = json!(true);
    let section = import(&intent_json(), Some(&llama)).unwrap();
    assert_eq!(sides(section), (None, Some(2)));

    let section = change("add_prefix_space", json!(true)).unwrap();
    let mut prefixed = intent_json();
    prefixed["pre_tokenizer"]["add_prefix_space"] = json!(true);
    assert_eq!(section, import(&prefixed, None).unwrap());
    assert_eq!(import(&prefixed, Some(&config)).unwrap(), plain);

    for (key, value, cause) in [
        ("pad_token", json!("[PAD]"), "pad_token: \"[PAD]\""),
        (
            "eos_token",
            json!({"content": "<end>"}),
            "eos_token: \"<end>\"",
        ),
        (
            "split_special_tokens",
            json!(true),
            "split_special_tokens: true",
        ),
        (
            "add_prefix_space",
            json!("yes"),
            "add_prefix_space is \"yes\"",
        ),
        (
            "added_tokens_decoder",
            json!({"1": {"content": "<s>", "lstrip": false, "normalized": true, "rstrip": false,
                         "single_word": false, "special": true}}),
            "added_tokens_decoder.1: \"<s>\"",
        ),
    ] {
        let error = change(key, value).expect_err(cause);
        assert!(error.cause.contains(cause), "{error}");
        assert!(error.cause.contains("tokenizer_config.json: "), "{error}");
    }
}

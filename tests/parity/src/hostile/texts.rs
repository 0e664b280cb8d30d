//! Tokenizers and chat templates.

use super::files::{Stage, refused};
use crate::fixture;
use crate::reseal;
use pleach::blob::format::SectionKind;
use pleach::tokenizer::{Decoder, EncodeOptions, SpecialTokens, Tokenizer};
use pleach_linux::template::{ChatTemplate, Message, Role, Surroundings};
use serde_json::{Value, json};
use std::fs;

/// What is encoded: scripts, spaces, marks that join, special tokens, bytes that are no text.
const TEXTS: [&[u8]; 6] = [
    b"",
    b"  Hello, world's 12345 \r\n\t tests",
    "Größe naïve e\u{301} \u{1112}\u{1161}\u{11ab} 한국어 \u{0939}\u{093f}".as_bytes(),
    "👩\u{200d}👩\u{200d}👧 \u{a0}\u{3000}<s></s><|im_start|>user".as_bytes(),
    b"\xff\xfe\xc3(\xe2\x82",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Texts to tokens, and all tokens to text.
pub(super) fn both_ways(tokenizer: &Tokenizer<'_>) {
    let vocab = tokenizer.vocab();
    for text in TEXTS {
        let mut scratch = vec![0; tokenizer.scratch_for(text.len())];
        let mut out = vec![0; tokenizer.tokens_for(text.len())];
        let options = EncodeOptions::DEFAULT;
        let count = tokenizer
            .encode_bytes(text, options, &mut scratch, &mut out)
            .unwrap_or_else(|e| panic!("its own figures are too small: {e}"));
        let tokens = &out[..count];
        assert!(tokens.iter().all(|t| *t < vocab), "{tokens:?} of {vocab}");
        decode(tokenizer, tokens.iter().copied());
        // With less room it says so.
        let _ = tokenizer.encode_bytes(text, options, &mut [0; 3], &mut [0; 2]);
    }
    decode(tokenizer, (0..vocab.min(2000)).chain([vocab, u32::MAX]));
}

fn decode(tokenizer: &Tokenizer<'_>, tokens: impl Iterator<Item = u32>) {
    let mut decoder = Decoder::new(*tokenizer, SpecialTokens::Skip);
    let mut bytes = 0;
    for token in tokens {
        bytes += decoder.push(token).to_string().len();
    }
    let _ = bytes + decoder.finish().to_string().len();
}

pub(super) fn tokenizer(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::parse(data) {
        both_ways(&tokenizer);
    }
}

/// The sections that seeds of `tokenizer.json` give, and the demo's.
pub(super) fn tokenizer_seeds() -> Vec<Vec<u8>> {
    let stage = Stage::new("seeds");
    let path = stage.path("tokenizer.json");
    let mut seeds = Vec::new();
    for json in tokenizer_json_seeds() {
        fs::write(&path, json).expect("a file of the stage");
        match pleach_pack::tokenizer::section(&path, None) {
            Ok(section) => seeds.push(section),
            Err(e) => panic!("{}\n  {}", e.cause, e.cure),
        }
    }
    let demo = fixture::root().join("../../hosts/cli/intent.pleach");
    let demo = fs::read(demo).expect("the demo");
    let sections = reseal::sections(&demo).into_iter();
    seeds.extend(
        sections
            .filter(|s| s.kind == SectionKind::Tokenizer)
            .map(|s| s.bytes),
    );
    seeds
}

pub(super) fn tokenizer_json(data: &[u8]) {
    let stage = Stage::new("tokenizer-json");
    let path = stage.path("tokenizer.json");
    fs::write(&path, data).expect("a file of the stage");
    match pleach_pack::tokenizer::section(&path, None) {
        Ok(section) => match Tokenizer::parse(&section) {
            Ok(tokenizer) => both_ways(&tokenizer),
            Err(e) => panic!("packed, but not sound: {e}"),
        },
        Err(e) => refused(&e),
    }
}

/// Byte-level BPE as GPT-2 has it, as Qwen has it, and SentencePiece's kind.
pub(super) fn tokenizer_json_seeds() -> Vec<Vec<u8>> {
    let level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let qwen = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split = json!({"type": "Split", "pattern": {"Regex": qwen}, "behavior": "Isolated", "invert": false});
    let split = json!({"type": "Sequence", "pretokenizers": [split, level(false)]});
    let bytes: Vec<String> = byte_alphabet().map(String::from).collect();
    let gpt2 = seed(
        &bytes,
        [("pre_tokenizer", level(true)), ("decoder", level(true))],
    );
    let mut nfc = seed(&bytes, [("pre_tokenizer", split), ("decoder", level(true))]);
    nfc["normalizer"] = json!({"type": "NFC"});

    let spaces = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let mut tokens: Vec<String> = (0..=255).map(|b| format!("<0x{b:02X}>")).collect();
    tokens.extend(["▁", "a", "b", "h", "e", "l", "o"].map(String::from));
    let mut pieces = seed(&tokens, [("normalizer", spaces), ("decoder", decoder)]);
    pieces["model"]["byte_fallback"] = json!(true);
    pieces["model"]["fuse_unk"] = json!(true);
    pieces["model"]["unk_token"] = json!("<unk>");
    [gpt2, nfc, pieces]
        .map(|t| t.to_string().into_bytes())
        .to_vec()
}

/// GPT-2's characters for bytes.
fn byte_alphabet() -> impl Iterator<Item = char> {
    let own = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(move |b| !own(b)).count() as u32;
    let moved = (0..others).map(|n| 256 + n);
    (0..256).filter(own).chain(moved).filter_map(char::from_u32)
}

/// A `tokenizer.json` of these tokens, two merges and three special tokens.
fn seed<const N: usize>(tokens: &[String], parts: [(&str, Value); N]) -> Value {
    let special = ["<unk>", "<s>", "</s>"];
    let merged = ["he", "ll"];
    let words = special
        .into_iter()
        .chain(tokens.iter().map(String::as_str))
        .chain(merged);
    let vocab: serde_json::Map<String, Value> = words
        .enumerate()
        .map(|(id, word)| (word.to_owned(), json!(id)))
        .collect();
    let added = special.iter().enumerate().map(|(id, content)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": [["h", "e"], ["l", "l"]]},
    });
    for (key, value) in parts {
        json[key] = value;
    }
    json
}

pub(super) fn template(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(template) = ChatTemplate::parse(source) else {
        return;
    };
    let messages = [
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "What is {{ 1 }}?"),
        Message::new(Role::Assistant, "ein\nText"),
        Message::new(Role::User, ""),
    ];
    let around = Surroundings {
        bos: "<s>".into(),
        eos: "</s>".into(),
        ..Surroundings::default()
    };
    for next in [false, true] {
        if let Ok(text) = template.render(&messages, next, &around) {
            assert!(text.len() <= ChatTemplate::MAX_OUTPUT);
        }
    }
}

pub(super) fn template_seeds() -> Vec<Vec<u8>> {
    // In the manner of Llama 3, Mistral and Qwen.
    [
        ChatTemplate::CHATML,
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]\
         {% elif m.role == 'assistant' %}{{ ' ' ~ m.content ~ eos_token }}{% else %}{{ raise_exception('no ' + m.role) }}\
         {% endif %}{% endfor %}",
        "{%- set ns = namespace(found=false) -%}{%- for m in messages[::-1] -%}{%- if not ns.found and m.role == 'user' -%}\
         {%- set ns.found = true -%}{{- m.content.split(' ')[0] | upper -}}{%- endif -%}{%- endfor -%}\
         {%- macro f(x) -%}{{ x | tojson }}{%- endmacro -%}{{- f(messages) -}}{{ strftime_now('%d %b %Y') }}",
    ]
    .map(|t| t.as_bytes().to_vec())
    .to_vec()
}

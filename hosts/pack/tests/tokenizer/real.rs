//! Any `tokenizer.json`, beside the `tokenizers` crate: exactness on 10,000 lines, and speed (a ratio above 1: ours is faster).
//!
//! ```text
//! PLEACH_TOKENIZER=folder cargo test --release -p pleach-pack --test tokenizer -- --ignored --nocapture real
//! ```
//!
//! The folder holds `tokenizer.json`; `tokenizer_config.json` beside it is left out, as `tokenizers` does not read
//! it. More folders are separated by `:`.

use super::lines::lines;
use super::*;
use std::time::{Duration, Instant};

/// Prints, for each folder, what differs and the ratio of the speeds.
#[test]
#[ignore = "needs files that are not in the repository: see the head of the module"]
fn real() {
    let folders =
        std::env::var("PLEACH_TOKENIZER").expect("PLEACH_TOKENIZER: folders with tokenizer.json");
    let mut wrong = 0;
    for folder in folders.split(':') {
        let path = Path::new(folder).join("tokenizer.json");
        let section = match pleach_pack::tokenizer_section(&path, None) {
            Ok(section) => section,
            Err(e) => {
                println!("{folder}: refused: {e}");
                wrong += 1;
                continue;
            }
        };
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        wrong += exact(folder, &mut Pair::new(&json, &section));
        speed(folder, &json, &section);
    }
    assert_eq!(wrong, 0);
}

fn exact(name: &str, pair: &mut Pair<'_>) -> usize {
    let known = |c: char| c.is_numeric() == (Class::of(c) == Class::Number);
    let mut wrong = 0;
    let lines: Vec<String> = (lines(61, 10_000).into_iter())
        .filter(|line| line.chars().all(known))
        .collect();
    for text in &lines {
        let expected = pair.theirs.encode(text.as_str(), true).unwrap();
        let options = EncodeOptions {
            added: AddedTokens::All,
            template: Template::Apply,
        };
        let found = encode(&pair.ours, text.as_bytes(), options);
        let decodes = [SpecialTokens::Keep, SpecialTokens::Skip]
            .into_iter()
            .all(|special| decode(&pair.ours, &found, special) == pair.expected(&found, special));
        if found != expected.get_ids() || !decodes {
            wrong += 1;
            if wrong <= 5 {
                println!(
                    "{name}: {text:?}\n  found    {found:?}\n  expected {:?}",
                    expected.get_ids()
                );
            }
        }
    }
    println!("{name}: {} lines, {wrong} differ", lines.len());
    wrong
}

/// English, code, and the lines of other scripts.
fn texts() -> [(&'static str, Vec<String>); 3] {
    let lines_of = |texts: &[&str]| {
        texts
            .iter()
            .flat_map(|t| t.lines())
            .map(String::from)
            .collect()
    };
    let english = [
        include_str!("../../../../README.md"),
        include_str!("../../../../ARCHITECTURE.md"),
        include_str!("../../../../core/ARITHMETIC.md"),
        include_str!("../../../../CHANGELOG.md"),
    ];
    let code = [
        include_str!("../../../../core/src/blob/format/config.rs"),
        include_str!("../../../../core/src/session/mod.rs"),
        include_str!("../../../../core/src/xlora/layer.rs"),
        include_str!("../../src/import/xlora.rs"),
    ];
    [
        ("English", lines_of(&english)),
        ("code", lines_of(&code)),
        ("other scripts", lines(62, 2000)),
    ]
}

/// Ours and theirs over the same texts, line by line; theirs begins with an empty cache.
fn speed(name: &str, json: &Value, section: &[u8]) {
    let ours = Tokenizer::parse(section).unwrap();
    let mut theirs: tokenizers::Tokenizer = json.to_string().parse().unwrap();
    for (kind, texts) in texts() {
        let bytes: usize = texts.iter().map(String::len).sum();
        let longest = texts.iter().map(String::len).max().unwrap_or(0);
        let mut scratch = vec![0; ours.scratch_for(longest)];
        let mut out = vec![0; ours.tokens_for(longest)];
        let us = best(|| {
            let start = Instant::now();
            for text in &texts {
                ours.encode(text, EncodeOptions::DEFAULT, &mut scratch, &mut out)
                    .unwrap();
            }
            start.elapsed()
        });
        let them = best(|| {
            theirs = theirs.clone();
            let start = Instant::now();
            for text in &texts {
                theirs.encode_fast(text.as_str(), false).unwrap();
            }
            start.elapsed()
        });
        let rate = |t: Duration| bytes as f64 / t.as_secs_f64() / 1e6;
        println!(
            "{name}, {kind}: {:.2} MB/s, tokenizers {:.2} MB/s: {:.2} x",
            rate(us),
            rate(them),
            them.as_secs_f64() / us.as_secs_f64()
        );
    }
}

fn best(run: impl FnMut() -> Duration) -> Duration {
    std::iter::repeat_with(run)
        .take(3)
        .min()
        .unwrap_or_default()
}

/// The same for the tokenizers that the tests make.
#[test]
#[ignore = "prints figures: run it with --release and --nocapture"]
fn speed_beside_tokenizers() {
    use super::kinds::{llama2, llama3, qwen2, smollm};
    for (name, json) in [
        ("GPT-2", intent_json()),
        ("SmolLM2", smollm()),
        ("Llama 3", llama3()),
        ("Qwen2", qwen2()),
        ("Llama 2", llama2()),
    ] {
        speed(name, &json, &import(&json, None).unwrap());
    }
}

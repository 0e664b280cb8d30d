//! The intent model's tokenizer.

use super::lines::{Random, line, lines};
use super::*;
use pleach::Error;

fn section() -> Vec<u8> {
    let base = intent().join("base");
    let config = base.join("tokenizer_config.json");
    pleach_pack::tokenizer_section(&base.join("tokenizer.json"), Some(&config)).unwrap()
}

#[test]
fn corpus() {
    let section = section();
    println!(
        "tokenizer section of the intent model: {} bytes",
        section.len()
    );
    let mut pair = Pair::new(&intent_json(), &section);
    for text in sentences() {
        pair.check(&text);
        pair.check(&format!("{text}\n"));
    }
}

#[test]
fn other_scripts() {
    let section = section();
    let mut pair = Pair::new(&intent_json(), &section);
    pair.check("");
    for text in lines(1, 2000) {
        pair.check(&text);
    }
    pair.check_random_tokens(2, 3000);
}

/// Each word boundary, for every character between a letter, a number, a space and a sign.
#[test]
fn every_character() {
    let section = section();
    let mut pair = Pair::new(&intent_json(), &section);
    let all: Vec<char> = ('\u{1}'..=char::MAX).collect();
    for few in all.chunks(512) {
        let text: String = few
            .iter()
            .flat_map(|c| ['a', *c, '1', *c, ' ', *c, '!'])
            .collect();
        let expected = pair.theirs.encode(text.as_str(), false).unwrap();
        let found = encode(&pair.ours, text.as_bytes(), EncodeOptions::DEFAULT);
        assert_eq!(found, expected.get_ids(), "from U+{:04X}", few[0] as u32);
    }
    pair.check("a");
}

#[test]
fn template_and_special_tokens() {
    let section = section();
    let tokenizer = Tokenizer::parse(&section).unwrap();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.vocab()),
        (Some(1), None, 512)
    );
    assert!((0..512).all(|id| tokenizer.is_special(id) == (id < 3)));
    assert_eq!(tokenizer.added_token("</s>"), Some(2));
    assert_eq!(tokenizer.token_bytes(512), None);
}

/// `AddedTokens::None` is a tokenizer whose list of added tokens is empty.
#[test]
fn without_added_tokens() {
    let section = section();
    let ours = Tokenizer::parse(&section).unwrap();
    let mut json = intent_json();
    json["added_tokens"] = serde_json::json!([]);
    let theirs: tokenizers::Tokenizer = json.to_string().parse().unwrap();
    let options = EncodeOptions {
        added: AddedTokens::None,
        template: Template::Omit,
    };
    for text in lines(3, 500) {
        let expected = theirs.encode(text.as_str(), false).unwrap();
        assert_eq!(
            encode(&ours, text.as_bytes(), options),
            expected.get_ids(),
            "{text:?}"
        );
    }
}

#[test]
fn invalid_bytes_come_back() {
    let section = section();
    let tokenizer = Tokenizer::parse(&section).unwrap();
    let mut random = Random(4);
    for round in 0..3000 {
        let mut text = line(&mut random).into_bytes();
        for _ in 0..1 + random.below(4) {
            let at = random.below(text.len() + 1);
            match round % 3 {
                0 => text.insert(at, random.next() as u8),
                1 => text.truncate(at),
                _ => text
                    .iter_mut()
                    .skip(at)
                    .take(2)
                    .for_each(|b| *b = random.next() as u8),
            }
        }
        let tokens = encode(&tokenizer, &text, EncodeOptions::DEFAULT);
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|t| tokenizer.token_bytes(*t).unwrap())
            .copied()
            .collect();
        assert_eq!(bytes, text);
        let lossy = String::from_utf8_lossy(&text);
        assert_eq!(decode(&tokenizer, &tokens, SpecialTokens::Keep), lossy);
    }
}

/// What the errors ask for is just enough.
#[test]
fn buffers_too_small() {
    let section = section();
    let tokenizer = Tokenizer::parse(&section).unwrap();
    for text in lines(5, 300) {
        let tokens = encode(&tokenizer, text.as_bytes(), EncodeOptions::DEFAULT);
        let (mut scratch, mut out) = (vec![], vec![]);
        let mut errors = Vec::new();
        let n = loop {
            match tokenizer.encode(&text, EncodeOptions::DEFAULT, &mut scratch, &mut out) {
                Ok(n) => break n,
                Err(Error::Shape {
                    what,
                    expected,
                    found,
                }) => {
                    let buffer = match what {
                        "tokenizer scratch" => &mut scratch,
                        "tokens" => &mut out,
                        other => panic!("{other}"),
                    };
                    assert!(buffer.len() == found as usize && expected > found);
                    buffer.resize(expected as usize, 0);
                    errors.push(what);
                }
                Err(e) => panic!("{e}"),
            }
        };
        assert!(errors.len() <= 2, "{errors:?}");
        assert_eq!((&out[..n], out.len()), (&tokens[..], n), "{text:?}");
    }
}

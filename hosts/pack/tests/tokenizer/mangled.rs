//! Sections with wrong bytes: refused, or safe to use.

use super::kinds::{llama2, llama3, mistral, qwen2, smollm};
use super::lines::Random;
use super::*;
use pleach::Error;

const TEXT: &[u8] = "Turn on  the lights <s> don't\n 42° ℃ \u{3000}größe</s>".as_bytes();

/// Uses every part of a section that was accepted. The bounds of encode and decode are counted by their
/// outputs: no more tokens than bytes (and the template's), no more text than the tokens' bytes.
fn use_all(section: &[u8]) -> bool {
    let tokenizer = match Tokenizer::parse(section) {
        Ok(t) => t,
        Err(Error::Tokenizer { why }) => {
            assert!(!why.is_empty());
            return false;
        }
        Err(other) => panic!("{other:?}"),
    };
    let mut tokens = Vec::new();
    for added in [AddedTokens::All, AddedTokens::Ordinary, AddedTokens::None] {
        let options = EncodeOptions {
            added,
            template: Template::Apply,
        };
        tokens = encode(&tokenizer, &[TEXT, b"\xff\xf0\x9f"].concat(), options);
        assert!(tokens.iter().all(|t| *t < tokenizer.vocab()));
    }
    tokens.extend([0, 1, 300, u32::MAX]);
    for special in [SpecialTokens::Keep, SpecialTokens::Skip] {
        decode(&tokenizer, &tokens, special);
    }
    tokenizer.added_token("<s>");
    true
}

/// A section with one thing wrong, or a few.
fn mangle(section: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = section.to_vec();
    for _ in 0..1 + random.below(3) {
        // Half of them in the header, where a byte matters most.
        let within = if random.below(2) == 0 {
            48
        } else {
            bytes.len()
        };
        let at = random.below(within.min(bytes.len()).max(1));
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), random.next() as u8),
            2 => {
                let value = [0, 1, 2, 0xff, 0xffff, 1 << 31, u32::MAX][random.below(7)];
                let field = bytes.iter_mut().skip(at & !3);
                field.zip(value.to_le_bytes()).for_each(|(b, v)| *b = v);
            }
            3 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|b| *b ^= 1 << random.below(8)),
            _ => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|b| *b = random.next() as u8),
        }
    }
    bytes
}

#[test]
fn wrong_bytes() {
    let mut small = intent_json();
    let merges = small["model"]["merges"].as_array_mut().unwrap();
    merges.truncate(8);
    let sections = [
        import(&intent_json(), None).unwrap(),
        import(&small, None).unwrap(),
    ];
    let mut accepted = 0;
    for seed in 0..20_000 {
        let section = &sections[seed as usize % 2];
        accepted += usize::from(use_all(&mangle(section, &mut Random(seed))));
    }
    // Wrong bytes of text, wrong but known tokens and flags of special tokens are still a tokenizer.
    assert!((1_000..15_000).contains(&accepted), "{accepted}");
}

#[test]
fn cut_short() {
    let section = import(&intent_json(), None).unwrap();
    assert!(use_all(&section));
    for n in 0..section.len() {
        assert!(!use_all(&section[..n]), "{n} bytes");
    }
    assert!(!use_all(&[&section[..], b"\0"].concat()));
}

/// Each rule of the header and tables is enforced.
#[test]
fn rules() {
    let section = import(&intent_json(), None).unwrap();
    let words = |at: usize| u32::from_le_bytes(section[at..at + 4].try_into().unwrap()) as usize;
    let (vocab, merges) = (words(8), words(12));
    let starts = 48;
    let added = starts + (vocab + 1) * 4;
    let byte_ids = added + 3 * 12;
    let pairs = byte_ids + 512;
    let merged = pairs + merges * 6;
    let cases: [(usize, &[u8], &str); 19] = [
        (0, &[2], "version"),
        (2, &[0], "model"),
        (3, &[7], "pre-tokeniser"),
        (5, &[1], "flag"),
        (6, &[3], "width"),
        (24, &[0xff; 4], "2^31"),
        (28, &[0xfe, 0xff, 0, 0], "template"),
        (32, &[0, 2, 0, 0], "template"),
        (47, &[1], "reserved"),
        (starts, &[1], "ascending from 0"),
        (starts + 8, &[0xff], "ascending from 0"),
        (starts + vocab * 4 + 3, &[0x80], "outside the text"),
        (added, &[0, 2], "added token is not"),
        (added + 4, &[0xff; 4], "outside the text"),
        (added + 8, &[0], "empty"),
        (byte_ids + 20, &[0, 2], "byte's token"),
        (pairs, &[0xfe, 0xff], "token of a merge"),
        (pairs + 4, &[0xfe, 0xff], "rank"),
        (merged, &[0xfe, 0xff], "token of a merge"),
    ];
    for (at, bytes, why) in cases {
        let mut bad = section.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        match Tokenizer::parse(&bad) {
            Err(Error::Tokenizer { why: found }) => assert!(found.contains(why), "{found}: {why}"),
            other => panic!("{why}: {other:?}"),
        }
    }
    let mut swapped = section.clone();
    swapped[pairs..pairs + 12].rotate_left(6);
    let why = Tokenizer::parse(&swapped).unwrap_err().why();
    assert!(why.contains("merges are not strictly ascending"), "{why}");
    let mut swapped = section.clone();
    swapped[added..added + 24].rotate_left(12);
    let why = Tokenizer::parse(&swapped).unwrap_err().why();
    assert!(
        why.contains("added tokens are not strictly ascending"),
        "{why}"
    );
}

/// The same for the other kinds. Their tables are larger, so most wrong bytes lie in them and are accepted.
#[test]
fn wrong_bytes_of_every_kind() {
    let mut sections = Vec::new();
    for mut json in [smollm(), llama3(), qwen2(), llama2(), mistral()] {
        sections.push(import(&json, None).unwrap());
        // And one in which a byte more often means something.
        json["model"]["merges"].as_array_mut().unwrap().truncate(8);
        sections.push(import(&json, None).unwrap());
    }
    let mut accepted = 0;
    for seed in 0..10_000 {
        let section = &sections[seed as usize % sections.len()];
        accepted += usize::from(use_all(&mangle(section, &mut Random(seed))));
    }
    assert!((500..9_000).contains(&accepted), "{accepted}");
}

/// Each rule that the other kinds add.
#[test]
fn rules_of_every_kind() {
    let (llama3, llama2, qwen2) = [llama3(), llama2(), qwen2()]
        .map(|j| import(&j, None).unwrap())
        .into();
    let word = |s: &[u8], at: usize| u32::from_le_bytes(s[at..at + 4].try_into().unwrap()) as usize;
    let index = |s: &[u8]| s.len() - word(s, 24) - word(s, 36) * 2;
    let vocab = |s: &[u8]| word(s, 8) as u16;
    let cases: [(&[u8], usize, &[u8], &str); 14] = [
        (
            &llama3,
            2,
            &[2],
            "SentencePiece with a part of byte-level BPE",
        ),
        (
            &llama3,
            3,
            &[5],
            "byte-level BPE with a part of SentencePiece",
        ),
        (
            &llama3,
            4,
            &[1 << 3],
            "byte-level BPE with a part of SentencePiece",
        ),
        (
            &llama3,
            4,
            &[1],
            "a prefix that does not go with the pre-tokeniser",
        ),
        (
            &llama3,
            40,
            &[2],
            "byte-level BPE with a part of SentencePiece",
        ),
        (
            &llama3,
            40,
            &[3],
            "a normaliser that this build does not know",
        ),
        (&llama3, 41, &[1], "reserved"),
        (&llama3, 36, &[0, 0], "add up"),
        (
            &llama3,
            index(&llama3),
            &vocab(&llama3).to_le_bytes(),
            "a token of the index is not in the vocabulary",
        ),
        (
            &qwen2,
            2,
            &[2],
            "SentencePiece with a part of byte-level BPE",
        ),
        (
            &llama2,
            4,
            &[2],
            "a prefix that does not go with the normaliser",
        ),
        (
            &llama2,
            40,
            &[0],
            "a prefix that does not go with the normaliser",
        ),
        (&llama2, 4, &[5], "more than one kind of prefix"),
        (&llama2, 2, &[3], "a model that this build does not know"),
    ];
    for (section, at, bytes, why) in cases {
        let mut bad = section.to_vec();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let found = Tokenizer::parse(&bad).map(|_| ()).expect_err(why).why();
        assert!(found.contains(why), "{found}: {why}");
    }
    let mut swapped = llama3.clone();
    let at = index(&llama3);
    swapped[at..at + 4].rotate_left(2);
    let why = Tokenizer::parse(&swapped).unwrap_err().why();
    assert!(why.contains("index is not strictly ascending"), "{why}");
    // Without the token of the space.
    let at = index(&llama2);
    let space = (0..word(&llama2, 36)).find(|i| {
        let id = u16::from_le_bytes(llama2[at + i * 2..][..2].try_into().unwrap());
        Tokenizer::parse(&llama2).unwrap().token_bytes(id.into()) == Some(b" ")
    });
    let mut without = [
        &llama2[..at + space.unwrap() * 2],
        &llama2[at + space.unwrap() * 2 + 2..],
    ]
    .concat();
    let rows = word(&llama2, 36) as u32 - 1;
    without[36..40].copy_from_slice(&rows.to_le_bytes());
    let why = Tokenizer::parse(&without).unwrap_err().why();
    assert!(why.contains("no token for a space"), "{why}");
}

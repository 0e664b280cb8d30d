//! Sections with wrong bytes: refused, or safe to use.

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

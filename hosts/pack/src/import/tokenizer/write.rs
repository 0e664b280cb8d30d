//! The section's bytes; `pleach::tokenizer` describes them.

use super::super::json::Json;
use super::Source;
use super::vocabulary::alphabet;
use crate::error::Result;
use pleach::tokenizer::Tokenizer;
use pleach::tokenizer::format::{
    ADD_PREFIX_SPACE, Header, MODEL_BYTE_BPE, NO_TOKEN, SPECIAL, VERSION,
};
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn write(json: &Json, source: &Source) -> Result<Vec<u8>> {
    let vocabulary = &source.vocabulary;
    let spellings = spellings(source);
    let vocab = spellings.keys().next_back().map_or(0, |id| id + 1);
    let merges = &vocabulary.merges;
    let narrow = vocab <= 0xffff && merges.len() <= 0xffff;
    let id = |out: &mut Vec<u8>, id: u32| {
        let bytes = id.to_le_bytes();
        out.extend_from_slice(if narrow { &bytes[..2] } else { &bytes });
    };

    let special: HashSet<&str> = (vocabulary.added.values())
        .filter(|a| a.special)
        .map(|a| a.content.as_str())
        .collect();
    let bytes_of = decoder();
    let mut text = Vec::new();
    let mut places = BTreeMap::new();
    let mut starts: Vec<u32> = Vec::new();
    for token in 0..vocab {
        let start = text.len() as u32;
        let spelling = spellings.get(&token).copied().unwrap_or_default();
        text.extend(decode(&bytes_of, spelling));
        places.insert(token, (start, text.len() as u32 - start));
        let flag = if special.contains(spelling) {
            SPECIAL
        } else {
            0
        };
        starts.push(start | flag);
    }
    starts.push(text.len() as u32);

    let mut groups = [Vec::new(), Vec::new()];
    for (token, added) in &vocabulary.added {
        let content = added.content.as_bytes();
        let mut place = places[token];
        if text[place.0 as usize..][..place.1 as usize] != *content {
            place = (text.len() as u32, content.len() as u32);
            text.extend(content);
        }
        groups[usize::from(added.normalized)].push((content, *token, place));
    }
    groups.iter_mut().for_each(|g| g.sort());

    let header = Header {
        version: VERSION,
        model: MODEL_BYTE_BPE,
        pre_tokenizer: source.pre_tokenizer as u8,
        flags: if source.add_prefix_space {
            ADD_PREFIX_SPACE
        } else {
            0
        },
        width: if narrow { 2 } else { 4 },
        vocab,
        merges: merges.len() as u32,
        added_first: groups[0].len() as u32,
        added_second: groups[1].len() as u32,
        text: text.len() as u32,
        bos: source.bos.unwrap_or(NO_TOKEN),
        eos: source.eos.unwrap_or(NO_TOKEN),
    };
    let mut out = header.encode().to_vec();
    starts.iter().for_each(|s| out.extend(s.to_le_bytes()));
    for (_, token, (start, length)) in groups.iter().flatten() {
        for n in [*token, *start, *length] {
            out.extend(n.to_le_bytes());
        }
    }
    for c in alphabet() {
        let token = vocabulary.tokens.get(c.to_string().as_str());
        id(&mut out, token.copied().unwrap_or(NO_TOKEN));
    }
    let by_place: BTreeMap<usize, u32> = merges.values().copied().collect();
    let ranks: HashMap<usize, u32> = by_place.keys().copied().zip(0..).collect();
    for ((left, right), (place, _)) in merges {
        for n in [*left, *right, ranks[place]] {
            id(&mut out, n);
        }
    }
    by_place.values().for_each(|token| id(&mut out, *token));
    out.extend(text);
    match Tokenizer::parse(&out) {
        Ok(_) => Ok(out),
        Err(e) => Err(json
            .refuse(
                format!("does not make a tokenizer: {}", e.why()),
                "save the tokenizer again",
            )
            .with_source(e)),
    }
}

/// What `tokenizers` writes for each token: an added token's content, else the model's spelling.
fn spellings(source: &Source) -> BTreeMap<u32, &str> {
    let model = source.vocabulary.tokens.iter();
    let mut all: BTreeMap<u32, &str> = model.map(|(t, id)| (*id, t.as_str())).collect();
    let added = source.vocabulary.added.iter();
    all.extend(added.map(|(id, a)| (*id, a.content.as_str())));
    all
}

fn decoder() -> HashMap<char, u8> {
    alphabet().into_iter().zip(0..=255).collect()
}

/// The bytes that the ByteLevel decoder makes of a token: each character's byte, or, if one has none,
/// the token as it is.
fn decode(bytes_of: &HashMap<char, u8>, spelling: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = spelling
        .chars()
        .map(|c| bytes_of.get(&c).copied())
        .collect();
    bytes.unwrap_or_else(|| spelling.into())
}

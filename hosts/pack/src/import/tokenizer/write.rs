//! The section's bytes; `pleach::tokenizer` describes them.

use super::alphabet::{bytes_of, letters};
use super::merges;
use super::source::{AddedToken, Model, Prefix, Source, TokenKind};
use crate::error::{PackError, Result};
use pleach::tokenizer::format::{
    ADD_PREFIX_SPACE, Header, IGNORE_MERGES, LSTRIP, MODEL_BYTE_BPE, MODEL_CHAR_BPE, NO_TOKEN,
    PREFIX_EVERY, PREFIX_FIRST, RSTRIP, SPECIAL, STRIP_SPACE, VERSION,
};
use pleach::tokenizer::{Normalizer, Tokenizer, nfc};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Most tokens. The bound keeps a stray number from asking for a table of 2^32 rows.
pub(super) const MOST_TOKENS: usize = 1 << 24;

/// The tokenizer section of a source. The same source gives the same bytes.
///
/// Errors: a source that contradicts itself (a merge or added token outside the vocabulary, a spelling
/// that two tokens have, some but not all bytes of SentencePiece's byte fallback), naming the file.
pub fn section_of(source: &Source) -> Result<Vec<u8>> {
    if source.tokens.len() > MOST_TOKENS {
        return Err(refuse(source, format!("{} tokens", source.tokens.len())));
    }
    let vocabulary = Vocabulary::of(source)?;
    let merges = merges::ranked(source, &vocabulary)?;
    let bytes = byte_tokens(source, &vocabulary)?;
    let text = Text::of(source)?;
    let index = index(source, &text);

    let vocab = source.tokens.len() as u32;
    let narrow = vocab <= 0xffff && merges.len() <= 0xffff;
    let [first, second] = &text.groups;
    let header = Header {
        version: VERSION,
        model: match source.model {
            Model::ByteLevel { .. } => MODEL_BYTE_BPE,
            Model::SentencePiece { .. } => MODEL_CHAR_BPE,
        },
        pre_tokenizer: source.pre_tokenizer as u8,
        flags: flags(source),
        width: if narrow { 2 } else { 4 },
        vocab,
        merges: merges.len() as u32,
        added_first: first.len() as u32,
        added_second: second.len() as u32,
        text: text.bytes.len() as u32,
        bos: source.bos.unwrap_or(NO_TOKEN),
        eos: source.eos.unwrap_or(NO_TOKEN),
        index: index.len() as u32,
        normalizer: source.normalizer as u8,
    };
    let mut out = header.encode().to_vec();
    let id = |out: &mut Vec<u8>, id: u32| {
        let bytes = id.to_le_bytes();
        out.extend_from_slice(if narrow { &bytes[..2] } else { &bytes });
    };
    text.starts.iter().for_each(|s| out.extend(s.to_le_bytes()));
    for row in first.iter().chain(second) {
        for n in [row.token, row.start, row.length] {
            out.extend(n.to_le_bytes());
        }
    }
    for token in bytes {
        id(&mut out, token.unwrap_or(NO_TOKEN));
    }
    let sorted: BTreeMap<(u32, u32), u32> = (0..)
        .zip(&merges)
        .map(|(rank, m)| ((m.left, m.right), rank))
        .collect();
    for ((left, right), rank) in sorted {
        for n in [left, right, rank] {
            id(&mut out, n);
        }
    }
    merges.iter().for_each(|m| id(&mut out, m.merged));
    index.iter().for_each(|token| id(&mut out, *token));
    out.extend(text.bytes);
    match Tokenizer::parse(&out) {
        Ok(_) => Ok(out),
        Err(e) => {
            Err(refuse(source, format!("does not make a tokenizer: {}", e.why())).with_source(e))
        }
    }
}

pub(super) fn refuse(source: &Source, what: impl std::fmt::Display) -> PackError {
    PackError::refused(
        format!("{}: {what}", source.name),
        "save or convert the tokenizer again, or pack without it",
    )
}

/// The model's tokens by spelling.
pub(super) struct Vocabulary<'s>(HashMap<&'s str, u32>);

impl<'s> Vocabulary<'s> {
    fn of(source: &'s Source) -> Result<Self> {
        let mut tokens = HashMap::new();
        for (id, token) in (0..).zip(&source.tokens) {
            if token.kind != TokenKind::Model || token.spelling.is_empty() {
                continue;
            }
            if let Some(other) = tokens.insert(token.spelling.as_str(), id) {
                let what = format!("tokens {other} and {id} are both {:?}", token.spelling);
                return Err(refuse(source, what));
            }
        }
        Ok(Self(tokens))
    }

    pub(super) fn get(&self, spelling: &str) -> Option<u32> {
        self.0.get(spelling).copied()
    }
}

fn ignores_merges(source: &Source) -> bool {
    match source.model {
        Model::ByteLevel { ignore_merges } | Model::SentencePiece { ignore_merges } => {
            ignore_merges
        }
    }
}

fn flags(source: &Source) -> u16 {
    let ignore = ignores_merges(source);
    let prefix = match source.prefix {
        Prefix::Never => 0,
        Prefix::Missing => ADD_PREFIX_SPACE,
        Prefix::First => PREFIX_FIRST,
        Prefix::Every => PREFIX_EVERY,
    };
    let when = |flag: u16, on: bool| if on { flag } else { 0 };
    prefix | when(STRIP_SPACE, source.strip) | when(IGNORE_MERGES, ignore)
}

/// The token of each byte.
fn byte_tokens(source: &Source, vocabulary: &Vocabulary<'_>) -> Result<Vec<Option<u32>>> {
    if let Model::ByteLevel { .. } = source.model {
        let letters = letters().map(|c| vocabulary.get(c.to_string().as_str()));
        return Ok(letters.into());
    }
    let bytes = (0..=255u8).map(|b| vocabulary.get(&format!("<0x{b:02X}>")));
    let bytes: Vec<Option<u32>> = bytes.collect();
    match bytes.iter().position(Option::is_none) {
        Some(byte) => Err(refuse(
            source,
            format!("byte fallback without a token for byte 0x{byte:02X}"),
        )),
        None => Ok(bytes),
    }
}

/// A row of the added tokens.
struct Row {
    token: u32,
    start: u32,
    length: u32,
}

/// The bytes of tokens and added tokens, and where they are.
struct Text {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    groups: [Vec<Row>; 2],
}

impl Text {
    fn of(source: &Source) -> Result<Self> {
        let special: HashSet<&str> = (source.added.iter())
            .filter(|a| a.special)
            .map(|a| a.content.as_str())
            .collect();
        let bytes_of = bytes_of();
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for token in &source.tokens {
            let flag = match special.contains(token.spelling.as_str()) {
                true => SPECIAL,
                false => 0,
            };
            starts.push(bytes.len() as u32 | flag);
            bytes.extend(decoded(source, &bytes_of, &token.spelling));
        }
        starts.push(bytes.len() as u32);
        let mut text = Self {
            bytes,
            starts,
            groups: [vec![], vec![]],
        };
        let mut rows = Vec::new();
        for a in &source.added {
            rows.push((content(source, a)?, a));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        for (content, a) in rows {
            let (start, length) = text.place(a.token, content.as_bytes());
            let when = |flag: u32, on: bool| if on { flag } else { 0 };
            text.groups[usize::from(a.normalized)].push(Row {
                token: a.token,
                start,
                length: length | when(LSTRIP, a.lstrip) | when(RSTRIP, a.rstrip),
            });
        }
        if text.bytes.len() >= RSTRIP as usize {
            return Err(refuse(source, "its tokens are too long"));
        }
        Ok(text)
    }

    fn token(&self, id: u32) -> &[u8] {
        let range = self.starts.get(id as usize..).unwrap_or(&[]);
        match range {
            [start, end, ..] => &self.bytes[(start & !SPECIAL) as usize..(end & !SPECIAL) as usize],
            _ => &[],
        }
    }

    /// Where a content lies: where its token does, if they are the same bytes.
    fn place(&mut self, token: u32, content: &[u8]) -> (u32, u32) {
        let length = content.len() as u32;
        if self.token(token) == content {
            return (self.starts[token as usize] & !SPECIAL, length);
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend(content);
        (start, length)
    }
}

/// What is looked for in the text.
fn content(source: &Source, added: &AddedToken) -> Result<String> {
    let content = &added.content;
    match source.normalizer {
        Normalizer::Spaces if added.normalized => {
            let prefix = match source.prefix {
                Prefix::Never => "",
                _ => " ",
            };
            Ok(format!("{prefix}{}", content.replace('▁', " ")))
        }
        Normalizer::Nfc if added.normalized => {
            let mut normal = vec![0; 3 * content.len()];
            let len = nfc(content.as_bytes(), &mut normal).unwrap_or(0);
            normal.truncate(len);
            String::from_utf8(normal).map_err(|e| refuse(source, e))
        }
        _ => Ok(content.clone()),
    }
}

/// The bytes that the decoder makes of a token.
fn decoded(source: &Source, bytes_of: &HashMap<char, u8>, spelling: &str) -> Vec<u8> {
    match source.model {
        // Each character's byte, or, if one has none, the token as it is.
        Model::ByteLevel { .. } => {
            let bytes = spelling.chars().map(|c| bytes_of.get(&c).copied());
            let bytes: Option<Vec<u8>> = bytes.collect();
            bytes.unwrap_or_else(|| spelling.into())
        }
        Model::SentencePiece { .. } => match byte(spelling) {
            Some(b) => vec![b],
            None => spelling.replace('▁', " ").into(),
        },
    }
}

/// The byte that `<0x0A>` stands for.
fn byte(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    let two = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    two.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The tokens that a word or a character is looked up among, ascending by bytes.
fn index(source: &Source, text: &Text) -> Vec<u32> {
    let chars = matches!(source.model, Model::SentencePiece { .. });
    let words = ignores_merges(source);
    if !chars && !words {
        return vec![];
    }
    let bytes_of = bytes_of();
    let listed = |spelling: &str| match chars {
        // A space is always spelled `▁`, a byte is not looked up.
        true => {
            (words || spelling.chars().nth(1).is_none())
                && !spelling.contains(' ')
                && byte(spelling).is_none()
        }
        false => spelling.chars().all(|c| bytes_of.contains_key(&c)),
    };
    let tokens = source.tokens.iter().zip(0..).filter(|(token, id)| {
        token.kind == TokenKind::Model && listed(&token.spelling) && !text.token(*id).is_empty()
    });
    let mut index: Vec<u32> = tokens.map(|(_, id)| id).collect();
    index.sort_by_key(|id| text.token(*id));
    index.dedup_by_key(|id| text.token(*id).to_vec());
    index
}

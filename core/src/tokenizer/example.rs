//! A tiny tokenizer for examples and tests, built at compile time.
//!
//! | token | bytes |
//! |---|---|
//! | 0, 1 | `<s>` (BOS, special), `</s>` (special) |
//! | 2..258 | the byte `token - 2` |
//! | 258..263 | `ll`, `he`, `hell`, `hello`, ` hello`: merged in this order of rank |

use super::format::{
    ADDED_BYTES, HEADER_BYTES, Header, MODEL_BYTE_BPE, NO_TOKEN, PreTokenizer, SPECIAL, VERSION,
};

const VOCAB: usize = 263;
const TAIL: &[u8] = b"llhehellhello hello";
/// Where the words of [`TAIL`] end.
const ENDS: [u32; 5] = [2, 4, 8, 13, 19];
/// (left, right, rank), ascending; the ranks follow the tokens 258..263.
const MERGES: [[u16; 3]; 5] = [
    [byte(b' '), 261, 4],
    [byte(b'h'), byte(b'e'), 1],
    [byte(b'l'), byte(b'l'), 0],
    [259, 258, 2],
    [260, byte(b'o'), 3],
];
const TEXT: usize = 7 + 256 + TAIL.len();
const BYTES: usize =
    HEADER_BYTES + (VOCAB + 1) * 4 + 2 * ADDED_BYTES + 256 * 2 + MERGES.len() * 8 + TEXT;

/// The section's bytes.
pub static SECTION: [u8; BYTES] = build();

const fn byte(b: u8) -> u16 {
    2 + b as u16
}

/// Appends to `section`, which is long enough: evaluated at compile time only.
struct Writer {
    section: [u8; BYTES],
    at: usize,
}

impl Writer {
    const fn put(&mut self, bytes: &[u8]) {
        let (_, rest) = self.section.split_at_mut(self.at);
        let (field, _) = rest.split_at_mut(bytes.len());
        field.copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

const fn build() -> [u8; BYTES] {
    let mut w = Writer {
        section: [0; BYTES],
        at: 0,
    };
    let header = Header {
        version: VERSION,
        model: MODEL_BYTE_BPE,
        pre_tokenizer: PreTokenizer::Gpt2 as u8,
        flags: 0,
        width: 2,
        vocab: VOCAB as u32,
        merges: MERGES.len() as u32,
        added_first: 2,
        added_second: 0,
        text: TEXT as u32,
        bos: 0,
        eos: NO_TOKEN,
        index: 0,
        normalizer: 0,
    };
    w.put(&header.encode());
    w.put(&SPECIAL.to_le_bytes());
    w.put(&(SPECIAL | 3).to_le_bytes());
    let mut start = 7u32;
    while start <= 7 + 256 {
        w.put(&start.to_le_bytes());
        start += 1;
    }
    let mut ends: &[u32] = &ENDS;
    while let Some((end, rest)) = ends.split_first() {
        w.put(&(7 + 256 + *end).to_le_bytes());
        ends = rest;
    }
    let mut added: &[[u32; 3]] = &[[1, 3, 4], [0, 0, 3]]; // "</s>" sorts before "<s>"
    while let Some(([id, start, len], rest)) = added.split_first() {
        w.put(&id.to_le_bytes());
        w.put(&start.to_le_bytes());
        w.put(&len.to_le_bytes());
        added = rest;
    }
    let mut b = 0;
    while b < 256 {
        w.put(&byte(b as u8).to_le_bytes());
        b += 1u16;
    }
    let mut merges: &[[u16; 3]] = &MERGES;
    while let Some(([left, right, rank], rest)) = merges.split_first() {
        w.put(&left.to_le_bytes());
        w.put(&right.to_le_bytes());
        w.put(&rank.to_le_bytes());
        merges = rest;
    }
    let mut token = 258u16;
    while token < VOCAB as u16 {
        w.put(&token.to_le_bytes());
        token += 1;
    }
    w.put(b"<s></s>");
    let mut b = 0;
    while b < 256 {
        w.put(&[b as u8]);
        b += 1u16;
    }
    w.put(TAIL);
    w.section
}

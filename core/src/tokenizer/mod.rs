//! The tokenizer of a blob: BPE, read where it lies, without a heap.
//!
//! [`Tokenizer::parse`] checks a section once, in const; [`Tokenizer::encode`] turns text into tokens in
//! buffers of the caller; [`Decoder`] turns tokens into text, token by token, and never splits a
//! character. Both give the answers of the `tokenizers` crate for the same `tokenizer.json`, but for the one thing said below.
//!
//! | kind | models | symbols begin as | words |
//! |---|---|---|---|
//! | byte-level | GPT-2, SmolLM, Llama 3, SmolLM3, Qwen2 and 3 | bytes | [`PreTokenizer::Gpt2`], `Digits`, `Llama3`, `Qwen2` |
//! | SentencePiece | Llama 2, TinyLlama, Mistral | characters, or their bytes where they have no token | [`PreTokenizer::Whole`], `Spaces` |
//!
//! All but GPT-2's kind need the feature `tokenizer-full`, which is on by default; without it they are refused
//! when they are parsed, and their tables are not linked.
//!
//! ```
//! use pleach::tokenizer::{Decoder, EncodeOptions, SpecialTokens, Tokenizer, example};
//!
//! const TOKENIZER: Tokenizer<'static> = match Tokenizer::parse(&example::SECTION) {
//!     Ok(t) => t,
//!     Err(e) => panic!("{}", e.why()),
//! };
//! let (mut scratch, mut tokens) = ([0; Tokenizer::scratch_len(16)], [0; 32]);
//! let n = TOKENIZER.encode("hello, hello!", EncodeOptions::DEFAULT, &mut scratch, &mut tokens)?;
//!
//! let mut decoder = Decoder::new(TOKENIZER, SpecialTokens::Keep);
//! let mut text = String::new();
//! for &token in &tokens[..n] {
//!     text.extend(decoder.push(token));
//! }
//! text.extend(decoder.finish());
//! assert_eq!(text, "hello, hello!");
//! # Ok::<(), pleach::Error>(())
//! ```
//!
//! # The section, version 1
//!
//! Little-endian; the tables follow the [`format::Header`] without gaps in this order, and their lengths
//! add up to the section's. *id* is a `u16` or a `u32`, as the header's `width` says; "no token" is all
//! ones. `V`, `M`, `A` = `A1` + `A2`, `I`, `T`: the header's counts.
//!
//! | table | type | rule |
//! |---|---|---|
//! | header | [`format::HEADER_BYTES`] bytes | see [`format::Header`] |
//! | token starts | u32 x (V + 1) | Bits 0..31: where the token's bytes start in the text; they end where the next token's start. The first is 0, none is below the one before, the last is at most T. An empty range: the vocabulary has no such token. Bit 31: the token is special (0 in the last entry). |
//! | added tokens | (u32 token, u32 start, u32 length) x A | What is matched in the text before pre-tokenisation; start and length (bits 0..30) within the text, length 1 to 256, token < V; bit 31 of the length: white space before it belongs to it, bit 30: white space after it. Rows 0..A1 are looked for in the whole text first, rows A1..A in what is left between them; each group strictly ascending by content, bytewise, and its contents together at most T bytes. |
//! | byte tokens | id x 256 | The token of each byte (SentencePiece: of a byte whose character has no token), < V; a byte without one is dropped, as `tokenizers` does. |
//! | merges | (id left, id right, id rank) x M | Strictly ascending by (left, right); left and right < V, rank < M. |
//! | merged | id x M | By rank: the token that the pair becomes, < V. |
//! | index | id x I | Tokens, < V, strictly ascending by their bytes: what words are looked up among before they are merged ([`format::IGNORE_MERGES`]), and SentencePiece's characters, the space among them. |
//! | text | T bytes | The tokens' bytes (what decoding gives, not GPT-2's printable alphabet; a space for `▁`), then the contents of added tokens that differ from their token's bytes. |
//!
//! # Encoding
//!
//! 1. The first group of added tokens is found, leftmost and then longest first.
//! 2. Each remaining piece is normalised: left as it is, brought into NFC ([`nfc`]), or, for SentencePiece, given a
//!    space, with `▁` from there on another way to write one.
//! 3. The second group of added tokens is found in it.
//! 4. Each remaining piece, with a space before it if the header's flags say so and it does not begin with one,
//!    is cut into words by the [`PreTokenizer`].
//! 5. A word that is a token is that token, if the flags say so.
//! 6. Else the pair of lowest rank, and of those the leftmost, is merged until none is left.
//!
//! Bytes that are not UTF-8 ([`Tokenizer::encode_bytes`]) are classed like U+FFFD and encoded as they are.
//!
//! The work is bounded for any text. A word of n bytes is a list of at most n symbols and a heap of pairs, both in
//! the caller's scratch: at most 3 n heap entries and 6 n pair look-ups, so O(n (log n + log M)), also where a
//! megabyte is one word. Words are found in O(n), NFC takes at most two passes over a run of marks for each of its
//! combining classes (54 at most), and searching added tokens costs at most the longest content, 256 bytes, times O(log A) per byte.
//!
//! # Decoding
//!
//! SentencePiece's bytes make characters only with each other, each byte that does not is U+FFFD, and one space
//! at the start of the text is dropped if the flags say so. This is what `tokenizers` does but for one thing: a run
//! of such bytes that is UTF-8 only in part becomes U+FFFD in that part; there, in all of it, since it does not stream.

mod added;
mod bpe;
mod decode;
mod encode;
pub mod example;
pub mod format;
mod nfc;
mod nfc_tables;
mod section;
mod span;
mod tables;
mod unicode;
mod words;

pub use decode::{Decoder, Text};
pub use encode::{AddedTokens, EncodeOptions, Template};
pub use format::{Normalizer, PreTokenizer};
pub use nfc::{NFC_UNICODE_VERSION, nfc};
pub use section::Tokenizer;
pub use unicode::{Class, UNICODE_VERSION};

/// Whether this build has more than GPT-2's kind; what it lacks, `parse` refuses.
const FULL: bool = cfg!(feature = "tokenizer-full");

/// Whether decoding keeps or skips special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Their content is part of the text.
    Keep,
    /// They leave no trace (`skip_special_tokens`).
    Skip,
}

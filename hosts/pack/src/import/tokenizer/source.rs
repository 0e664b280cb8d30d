//! A tokenizer without its file format: what `tokenizer.json` and GGUF metadata are both read into.

use pleach::tokenizer::{Normalizer, PreTokenizer};

/// All that a tokenizer section holds, by name; [`section_of`](super::section_of) writes the section.
///
/// Spellings are those of both file formats. Byte-level BPE ([`Model::ByteLevel`]): GPT-2's printable
/// alphabet, `Ġthe`. SentencePiece ([`Model::SentencePiece`]): `▁the`, and `<0x0A>` for a byte.
///
/// ```
/// use pleach::tokenizer::{Normalizer, PreTokenizer, Tokenizer};
/// use pleach_pack::tokenizer::{Merges, Model, Prefix, Source, Token, section_of};
///
/// let source = Source {
///     name: "example".into(),
///     model: Model::ByteLevel { ignore_merges: false },
///     tokens: ["a", "b", "ab"].map(Token::model).into(),
///     merges: Merges::Listed(vec![("a".into(), "b".into())]),
///     added: vec![],
///     normalizer: Normalizer::None,
///     pre_tokenizer: PreTokenizer::Gpt2,
///     prefix: Prefix::Never,
///     strip: false,
///     bos: None,
///     eos: None,
/// };
/// let section = section_of(&source)?;
/// assert_eq!(Tokenizer::parse(&section)?.token_bytes(2), Some(&b"ab"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The file, for messages.
    pub name: String,
    /// How symbols begin and how bytes without a token are spelled.
    pub model: Model,
    /// The tokens by number. An empty spelling: no token has this number.
    pub tokens: Vec<Token>,
    /// What merges, and in which order.
    pub merges: Merges,
    /// What is matched in the text as a whole, in any order. Each has a row in `tokens`, of either kind.
    pub added: Vec<AddedToken>,
    /// What happens to a text first.
    pub normalizer: Normalizer,
    /// How a text is cut into words.
    pub pre_tokenizer: PreTokenizer,
    /// Which pieces of text get a space before them.
    pub prefix: Prefix,
    /// Decoding drops one space at the start of the text (the decoder's `Strip`).
    pub strip: bool,
    /// The token that the template puts before a text. `None` if it adds none, even if the model has a BOS.
    pub bos: Option<u32>,
    /// The token that the template puts after a text.
    pub eos: Option<u32>,
}

/// The kind of BPE.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// Symbols begin as bytes (GPT-2, Llama 3, Qwen, SmolLM). Bytes without a token are dropped.
    ByteLevel {
        /// A word that is a token is that token, whatever the merges say (Llama 3).
        ignore_merges: bool,
    },
    /// Symbols begin as characters, spaces are `▁` (Llama 2, TinyLlama, Mistral). A character without a
    /// token becomes the tokens of its bytes: all 256 `<0x..>` must be there.
    SentencePiece {
        /// As in `ByteLevel`.
        ignore_merges: bool,
    },
}

/// A token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token {
    /// As the file spells it.
    pub spelling: String,
    /// Whether the model makes it.
    pub kind: TokenKind,
}

impl Token {
    /// A token that the model makes.
    pub fn model(spelling: &str) -> Self {
        Self {
            spelling: spelling.into(),
            kind: TokenKind::Model,
        }
    }
}

/// Whether the model knows a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenKind {
    /// In the model's vocabulary: merges and words may give it. `<0x0A>` of SentencePiece is one of these.
    #[default]
    Model,
    /// Only an added token: nothing but a match in the text gives it.
    Added,
}

/// Merges.
#[derive(Clone, Debug, PartialEq)]
pub enum Merges {
    /// Pairs of spellings, first the ones that merge first. Of a pair that is listed twice the last counts.
    Listed(Vec<(String, String)>),
    /// A score per token, as `tokenizer.ggml.scores`: any two tokens whose spellings together are a token
    /// merge, by falling score of the result, then by falling score of the left and of the right part, then
    /// by number of the result. This is what `transformers` makes of a SentencePiece model, and, for Llama 2's
    /// vocabulary, the list in its `tokenizer.json`.
    Scores(Vec<f32>),
}

/// A token that is matched in the text before all else, leftmost and then longest first.
#[derive(Clone, Debug, PartialEq)]
pub struct AddedToken {
    /// Its number.
    pub token: u32,
    /// What is matched.
    pub content: String,
    /// Skipped by `SpecialTokens::Skip`, not matched with `AddedTokens::Ordinary`.
    pub special: bool,
    /// Matched in the normalised text, after all that are not.
    pub normalized: bool,
    /// White space before it belongs to it.
    pub lstrip: bool,
    /// White space after it belongs to it.
    pub rstrip: bool,
}

/// Which pieces of text (what is left between added tokens) get a space before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// None.
    Never,
    /// Those that do not begin with one (`add_prefix_space`, Metaspace's `always`).
    Missing,
    /// Only one at the very start of the text that does not begin with one (Metaspace's `first`).
    First,
    /// All that are not empty (the normalizer `Prepend`; GGUF's `add_space_prefix`).
    Every,
}

//! The tokenizer in the metadata of a GGUF file.

use super::merges::LONGEST;
use super::source::{AddedToken, Merges, Model, Prefix, Source, Token, TokenKind};
use crate::error::{PackError, Result};
use pleach::tokenizer::{Normalizer, PreTokenizer};
use std::collections::{HashMap, HashSet};

/// The keys `tokenizer.ggml.*` as they are in the file; a field is a key.
///
/// The reader of the file checks types and fills this; [`source`](Self::source) checks everything else.
/// Missing keys are `None`, a missing `merges` or `scores` is empty.
///
/// ```no_run
/// use pleach_pack::tokenizer::{Gguf, section_of};
/// let metadata = Gguf {
///     file: "model.gguf".into(),
///     model: "gpt2".into(),
///     pre: Some("smollm".into()),
///     tokens: vec![/* tokenizer.ggml.tokens */],
///     token_type: vec![/* tokenizer.ggml.token_type */],
///     merges: vec![/* tokenizer.ggml.merges: "Ġ t" */],
///     bos_token_id: Some(1),
///     ..Gguf::default()
/// };
/// let section = section_of(&metadata.source()?)?;
/// # Ok::<(), pleach_pack::PackError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gguf {
    /// The file, for messages.
    pub file: String,
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: String,
    /// `tokenizer.ggml.pre`: how `gpt2` cuts text, see [`source`](Self::source).
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    /// Empty: all normal but BOS, EOS and the unknown token.
    pub token_type: Vec<i32>,
    /// `tokenizer.ggml.merges`: two spellings with a space between them.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.scores`: what `llama` merges by if there are no merges.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos_token_id: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos_token_id: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown_token_id: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`. Missing: true for `llama` and for the pre-tokenizers of Llama 3.
    pub add_bos_token: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`. Missing: false.
    pub add_eos_token: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`. Missing: true for `llama`; no meaning for `gpt2`.
    pub add_space_prefix: Option<bool>,
}

/// (names of `tokenizer.ggml.pre`, pre-tokenizer, normaliser, whether words that are tokens skip the merges,
/// whether BOS is added where the file does not say).
type Pre = (
    &'static [&'static str],
    PreTokenizer,
    Normalizer,
    bool,
    bool,
);

const PRES: [Pre; 5] = [
    (
        &["gpt-2", "phi-2"],
        PreTokenizer::Gpt2,
        Normalizer::None,
        false,
        false,
    ),
    (
        &["smollm", "starcoder", "refact"],
        PreTokenizer::Digits,
        Normalizer::None,
        false,
        false,
    ),
    (
        &["llama-bpe", "llama3", "llama-v3"],
        PreTokenizer::Llama3,
        Normalizer::None,
        true,
        true,
    ),
    // Llama 3's without BOS: Smaug, SmolLM3.
    (
        &["smaug-bpe"],
        PreTokenizer::Llama3,
        Normalizer::None,
        true,
        false,
    ),
    (
        &["qwen2", "deepseek-r1-qwen"],
        PreTokenizer::Qwen2,
        Normalizer::Nfc,
        false,
        false,
    ),
];

impl Gguf {
    /// The tokenizer that the keys describe.
    ///
    /// | model | pre | becomes |
    /// |---|---|---|
    /// | `gpt2` | `gpt-2`, `phi-2` | GPT-2's pre-tokenizer |
    /// | `gpt2` | `smollm`, `starcoder`, `refact` | each digit a word, then GPT-2's |
    /// | `gpt2` | `llama-bpe`, `llama3`, `llama-v3`, `smaug-bpe` | Llama 3's, words that are tokens are not merged |
    /// | `gpt2` | `qwen2`, `deepseek-r1-qwen` | Qwen2's, after NFC (as `transformers` does; llama.cpp leaves NFC out) |
    /// | `llama` | any | SentencePiece: a space before each piece (`add_space_prefix`), byte fallback, merges from the scores |
    ///
    /// Control, user-defined and unknown tokens are matched in the text as a whole. All are special, and made
    /// by nothing else, but user-defined ones that do not look like `<|...|>`. A listed merge that would make a
    /// special token is left out.
    ///
    /// Errors: another model or pre-tokenizer, lists of unlike lengths, tokens that are there twice, numbers
    /// outside the vocabulary, by key.
    pub fn source(&self) -> Result<Source> {
        self.check()?;
        let count = self.tokens.len();
        let known = |key: &str, id: Option<u32>| match id {
            Some(id) if id as usize >= count => {
                Err(self.refuse(key, format!("{id}, but there are {count} tokens")))
            }
            id => Ok(id),
        };
        let bos = known("bos_token_id", self.bos_token_id)?;
        let eos = known("eos_token_id", self.eos_token_id)?;
        let unknown = known("unknown_token_id", self.unknown_token_id)?;
        let (tokens, added) = self.tokens([bos, eos, unknown])?;
        let mut listed = self.merges()?;
        let special: HashSet<&str> = (added.iter().filter(|a| a.special))
            .map(|a| a.content.as_str())
            .collect();
        listed.retain(|(left, right)| {
            let merged = format!("{left}{right}");
            ![left, right, &merged]
                .iter()
                .any(|t| special.contains(t.as_str()))
        });
        let side = |add: Option<bool>, default: bool, id: Option<u32>| {
            id.filter(|_| add.unwrap_or(default))
        };
        Ok(match self.model.as_str() {
            "gpt2" => {
                let (_, pre_tokenizer, normalizer, ignore_merges, adds_bos) = *self.pre()?;
                Source {
                    name: self.file.clone(),
                    model: Model::ByteLevel { ignore_merges },
                    tokens,
                    merges: Merges::Listed(listed),
                    added,
                    normalizer,
                    pre_tokenizer,
                    prefix: Prefix::Never,
                    strip: false,
                    bos: side(self.add_bos_token, adds_bos, bos),
                    eos: side(self.add_eos_token, false, eos),
                }
            }
            "llama" => {
                let merges = match listed.is_empty() {
                    false => Merges::Listed(listed),
                    true if self.scores.is_empty() => {
                        return Err(self.refuse("scores", "neither scores nor merges".into()));
                    }
                    true => Merges::Scores(self.scores.clone()),
                };
                let prefix = self.add_space_prefix.unwrap_or(true);
                Source {
                    name: self.file.clone(),
                    model: Model::SentencePiece {
                        ignore_merges: false,
                    },
                    tokens,
                    merges,
                    added,
                    normalizer: Normalizer::Spaces,
                    pre_tokenizer: PreTokenizer::Whole,
                    prefix: if prefix { Prefix::Every } else { Prefix::Never },
                    strip: prefix,
                    bos: side(self.add_bos_token, true, bos),
                    eos: side(self.add_eos_token, false, eos),
                }
            }
            other => return Err(self.refuse("model", format!("{other:?} is not supported"))),
        })
    }

    /// Refuses lists that contradict each other or themselves, whatever the kind.
    pub(crate) fn check(&self) -> Result<()> {
        let count = self.tokens.len();
        for (key, len) in [
            ("token_type", self.token_type.len()),
            ("scores", self.scores.len()),
        ] {
            if len != 0 && len != count {
                return Err(self.refuse(key, format!("{len} entries for {count} tokens")));
            }
        }
        let mut seen = HashMap::new();
        for (token, content) in self.tokens.iter().enumerate() {
            if !content.is_empty()
                && let Some(other) = seen.insert(content.as_str(), token)
            {
                let what = format!("{other} and {token} are both {content:?}");
                return Err(self.refuse("tokens", what));
            }
        }
        Ok(())
    }

    /// Why the tokenizer is of a kind that is not supported; `None` if it is supported.
    pub(crate) fn unsupported(&self) -> Option<String> {
        let why = match self.model.as_str() {
            "gpt2" => return self.pre().err().map(|e| e.cause),
            "llama" if !self.tokens.iter().any(|t| t == "<0x00>") => {
                self.refuse("tokens", "no byte fallback".into())
            }
            "llama" if self.merges.is_empty() => {
                self.tokens.iter().find(|t| t.len() > LONGEST).map(|_| {
                    let why = format!("a token longer than {LONGEST} bytes, and no merges");
                    self.refuse("tokens", why)
                })?
            }
            "llama" => return None,
            other => self.refuse("model", format!("{other:?} is not supported")),
        };
        Some(why.cause)
    }

    fn pre(&self) -> Result<&'static Pre> {
        let name = self.pre.as_deref().unwrap_or("default");
        PRES.iter()
            .find(|(names, ..)| names.contains(&name))
            .ok_or_else(|| self.refuse("pre", format!("{name:?} is not supported")))
    }

    /// The tokens, and those among them that are matched as a whole.
    fn tokens(&self, special: [Option<u32>; 3]) -> Result<(Vec<Token>, Vec<AddedToken>)> {
        let mut added = Vec::new();
        let mut tokens = Vec::with_capacity(self.tokens.len());
        for (token, content) in (0..).zip(&self.tokens) {
            let kind = self.token_type.get(token as usize).copied();
            let kind = kind.unwrap_or(if special.contains(&Some(token)) { 3 } else { 1 });
            let special = match kind {
                4 => content.starts_with("<|") && content.ends_with("|>"),
                kind => matches!(kind, 2 | 3),
            };
            tokens.push(Token {
                spelling: content.clone(),
                kind: if special {
                    TokenKind::Added
                } else {
                    TokenKind::Model
                },
            });
            match kind {
                2..=4 if !content.is_empty() => added.push(AddedToken {
                    token,
                    content: content.clone(),
                    special,
                    normalized: false,
                    lstrip: false,
                    rstrip: false,
                }),
                1..=6 => {}
                other => {
                    return Err(self.refuse("token_type", format!("{other} (token {token})")));
                }
            }
        }
        Ok((tokens, added))
    }

    fn merges(&self) -> Result<Vec<(String, String)>> {
        let pair = |(place, merge): (usize, &String)| match merge.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.into(), right.into())),
            _ => Err(self.refuse(
                &format!("merges[{place}]"),
                "not two tokens with a space between them".into(),
            )),
        };
        self.merges.iter().enumerate().map(pair).collect()
    }

    fn refuse(&self, key: &str, what: String) -> PackError {
        PackError::refused(
            format!("{}: tokenizer.ggml.{key}: {what}", self.file),
            "convert the model again with a current llama.cpp, or pack from its Hugging Face folder",
        )
    }
}

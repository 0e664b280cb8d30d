//! Tokenizers, read into a tokenizer section: `tokenizer.json` of the `tokenizers` crate, or GGUF metadata.
//!
//! Both become a [`Source`], of which [`section_of`] writes the section. Of `tokenizer.json`:
//!
//! | key | taken | refused |
//! |---|---|---|
//! | `model` | `BPE` | other types; `dropout`, a prefix or suffix of subwords; byte-level: `unk_token` or `byte_fallback` where a byte has no token; SentencePiece: no `byte_fallback` |
//! | `decoder` | `ByteLevel`; a `Sequence` of `Replace` (`▁`), `ByteFallback`, `Fuse` and perhaps `Strip` (one space at the start) | others |
//! | `pre_tokenizer` | see [the kinds](self#kinds) | others |
//! | `normalizer` | none; `NFC`; a `Sequence` of `Prepend` and `Replace` (`▁`) | others |
//! | `post_processor` | none, `ByteLevel`, `TemplateProcessing` with at most one token on each side, a `Sequence` of them | others |
//! | `added_tokens` | `special`, `normalized`, `lstrip`, `rstrip` | `single_word` |
//! | `truncation`, `padding` | none | others |
//!
//! # Kinds
//!
//! | `pre_tokenizer` | `normalizer` | as |
//! |---|---|---|
//! | `ByteLevel` | none, NFC | GPT-2 |
//! | `Digits` (individual), `ByteLevel` | none, NFC | SmolLM, StarCoder |
//! | `Split` by the expression of Llama 3 or Qwen2, `ByteLevel` without one | none, NFC | Llama 3, SmolLM3, Qwen2, Qwen3 |
//! | none | `Prepend`, `Replace` | Llama 2, TinyLlama, Mistral |
//! | `Metaspace` | none | the same, newer files |

mod alphabet;
mod config;
mod gguf;
mod kind;
mod merges;
mod node;
mod source;
mod template;
mod vocabulary;
mod write;

pub use gguf::Gguf;
pub use source::{AddedToken, Merges, Model, Prefix, Source, Token, TokenKind};
pub use write::section_of;

use super::json::Json;
use crate::error::Result;
use node::{kind_or_text, unsupported};
use std::path::Path;
use vocabulary::Vocabulary;

/// The tokenizer section of a blob, from `tokenizer.json`. The same files give the same bytes.
///
/// With `tokenizer_config.json` the section does what `transformers` 4 makes of the two files:
/// `add_prefix_space` is the config's, and for the classes `LlamaTokenizer*` so are BOS and EOS.
///
/// Errors: a file that cannot be read; anything in it that the core's tokenizer does not do, by key.
pub fn section(tokenizer_json: &Path, tokenizer_config: Option<&Path>) -> Result<Vec<u8>> {
    section_of(&source(tokenizer_json, tokenizer_config)?)
}

/// [`section`], but for the last step.
pub fn source(tokenizer_json: &Path, tokenizer_config: Option<&Path>) -> Result<Source> {
    let json = Json::read_tokenizer(tokenizer_json)?;
    let vocabulary = Vocabulary::read(&json)?;
    let mut source = read(&json, &vocabulary)?;
    if let Some(path) = tokenizer_config {
        config::apply(&Json::read(path)?, &vocabulary, &mut source)?;
    }
    Ok(source)
}

/// The token of `eos_token` in `tokenizer_config.json`, which chat templates write; `None` if it names none.
pub(crate) fn eos(tokenizer_config: &Path, source: &Source) -> Result<Option<u32>> {
    let json = Json::read(tokenizer_config)?;
    let eos = json.get("eos_token");
    let Some(eos) = eos.and_then(|v| v.get("content").unwrap_or(v).as_str()) else {
        return Ok(None);
    };
    let added = source.added.iter().find(|a| a.content == eos);
    let token = || (0..).zip(&source.tokens).find(|(_, t)| t.spelling == eos);
    Ok(added.map(|a| a.token).or_else(|| Some(token()?.0)))
}

fn read(json: &Json, vocabulary: &Vocabulary) -> Result<Source> {
    if let Some(v) = json.get("version")
        && v != "1.0"
    {
        return Err(unsupported(json, "version", &v.to_string()));
    }
    for key in ["truncation", "padding"] {
        if let Some(v) = json.get(key) {
            return Err(unsupported(json, key, &kind_or_text(v)));
        }
    }
    let kind = kind::read(json)?;
    let ignore_merges = vocabulary.ignore_merges;
    let model = match kind.bytes {
        true => {
            vocabulary.refuse_unknown_bytes(json)?;
            Model::ByteLevel { ignore_merges }
        }
        false => {
            vocabulary.require_byte_fallback(json)?;
            Model::SentencePiece { ignore_merges }
        }
    };
    let (bos, eos) = template::read(json, vocabulary)?;
    Ok(Source {
        name: json.path().display().to_string(),
        model,
        tokens: vocabulary.tokens(),
        merges: Merges::Listed(vocabulary.merges.clone()),
        added: vocabulary.added.clone(),
        normalizer: kind.normalizer,
        pre_tokenizer: kind.pre_tokenizer,
        prefix: kind.prefix,
        strip: kind.strip,
        bos,
        eos,
    })
}

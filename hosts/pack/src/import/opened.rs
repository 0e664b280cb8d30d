//! A base as it was found: a Hugging Face folder or a GGUF file.

use super::base::BaseConfig;
use super::chat_template;
use super::gguf;
use super::json::Json;
use super::tokenizer;
use super::weights::{Source, Weights};
use crate::error::{Kind, Result};
use crate::options::{PackOptions, Progress};
use crate::section::Storage;
use std::path::Path;

/// Everything that a base brings along.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Dimensions and constants.
    pub(crate) config: BaseConfig,
    /// The tensors.
    pub(crate) weights: Box<dyn Source>,
    /// The tokenizer section.
    pub(crate) tokenizer: Option<Vec<u8>>,
    /// The chat template.
    pub(crate) template: Option<String>,
}

impl Opened {
    /// Opens the base of `options`; what is left out is told to `progress`.
    pub(crate) fn new(options: &PackOptions, progress: &mut dyn Progress) -> Result<Self> {
        if gguf::is(&options.base) {
            Self::file(options, progress)
        } else {
            Self::folder(options, progress)
        }
    }

    fn folder(options: &PackOptions, progress: &mut dyn Progress) -> Result<Self> {
        let path = &options.base;
        let mut config = BaseConfig::read(path, options.group)?;
        let weights = Box::new(Weights::open(path)?);
        let tokenizer = folder_tokenizer(path, &mut config, progress)?;
        let (template, note) = chat_template::read(path)?;
        note.iter().for_each(|n| progress.note(n));
        Ok(Self {
            config,
            weights,
            tokenizer,
            template,
        })
    }

    fn file(options: &PackOptions, progress: &mut dyn Progress) -> Result<Self> {
        let mut base = gguf::open(&options.base, options.group)?;
        let storage = Storage::of(options);
        let notes = base.weights.notes(storage.base, storage.group);
        base.config.notes.extend(notes);
        let tokenizer = base.weights.tokenizer()?;
        let tokenizer = tokenizer.map_err(|why| progress.note(&why)).ok();
        let (template, note) = base.weights.template()?;
        note.iter().for_each(|n| progress.note(n));
        Ok(Self {
            config: base.config,
            weights: Box::new(base.weights),
            tokenizer,
            template,
        })
    }
}

/// The tokenizer section, if the folder has a tokenizer that is supported; else a note says why not. Its end of
/// text becomes the first of `base`.
fn folder_tokenizer(
    folder: &Path,
    base: &mut BaseConfig,
    progress: &mut dyn Progress,
) -> Result<Option<Vec<u8>>> {
    let json = folder.join("tokenizer.json");
    if !json.exists() {
        progress.note(&format!(
            "{}: no tokenizer.json: packed without a tokenizer, for token ids only",
            folder.display()
        ));
        return Ok(None);
    }
    // A broken file is refused; one that is only unsupported leaves a model for token ids.
    Json::read_table(&json)?;
    let config = folder.join("tokenizer_config.json");
    let config = config.exists().then_some(config.as_path());
    let section = tokenizer::source(&json, config).and_then(|source| {
        let eos = config.map(|c| tokenizer::eos(c, &source)).transpose()?;
        Ok((tokenizer::section_of(&source)?, eos.flatten()))
    });
    let Some((section, eos)) = supported(section, progress)? else {
        return Ok(None);
    };
    eos.into_iter().for_each(|id| base.prefer_eos(id));
    Ok(Some(section))
}

/// `None`, and a note, for what is refused.
fn supported<T>(section: Result<T>, progress: &mut dyn Progress) -> Result<Option<T>> {
    match section {
        Ok(section) => Ok(Some(section)),
        Err(e) if e.kind == Kind::Refused => {
            progress.note(&format!("packed without a tokenizer: {}", e.cause));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

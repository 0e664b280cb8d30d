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
        let config = BaseConfig::read(path, options.group)?;
        let weights = Box::new(Weights::open(path)?);
        let tokenizer = folder_tokenizer(path, progress)?;
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
        let tokenizer = supported(base.weights.tokenizer(), progress)?;
        if let Some(None) = tokenizer {
            progress.note(&format!(
                "{}: no tokenizer in the metadata: packed without one, for token ids only",
                options.base.display()
            ));
        }
        let (template, note) = base.weights.template()?;
        note.iter().for_each(|n| progress.note(n));
        Ok(Self {
            config: base.config,
            weights: Box::new(base.weights),
            tokenizer: tokenizer.flatten(),
            template,
        })
    }
}

/// The tokenizer section, if the folder has a tokenizer that is supported; else a note says why not.
fn folder_tokenizer(folder: &Path, progress: &mut dyn Progress) -> Result<Option<Vec<u8>>> {
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
    let section = tokenizer::section(&json, config.exists().then_some(config.as_path()));
    supported(section, progress)
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

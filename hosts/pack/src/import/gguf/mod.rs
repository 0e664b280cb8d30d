//! GGUF, versions 2 and 3, little-endian: bases and LoRA adapters of llama.cpp.
//!
//! | file | does |
//! |---|---|
//! | `reader` | fields of the header, each length held against the file |
//! | `metadata` | keys and values; long ones stay in the file |
//! | `file` | the table of tensors: types, places, alignment |
//! | `types`, `decode` | the block types and their values |
//! | `names` | Hugging Face's names and order of rows |
//! | `config` | the metadata of an architecture |
//! | `weights` | the tensors as a base's |
//! | `tokenizer` | tokenizer and chat template |
//! | `lora` | adapters |

mod config;
mod decode;
mod file;
mod lora;
mod metadata;
mod names;
mod reader;
mod tokenizer;
mod types;
mod weights;

pub(crate) use lora::{Tensors as LoraTensors, open as open_lora};
pub(crate) use weights::Weights;

use super::base::BaseConfig;
use crate::error::Result;
use std::path::Path;

/// Whether a path is meant as a GGUF file: by its name, or because it is a file.
pub(crate) fn is(path: &Path) -> bool {
    let named = |e: &std::ffi::OsStr| e.eq_ignore_ascii_case("gguf");
    path.is_file() || (!path.is_dir() && path.extension().is_some_and(named))
}

/// A GGUF base: its configuration and its tensors.
#[derive(Debug)]
pub(crate) struct Base {
    /// Dimensions and constants.
    pub(crate) config: BaseConfig,
    /// The tensors, and what else the file holds.
    pub(crate) weights: Weights,
}

/// Opens a base.
pub(crate) fn open(path: &Path, group: u32) -> Result<Base> {
    let mut file = file::Gguf::open(path)?;
    let model = config::read(&mut file, group)?;
    Ok(Base {
        config: model.config,
        weights: Weights::new(file, model.permuted),
    })
}

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

mod config;
mod decode;
mod file;
mod metadata;
mod names;
mod reader;
mod types;
mod weights;

pub(crate) use weights::Weights;

use super::base::BaseConfig;
use crate::error::Result;
use std::path::Path;

/// Whether a path is meant as a GGUF file: by its name, or because it is a file.
pub(crate) fn is(path: &Path) -> bool {
    let named = |e: &std::ffi::OsStr| e.eq_ignore_ascii_case("gguf");
    path.is_file() || (!path.is_dir() && path.extension().is_some_and(named))
}

/// What a GGUF base is: its configuration and its tensors.
pub(crate) fn open(path: &Path, group: u32) -> Result<(BaseConfig, Weights)> {
    let mut file = file::Gguf::open(path)?;
    let model = config::read(&mut file, group)?;
    Ok((model.config, Weights::new(file, model.heads)))
}

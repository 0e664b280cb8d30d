//! GGUF bases and adapters: what the `gguf` package wrote packs as the Hugging Face folder of the same values
//! does, and what nobody should write is refused.

#[path = "../common/mod.rs"]
mod common;

mod hostile;
mod lora;
mod same;
mod write;

use std::path::PathBuf;

/// A file of `tests/fixtures/gguf`.
fn gguf(name: &str) -> PathBuf {
    common::fixtures().join("gguf").join(name)
}

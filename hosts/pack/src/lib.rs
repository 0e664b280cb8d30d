//! Turns a base, an X-LoRA checkpoint and LoRA adapters into one pleach model file.
//!
//! [`pack`](fn@pack) is the whole of it: [`PackOptions`] in, [`Packed`] out, a [`Progress`] that hears how far
//! it is and what was assumed, and a [`PackError`] with cause and cure for everything that is refused.
//! [`write_atomically`] puts the bytes on the disk.
//!
//! | module | does |
//! |---|---|
//! | `import` | reads bases (Hugging Face, GGUF), X-LoRA folders of PEFT and of the original package, adapters (PEFT, GGUF); refuses by name |
//! | [`quant`] | f32 to q8, f16, f32, with what it costs |
//! | [`layout`] | interleaves rows into the tiles of the kernels, and takes them apart again |
//! | `target` | which layout is whose |
//! | `repack` | moves a packed file to another target's layouts |
//! | `section` | the writers of the file's sections |
//! | `write` | places, checksums, hashes |
//! | [`report`] | what the file is made of |
//!
//! The file's letter is [`pleach::blob`]; this crate uses its public records only.

#![deny(unsafe_code)]

mod error;
mod expert_file;
mod import;
pub mod layout;
mod options;
mod pack;
pub mod quant;
mod repack;
pub mod report;
mod section;
mod target;
mod write;

pub use error::{Kind, PackError, Result};
pub use expert_file::{pack_expert, pack_expert_for};
pub use import::Matrix;
pub use import::tokenizer;
pub use import::tokenizer::section as tokenizer_section;
pub use options::{AdapterQuant, BaseQuant, PackOptions, Progress, Silent};
pub use pack::{Packed, pack};
pub use repack::{Repacked, repack, repack_expert};
pub use report::{KindReport, Report, TensorReport};
pub use target::Target;
pub use write::write_atomically;

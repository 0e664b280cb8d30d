#![no_std]
#![doc = "pleach runs X-LoRA on the edge: several LoRA (low-rank adaptation, not the radio) experts over one frozen"]
#![doc = "base, mixed per token and per layer by a tiny router, without `std` and without a heap."]
//!
//! Where to look:
//!
//! * [`blob`]: the file format, and [`Model`], the proof that a file is sound.
//! * [`session`]: [`Session`], one text over a model, and the one forward pass.
//! * [`xlora`]: X-LoRA's own rules under PEFT's names.
//! * [`kernels`]: what is computed, row by row, and where it runs.
//! * [`sample`]: choosing the next token, and where a text stops.
//! * [`math`]: the elementary functions whose bits every target repeats.
//! * [`tokenizer`]: text to tokens and back, from the blob.
//!
//! Nothing here panics or allocates; every input error is an [`Error`]. `unsafe` stands only in
//! `kernels` (entering code compiled for a CPU, and micro-kernels).

#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(target_endian = "big")]
compile_error!("blobs are little-endian and used in place: big-endian targets are not supported");

pub mod blob;
mod carve;
mod error;
pub mod hash;
pub mod kernels;
pub mod math;
mod model;
mod pairs;
pub mod sample;
pub mod session;
#[cfg(feature = "tokenizer")]
pub mod tokenizer;
pub mod xlora;

pub use blob::format::ConfigRecord as Config;
pub use blob::{Aligned, Blob, Expert, ExpertFile, Model, Site};
pub use error::{Error, Pass};
pub use kernels::{Executor, Inline, Kernels, Work};
pub use sample::Sampling;
pub use session::options::{
    Budget, Caches, Counters, KvType, LogitsKind, Progress, Routing, SessionOptions, Speculate,
};
pub use session::{Guess, ScalingsLog, Session};
pub use xlora::{Scalings, XLoraConfig};

//! What a host with an operating system gives to pleach's core, and what hosts do with it.
//!
//! | module | holds |
//! |---|---|
//! | [`mmap`] | model files, mapped read-only |
//! | [`threads`] | an executor over a pool of threads |
//! | [`arena`] | a session's memory |
//! | [`bandwidth`] | how fast the machine reads memory |
//! | [`setup`] | a session's settings, applied in an order that works |
//! | [`generate`](mod@generate) | generation |
//! | [`text`] | tokens to text as it may be shown |
//! | [`chat`] | conversations: messages to tokens, and as few of them as possible through a session |
//! | [`template`] | chat templates |
//! | [`trace`](mod@trace) | every scaling and every logit of a text, and their hash |
//!
//! It builds on Linux, macOS and Windows. `unsafe` is in [`mmap`] and [`threads`] only.

#![deny(unsafe_code)]

pub mod arena;
pub mod bandwidth;
pub mod chat;
pub mod generate;
pub mod mmap;
pub mod setup;
pub mod template;
pub mod text;
pub mod threads;
pub mod trace;

pub use arena::Arena;
pub use bandwidth::Bandwidth;
pub use generate::{End, Generation, Limits, Watch, generate};
pub use mmap::ModelFile;
pub use setup::Setup;
pub use text::{Piece, TextStream};
pub use threads::{ClaimOrder, MAX_THREADS, ThreadPool};
pub use trace::{Trace, TraceError, TraceOptions, trace};

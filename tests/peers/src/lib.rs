//! pleach beside llama.cpp, in one run on one machine, and beside what that machine reads from memory.
//!
//! Only ratios within a run mean anything: a server's bandwidth moves within minutes. So every figure comes from rounds
//! in which both sides and the reader take turns, and is the median of the ratios of these rounds.
//!
//! | module | holds |
//! |---|---|
//! | [`llama`] | llama.cpp, built for a named instruction set, and the proof that it was |
//! | [`peer`] | a llama.cpp that runs as another process |
//! | [`ours`] | a pleach session that does the same work |
//! | [`read`] | the best that the machine reads |
//! | [`models`] | the same weights for both sides |
//! | [`machine`] | what this machine is |
//! | [`series`] | medians, figures beside their bars |
//! | [`bars`] | which kernels ran, and which bars hold for them |
//! | [`verdict`] | what a run says of its bars, and its exit code |
//! | [`count`] | instructions, by an emulator |
//! | [`wire`] | commands as lines |

#[cfg(feature = "commands")]
pub mod bars;
#[cfg(feature = "commands")]
pub mod count;
#[cfg(feature = "commands")]
pub mod llama;
#[cfg(feature = "commands")]
pub mod machine;
#[cfg(feature = "commands")]
pub mod models;
pub mod ours;
#[cfg(feature = "commands")]
pub mod peer;
#[cfg(feature = "commands")]
pub mod read;
#[cfg(feature = "commands")]
pub mod series;
#[cfg(feature = "commands")]
pub mod verdict;
pub mod wire;

/// A cause, and on further lines what to do.
pub type Result<T> = std::result::Result<T, String>;

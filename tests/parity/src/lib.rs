//! What the parity tests share: fixtures, modes as data, traces that can be compared bit by bit.
//!
//! * [`fixture`]: the checkpoints on disk, packed as a test asks for them.
//! * [`mode`]: the ways in which a session can do the same work; [`mode::run`] does it.
//! * [`text`]: text to tokens and back.
//! * [`trace`]: what a run leaves behind, its hash, the first difference of two.
//! * [`cut`]: SmolLM2 cut to a few layers.
//! * [`answer`]: an answer to a prompt, and what it took.
//! * [`backends`]: one hash over the CPU's backends, and which kernels ran.
//! * [`lockstep`]: the first operation whose bits two backends, or two machines, do not share.
//! * [`adversarial`]: checkpoints made to be hard on the arithmetic.
//! * [`quality`]: perplexity, and divergence from a reference.
//! * [`smol`]: SmolLM2 with four trained experts.
//! * [`hostile`]: the parsers of files as the fuzzer calls them.
//! * [`reseal`]: blobs taken apart and put together again.
//! * [`subject`]: the model files and texts that must have one hash over all modes.
//! * [`synth`]: checkpoints of any shape, from a seed.

pub mod adversarial;
pub mod answer;
#[cfg(feature = "kernel-log")]
pub mod backends;
pub mod cut;
pub mod drive;
pub mod fixture;
pub mod hostile;
#[cfg(feature = "kernel-log")]
pub mod lockstep;
pub mod memory;
pub mod mode;
pub mod mutate;
pub mod quality;
pub mod random;
pub mod reseal;
pub mod smol;
pub mod subject;
pub mod synth;
pub mod text;
pub mod trace;

pub use fixture::{Case, File, Storage};
pub use mode::{Feed, Guesses, Mode, Setup, Text, run};
pub use trace::Trace;

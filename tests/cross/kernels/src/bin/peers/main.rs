//! The fully connected layers of `embedded-nn` and `microflow`, on the shapes of the program `kernels`, counted like ours.
//!
//! Their layers are those of TensorFlow Lite: one scale and one zero point per tensor, known before the run, and outputs
//! of 8 bits. They are other numbers than ours, so no bits are compared; each output is held to the sum over integers,
//! give or take one, and since it is looked at, the work cannot be optimised away.
//!
//! Each peer is called as its users call it: `embedded-nn` like its examples, `microflow` like the code that its `model`
//! macro writes around `ops::fully_connected`. Weights and activations come out of a `black_box`; what a program holds as
//! constants (shapes, scales, zero points) is in the compiler's sight. How much it makes of them depends on how much it
//! inlines, so `cargo xtask test kernels` builds this program twice, see `tests/xtask/src/kernel_peers.rs`.
//!
//! `NAME` takes int8 activations and gives int8 outputs, without biases where the peer allows it; its row stands beside
//! our `q8`. `NAME-float` quantises f32 before that and dequantises behind it, as our `linear` begins and ends with f32.
//! `NAME-pair` is 64->8->64: two layers, with int8 between them, beside our `lora-pair`, which adds f32 to f32 and whose
//! B panel has a scale for each of the 8 columns.
//!
//! For boards only: on a PC it does nothing.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "../../board.rs"]
mod board;
#[cfg(target_os = "none")]
mod layer;

/// Runs of one count: these are long.
#[cfg(all(target_os = "none", target_arch = "arm"))]
const RUNS: u64 = 2;

#[cfg(target_os = "none")]
fn main_on_board() -> ! {
    layer::print(board::line);
    board::exit(0)
}

#[cfg(not(target_os = "none"))]
fn main() {}

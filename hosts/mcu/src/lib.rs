//! What a firmware around `pleach` needs on a Cortex-M, and the core
//! does not have: start-up, exit, log, input and counters, all through semihosting, which QEMU and
//! debug probes serve.
//!
//! | module | holds |
//! |---|---|
//! | [`start`] | `entry`, panic and fault handlers |
//! | [`exit`](mod@exit) | the end of the program, with a status |
//! | [`log!`] | a line to the host: defmt, or text without the feature `defmt` |
//! | [`input`] | lines from the host at run time, command-line arguments, files |
//! | [`count`] | instructions executed (under QEMU's `-icount shift=0`) |
//! | [`memory`] | `.data`, `.bss`, and how deep the stack has been |
//!
//! No heap, and `unsafe` only in [`memory`] and in the fault handler of [`start`].

#![no_std]

pub mod count;
pub mod exit;
pub mod input;
mod log;
pub mod memory;
pub mod start;

pub use exit::{exit, finish};
#[doc(hidden)]
pub use semihosting;
pub use start::entry;

#[cfg(feature = "defmt")]
use defmt_semihosting as _;

//! Every kernel of the build's backend against the scalar specification, on bits.
//!
//! The same code runs on a board and on the PC that compares the hashes; what does not fit into [`Memory`] is
//! left out on both.

#![cfg_attr(target_os = "none", no_std)]

pub mod cases;
pub mod data;
pub mod memory;

use core::fmt::Arguments;

/// Writes a line of text.
pub type Line = fn(Arguments<'_>);

/// Writes `count NAME SHAPE: INSTRUCTIONS, THOUSANDTHS per MAC`.
pub fn show(line: Line, name: &str, (rows, cols): (usize, usize), n: u64) {
    let per_mac = n * 1000 / (rows * cols) as u64;
    line(format_args!(
        "count {name} {rows}x{cols}: {n} instructions, {}.{:03} per MAC",
        per_mac / 1000,
        per_mac % 1000
    ));
}

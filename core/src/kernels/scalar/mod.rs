//! The specification: micro-kernels in plain Rust that read every layout.
//!
//! A later backend repeats these operations in lanes; it may not reorder, fuse or skip one.

pub mod float;
pub mod q8;

use crate::kernels::BLOCK;

/// Accumulators of one tile of `R` rows for a block of columns.
pub type Acc<const R: usize> = [[f32; BLOCK]; R];

//! The records of a blob: field, offset, type, with one `decode` and one `encode` each.
//!
//! This module is the letter of *blob format 1*; [the parent](super) tells how the records fit
//! together and which rules [`Model::parse`](crate::Model::parse) checks. All integers are little-endian; reserved
//! bytes are 0, else the file is refused.

pub(crate) mod bytes;
mod config;
mod expert;
mod section;
mod tensor;

pub(crate) use bytes::{array, is_zero, slice, u8_at, u32_at};
pub use config::*;
pub use expert::*;
pub use section::*;
pub use tensor::*;

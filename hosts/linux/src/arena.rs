//! A session's memory, on the heap.

use std::fmt;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C, align(64))]
struct Block([u8; 64]);

/// Zeroed bytes, 64-byte aligned: an arena for [`Session::new`](pleach::Session::new).
///
/// ```
/// let mut arena = pleach_linux::Arena::new(100)?;
/// assert_eq!(arena.bytes().len(), 128);
/// # Ok::<(), pleach_linux::arena::OutOfMemory>(())
/// ```
pub struct Arena {
    blocks: Vec<Block>,
}

/// The system has no room for an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub bytes: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory for an arena of {} bytes", self.bytes)
    }
}

impl std::error::Error for OutOfMemory {}

impl Arena {
    /// At least `bytes` bytes, rounded up to 64. Pages come from the system zeroed and are not touched
    /// before they are used.
    pub fn new(bytes: usize) -> Result<Self, OutOfMemory> {
        Block::new_vec_zeroed(bytes.div_ceil(size_of::<Block>()))
            .map(|blocks| Self { blocks })
            .map_err(|_| OutOfMemory { bytes })
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.blocks.as_mut_slice().as_mut_bytes()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} bytes)", self.blocks.len() * size_of::<Block>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_zeroed() {
        for n in [0, 1, 64, 65, 4096] {
            let mut arena = Arena::new(n).unwrap();
            let bytes = arena.bytes();
            assert!(bytes.len() >= n && bytes.len() < n + 64);
            assert_eq!(bytes.as_ptr() as usize % 64, 0);
            assert!(bytes.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn too_much_is_an_error() {
        assert_eq!(
            Arena::new(usize::MAX).unwrap_err(),
            OutOfMemory { bytes: usize::MAX }
        );
    }
}

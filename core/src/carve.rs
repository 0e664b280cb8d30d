//! Cutting typed parts off a slice of bytes: arenas and scratch.

use crate::error::Error;
use crate::kernels::layout::round_up;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Every part begins at a multiple of this, and so must the slice.
pub(crate) const PART_ALIGN: usize = 16;

/// Bytes that a part of `count` elements of `size` bytes takes.
pub(crate) const fn part_bytes(count: usize, size: usize) -> usize {
    round_up(count.saturating_mul(size), PART_ALIGN)
}

/// Cuts parts off the front.
pub(crate) struct Carver<'a> {
    rest: &'a mut [u8],
}

impl<'a> Carver<'a> {
    /// Errors: [`Error::Misaligned`] unless `bytes` starts at a multiple of 16.
    pub(crate) fn new(bytes: &'a mut [u8]) -> Result<Self, Error> {
        if (bytes.as_ptr() as usize) & (PART_ALIGN - 1) != 0 {
            return Err(Error::Misaligned {
                needed: PART_ALIGN as u16,
            });
        }
        Ok(Self { rest: bytes })
    }

    /// The next `count` elements, as they lie.
    pub(crate) fn take<T: FromBytes + IntoBytes + KnownLayout>(
        &mut self,
        count: usize,
    ) -> Result<&'a mut [T], Error> {
        let bytes = count.saturating_mul(size_of::<T>());
        let rest = core::mem::take(&mut self.rest);
        let found = rest.len() as u64;
        let too_small = Error::ArenaTooSmall {
            needed: bytes as u64,
            found,
        };
        let (part, rest) = rest
            .split_at_mut_checked(round_up(bytes, PART_ALIGN))
            .ok_or(too_small)?;
        self.rest = rest;
        let part = part.get_mut(..bytes).ok_or(too_small)?;
        <[T]>::mut_from_bytes(part).map_err(|_| Error::Misaligned {
            needed: PART_ALIGN as u16,
        })
    }
}

//! What was made is read back before it is written to the disk.

use crate::failure::{Failure, Result};
use pleach::{Blob, Error, ExpertFile, Model};
use pleach_linux::Arena;
use std::path::Path;

/// Reads a model file as a session would, and every value in it.
pub(crate) fn model(path: &Path, bytes: &[u8]) -> Result<()> {
    checked(path, bytes, &|blob| {
        Model::parse(blob).and_then(|m| m.verify())
    })
}

/// Reads an expert file's header; its panels are checked with the model that they are for.
pub(crate) fn expert(path: &Path, bytes: &[u8]) -> Result<()> {
    checked(path, bytes, &|blob| ExpertFile::parse(blob).map(|_| ()))
}

fn checked(
    path: &Path,
    bytes: &[u8],
    check: &dyn Fn(Blob<'_>) -> std::result::Result<(), Error>,
) -> Result<()> {
    let done = match Blob::new(bytes) {
        Ok(blob) => check(blob),
        // Rare: an allocation that is not aligned for use in place.
        Err(_) => {
            let mut arena = Arena::new(bytes.len()).map_err(Failure::memory)?;
            let copy = arena.bytes().split_at_mut(bytes.len()).0;
            copy.copy_from_slice(bytes);
            Blob::new(copy).and_then(check)
        }
    };
    done.map_err(|e| {
        Failure::machine(
            format!(
                "{}: what was made does not pass its own checks: {e}",
                path.display()
            ),
            "this is a mistake in pleach: please report it",
        )
    })
}

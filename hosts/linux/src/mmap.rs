//! Model files, mapped read-only and used in place.

#![allow(unsafe_code)]

use memmap2::Mmap;
use pleach::{Blob, Error};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A model file in memory: pages that the kernel reads on demand and shares among processes.
///
/// ```no_run
/// let file = pleach_linux::ModelFile::open("intent.pleach".as_ref())?;
/// let model = pleach::Model::parse(file.blob()?)?;
/// println!("{} experts", model.n_experts());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ModelFile {
    map: Mmap,
}

impl ModelFile {
    /// Maps a file.
    ///
    /// Nobody may write into the file or shorten it while it is open; Linux does not see to that. Other bytes give
    /// wrong numbers or [`Error::Corrupt`]; in a file that was shortened, reading a page that is gone ends the process
    /// (SIGBUS). To replace a file, rename a new one into its place, as pleach's commands do: the old one stays
    /// as it was for those who have it open.
    ///
    /// Errors: what the system says; [`ErrorKind::InvalidInput`] for a pipe or device, which cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if !kind.is_file() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        // SAFETY: bounds: memmap2 maps the length that the file has now. alias: the mapping is read-only, but its pages
        //   are the file's (MAP_SHARED): that nobody writes into it or shortens it is the obligation that the doc
        //   above names, for no check here would hold later. Where it is broken, the core's accessors still check
        //   every bound against the mapped length (`pleach::blob`); no check catches the SIGBUS of a missing page.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The file as a blob. Mappings begin at a page, so the alignment is always right.
    pub fn blob(&self) -> Result<Blob<'_>, Error> {
        Blob::new(&self.map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_mapped_at_their_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        for content in [&b""[..], b"x", &[7; 5000]] {
            std::fs::write(&path, content).unwrap();
            let file = ModelFile::open(&path).unwrap();
            assert_eq!(file.bytes(), content);
            assert_eq!(file.blob().unwrap().bytes(), content);
        }
    }

    #[test]
    fn folders_and_missing_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ModelFile::open(folder.path()).is_err());
        let missing = ModelFile::open(&folder.path().join("no")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    /// What `open` advises for replacing a file.
    #[cfg(unix)]
    #[test]
    fn a_file_renamed_over_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        pleach_pack::write_atomically(&path, &[7; 5000]).unwrap();
        let file = ModelFile::open(&path).unwrap();
        pleach_pack::write_atomically(&path, b"short").unwrap();
        assert_eq!(file.bytes(), [7; 5000]);
        assert_eq!(ModelFile::open(&path).unwrap().bytes(), b"short");
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_errors() {
        let e = ModelFile::open("/dev/null".as_ref()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
    }
}

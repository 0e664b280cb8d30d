//! Opening a model file, with messages that say what else it is.

use crate::failure::{Failure, Result};
use pleach::{Error, Model};
use pleach_linux::ModelFile;
use std::path::Path;

/// Maps a model file.
pub(crate) fn open(path: &Path) -> Result<ModelFile> {
    ModelFile::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::IsADirectory => Failure::refused(
            format!("{}: a folder", path.display()),
            "pass a model file; make one with `pleach pack --base DIR -o FILE`",
        ),
        _ => Failure::reading(path, &e),
    })
}

/// Parses it.
pub(crate) fn parse<'f>(path: &Path, file: &'f ModelFile) -> Result<Model<'f>> {
    let name = path.display();
    let parsed = file.blob().and_then(Model::parse);
    parsed.map_err(|e| match (e, kind_of(file.bytes())) {
        (Error::Magic | Error::Truncated { .. }, Some((what, cure))) => {
            Failure::refused(format!("{name}: not a model file: {what}"), cure)
        }
        (e, _) => Failure::core(name, e),
    })
}

/// What a file is that is no model file.
fn kind_of(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let pack = "make a model file with `pleach pack --base DIR -o FILE`";
    if bytes.is_empty() {
        Some(("it is empty", pack))
    } else if bytes.starts_with(&pleach::blob::format::EXPERT_MAGIC) {
        Some(("it is an expert", "pass the model file that it belongs to"))
    } else if bytes.starts_with(b"GGUF") {
        Some((
            "it is GGUF",
            "pack the base's Hugging Face folder: pleach pack --base DIR -o FILE",
        ))
    } else if bytes.get(8) == Some(&b'{') {
        Some(("it is safetensors", pack))
    } else if bytes.starts_with(b"{") {
        Some(("it is JSON", pack))
    } else {
        None
    }
}

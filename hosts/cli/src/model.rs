//! Opening a model file and the expert files that go with it, with messages that say what else they are.

use crate::failure::{Failure, Result};
use crate::output::quoted;
use pleach::blob::format::{EXPERT_MAGIC, MAGIC};
use pleach::tokenizer::Tokenizer;
use pleach::{Error, ExpertFile, Model};
use pleach_linux::ModelFile;
use pleach_pack::Target;
use std::path::{Path, PathBuf};

/// Maps a file; `make` says how to come by one if it is a folder.
fn map(path: &Path, make: &str) -> Result<ModelFile> {
    ModelFile::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::IsADirectory => {
            Failure::refused(format!("{}: a folder", path.display()), make)
        }
        _ => Failure::reading(path, &e),
    })
}

/// Maps a model file.
pub(crate) fn open(path: &Path) -> Result<ModelFile> {
    map(
        path,
        "pass a model file; make one with `pleach pack --base DIR -o FILE`",
    )
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

/// Whether a file is an expert.
pub(crate) fn is_expert(bytes: &[u8]) -> bool {
    bytes.starts_with(&EXPERT_MAGIC)
}

/// The expert in an expert file.
pub(crate) fn expert_file<'f>(path: &Path, file: &'f ModelFile) -> Result<ExpertFile<'f>> {
    let parsed = file.blob().and_then(ExpertFile::parse);
    parsed.map_err(|e| Failure::core(path.display(), e))
}

/// The word for whose kernels a file is laid out for.
pub(crate) fn target_name(target: Option<Target>) -> &'static str {
    target.map_or("several targets", Target::name)
}

/// What to tell about a file that another layout would make faster on this machine.
pub(crate) fn layout_note(path: &Path, model: &Model<'_>) -> Option<String> {
    let (found, best) = (Target::of(model), Target::of_build());
    let (name, best_name) = (path.display(), best.name());
    (found != Some(best)).then(|| {
        format!(
            "{name} is laid out for {}; `pleach repack {} OUT --for {best_name}` makes it faster here",
            target_name(found),
            quoted(path)
        )
    })
}

/// What a file is that is no model file.
fn kind_of(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let pack = "make a model file with `pleach pack --base DIR -o FILE`";
    if bytes.is_empty() {
        Some(("it is empty", pack))
    } else if is_expert(bytes) {
        Some((
            "it is an expert",
            "pass the model file that it belongs to, and this one with --expert FILE",
        ))
    } else if bytes.starts_with(b"GGUF") {
        Some((
            "it is GGUF",
            "pack it: pleach pack --base FILE.gguf -o FILE",
        ))
    } else if bytes.get(8) == Some(&b'{') {
        Some(("it is safetensors", pack))
    } else if bytes.starts_with(b"{") {
        Some(("it is JSON", pack))
    } else {
        None
    }
}

/// A model's tokenizer, for commands that read and write text.
pub(crate) fn tokenizer<'b>(path: &Path, model: &Model<'b>) -> Result<Tokenizer<'b>> {
    model.tokenizer().ok_or_else(|| {
        Failure::refused(
            format!("{}: the model file has no tokenizer", path.display()),
            "pack the base with its tokenizer.json, or pass token ids to `pleach trace`",
        )
    })
}

/// What makes an expert file.
const MAKE_EXPERT: &str = "make an expert file with `pleach pack --expert-only KEY --model MODEL --adapter KEY=DIR -o FILE`";

/// A model file and the expert files of `--expert`, mapped.
///
/// ```ignore
/// let files = model::Files::open(&self.file, &self.experts)?;
/// let experts = files.experts()?;
/// let model = files.model(&experts)?;
/// ```
pub(crate) struct Files<'p> {
    path: &'p Path,
    file: ModelFile,
    experts: Vec<(&'p Path, ModelFile)>,
}

impl<'p> Files<'p> {
    /// Maps all of them.
    pub(crate) fn open(path: &'p Path, experts: &'p [PathBuf]) -> Result<Self> {
        let expert = |p: &'p PathBuf| Ok((p.as_path(), map(p, MAKE_EXPERT)?));
        Ok(Self {
            path,
            file: open(path)?,
            experts: experts.iter().map(expert).collect::<Result<_>>()?,
        })
    }

    /// The model file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.file.bytes()
    }

    /// The names of the expert files, in the order of [`experts`](Files::experts).
    pub(crate) fn expert_paths(&self) -> impl Iterator<Item = &'p Path> {
        self.experts.iter().map(|(path, _)| *path)
    }

    /// The expert files' headers, checked.
    pub(crate) fn experts(&self) -> Result<Vec<ExpertFile<'_>>> {
        self.experts
            .iter()
            .map(|(p, file)| expert(p, file))
            .collect()
    }

    /// The model with these experts in the place of its own.
    ///
    /// Errors: a file that does not belong to the model, by name.
    pub(crate) fn model<'f>(&'f self, experts: &'f [ExpertFile<'f>]) -> Result<Model<'f>> {
        let model = parse(self.path, &self.file)?;
        for (n, (path, expert)) in self.expert_paths().zip(experts).enumerate() {
            fits(path, expert, &model, self.path)?;
            let mut before = self.expert_paths().zip(experts).take(n);
            if let Some((other, _)) = before.find(|(_, o)| o.class() == expert.class()) {
                let class = expert.class();
                let name = model.expert(class).map_or("", |e| e.name());
                return Err(Failure::refused(
                    format!(
                        "--expert {}: it replaces expert {class} ({name}), as {} does",
                        path.display(),
                        other.display()
                    ),
                    "pass one of them",
                ));
            }
        }
        model
            .with_experts(experts)
            .map_err(|e| Failure::core(self.path.display(), e))
    }
}

/// The expert in a file of its own.
fn expert<'f>(path: &Path, file: &'f ModelFile) -> Result<ExpertFile<'f>> {
    let name = path.display();
    let bytes = file.bytes();
    let parsed = file.blob().and_then(ExpertFile::parse);
    parsed.map_err(|e| {
        let cause = match e {
            Error::Magic | Error::Truncated { .. } if bytes.starts_with(&MAGIC) => {
                "it is a whole model file"
            }
            Error::Magic | Error::Truncated { .. } if bytes.is_empty() => "it is empty",
            Error::Magic => "its first bytes are others",
            Error::Truncated { .. } if !bytes.starts_with(&EXPERT_MAGIC) => {
                "it is shorter than the header of one"
            }
            e => return Failure::core(format!("--expert {name}"), e),
        };
        Failure::refused(
            format!("--expert {name}: not an expert file: {cause}"),
            MAKE_EXPERT,
        )
    })
}

/// Refuses an expert file that does not belong to a model, before the core does with fewer words.
fn fits(path: &Path, expert: &ExpertFile<'_>, model: &Model<'_>, file: &Path) -> Result<()> {
    let (e, m) = (expert.expert().header(), model.header());
    let again = || {
        format!(
            "pack the expert for this model: pleach pack --expert-only KEY --model {} --adapter KEY=DIR -o FILE",
            quoted(file)
        )
    };
    let refused = |why: String| {
        Err(Failure::refused(
            format!("--expert {}: {why}", path.display()),
            again(),
        ))
    };
    if e.base_hash != m.base_hash {
        return refused(format!(
            "it is bound to another base ({:016x}, the model has {:016x})",
            e.base_hash, m.base_hash
        ));
    }
    if e.site_hash != m.site_hash {
        return refused(format!(
            "it is bound to another table of sites ({:016x}, the model has {:016x})",
            e.site_hash, m.site_hash
        ));
    }
    if u32::from(e.group) != model.config().group {
        return refused(format!(
            "its groups are of {}, the model's of {}",
            e.group,
            model.config().group
        ));
    }
    let experts = model.n_experts();
    if expert.class() >= experts {
        return Err(Failure::refused(
            format!(
                "--expert {}: it is expert {}, the model has {experts}, numbered from 0",
                path.display(),
                expert.class()
            ),
            "pack a whole model file with the new expert: a new class needs a classifier that knows it",
        ));
    }
    let one = std::slice::from_ref(expert);
    match model.with_experts(one) {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::core(format!("--expert {}", path.display()), e)),
    }
}

/// What to tell about replaced experts: which the classifier has not seen.
pub(crate) fn notes(model: &Model<'_>) -> Vec<String> {
    let strangers = model
        .replaced()
        .iter()
        .filter(|f| !f.knows_classifier(model));
    let note = |f: &ExpertFile<'_>| {
        format!(
            "expert {} ({}) was packed with another classifier: the router judges an expert that it has not seen",
            f.class(),
            f.expert().name()
        )
    };
    match model.has_classifier() {
        true => strangers.map(note).collect(),
        false => Vec::new(),
    }
}

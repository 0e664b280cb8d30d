//! Moves a packed file to another target's layouts: every number stays the one that it was.
//!
//! Weights and scales are taken out of their tiles and put into others, nothing is quantised again; sections,
//! names, tokenizer, template and provenance stay (but for its `for`). What the move changes is written anew: the
//! hashes of base and classifier, to which experts are bound, and every checksum. The result is, byte for byte,
//! what [`pack`](fn@crate::pack) writes for the target.

mod parts;

use crate::error::{PackError, Result};
use crate::options::Progress;
use crate::target::Target;
use crate::write::{self, BlobWriter};
use parts::{panels, tensors};
use pleach::blob::format::{
    DATA_ALIGN, ExpertHeader, HEADER_BYTES, SECTION_ENTRY_BYTES, SectionEntry, SectionKind,
};
use pleach::hash::fnv1a;
use pleach::{Blob, Error, Expert, ExpertFile, Model};
use std::path::Path;

/// A file in another layout.
#[derive(Debug)]
pub struct Repacked {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Whose layouts it had; `None` if they were mixed.
    pub from: Option<Target>,
}

/// Moves a whole model file to the layouts of `target`. It is verified first: damage would get sound checksums.
///
/// `path` is the file's, for messages. The files of [`Model::with_experts`] are not looked at.
///
/// Errors: what [`Model::verify`] says; a weight that only another layout can hold, which no packer writes.
///
/// ```
/// use pleach::{Aligned, Blob, Model};
/// use pleach_pack::{Silent, Target, repack};
///
/// let file = Aligned(*include_bytes!("../../../cli/intent.pleach"));
/// let model = Model::parse(Blob::aligned(&file)).expect("a model");
/// let m4 = repack("intent.pleach".as_ref(), &model, Target::CortexM, &mut Silent)?;
/// assert_eq!(m4.from, Some(Target::Linux));
/// # Ok::<(), pleach_pack::PackError>(())
/// ```
pub fn repack(
    path: &Path,
    model: &Model<'_>,
    target: Target,
    progress: &mut dyn Progress,
) -> Result<Repacked> {
    sound(path, model)?;
    progress.start(weight_bytes(model, |kind| !kind.is_text()));
    Ok(Repacked {
        bytes: moved(path, model, target, progress)?,
        from: Target::of(model),
    })
}

/// Moves an expert file to the layouts of `target` and binds it to its model in them.
///
/// `model` is the model file that the expert belongs to, in any layout: that its base is the one which the expert
/// is bound to is proven by the hash that the base has in the expert's layout. The result belongs to what
/// [`repack`] makes of that file for `target`.
///
/// Errors: an expert of another base, or for other sites; what [`Model::verify`] says of the two; as [`repack`].
pub fn repack_expert(
    (path, expert): (&Path, &ExpertFile<'_>),
    (model_path, model): (&Path, &Model<'_>),
    target: Target,
    progress: &mut dyn Progress,
) -> Result<Repacked> {
    let header = expert.expert().header();
    let bytes = expert.expert().data();
    let bound_to = |kind| matches!(kind, SectionKind::Base | SectionKind::Classifier);
    let as_it_lies = header.base_hash == model.header().base_hash;
    let copied = match as_it_lies {
        true => 0,
        false => weight_bytes(model, |kind| !kind.is_text()),
    };
    let file = model.data().len() as u64;
    let total = file + copied + weight_bytes(model, bound_to) + bytes.len() as u64;
    progress.start(total);
    sound(model_path, model)?;
    progress.advance(file);
    let copy;
    let mut own = *model;
    let mut own_layout = None;
    if !as_it_lies {
        let total = total - file;
        let found = in_layout_of(&expert.expert(), (model_path, model), total, progress)?;
        let Some((layout, bytes)) = found else {
            return Err(stranger((path, header.base_hash), model_path));
        };
        copy = bytes;
        own = copy.model(model_path)?;
        own_layout = Some(layout);
    }
    belongs((path, expert), (model_path, &own))?;
    let files = [*expert];
    let with = own.with_experts(&files).map_err(|e| damaged(path, e))?;
    with.verify_experts().map_err(|e| damaged(path, e))?;
    let mut bound = own.header();
    if own_layout == Some(target) {
        progress.advance(weight_bytes(model, bound_to));
    } else {
        bound.base_hash = hash_in(model_path, model, SectionKind::Base, target, progress)?;
        let classifier = SectionKind::Classifier;
        bound.classifier_hash = hash_in(model_path, model, classifier, target, progress)?;
    }
    if !expert.knows_classifier(&own) {
        bound.classifier_hash = header.classifier_hash;
    }
    Ok(Repacked {
        bytes: write::alone(|out| panels(out, (path, &own), bytes, bound, target, progress))?,
        from: Target::of(&with),
    })
}

/// The model in the layouts that the expert was packed for, where its base has the hash that the expert is bound to;
/// `None` if it has that hash in no layout. The expert's own panels say which to try first. `total` is what the bar
/// then has to do.
fn in_layout_of(
    expert: &Expert<'_>,
    (model_path, model): (&Path, &Model<'_>),
    total: u64,
    progress: &mut dyn Progress,
) -> Result<Option<(Target, Aligned)>> {
    let own = Target::of_expert(expert, model);
    let rest = Target::ALL.into_iter().filter(|t| Some(*t) != own);
    for (n, layout) in own.into_iter().chain(rest).enumerate() {
        if n > 0 {
            // From the beginning: this one was not it.
            progress.start(total);
        }
        let copy = Aligned::of(&moved(model_path, model, layout, progress)?);
        if copy.model(model_path)?.header().base_hash == expert.header().base_hash {
            return Ok(Some((layout, copy)));
        }
    }
    Ok(None)
}

/// Refuses an expert of the same base that was packed for another model of it. `own` has the expert's layout.
fn belongs(
    (path, expert): (&Path, &ExpertFile<'_>),
    (model_path, own): (&Path, &Model<'_>),
) -> Result<()> {
    let (e, m, model) = (expert.expert().header(), own.header(), model_path.display());
    let other = |why: String| Err(another_model(path, why));
    if e.site_hash != m.site_hash {
        return other(format!(
            "it is bound to another table of sites ({:016x}, {model} has {:016x})",
            e.site_hash, m.site_hash
        ));
    }
    let group = own.config().group;
    if u32::from(e.group) != group {
        return other(format!(
            "its groups are of {}, those of {model} of {group}",
            e.group
        ));
    }
    let (class, experts) = (expert.class(), own.n_experts());
    if class >= experts {
        return other(format!(
            "it is expert {class}, {model} has {experts}, numbered from 0"
        ));
    }
    Ok(())
}

fn stranger((path, hash): (&Path, u64), model: &Path) -> PackError {
    another_model(
        path,
        format!(
            "it is bound to another base ({hash:016x}): that of {} has this hash in no layout",
            model.display()
        ),
    )
}

fn another_model(path: &Path, why: String) -> PackError {
    PackError::refused(
        format!("{}: {why}", path.display()),
        "pass the model file that the expert was packed for: --model FILE",
    )
}

/// Verifies a model, and the experts in the place of its own.
fn sound(path: &Path, model: &Model<'_>) -> Result<()> {
    model.verify().map_err(|e| damaged(path, e))
}

fn damaged(path: &Path, e: Error) -> PackError {
    PackError::refused(
        format!("{}: {e}", path.display()),
        "the file is damaged: copy it again, or pack the checkpoint again",
    )
}

/// The file's bytes in the layouts of `target`.
fn moved(
    path: &Path,
    model: &Model<'_>,
    target: Target,
    progress: &mut dyn Progress,
) -> Result<Vec<u8>> {
    let sections = sections(model);
    let mut blob = BlobWriter::new(sections.len());
    for (entry, kind) in sections {
        let mut bound = blob.header();
        let bytes = part(model, &entry).ok_or_else(|| damaged(path, Error::Corrupt))?;
        blob.section(kind, entry.index, |out| match kind {
            SectionKind::Base | SectionKind::Classifier => {
                tensors(out, (path, model), bytes, target, progress)
            }
            SectionKind::Expert => {
                // One that was packed with another classifier goes on to say so.
                let old = bytes.first_chunk().map(ExpertHeader::decode);
                let stranger = old
                    .map(|h| h.classifier_hash)
                    .filter(|h| *h != model.header().classifier_hash);
                bound.classifier_hash = stranger.unwrap_or(bound.classifier_hash);
                panels(out, (path, model), bytes, bound, target, progress)
            }
            SectionKind::Provenance => {
                out.push(provenance(&String::from_utf8_lossy(bytes), target).as_bytes());
                Ok(())
            }
            _ => {
                out.push(bytes);
                Ok(())
            }
        })?;
    }
    Ok(blob.finish().0)
}

/// The provenance with another `for`. Its text stays as it is: numbers, spaces, the order of its keys.
fn provenance(text: &str, target: Target) -> String {
    let word = |t: Target| format!("\"for\":\"{}\"", t.name());
    match Target::ALL.into_iter().map(word).find(|w| text.contains(w)) {
        Some(old) => text.replacen(&old, &word(target), 1),
        None => text.to_owned(),
    }
}

/// The hash that the model's section of a kind has in the layouts of `target`; 0 if it has none.
fn hash_in(
    path: &Path,
    model: &Model<'_>,
    kind: SectionKind,
    target: Target,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let Some((entry, _)) = sections(model).into_iter().find(|(_, k)| *k == kind) else {
        return Ok(0);
    };
    let bytes = part(model, &entry).ok_or_else(|| damaged(path, Error::Corrupt))?;
    let moved = write::alone(|out| tensors(out, (path, model), bytes, target, progress))?;
    Ok(fnv1a(&moved))
}

/// Bytes of the sections of some kinds.
fn weight_bytes(model: &Model<'_>, of: impl Fn(SectionKind) -> bool) -> u64 {
    let all = sections(model).into_iter().filter(|(_, kind)| of(*kind));
    all.map(|(entry, _)| entry.length).sum()
}

/// The rows of a model's section table.
fn sections(model: &Model<'_>) -> Vec<(SectionEntry, SectionKind)> {
    let table = model.data().get(HEADER_BYTES..).unwrap_or_default();
    let rows = table.as_chunks::<SECTION_ENTRY_BYTES>().0;
    rows.iter()
        .take(usize::from(model.header().sections))
        .map(SectionEntry::decode)
        .filter_map(|e| Some((e, SectionKind::from_number(e.kind)?)))
        .collect()
}

/// The bytes of a section.
fn part<'b>(model: &Model<'b>, entry: &SectionEntry) -> Option<&'b [u8]> {
    parts::slice(model.data(), entry.offset as usize, entry.length as usize)
}

/// A copy of a file at a blob's alignment.
struct Aligned {
    bytes: Vec<u8>,
    at: usize,
    len: usize,
}

impl Aligned {
    fn of(file: &[u8]) -> Self {
        let mut bytes = vec![0; file.len() + DATA_ALIGN];
        let at = bytes.as_ptr().align_offset(DATA_ALIGN).min(DATA_ALIGN);
        for (slot, byte) in bytes.iter_mut().skip(at).zip(file) {
            *slot = *byte;
        }
        let len = file.len();
        Self { bytes, at, len }
    }

    fn bytes(&self) -> &[u8] {
        parts::slice(&self.bytes, self.at, self.len).unwrap_or_default()
    }

    /// The model that was moved.
    fn model(&self, path: &Path) -> Result<Model<'_>> {
        let model = Blob::new(self.bytes()).and_then(Model::parse);
        model.map_err(|e| damaged(path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_target_of_a_provenance_changes() {
        let text = r#"{"base": "x\"for\":\"mve\"","group":64, "for":"linux","errors":{"q":1e-3}}"#;
        let to = |t| provenance(text, t);
        assert_eq!(to(Target::Mve), text.replace("linux", "mve"));
        assert_eq!(to(Target::Linux), text);
        assert_eq!(provenance("", Target::Mve), "");
    }

    #[test]
    fn copies_are_aligned() {
        for n in [0, 1, 63, 64, 1000] {
            let file: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let copy = Aligned::of(&file);
            assert_eq!(copy.bytes(), file);
            assert!(Blob::new(copy.bytes()).is_ok());
        }
    }
}

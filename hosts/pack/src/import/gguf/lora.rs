//! LoRA adapters of llama.cpp, as `convert_lora_to_gguf.py` writes them: `general.type` adapter,
//! `adapter.type` lora, a pair `NAME.lora_a`, `NAME.lora_b` for each tensor NAME of the base.
//!
//! A is `[rank][inputs]` and B `[outputs][rank]` as PEFT has them, but at the embedding A is
//! `[vocab][rank]`. Rows of B of q and k are reordered as the base's are. The scale is alpha / rank, and 1
//! without alpha, as in llama.cpp's `get_scale`: the format has no place for rank-stabilised LoRA or for
//! alphas that differ between modules, and its converter drops them.

use super::config::known;
use super::file::Gguf;
use super::names;
use crate::error::Result;
use crate::import::Matrix;
use crate::import::lora::{Features, Part};
use crate::import::modules::{Modules, Place};
use crate::import::weights::check_values;
use pleach::blob::format::Module;
use std::collections::BTreeSet;
use std::path::Path;

const OTHER_BASE: &str = "pass the base that the adapter was trained on";
const A: &str = ".weight.lora_a";
const B: &str = ".weight.lora_b";

/// The tensors of an adapter.
#[derive(Debug)]
pub(crate) struct Tensors {
    file: Gguf,
    /// Rows of a head, where the rows of q and k are reordered.
    permuted: Option<usize>,
}

/// What the header of an adapter says.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) tensors: Tensors,
    /// In the order of sites.
    pub(crate) parts: Vec<Part>,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
}

/// Reads the header of an adapter for a base of these modules and features with heads of `head_dim`.
/// `architecture` is the base's; a model file does not keep it, only whether heads are normed.
///
/// Errors: metadata, names or shapes that do not fit; another architecture than the base's, which may order the
/// rows of q and k in another way.
pub(crate) fn open(
    path: &Path,
    base: Modules,
    architecture: Option<&str>,
    head_dim: u32,
    features: Features<'_>,
) -> Result<Opened> {
    let file = Gguf::open(path)?;
    let m = &file.metadata;
    expect(&file, "general.type", "adapter")?;
    let arch = known(m)?;
    if arch.qk_norm != base.qk_norm || architecture.is_some_and(|base| base != arch.name) {
        return Err(m.refuse(
            format!(
                "an adapter of architecture {}, which the base is not",
                arch.name
            ),
            OTHER_BASE,
        ));
    }
    expect(&file, "adapter.type", "lora")?;
    if m.has("adapter.alora.invocation_tokens") {
        return Err(m.refuse(
            "metadata adapter.alora.invocation_tokens: an adapter that some tokens switch on",
            "train the expert without it: X-LoRA gates every token",
        ));
    }
    let alpha = m.number("adapter.lora.alpha")?.filter(|a| *a != 0.0);
    let mut parts = Vec::new();
    for place in Place::all(base.layers) {
        parts.extend(part(&file, place, alpha, features(place))?);
    }
    check_names(&file, &parts, base.layers)?;
    let mut notes = Vec::new();
    if architecture.is_none() && !arch.qk_norm {
        notes.push(format!(
            "{}: an adapter of architecture {}: the model file does not say whether its base is one",
            path.display(),
            arch.name
        ));
    }
    if alpha.is_none() {
        notes.push(format!(
            "{}: adapter.lora.alpha is missing or 0: scale 1, as in llama.cpp",
            path.display()
        ));
    }
    Ok(Opened {
        tensors: Tensors {
            permuted: arch.permuted.then_some(head_dim as usize),
            file,
        },
        parts,
        notes,
    })
}

impl Tensors {
    /// Bytes of a tensor's data; 0 if it is not there.
    pub(crate) fn bytes(&self, name: &str) -> u64 {
        self.file.tensor(name).map_or(0, |i| i.bytes)
    }

    /// Reads A (`[rank][inputs]`, at an embedding `[vocab][rank]`) and B (`[outputs][rank]`).
    pub(crate) fn read(&mut self, p: &Part) -> Result<(Matrix, Matrix)> {
        let (rows, cols) = match p.place.module {
            Module::Embed => (p.inputs, p.rank),
            _ => (p.rank, p.inputs),
        };
        let a = self.matrix(&p.a, rows, cols)?;
        let mut b = self.matrix(&p.b, p.outputs, p.rank)?;
        if let Some(dim) = self.permuted
            && matches!(p.place.module, Module::Q | Module::K)
        {
            let mut rows = Vec::with_capacity(b.data.len());
            names::unpermute(&b.data, b.cols, dim, &mut rows);
            b.data = rows;
        }
        Ok((a, b))
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let decode = self.file.check(name, rows, cols)?.kind.decode;
        let mut data = Vec::with_capacity(rows * cols);
        self.file
            .pieces(name, usize::MAX, |bytes| decode(bytes, &mut data))?;
        check_values(self.file.path(), name, cols, data.iter().copied())?;
        Ok(Matrix { rows, cols, data })
    }
}

fn expect(file: &Gguf, key: &str, wanted: &str) -> Result<()> {
    let found = file.metadata.text(key)?.unwrap_or("missing");
    if found == wanted {
        return Ok(());
    }
    Err(file.metadata.refuse(
        format!("metadata {key} is {found}, {wanted} is expected"),
        "pass a LoRA adapter that convert_lora_to_gguf.py wrote",
    ))
}

/// The pair at a place, if there is one.
fn part(
    file: &Gguf,
    place: Place,
    alpha: Option<f64>,
    (outputs, inputs): (usize, usize),
) -> Result<Option<Part>> {
    let Some(name) = names::to_gguf(&format!("{}.weight", place.name())) else {
        return Ok(None);
    };
    let (a, b) = (format!("{name}.lora_a"), format!("{name}.lora_b"));
    if file.tensor(&a).is_none() && file.tensor(&b).is_none() {
        return Ok(None);
    }
    let b_shape = &file.required(&b)?.shape;
    let rank = b_shape.first().copied().unwrap_or(0) as usize;
    let part = Part {
        place,
        rank,
        scale: alpha.map_or(1.0, |alpha| (alpha / rank as f64) as f32),
        a,
        b,
        inputs,
        outputs,
    };
    if let Some((cause, _)) = part.fault() {
        return Err(file
            .metadata
            .refuse(cause, "use an adapter of another rank or alpha"));
    }
    let (rows, cols) = match place.module {
        Module::Embed => (inputs, rank),
        _ => (rank, inputs),
    };
    let other_base = |mut e: crate::error::PackError| {
        if e.cause.contains(" has shape ") {
            e.cause = e.cause.replace("the metadata asks", "the base asks");
            e.cure = OTHER_BASE.into();
        }
        e
    };
    file.check(&part.a, rows, cols).map_err(other_base)?;
    file.check(&part.b, outputs, rank).map_err(other_base)?;
    Ok(Some(part))
}

/// Every tensor must be one of a pair.
fn check_names(file: &Gguf, parts: &[Part], layers: u32) -> Result<()> {
    let used: BTreeSet<&str> = parts.iter().flat_map(|p| [&*p.a, &*p.b]).collect();
    let Some(name) = file.names().find(|name| !used.contains(name)) else {
        return match parts.is_empty() {
            false => Ok(()),
            true => Err(file
                .metadata
                .refuse("no tensor in the file", "convert the adapter again")),
        };
    };
    let module = name.strip_suffix(A).or_else(|| name.strip_suffix(B));
    let (why, cure) = match module {
        Some("output") => (
            "belongs to the head, which cannot be a site".into(),
            "train with the linear modules of the layers and embed_tokens only",
        ),
        Some(_) => (
            format!("belongs to a module that the base, of {layers} layers, does not have"),
            OTHER_BASE,
        ),
        None if name.ends_with("_norm.weight") => (
            "is a whole norm, which X-LoRA could not gate".into(),
            "extract the adapter with LoRA weights only",
        ),
        None => (
            "is no LoRA tensor".into(),
            "convert the adapter again with convert_lora_to_gguf.py",
        ),
    };
    Err(file.metadata.refuse(format!("tensor {name} {why}"), cure))
}

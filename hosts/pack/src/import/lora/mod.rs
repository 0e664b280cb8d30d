//! A LoRA adapter: a folder as PEFT saves it (`adapter_config.json` and `adapter_model.safetensors`), or a
//! GGUF file.

mod config;
mod tensors;

use super::Matrix;
use super::gguf;
use super::json::Json;
use super::modules::{Modules, Place};
use super::safetensors::TensorFile;
use super::targets::Targets;
use crate::error::{PackError, Result};
use crate::quant::{LARGEST, SMALLEST};
use config::Ranks;
use pleach::blob::format::Module;
use pleach::kernels::layout;
use std::path::{Path, PathBuf};
use tensors::Tensors;

/// An adapter whose configuration and shapes were checked.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// What the expert is called.
    pub(crate) name: String,
    /// Its key in the X-LoRA config.
    pub(crate) key: String,
    /// Its folder or file.
    pub(crate) folder: PathBuf,
    /// What it has, in the order of sites.
    pub(crate) parts: Vec<Part>,
    /// A copy of the base's embedding table that PEFT saved along and would load.
    pub(crate) embedding_copy: Option<String>,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
    file: Source,
}

/// Where the matrices lie.
#[derive(Debug)]
enum Source {
    Peft(TensorFile),
    Gguf(gguf::LoraTensors),
}

impl Source {
    fn bytes(&self, name: &str) -> u64 {
        match self {
            Source::Peft(file) => file.bytes(name),
            Source::Gguf(file) => file.bytes(name),
        }
    }
}

/// A and B at one place.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) place: Place,
    pub(crate) rank: usize,
    /// alpha / r, or alpha / sqrt(r).
    pub(crate) scale: f32,
    /// A's name in the file.
    pub(crate) a: String,
    /// B's name in the file.
    pub(crate) b: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Part {
    /// What a model file cannot hold of it, and the cure for PEFT's folders.
    pub(crate) fn fault(&self) -> Option<(String, &'static str)> {
        let (name, rank, scale) = (self.place.name(), self.rank, self.scale);
        if rank == 0 || rank > usize::from(u16::MAX) {
            let cause = format!("{name}: rank {rank}; 1 to 65535 is possible");
            return Some((cause, "correct r"));
        }
        if !(SMALLEST..=LARGEST).contains(&scale) {
            let cause = format!(
                "{name}: lora_alpha and r give a scale of {scale:e}; 2^-24 to {LARGEST} is possible"
            );
            return Some((cause, "correct lora_alpha, alpha_pattern or r"));
        }
        let rows = self.outputs.max(self.inputs);
        if layout::packed_b_size(layout::Dtype::F32, rows, rank) > u32::MAX as usize {
            return Some((
                format!("{name}: a panel of 4 GiB or more"),
                "use a smaller rank",
            ));
        }
        None
    }
}

/// Shapes of the base: features of a place, `(outputs, inputs)`.
pub(crate) type Features<'a> = &'a dyn Fn(Place) -> (usize, usize);

impl Adapter {
    /// Reads configuration and header of a folder.
    pub(crate) fn open(
        key: &str,
        folder: &Path,
        base: Modules,
        features: Features<'_>,
    ) -> Result<Self> {
        let config = folder.join("adapter_config.json");
        if !config.is_file() {
            return Err(PackError::refused(
                format!("{}: adapter_config.json is missing", folder.display()),
                format!("pass the LoRA folder of this expert: --adapter {key}=DIR"),
            ));
        }
        let json = Json::read(&config)?;
        config::check(&json)?;
        let places = Targets::read(&json)?.places(&json, base)?;
        let ranks = Ranks::read(&json, &places)?;
        let mut notes: Vec<String> = config::notes(&json)?;
        let file = open_tensors(folder)?;
        let tensors = Tensors::sort(&file, base, &places, key)?;
        let mut parts = Vec::new();
        for place in places {
            let (a, b) = tensors.pair(&file, place)?;
            parts.push(part(&json, &file, place, a, b, &ranks, features(place))?);
        }
        notes.extend(json.assumed());
        Ok(Self {
            name: String::new(),
            key: key.into(),
            folder: folder.into(),
            parts,
            embedding_copy: tensors.embedding_copy,
            notes,
            file: Source::Peft(file),
        })
    }

    /// Reads the header of a GGUF file, for a base with heads of `head_dim` and, where it is known, this
    /// architecture.
    pub(crate) fn open_gguf(
        key: &str,
        path: &Path,
        base: Modules,
        architecture: Option<&str>,
        head_dim: u32,
        features: Features<'_>,
    ) -> Result<Self> {
        let opened = gguf::open_lora(path, base, architecture, head_dim, features)?;
        Ok(Self {
            name: String::new(),
            key: key.into(),
            folder: path.into(),
            parts: opened.parts,
            embedding_copy: None,
            notes: opened.notes,
            file: Source::Gguf(opened.tensors),
        })
    }

    /// The part at a place, if there is one.
    pub(crate) fn part(&self, place: Place) -> Option<usize> {
        self.parts.iter().position(|p| p.place == place)
    }

    /// Bytes of tensors that will be read.
    pub(crate) fn bytes(&self) -> u64 {
        self.embedding_copy_bytes() + self.parts.iter().map(|p| self.part_bytes(p)).sum::<u64>()
    }

    /// Bytes of the copy of the embedding table, 0 without one.
    pub(crate) fn embedding_copy_bytes(&self) -> u64 {
        self.embedding_copy
            .as_deref()
            .map_or(0, |n| self.file.bytes(n))
    }

    fn part_bytes(&self, p: &Part) -> u64 {
        self.file.bytes(&p.a) + self.file.bytes(&p.b)
    }

    /// Reads A (`[rank][inputs]`, at an embedding `[vocab][rank]`) and B (`[outputs][rank]`) of part `n`,
    /// and says how many bytes that were.
    pub(crate) fn read(&mut self, n: usize) -> Result<Option<(Matrix, Matrix, u64)>> {
        let Some(p) = self.parts.get(n) else {
            return Ok(None);
        };
        let bytes = self.part_bytes(p);
        let file = match &mut self.file {
            Source::Peft(file) => file,
            Source::Gguf(file) => {
                let (a, b) = file.read(p)?;
                return Ok(Some((a, b, bytes)));
            }
        };
        let a = file.read(&p.a, p.rank, p.inputs)?;
        let b = file.read(&p.b, p.outputs, p.rank)?;
        let a = match p.place.module {
            Module::Embed => a.transposed(),
            _ => a,
        };
        Ok(Some((a, b, bytes)))
    }

    /// Reads the copy of the base's embedding table, if one was saved along.
    pub(crate) fn read_embedding_copy(
        &mut self,
        vocab: usize,
        hidden: usize,
    ) -> Result<Option<Matrix>> {
        match (&self.embedding_copy, &mut self.file) {
            (Some(name), Source::Peft(file)) => file.read(name, vocab, hidden).map(Some),
            _ => Ok(None),
        }
    }
}

fn open_tensors(folder: &Path) -> Result<TensorFile> {
    let path = folder.join("adapter_model.safetensors");
    if !path.is_file() {
        return Err(PackError::refused(
            format!("{}: adapter_model.safetensors is missing", folder.display()),
            "save the adapter as safetensors: pickled .bin files are not read",
        ));
    }
    TensorFile::open(&path)
}

/// Pairs the tensors and checks their shapes.
fn part(
    json: &Json,
    file: &TensorFile,
    place: Place,
    a: String,
    b: String,
    ranks: &Ranks,
    (outputs, inputs): (usize, usize),
) -> Result<Part> {
    let name = place.name();
    let path = file.path().display();
    let shape = |tensor: &str| file.shape(tensor).unwrap_or_default().to_vec();
    let (a_shape, b_shape) = (shape(&a), shape(&b));
    let (&[a_rank, a_inputs], &[b_outputs, b_rank]) = (a_shape.as_slice(), b_shape.as_slice())
    else {
        return Err(PackError::refused(
            format!(
                "{path}: tensor {a} has shape {a_shape:?} and {b} {b_shape:?}, two dimensions are expected"
            ),
            "pass the adapter of this base",
        ));
    };
    if a_rank != b_rank {
        return Err(PackError::refused(
            format!(
                "{path}: tensor {b} has shape {b_shape:?}, but {a} has {a_shape:?}: the ranks differ"
            ),
            "save the adapter again",
        ));
    }
    if (a_inputs, b_outputs) != (inputs, outputs) {
        let (tensor, found, wanted) = if a_inputs == inputs {
            (&b, &b_shape, [outputs, b_rank])
        } else {
            (&a, &a_shape, [a_rank, inputs])
        };
        return Err(PackError::refused(
            format!("{path}: tensor {tensor} has shape {found:?}, the base asks for {wanted:?}"),
            "pass the base that the adapter was trained on",
        ));
    }
    let rank = ranks.rank(&name);
    if rank != a_rank as f64 {
        return Err(PackError::refused(
            format!(
                "{path}: tensor {a} has rank {a_rank}, r and rank_pattern in adapter_config.json say {rank}"
            ),
            "pass configuration and tensors of the same training",
        ));
    }
    let part = Part {
        place,
        rank: a_rank,
        scale: ranks.scale(&name),
        a,
        b,
        inputs,
        outputs,
    };
    if let Some((cause, cure)) = part.fault() {
        return Err(json.refuse(cause, cure));
    }
    file.check(&part.a, a_rank, inputs)?;
    file.check(&part.b, outputs, a_rank)?;
    Ok(part)
}

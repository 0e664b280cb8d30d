//! What a caller asks for, and how it is told about the progress.

use crate::target::Target;
use std::path::PathBuf;

/// How the weights of the base are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseQuant {
    /// int8 with one f16 scale per row and group.
    #[default]
    Q8,
    /// IEEE half precision.
    F16,
}

impl BaseQuant {
    /// The word that commands use.
    pub const fn name(self) -> &'static str {
        match self {
            BaseQuant::Q8 => "q8",
            BaseQuant::F16 => "f16",
        }
    }
}

/// How the A and B matrices of the adapters are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterQuant {
    /// int8: A with one f16 scale per row and group, B with one per column.
    Q8,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl AdapterQuant {
    /// The word that commands use.
    pub const fn name(self) -> &'static str {
        match self {
            AdapterQuant::Q8 => "q8",
            AdapterQuant::F16 => "f16",
            AdapterQuant::F32 => "f32",
        }
    }
}

/// What to pack, and how.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// The base: a folder with `config.json` and safetensors, or a GGUF file.
    pub base: PathBuf,
    /// Folder of the X-LoRA checkpoint as PEFT or the original `xlora` package saves it. Without it the adapters
    /// are mixed by hand.
    pub xlora: Option<PathBuf>,
    /// LoRA folders, or GGUF files. With `xlora`: key (or name) of an expert and where to take it from.
    /// Without: name and place, in class order.
    pub adapters: Vec<(String, PathBuf)>,
    /// Storage of the base's weights.
    pub quant: BaseQuant,
    /// Storage of the adapters; `None` follows `quant`.
    pub adapter_quant: Option<AdapterQuant>,
    /// Quantisation group along k: 32, 64, 128 or 256.
    pub group: u32,
    /// Whose kernels the rows are interleaved for.
    pub target: Target,
}

impl PackOptions {
    /// The defaults of `pleach pack` for this base: q8, group 64, Linux, no adapters.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            xlora: None,
            adapters: Vec::new(),
            quant: BaseQuant::default(),
            adapter_quant: None,
            group: 64,
            target: Target::default(),
        }
    }

    /// How the adapters are stored in the end.
    pub fn adapter_storage(&self) -> AdapterQuant {
        self.adapter_quant.unwrap_or(match self.quant {
            BaseQuant::Q8 => AdapterQuant::Q8,
            BaseQuant::F16 => AdapterQuant::F16,
        })
    }
}

/// Who is told how far the work is, and what was assumed on the way.
pub trait Progress {
    /// Before the first tensor: how many bytes of tensors will be read.
    fn start(&mut self, total_bytes: u64);
    /// Some of them were read.
    fn advance(&mut self, bytes: u64);
    /// A warning or an assumption that the user should see.
    fn note(&mut self, text: &str);
}

/// A [`Progress`] for callers that do not want to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&mut self, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, _: &str) {}
}

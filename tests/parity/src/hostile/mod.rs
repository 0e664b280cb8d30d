//! The parsers of files, each as a function of bytes that must come back: what `tests/fuzz` mutates, and what
//! the ordinary suite repeats over the seeds and over every input that once was a find (`tests/fuzz/kept`).
//!
//! Coming back is not all: what is refused must be the input's fault, and what is packed must be sound.

mod files;
mod model;
mod texts;

pub use files::Stage;

/// A parser.
pub struct Target {
    /// As `cargo xtask fuzz` calls it.
    pub name: &'static str,
    /// Which bytes it takes.
    pub takes: &'static str,
    /// Gives it some. A panic is a find.
    pub run: fn(&[u8]),
    /// Sound inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "gguf",
        takes: "a base or an adapter in GGUF",
        run: files::gguf,
        seeds: files::gguf_seeds,
    },
    Target {
        name: "safetensors",
        takes: "model.safetensors of a base",
        run: files::safetensors,
        seeds: files::safetensors_seeds,
    },
    Target {
        name: "index",
        takes: "model.safetensors.index.json of a base in parts",
        run: files::index,
        seeds: files::index_seeds,
    },
    Target {
        name: "base-config",
        takes: "config.json of a base",
        run: files::base_config,
        seeds: files::base_config_seeds,
    },
    Target {
        name: "lora-config",
        takes: "adapter_config.json of a LoRA adapter",
        run: files::lora_config,
        seeds: files::lora_config_seeds,
    },
    Target {
        name: "lora",
        takes: "adapter_model.safetensors of a LoRA adapter",
        run: files::lora,
        seeds: files::lora_seeds,
    },
    Target {
        name: "xlora-config",
        takes: "adapter_config.json of PEFT's X-LoRA, or xlora_config.json of the original package",
        run: files::xlora_config,
        seeds: files::xlora_config_seeds,
    },
    Target {
        name: "blob",
        takes: "a model file; its checksums are recomputed first",
        run: model::blob,
        seeds: model::blob_seeds,
    },
    Target {
        name: "expert",
        takes: "an expert file; its checksums and bindings are recomputed first",
        run: model::expert,
        seeds: model::expert_seeds,
    },
    Target {
        name: "tokenizer",
        takes: "the tokenizer section of a model file",
        run: texts::tokenizer,
        seeds: texts::tokenizer_seeds,
    },
    Target {
        name: "tokenizer-json",
        takes: "tokenizer.json",
        run: texts::tokenizer_json,
        seeds: texts::tokenizer_json_seeds,
    },
    Target {
        name: "template",
        takes: "a chat template",
        run: texts::template,
        seeds: texts::template_seeds,
    },
];

/// The parser with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

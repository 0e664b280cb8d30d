//! The model files and texts that must have one hash over all modes.

use crate::adversarial::RECIPES;
use crate::fixture::{self, Case, File, Storage};
use pleach_pack::Target;

/// A checkpoint and a text for it.
pub struct Subject {
    /// `intent`, or a case's name.
    pub name: String,
    /// A prompt that is longer than the longest chunk; its head serves as a short one.
    pub prompt: Vec<u32>,
    /// How it may be stored; each gives bits of its own.
    pub storages: Vec<Storage>,
    pack: Box<dyn Fn(Storage) -> File>,
}

/// Tokens of the prompts: the longest chunk is 32, so that two chunks of it are in flight.
const PROMPT: usize = 37;

impl Subject {
    /// The file in one storage.
    pub fn file(&self, storage: Storage) -> File {
        (self.pack)(storage)
    }

    /// Four cases: an embedding site with QKV biases and an untied head; a global
    /// weight and a scaling pass value that make every expert take part in both passes; six experts of which
    /// three are kept; raw scalings with top-2 and a softmax over them.
    pub fn cases() -> Vec<Subject> {
        let (f16, q8) = (Storage::F16, Storage::Q8);
        vec![
            Self::case(
                "case-qwen2-embedding",
                vec![f16, q8, q8.group(32), q8.group(128), q8.group(256)],
            ),
            Self::case("case-global-weight", vec![f16, q8]),
            Self::case("case-six-experts-top3", vec![f16, q8]),
            Self::case("case-raw-top2-softmax", vec![f16, q8]),
        ]
    }

    /// The intent model over two of its sentences.
    pub fn intent() -> Subject {
        let folder = fixture::root().join("xlora-intent");
        let read = |n: usize| {
            let file = std::fs::read(folder.join(format!("{n:02}.safetensors")));
            fixture::tokens(&file.expect("an expected output"), "prompt")
        };
        let mut prompt = read(4);
        prompt.extend(read(5));
        Subject {
            name: "intent".into(),
            prompt: cycle(&prompt),
            storages: vec![Storage::F16, Storage::Q8],
            pack: Box::new(fixture::intent),
        }
    }

    /// The adversarial checkpoints, in f16 and q8.
    pub fn adversarial() -> Vec<Subject> {
        let subject = |recipe: &'static crate::adversarial::Recipe| Subject {
            name: format!("adversarial-{}", recipe.name),
            prompt: recipe.prompt(PROMPT),
            storages: vec![
                Storage::F16.group(recipe.group),
                Storage::Q8.group(recipe.group),
            ],
            pack: Box::new(move |s| recipe.file(s)),
        };
        RECIPES.iter().map(subject).collect()
    }

    /// Two families whose layers do what no other model here does: QK norm (qwen3), layers without rope
    /// (smollm3).
    pub fn families() -> Vec<Subject> {
        let subject = |name| Self::of(Case::family(name), vec![Storage::F16, Storage::Q8]);
        vec![subject("qwen3"), subject("smollm3")]
    }

    /// All of them.
    pub fn all() -> Vec<Subject> {
        let mut all = vec![Self::intent()];
        all.extend(Self::cases());
        all.extend(Self::families());
        all.extend(Self::adversarial());
        all
    }

    fn case(name: &str, storages: Vec<Storage>) -> Subject {
        Self::of(Case::open(name), storages)
    }

    fn of(case: Case, storages: Vec<Storage>) -> Subject {
        Subject {
            name: case.name.clone(),
            prompt: cycle(&case.tokens("prompt")),
            storages,
            pack: Box::new(move |s| case.pack(s)),
        }
    }
}

fn cycle(tokens: &[u32]) -> Vec<u32> {
    tokens.iter().copied().cycle().take(PROMPT).collect()
}

/// The layouts that run in every mode: they must not show. `tests/layouts.rs` has the others.
pub const LAYOUTS: [Target; 2] = [Target::Linux, Target::Portable];

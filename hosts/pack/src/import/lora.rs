//! A LoRA folder as PEFT saves it: `adapter_config.json` and `adapter_model.safetensors`.

use super::Matrix;
use super::json::Json;
use super::modules::{Place, others};
use super::safetensors::TensorFile;
use super::targets::{Patterns, Targets};
use crate::error::{PackError, Result};
use crate::quant::{LARGEST, SMALLEST};
use pleach::blob::format::Module;
use pleach::kernels::layout;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A LoRA folder whose configuration and shapes were checked.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// What the expert is called.
    pub(crate) name: String,
    /// Its key in the X-LoRA config.
    pub(crate) key: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// What it has, in the order of sites.
    pub(crate) parts: Vec<Part>,
    /// A copy of the base's embedding table that PEFT saved along and would load.
    pub(crate) embedding_copy: Option<String>,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
    file: TensorFile,
}

/// A and B at one place.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) place: Place,
    pub(crate) rank: usize,
    /// alpha / r, or alpha / sqrt(r).
    pub(crate) scale: f32,
    a: String,
    b: String,
    inputs: usize,
    outputs: usize,
}

/// Shapes of the base: features of a place, `(outputs, inputs)`.
pub(crate) type Features<'a> = &'a dyn Fn(Place) -> (usize, usize);

impl Adapter {
    /// Reads configuration and header of a folder.
    pub(crate) fn open(
        key: &str,
        folder: &Path,
        layers: u32,
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
        check_config(&json)?;
        let places = Targets::read(&json)?.places(&json, layers)?;
        let ranks = Ranks::read(&json)?;
        let mut notes: Vec<String> = notes(&json)?;
        let file = open_tensors(folder)?;
        let tensors = Tensors::sort(&file, layers, &places, key)?;
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
            file,
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
        let a = self.file.read(&p.a, p.rank, p.inputs)?;
        let b = self.file.read(&p.b, p.outputs, p.rank)?;
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
        match &self.embedding_copy {
            Some(name) => self.file.read(name, vocab, hidden).map(Some),
            None => Ok(None),
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

/// Rank and alpha of a module.
struct Ranks {
    r: u32,
    alpha: f64,
    rslora: bool,
    rank_pattern: Patterns,
    alpha_pattern: Patterns,
}

impl Ranks {
    fn read(json: &Json) -> Result<Self> {
        for key in ["rank_pattern", "alpha_pattern"] {
            if !json.has(key) {
                json.note_assumed(key, "{}");
            }
        }
        Ok(Self {
            r: json.required_u32("r")?,
            alpha: json.required_number("lora_alpha")?,
            rslora: json.bool_or("use_rslora", false)?,
            rank_pattern: Patterns::read(json, "rank_pattern")?,
            alpha_pattern: Patterns::read(json, "alpha_pattern")?,
        })
    }

    fn rank(&self, name: &str) -> f64 {
        self.rank_pattern.find(name).unwrap_or(f64::from(self.r))
    }

    /// alpha / r or alpha / sqrt(r) in f64, rounded once.
    fn scale(&self, name: &str) -> f32 {
        let r = self.rank(name);
        let alpha = self.alpha_pattern.find(name).unwrap_or(self.alpha);
        (alpha / if self.rslora { libm::sqrt(r) } else { r }) as f32
    }
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
    if a_rank == 0 || a_rank > usize::from(u16::MAX) {
        return Err(json.refuse(
            format!("{name}: rank {a_rank}; 1 to 65535 is possible"),
            "correct r",
        ));
    }
    let scale = ranks.scale(&name);
    if !(SMALLEST..=LARGEST).contains(&scale) {
        return Err(json.refuse(
            format!(
                "{name}: lora_alpha and r give a scale of {scale:e}; 2^-24 to {LARGEST} is possible"
            ),
            "correct lora_alpha, alpha_pattern or r",
        ));
    }
    if layout::packed_b_size(layout::Dtype::F32, outputs.max(inputs), a_rank) > u32::MAX as usize {
        return Err(json.refuse(
            format!("{name}: a panel of 4 GiB or more"),
            "use a smaller rank",
        ));
    }
    file.check(&a, a_rank, inputs)?;
    file.check(&b, outputs, a_rank)?;
    Ok(Part {
        place,
        rank: a_rank,
        scale,
        a,
        b,
        inputs,
        outputs,
    })
}

/// The LoRA tensors of a file, by module.
struct Tensors {
    /// Module name, then `A` or `B`, to tensor name.
    pairs: BTreeMap<(String, char), String>,
    embedding_copy: Option<String>,
}

impl Tensors {
    /// Sorts the names of a file. Folders that X-LoRA itself saved (`base_model.lora_model.`) hold stray
    /// tensors of other experts, which are passed over; elsewhere every tensor must have its place.
    fn sort(file: &TensorFile, layers: u32, places: &[Place], key: &str) -> Result<Self> {
        let names = file.names();
        let stray_ok = names
            .iter()
            .any(|n| n.starts_with("base_model.lora_model."));
        let path = file.path().display();
        if !names.iter().any(|n| n.contains("lora_")) {
            return Err(PackError::refused(
                format!("{path}: no lora_ tensor in the file"),
                format!("pass the original adapter folder of this expert: --adapter {key}=DIR"),
            ));
        }
        let mut sorted = Self {
            pairs: BTreeMap::new(),
            embedding_copy: None,
        };
        for full in names {
            let inner = strip_prefixes(&full);
            let split = [
                (".lora_A.weight", 'A'),
                (".lora_B.weight", 'B'),
                (".lora_embedding_A", 'A'),
                (".lora_embedding_B", 'B'),
            ]
            .into_iter()
            .find_map(|(end, ab)| Some((inner.strip_suffix(end)?, ab)));
            match split {
                Some((module, ab)) if places.iter().any(|p| p.name() == module) => {
                    let taken = sorted.pairs.insert((module.into(), ab), full.clone());
                    if let Some(other) = taken {
                        return Err(PackError::refused(
                            format!("{path}: tensors {other} and {full} are the same to PEFT"),
                            "remove one of them",
                        ));
                    }
                }
                _ if stray_ok => {}
                _ if inner == "model.embed_tokens.base_layer.weight" => {
                    sorted.embedding_copy = Some(full);
                }
                Some((module, _)) => return Err(misplaced(&path, &full, module, layers)),
                None => return Err(unknown(&path, &full)),
            }
        }
        Ok(sorted)
    }

    /// Both tensors of a place.
    fn pair(&self, file: &TensorFile, place: Place) -> Result<(String, String)> {
        let module = place.name();
        let get = |ab| self.pairs.get(&(module.clone(), ab));
        if let (Some(a), Some(b)) = (get('A'), get('B')) {
            return Ok((a.clone(), b.clone()));
        }
        let (present, lacking) = if get('A').is_some() {
            ('A', 'B')
        } else {
            ('B', 'A')
        };
        let missing = match get(present) {
            // The sibling's name with the other letter; the letter stands last but for ".weight".
            Some(sibling) => sibling
                .replace(&format!("lora_{present}"), &format!("lora_{lacking}"))
                .replace(
                    &format!("lora_embedding_{present}"),
                    &format!("lora_embedding_{lacking}"),
                ),
            None => format!("base_model.model.{module}.lora_A.weight"),
        };
        Err(PackError::refused(
            format!(
                "{}: tensor {missing} is missing, though target_modules names its module",
                file.path().display()
            ),
            "save the adapter again, complete",
        ))
    }
}

/// A tensor's name within the base, as PEFT's X-LoRA finds it: prefixes go until `model.` is followed by
/// anything but `model.`.
fn strip_prefixes(name: &str) -> &str {
    let mut key = name;
    while !key.starts_with("model.") || key.starts_with("model.model.") {
        match key.split_once('.') {
            Some((_, rest)) => key = rest,
            None => return name,
        }
    }
    key
}

fn misplaced(path: &std::path::Display<'_>, tensor: &str, module: &str, layers: u32) -> PackError {
    let known =
        Place::all(layers).any(|p| p.name() == module) || others(layers).any(|n| n == module);
    let (why, cure) = if known {
        (
            "a module that target_modules does not name".to_string(),
            "pass configuration and tensors of the same training",
        )
    } else {
        (
            format!(
                "a module that the base does not have: it has {layers} layers, model.layers.0 to model.layers.{}",
                layers.saturating_sub(1)
            ),
            "pass the base that the adapter was trained on",
        )
    };
    PackError::refused(format!("{path}: tensor {tensor} belongs to {why}"), cure)
}

fn unknown(path: &std::path::Display<'_>, tensor: &str) -> PackError {
    let why = if tensor.contains("lora_magnitude_vector") {
        "belongs to DoRA, which is not supported, as in PEFT's X-LoRA"
    } else if tensor.ends_with(".bias") {
        "is a bias, which is not supported: X-LoRA could not gate it"
    } else {
        "is no LoRA tensor"
    };
    PackError::refused(
        format!("{path}: tensor {tensor} {why}"),
        "save the adapter with PEFT 0.19.1, with LoRA weights only",
    )
}

const RETRAIN: &str = "train the expert without it";

/// Refuses by name what X-LoRA cannot gate or this version cannot compute.
fn check_config(json: &Json) -> Result<()> {
    match json.text("peft_type")? {
        Some("LORA") => {}
        found => {
            return Err(json.refuse(
                format!(
                    "peft_type is {:?}, an expert must be LORA",
                    found.unwrap_or("missing")
                ),
                "pass a LoRA folder as the expert",
            ));
        }
    }
    if let Some(bias) = json.text("bias")?
        && bias != "none"
    {
        return Err(json.refuse(
            format!("bias is {bias:?}: biases are not supported, X-LoRA could not gate them"),
            "train the expert with bias = \"none\"",
        ));
    }
    if let Some(Value::String(init)) = json.get("init_lora_weights") {
        let altering = init.starts_with("pissa")
            || matches!(init.as_str(), "olora" | "corda" | "loftq" | "lora_ga");
        if altering {
            return Err(json.refuse(
                format!("init_lora_weights is {init:?}: the base itself was altered, so that this base would answer wrongly"),
                "convert the adapter with PEFT's path_initial_model_for_weight_conversion, or train it without",
            ));
        }
        if !matches!(init.as_str(), "gaussian" | "eva" | "orthogonal") {
            return Err(json.refuse(
                format!("init_lora_weights is {init:?}, which is not known: it may have altered the base"),
                "train the expert with a known initialisation",
            ));
        }
    }
    let because = |key: &str| match key {
        "use_dora" => "DoRA is not supported, as in PEFT's X-LoRA",
        "lora_bias" => "B's bias would not be gated",
        "modules_to_save" => "whole modules are not swapped with an expert",
        "trainable_token_indices" => "token rows are not swapped with an expert",
        "layer_replication" => "the base would have other layers",
        "ensure_weight_tying" => "an adapter on the tied head is not supported",
        _ => "not supported",
    };
    const DEFAULT_ONLY: [&str; 14] = [
        "use_dora",
        "lora_bias",
        "modules_to_save",
        "trainable_token_indices",
        "target_parameters",
        "layer_replication",
        "use_qalora",
        "alora_invocation_tokens",
        "arrow_config",
        "megatron_config",
        "use_bdlora",
        "ensure_weight_tying",
        "lora_ga_config",
        "corda_config",
    ];
    for key in DEFAULT_ONLY {
        if let Some(value) = json.get(key).filter(|v| !is_empty(v)) {
            return Err(json.refuse(
                format!("{key} is {}: {}", short(value), because(key)),
                RETRAIN,
            ));
        }
    }
    Ok(())
}

/// What PEFT ignores, and keys that it did not have.
fn notes(json: &Json) -> Result<Vec<String>> {
    const KNOWN: [&str; 26] = [
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "alpha_pattern",
        "rank_pattern",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
        "runtime_config",
    ];
    let mut notes = Vec::new();
    if json.bool_or("fan_in_fan_out", false)? {
        notes.push(format!(
            "{}: fan_in_fan_out is true; ignored, as PEFT does for Linear modules",
            json.path().display()
        ));
    }
    for key in ["bias", "use_dora", "lora_bias"] {
        if !json.has(key) {
            json.note_assumed(key, if key == "bias" { "none" } else { "false" });
        }
    }
    let unknown: Vec<_> = json
        .entries()
        .filter(|(k, v)| !KNOWN.contains(&k.as_str()) && !is_empty(v))
        .map(|(k, _)| k.as_str())
        .collect();
    if !unknown.is_empty() {
        notes.push(format!(
            "{}: not known to PEFT 0.19.1, ignored: {}",
            json.path().display(),
            unknown.join(", ")
        ));
    }
    Ok(notes)
}

/// Null, false, or an empty text, list or object.
fn is_empty(v: &Value) -> bool {
    match v {
        Value::Null | Value::Bool(false) => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn short(v: &Value) -> String {
    let text = v.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

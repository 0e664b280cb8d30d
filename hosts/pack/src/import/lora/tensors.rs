//! The tensors of an adapter file, sorted by module under PEFT's names.

use crate::error::{PackError, Result};
use crate::import::modules::{Modules, Place};
use crate::import::safetensors::TensorFile;
use std::collections::{BTreeMap, BTreeSet};

/// The LoRA tensors of a file, by module.
pub(super) struct Tensors {
    /// Module name, then `A` or `B`, to tensor name.
    pairs: BTreeMap<(String, char), String>,
    pub(super) embedding_copy: Option<String>,
}

impl Tensors {
    /// Sorts the names of a file. Folders that X-LoRA itself saved (`base_model.lora_model.`) hold stray
    /// tensors of other experts, which are passed over; elsewhere every tensor must have its place.
    pub(super) fn sort(
        file: &TensorFile,
        base: Modules,
        places: &[Place],
        key: &str,
    ) -> Result<Self> {
        let names = file.names();
        let stray_ok = names
            .iter()
            .any(|n| n.starts_with("base_model.lora_model."));
        let modules: BTreeSet<String> = places.iter().map(|p| p.name()).collect();
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
                Some((module, ab)) if modules.contains(module) => {
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
                Some((module, _)) => return Err(misplaced(&path, &full, module, base)),
                None => return Err(unknown(&path, &full)),
            }
        }
        Ok(sorted)
    }

    /// Both tensors of a place.
    pub(super) fn pair(&self, file: &TensorFile, place: Place) -> Result<(String, String)> {
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

fn misplaced(
    path: &std::path::Display<'_>,
    tensor: &str,
    module: &str,
    base: Modules,
) -> PackError {
    let layers = base.layers;
    let known =
        Place::all(layers).any(|p| p.name() == module) || base.others().any(|n| n == module);
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

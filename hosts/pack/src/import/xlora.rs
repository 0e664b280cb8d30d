//! An X-LoRA folder as PEFT 0.19.1 saves it, or as the [original package](original) does: options, and which
//! folder each class's expert comes from.

mod original;

use super::json::Json;
use crate::error::{PackError, Result};
use crate::quant::{LARGEST, SMALLEST};
use pleach::blob::format::OptionsRecord;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What the configuration says.
#[derive(Debug)]
pub(crate) struct XLora {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The options that a blob stores.
    pub(crate) options: OptionsRecord,
    /// Shape of the classifier.
    pub(crate) classifier: Shape,
    /// Key and folder of each class's expert, in class order.
    pub(crate) experts: Vec<(String, PathBuf)>,
    /// Things the user should know.
    pub(crate) notes: Vec<String>,
}

/// Shape of the classifier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Number of Linear layers.
    pub(crate) depth: u32,
    /// Width between them.
    pub(crate) size: u32,
    /// How its tensors are called.
    pub(crate) names: Naming,
}

/// How a classifier's tensors are called, and what that says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// PEFT: one list of modules in which a ReLU, and with dropout a Dropout, follows each Linear.
    Peft {
        /// Whether Dropout counts.
        dropout: bool,
    },
    /// The original package: a list without the last Linear, which stands apart.
    Original {
        /// ReLU and Dropout follow each Linear but the last one, and count. Without them the layers follow
        /// each other directly.
        relu: bool,
        /// Whether the Linears have biases.
        bias: bool,
    },
}

impl XLora {
    /// Reads `adapter_config.json`; `given` are the user's `--adapter KEY=DIR`.
    pub(crate) fn read(folder: &Path, hidden: u32, given: &[(String, PathBuf)]) -> Result<Self> {
        if original::is_one(folder) {
            return original::read(folder, hidden, given);
        }
        let json = open(folder)?;
        let (depth, size) = depth_and_size(&json, hidden)?;
        let dropout = json.number_or("xlora_dropout_p", 0.2)? > 0.0;
        let items = adapters(&json)?;
        let value = scaling_pass_value(&json, items.len())?;
        let options = options(&json, items.len(), value)?;
        let mut notes = Vec::new();
        let experts = folders(&json, folder, &items, given, &mut notes)?;
        if options.enable_softmax && options.enable_softmax_topk {
            notes.push(format!(
                "{}: enable_softmax and enable_softmax_topk: softmax is applied twice, as in PEFT",
                json.path().display()
            ));
        }
        notes.extend(json.assumed());
        Ok(Self {
            folder: folder.into(),
            options,
            classifier: Shape {
                depth,
                size,
                names: Naming::Peft { dropout },
            },
            experts,
            notes,
        })
    }
}

fn open(folder: &Path) -> Result<Json> {
    let name = folder.display();
    let path = folder.join("adapter_config.json");
    if !path.is_file() {
        return Err(PackError::refused(
            format!("{name}: neither adapter_config.json nor xlora_config.json is there"),
            "pass the X-LoRA folder that PEFT saved (adapter_config.json, adapter_model.safetensors), or the xlora package (xlora_config.json, xlora_classifier.safetensors)",
        ));
    }
    let json = Json::read(&path)?;
    match json.text("peft_type")? {
        Some("XLORA") => Ok(json),
        found => {
            let found = found.unwrap_or("missing");
            Err(json.refuse(
                format!("peft_type is {found}, XLORA is expected"),
                "pass a plain LoRA adapter with --adapter NAME=DIR, without --xlora",
            ))
        }
    }
}

/// `xlora_depth` and `xlora_size`; `hidden_size` must be the base's.
fn depth_and_size(json: &Json, hidden: u32) -> Result<(u32, u32)> {
    let found = json.required_u32("hidden_size")?;
    if found != hidden {
        return Err(json.refuse(
            format!("hidden_size is {found}, the base has {hidden}"),
            "pass the base that the checkpoint was trained on",
        ));
    }
    let depth = match json.u32("xlora_depth")? {
        Some(d) => d,
        None => {
            json.note_assumed("xlora_depth", "1");
            1
        }
    };
    if !(1..=64).contains(&depth) {
        return Err(json.refuse(
            format!("xlora_depth is {depth}; it must be at least 1 (and at most 64)"),
            "correct xlora_depth: the number of the classifier's Linear layers",
        ));
    }
    let size = match json.u32("xlora_size")? {
        Some(s) => s,
        None => {
            json.note_assumed("xlora_size", "2048");
            2048
        }
    };
    if depth > 1 && !(1..=1 << 24).contains(&size) {
        return Err(json.refuse(
            format!("xlora_size is {size}; 1 to 2^24 is possible"),
            "correct xlora_size: the width of the classifier",
        ));
    }
    Ok((depth, size))
}

fn scaling_pass_value(json: &Json, experts: usize) -> Result<f32> {
    Ok(match json.number("scaling_pass_value")? {
        Some(v) => v,
        None if json.has("scaling_pass_value") => 1.0 / experts as f64,
        None => json.number_or("scaling_pass_value", 0.0)?,
    } as f32)
}

fn options(json: &Json, experts: usize, scaling_pass_value: f32) -> Result<OptionsRecord> {
    let top_k_lora = match json.get("top_k_lora") {
        None => {
            if !json.has("top_k_lora") {
                json.note_assumed("top_k_lora", "none");
            }
            0
        }
        Some(_) => json.required_u32("top_k_lora")?,
    };
    if json.get("top_k_lora").is_some() && (top_k_lora == 0 || top_k_lora as usize > experts) {
        return Err(json.refuse(
            format!("top_k_lora is {top_k_lora}, the checkpoint has {experts} experts"),
            format!("set top_k_lora to 1 to {experts}, or to null to keep all"),
        ));
    }
    if top_k_lora != 0 && scaling_pass_value != 0.0 {
        return Err(json.refuse(
            format!("top_k_lora {top_k_lora} with scaling_pass_value {scaling_pass_value}: in the scaling pass every expert has the same value, so that the {top_k_lora} largest are ambiguous"),
            "set scaling_pass_value to 0, or top_k_lora to null",
        ));
    }
    let factor = |key: &str, v: f32, zero: bool| {
        let m = if zero { v.abs() } else { v };
        if (SMALLEST..=LARGEST).contains(&m) || (zero && v == 0.0) {
            return Ok(v);
        }
        Err(json.refuse(
            format!(
                "{key} is {v:e}; {}2^-24 to {LARGEST} is possible",
                if zero { "0 or ±" } else { "" }
            ),
            format!("correct {key}"),
        ))
    };
    Ok(OptionsRecord {
        experts: experts as u16,
        top_k_lora: top_k_lora as u16,
        enable_softmax: json.bool_or("enable_softmax", true)?,
        enable_softmax_topk: json.bool_or("enable_softmax_topk", false)?,
        layerwise_scalings: json.bool_or("layerwise_scalings", false)?,
        softmax_temperature: factor(
            "softmax_temperature",
            json.number_or("softmax_temperature", 1.0)? as f32,
            false,
        )?,
        scaling_pass_value: factor("scaling_pass_value", scaling_pass_value, true)?,
        global_scaling_weight: factor(
            "global_scaling_weight",
            json.number_or("global_scaling_weight", 1.0)? as f32,
            true,
        )?,
    })
}

/// Key and path of each entry of `adapters`, in the file's order.
fn adapters(json: &Json) -> Result<Vec<(&str, &str)>> {
    json.required("adapters")?;
    adapter_items(json)
}

/// The same of an `adapters` that is an object.
fn adapter_items(json: &Json) -> Result<Vec<(&str, &str)>> {
    let mut items = Vec::new();
    for (key, path) in json.object("adapters")?.into_iter().flatten() {
        let Value::String(path) = path else {
            return Err(json.refuse(
                format!("adapters.{key} is {path}, a folder is expected"),
                "correct the path",
            ));
        };
        items.push((key.as_str(), path.as_str()));
    }
    check_count(json, items.len())?;
    Ok(items)
}

fn check_count(json: &Json, experts: usize) -> Result<()> {
    if (1..=1024).contains(&experts) {
        return Ok(());
    }
    Err(json.refuse(
        format!("adapters names {experts} experts; 1 to 1024 are possible"),
        "name an expert per class of the classifier",
    ))
}

/// For each class, the number of the entry whose weights PEFT puts behind it.
///
/// PEFT loads entry i under the name `i`, but activates the adapters under the *keys* in the file's order:
/// class n drives the adapter named by key n, hence the entry of that number. Other keys than 0..n-1 cannot
/// run there: `None`.
fn effective_order(items: &[(&str, &str)]) -> Option<Vec<usize>> {
    let order: Option<Vec<usize>> = items
        .iter()
        .map(|(key, _)| {
            let n: usize = key.parse().ok()?;
            (n < items.len() && n.to_string() == *key).then_some(n)
        })
        .collect();
    // Keys of one object differ, so that all numbers below n are there.
    order
}

fn folders(
    json: &Json,
    folder: &Path,
    items: &[(&str, &str)],
    given: &[(String, PathBuf)],
    notes: &mut Vec<String>,
) -> Result<Vec<(String, PathBuf)>> {
    let name = json.path().display();
    let order = match effective_order(items) {
        Some(order) => order,
        None => {
            notes.push(format!(
                "{name}: the keys of adapters are not 0 to {}: classes in the order of the file (PEFT 0.19.1 cannot run such a checkpoint)",
                items.len() - 1
            ));
            (0..items.len()).collect()
        }
    };
    if order.iter().enumerate().any(|(class, n)| class != *n) {
        let list: Vec<_> = order.iter().map(usize::to_string).collect();
        notes.push(format!(
            "{name}: the keys of adapters are not in the order 0 to {}: as in PEFT, the classes drive the entries number {}",
            items.len() - 1,
            list.join(", ")
        ));
    }
    let mut overrides = overrides(json, items, given)?;
    let own_only = json.bool_or("use_trainable_adapters", false)?;
    let mut experts = Vec::new();
    for n in order {
        let Some((key, path)) = items.get(n) else {
            continue;
        };
        let dir = match overrides.get_mut(n).and_then(Option::take) {
            Some(dir) => dir,
            None => resolve(json, folder, n, key, path, own_only, notes)?,
        };
        experts.push((key.to_string(), dir));
    }
    Ok(experts)
}

/// The folder that the user gave for each entry.
fn overrides(
    json: &Json,
    items: &[(&str, &str)],
    given: &[(String, PathBuf)],
) -> Result<Vec<Option<PathBuf>>> {
    let mut overrides = vec![None; items.len()];
    for (key, dir) in given {
        let n = find(json, items, key)?;
        if let Some(slot) = overrides.get_mut(n)
            && slot.replace(dir.clone()).is_some()
        {
            return Err(PackError::refused(
                format!("--adapter {key}: the expert is named twice"),
                "name each expert once",
            ));
        }
    }
    Ok(overrides)
}

/// The entry that `--adapter KEY` means: by key, else by the last component of its path.
fn find(json: &Json, items: &[(&str, &str)], key: &str) -> Result<usize> {
    if let Some(n) = items.iter().position(|(k, _)| *k == key) {
        return Ok(n);
    }
    let named = |path: &str| {
        path.trim_end_matches(['/', '\\'])
            .rsplit(['/', '\\'])
            .next()
            == Some(key)
    };
    let mut hits = items
        .iter()
        .enumerate()
        .filter(|(_, (_, path))| named(path));
    match (hits.next(), hits.next()) {
        (Some((n, _)), None) => Ok(n),
        (found, _) => {
            let keys: Vec<_> = items.iter().map(|(k, p)| format!("{k} ({p})")).collect();
            let what = if found.is_some() {
                "more than one expert"
            } else {
                "no expert"
            };
            Err(json.refuse(
                format!(
                    "--adapter {key}: {what} of that key or name; there are {}",
                    keys.join(", ")
                ),
                "use one of the keys",
            ))
        }
    }
}

/// Where an expert lies that the user did not name.
fn resolve(
    json: &Json,
    folder: &Path,
    n: usize,
    key: &str,
    path: &str,
    own_only: bool,
    notes: &mut Vec<String>,
) -> Result<PathBuf> {
    let own = folder.join(n.to_string());
    let has_own = own.join("adapter_config.json").is_file();
    if own_only {
        return if has_own {
            Ok(own)
        } else {
            Err(json.refuse(
                format!("use_trainable_adapters: the trained expert {key} should lie in {}, which is missing", own.display()),
                format!("pass it with --adapter {key}=DIR: the folder in adapters holds the values from before the training"),
            ))
        };
    }
    let beside = folder.join(path);
    if beside.is_dir() {
        return Ok(beside);
    }
    if Path::new(path).is_dir() {
        return Ok(path.into());
    }
    if has_own {
        notes.push(format!(
            "{}: adapters.{key}: {path} does not exist; taken from {}, where PEFT saved the expert too",
            json.path().display(),
            own.display()
        ));
        return Ok(own);
    }
    Err(json.refuse(
        format!("adapters.{key}: the folder {path} does not exist (beside the checkpoint or in the working directory)"),
        format!("pass it with --adapter {key}=DIR"),
    ))
}

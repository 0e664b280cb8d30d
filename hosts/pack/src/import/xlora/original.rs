//! A folder of the original `xlora` package (EricLBuehler/xlora), and of mistral.rs: `xlora_config.json`,
//! `xlora_classifier.safetensors`, and a LoRA folder per adapter.
//!
//! What differs from PEFT, as its source has it:
//! * Classes follow `adapters` in the file's order: a list of names; in older versions an object of name and
//!   path, or nothing, and the program that loaded it named the adapters.
//! * An adapter lies in the subfolder of its name, in older versions in `adapters/NAME`; one that is called
//!   `default` lies in the folder itself, because `PeftModel.save_pretrained` puts it there. A path counts only
//!   where there is no such folder, and never with `use_trainable_adapters`: it holds the untrained values.
//! * `enable_relu_and_dropout` is false unless stated, and then there is no activation between the layers;
//!   `use_bias` may be false. Early versions had no biases and no `use_bias`, but a row of scalings for a whole
//!   text: without biases `use_bias` must be stated.
//! * The scaling pass runs with the adapters disabled: `scaling_pass_value` has no effect.

use super::{Naming, Shape, XLora, adapter_items, check_count, depth_and_size, options, overrides};
use crate::error::Result;
use crate::import::json::Json;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const CONFIG: &str = "xlora_config.json";
const PER_TOKEN: &str =
    "train the classifier with a version of the package that scales each token, or with PEFT";
/// Most files of the folder that are looked at for mistral.rs's ordering file.
const MOST_FILES: usize = 256;

/// Whether the folder holds such a checkpoint. An `adapter_config.json` beside it is the adapter `default`,
/// unless it says that it is PEFT's X-LoRA.
pub(super) fn is_one(folder: &Path) -> bool {
    let of_peft = || {
        let config = Json::read(&folder.join("adapter_config.json")).ok();
        config.is_some_and(|c| matches!(c.text("peft_type"), Ok(Some("XLORA"))))
    };
    folder.join(CONFIG).is_file() && !of_peft()
}

/// Reads the configuration; `given` are the user's `--adapter KEY=DIR`.
pub(super) fn read(folder: &Path, hidden: u32, given: &[(String, PathBuf)]) -> Result<XLora> {
    let json = Json::read(&folder.join(CONFIG))?;
    let name = json.path().display();
    let mut notes = Vec::new();
    if json
        .get("use_mean_pool")
        .is_some_and(|v| *v != Value::Bool(false))
    {
        return Err(json.refuse(
            "use_mean_pool: one row of scalings for a whole text, not one per token",
            PER_TOKEN,
        ));
    }
    if let Some(token) = json.get("stop_token_id") {
        return Err(json.refuse(
            format!("stop_token_id is {token}: versions that use it have one row of scalings for a whole text, not one per token"),
            PER_TOKEN,
        ));
    }
    let (depth, size) = depth_and_size(&json, hidden)?;
    let relu = depth > 1 && json.bool_or("enable_relu_and_dropout", false)?;
    let bias = json.bool_or("use_bias", true)?;
    let items = items(&json, given, &mut notes)?;
    let options = options(&json, items.len(), 0.0)?;
    match json.get("scaling_pass_value") {
        Some(v) if v.as_f64() == Some(0.0) => {}
        None if !json.has("scaling_pass_value") => {}
        v => notes.push(format!(
            "{name}: scaling_pass_value is {}: taken as 0, because the package runs its scaling pass with the adapters disabled",
            v.unwrap_or(&Value::Null)
        )),
    }
    if options.enable_softmax_topk {
        notes.push(format!(
            "{name}: enable_softmax_topk: the package's softmax ran over all tokens at once; here it runs over each token's experts, as in PEFT"
        ));
    }
    let experts = folders(&json, folder, &items, given)?;
    notes.extend(ordering(folder, &items)?);
    notes.extend(json.assumed());
    Ok(XLora {
        folder: folder.into(),
        options,
        classifier: Shape {
            depth,
            size,
            names: Naming::Original { relu, bias },
        },
        experts,
        notes,
    })
}

/// Name and path (empty for none) of each adapter, in class order.
fn items<'a>(
    json: &'a Json,
    given: &'a [(String, PathBuf)],
    notes: &mut Vec<String>,
) -> Result<Vec<(&'a str, &'a str)>> {
    let items: Vec<(&str, &str)> = match json.get("adapters") {
        Some(Value::Object(_)) => adapter_items(json)?,
        Some(_) => {
            let names = json.texts("adapters")?.unwrap_or_default();
            names.into_iter().map(|n| (n, "")).collect()
        }
        None if given.is_empty() => {
            return Err(json.refuse(
                "adapters is missing, so that the experts and their order are not known",
                "pass the experts in the order of the training: --adapter NAME=DIR --adapter NAME=DIR ..",
            ));
        }
        None => {
            notes.push(format!(
                "{}: adapters is missing: classes in the order of the --adapter options",
                json.path().display()
            ));
            given.iter().map(|(key, _)| (key.as_str(), "")).collect()
        }
    };
    check_count(json, items.len())?;
    let mut seen = BTreeSet::new();
    if let Some((twice, _)) = items.iter().find(|(name, _)| !seen.insert(*name)) {
        return Err(json.refuse(
            format!("adapters names {twice:?} twice"),
            "name an expert per class of the classifier",
        ));
    }
    Ok(items)
}

fn folders(
    json: &Json,
    folder: &Path,
    items: &[(&str, &str)],
    given: &[(String, PathBuf)],
) -> Result<Vec<(String, PathBuf)>> {
    let trained = json.bool_or("use_trainable_adapters", false)?;
    let overrides = overrides(json, items, given)?;
    let mut experts = Vec::new();
    for ((name, path), dir) in items.iter().zip(overrides) {
        let dir = match dir {
            Some(dir) => dir,
            None => resolve(json, folder, name, path, trained)?,
        };
        experts.push((name.to_string(), dir));
    }
    Ok(experts)
}

/// Where an adapter lies that the user did not name.
fn resolve(json: &Json, folder: &Path, name: &str, path: &str, trained: bool) -> Result<PathBuf> {
    let pass = format!("pass it with --adapter {name}=DIR");
    if name.is_empty() || name.contains(['/', '\\', ':']) || matches!(name, "." | "..") {
        return Err(json.refuse(
            format!("adapters names {name:?}, which is no name of a subfolder"),
            "give each adapter a plain name",
        ));
    }
    let own = [folder.join(name), folder.join("adapters").join(name)];
    let itself = (name == "default").then(|| folder.to_path_buf());
    let is_lora = |dir: &PathBuf| dir.join("adapter_config.json").is_file();
    if let Some(dir) = own.into_iter().chain(itself).find(is_lora) {
        return Ok(dir);
    }
    if trained {
        return Err(json.refuse(
            format!("use_trainable_adapters: the trained adapter {name} should lie in the subfolder {name}, which is missing"),
            format!("{pass}: a path in adapters holds the values from before the training"),
        ));
    }
    let elsewhere = [folder.join(path), PathBuf::from(path)];
    let found = elsewhere
        .into_iter()
        .find(|dir| !path.is_empty() && dir.is_dir());
    found.ok_or_else(|| {
        let stale = match path {
            "" => String::new(),
            path => format!(", nor the folder {path}"),
        };
        json.refuse(
            format!(
                "adapters: the adapter {name} has no subfolder {name} or adapters/{name}{stale}"
            ),
            pass,
        )
    })
}

/// mistral.rs's ordering file says in `order` and `layers` what the configuration and the modules' own order
/// say already. One that contradicts is refused: it would put other experts behind the classes.
fn ordering(folder: &Path, items: &[(&str, &str)]) -> Result<Option<String>> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(None);
    };
    let mut files: Vec<PathBuf> = entries
        .take(MOST_FILES)
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "json") && p.is_file())
        .filter(|p| !p.ends_with(CONFIG) && !p.ends_with("adapter_config.json"))
        .collect();
    files.sort();
    for path in files {
        let Ok(json) = Json::read(&path) else {
            continue;
        };
        let (Some(Value::Object(_)), Ok(Some(order))) = (json.get("layers"), json.texts("order"))
        else {
            continue;
        };
        let names: Vec<&str> = items.iter().map(|(name, _)| *name).collect();
        let set = |list: &[&str]| list.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>();
        if order != names && set(&order) == set(&names) {
            return Err(json.refuse(
                format!(
                    "its order is {}, adapters in {CONFIG} has {}",
                    order.join(", "),
                    names.join(", ")
                ),
                format!(
                    "correct the one that is wrong, or remove {} (it is not needed)",
                    path.display()
                ),
            ));
        }
        return Ok(Some(format!(
            "{}: an ordering file, ignored: {CONFIG} names the experts in order, and the sites follow the modules",
            path.display()
        )));
    }
    Ok(None)
}

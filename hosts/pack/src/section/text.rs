//! Names of the sites, and where the weights came from.

use crate::import::lora::Adapter;
use crate::import::modules::Place;
use crate::options::PackOptions;
use crate::report::Report;
use crate::write::Section;
use serde_json::json;
use std::path::Path;

/// The names section.
pub(crate) fn write_names(out: &mut Section<'_>, sites: &[Place]) {
    let names: Vec<String> = sites.iter().map(|s| s.name()).collect();
    out.push(&(names.len() as u32).to_le_bytes());
    let mut end = 0u32;
    out.push(&end.to_le_bytes());
    for name in &names {
        end += name.len() as u32;
        out.push(&end.to_le_bytes());
    }
    for name in &names {
        out.push(name.as_bytes());
    }
}

/// The provenance: names only, no absolute path and no time, so that the same input gives the same bytes.
pub(crate) fn provenance(options: &PackOptions, adapters: &[Adapter], report: &Report) -> String {
    let experts: Vec<_> = adapters
        .iter()
        .map(|a| json!({"key": a.key, "folder": folder_name(&a.folder)}))
        .collect();
    json!({
        "generator": concat!("pleach-pack ", env!("CARGO_PKG_VERSION")),
        "base": folder_name(&options.base),
        "xlora": options.xlora.as_deref().map(folder_name),
        "experts": experts,
        "quant": options.quant.name(),
        "adapter_quant": options.adapter_storage().name(),
        "group": options.group,
        "for": options.target.name(),
        "errors": super::errors::errors(report),
    })
    .to_string()
}

/// The last component of a path, also of one like `.`; without `.gguf`.
pub(crate) fn folder_name(folder: &Path) -> String {
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    let mut name = name(folder)
        .or_else(|| name(&folder.canonicalize().ok()?))
        .unwrap_or_default();
    if name.to_ascii_lowercase().ends_with(".gguf") {
        name.truncate(name.len() - ".gguf".len());
    }
    name
}

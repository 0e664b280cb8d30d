//! One expert in a file of its own (`.pleachx`), to replace the one of its class without touching the model file.
//!
//! Its bytes are those of the expert's section in the whole model file.

use crate::error::{PackError, Result};
use crate::import::lora::Adapter;
use crate::import::modules::Place;
use crate::layout::pack as pack_matrix;
use crate::options::{AdapterQuant, PackOptions, Progress};
use crate::pack::{Packed, Plan, open_adapter};
use crate::report::{Report, SectionReport};
use crate::section::{self, Job, Storage};
use crate::target::Target;
use crate::write;
use pleach::Model;
use pleach::blob::format::{HEADER_BYTES, SECTION_ENTRY_BYTES, SectionEntry, SectionKind};
use pleach::kernels::layout::Dtype;
use std::path::Path;

/// Packs the expert that `key` names (by key, else by name) out of a base with all its adapters. The base is
/// read and packed as for the whole file, because the expert is bound to the hash of the result.
///
/// Errors: as [`pack`](fn@crate::pack), and a key that no adapter has.
pub fn pack_expert(
    options: &PackOptions,
    key: &str,
    progress: &mut dyn Progress,
) -> Result<Packed> {
    let plan = Plan::new(options, progress)?;
    let class = class_of(&plan.adapters, key)?;
    let packed = plan.write(options, progress)?;
    let entry = entries(&packed.bytes)
        .find(|e| e.kind == SectionKind::Expert as u16 && e.index == class)
        .map(|e| e.offset as usize..(e.offset + e.length) as usize);
    let bytes = entry.and_then(|range| packed.bytes.get(range));
    Ok(finish(
        class,
        bytes.unwrap_or_default().to_vec(),
        packed.report,
    ))
}

fn entries(file: &[u8]) -> impl Iterator<Item = SectionEntry> + '_ {
    let count = match file.first_chunk() {
        Some(h) => pleach::blob::format::Header::decode(h).sections,
        None => 0,
    };
    let table = file.get(HEADER_BYTES..).unwrap_or_default();
    let rows = table.as_chunks::<SECTION_ENTRY_BYTES>().0;
    rows.iter()
        .take(usize::from(count))
        .map(SectionEntry::decode)
}

/// The class of the adapter that `key` names.
fn class_of(adapters: &[Adapter], key: &str) -> Result<u16> {
    let by_key = adapters.iter().position(|a| a.key == key);
    match by_key.or_else(|| adapters.iter().position(|a| a.name == key)) {
        Some(class) => Ok(class as u16),
        None => {
            let known = adapters.iter().map(|a| (a.key.as_str(), a.name.as_str()));
            Err(unknown(key, known))
        }
    }
}

fn unknown<'a>(key: &str, known: impl Iterator<Item = (&'a str, &'a str)>) -> PackError {
    let known: Vec<String> = known
        .map(|(key, name)| match key == name {
            true => key.to_owned(),
            false => format!("{key} ({name})"),
        })
        .collect();
    PackError::refused(
        format!("--expert-only {key}: no expert of that key or name"),
        match known.is_empty() {
            true => "pass the expert's LoRA folder: --adapter KEY=DIR".to_owned(),
            false => format!(
                "use one of {}; a new class needs a whole model file and a classifier that knows it",
                known.join(", ")
            ),
        },
    )
}

/// The report of the one expert.
fn finish(class: u16, bytes: Vec<u8>, mut report: Report) -> Packed {
    report.tensors.retain(|t| t.class == Some(class));
    report.file_bytes = bytes.len() as u64;
    report.sections = vec![SectionReport {
        kind: SectionKind::Expert,
        index: class,
        bytes: bytes.len() as u64,
    }];
    Packed { bytes, report }
}

/// Packs the adapter in `folder` for a model file, in the place of the expert that `key` names: bound to the
/// file's base and classifier, over its sites, in its group and layout, and stored as the expert that it
/// replaces unless `quant` says otherwise. Neither the base's checkpoint nor the other adapters are needed.
///
/// `file` is the model file's path, for messages.
///
/// Errors: a key that the model does not have; an adapter of another base; one that targets what is no site of
/// the model, by name.
pub fn pack_expert_for(
    (file, model): (&Path, &Model<'_>),
    (key, folder): (&str, &Path),
    quant: Option<AdapterQuant>,
    progress: &mut dyn Progress,
) -> Result<Packed> {
    let experts = || (0..model.n_experts()).filter_map(|c| model.expert(c));
    let by_key = experts().position(|e| e.key() == key);
    let class = by_key.or_else(|| experts().position(|e| e.name() == key));
    let Some((class, old)) = class.and_then(|c| Some((c, model.expert(c)?))) else {
        return Err(unknown(key, experts().map(|e| (e.key(), e.name()))));
    };
    let config = model.config();
    let sites: Vec<Place> = (0..model.n_sites())
        .filter_map(|n| model.site(n))
        .map(|s| Place {
            module: s.module,
            layer: s.layer,
        })
        .collect();
    let qk_norm = model.layer(0).is_some_and(|l| l.qk_norm());
    let mut adapter = open_adapter(key, folder, &config, qk_norm, None)?;
    if let Some(part) = adapter.parts.iter().find(|p| !sites.contains(&p.place)) {
        return Err(PackError::refused(
            format!(
                "{}: the adapter targets {}, which is no site of {}",
                folder.display(),
                part.place.name(),
                file.display()
            ),
            "train it on the modules that the model's experts target, or pack the whole model file again: its classifier then has to fit the new sites",
        ));
    }
    check_embedding(&mut adapter, model, file)?;
    // The class stays what it was: `only:NAME` goes on to mean it.
    adapter.name = old.name().to_owned();
    adapter.key = old.key().to_owned();
    for note in &adapter.notes {
        progress.note(note);
    }
    let stored = (0..model.n_sites())
        .filter_map(|n| old.lora(&model.site(n)?))
        .next();
    let dtype = match (quant, stored) {
        (Some(AdapterQuant::Q8), _) => Dtype::Q8,
        (Some(AdapterQuant::F16), _) => Dtype::F16,
        (Some(AdapterQuant::F32), _) => Dtype::F32,
        (None, Some(lora)) => lora.b.dtype(),
        (None, None) => Dtype::Q8,
    };
    let target = Target::of(model).unwrap_or_default();
    progress.start(adapter.bytes());
    let mut job = Job {
        storage: Storage {
            base: dtype,
            adapter: dtype,
            weights: target.weights(),
            a: target.a_panels(),
            group: config.group as usize,
        },
        progress,
        report: Report::default(),
    };
    let bound = model.header();
    let bytes = write::alone(|out| {
        section::expert::write(out, class as u16, &mut adapter, &sites, bound, &mut job)
    })?;
    Ok(finish(class as u16, bytes, job.report))
}

/// The base's embedding table that PEFT saved with an adapter must be the model's.
fn check_embedding(adapter: &mut Adapter, model: &Model<'_>, file: &Path) -> Result<()> {
    let config = model.config();
    let (vocab, hidden) = (config.vocab as usize, config.hidden as usize);
    let Some(copy) = adapter.read_embedding_copy(vocab, hidden)? else {
        return Ok(());
    };
    let same = model.base_tensor(0).is_some_and(|t| {
        pack_matrix(&copy, t.dtype(), t.layout(), config.group as usize).bytes == t.data()
    });
    if same {
        return Ok(());
    }
    Err(PackError::refused(
        format!(
            "{}: tensor {} differs from the embedding table of {}, which PEFT would replace by it",
            adapter.folder.join("adapter_model.safetensors").display(),
            adapter.embedding_copy.as_deref().unwrap_or_default(),
            file.display()
        ),
        "use the model file of the base that the adapter was trained on, or save the adapter with save_embedding_layers=False",
    ))
}

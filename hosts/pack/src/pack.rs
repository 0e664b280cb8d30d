//! From options to bytes: plan everything first, then read each tensor once.

use crate::error::{PackError, Result};
use crate::import::base::BaseConfig;
use crate::import::classifier::{Classifier, Rows};
use crate::import::lora::Adapter;
use crate::import::modules::{Modules, Place};
use crate::import::opened::Opened;
use crate::import::xlora::XLora;
use crate::options::{PackOptions, Progress};
use crate::report::Report;
use crate::section::base::{Base, hash_of};
use crate::section::config::features;
use crate::section::{self, Job, Storage};
use crate::write::BlobWriter;
use pleach::blob::format::{ConfigRecord, OptionsRecord, SectionKind};
use pleach::kernels::layout::is_group;
use std::path::{Path, PathBuf};

/// A packed model file.
#[derive(Debug)]
pub struct Packed {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// What it is made of.
    pub report: Report,
}

/// Packs a base, its X-LoRA checkpoint and its adapters into one model file. The same input gives the same
/// bytes.
///
/// Errors: the first thing that is refused, by file and tensor or key, with its cure.
///
/// ```
/// use pleach_pack::{PackOptions, Silent, pack};
///
/// let intent = "../../tests/fixtures/xlora-intent";
/// let mut options = PackOptions::new(format!("{intent}/base"));
/// options.xlora = Some(format!("{intent}/xlora").into());
/// let packed = pack(&options, &mut Silent)?;
/// assert_eq!(packed.report.file_bytes, packed.bytes.len() as u64);
///
/// options.group = 48;
/// let e = pack(&options, &mut Silent).unwrap_err();
/// assert_eq!(e.to_string(), "--group 48: not a group size\n  use 32, 64, 128 or 256");
/// # Ok::<(), pleach_pack::PackError>(())
/// ```
pub fn pack(options: &PackOptions, progress: &mut dyn Progress) -> Result<Packed> {
    Plan::new(options, progress)?.write(options, progress)
}

/// Everything that was found, its shapes checked, before a weight is read.
pub(crate) struct Plan {
    config: BaseConfig,
    base: Base,
    pub(crate) adapters: Vec<Adapter>,
    classifier: Option<Classifier>,
    options: OptionsRecord,
    sites: Vec<Place>,
    tokenizer: Option<Vec<u8>>,
    template: Option<String>,
}

impl Plan {
    pub(crate) fn new(options: &PackOptions, progress: &mut dyn Progress) -> Result<Self> {
        check_options(options)?;
        let opened = Opened::new(options, progress)?;
        let config = opened.config;
        let c = config.record;
        let xlora = match &options.xlora {
            Some(folder) => Some(XLora::read(folder, c.hidden, &options.adapters)?),
            None => None,
        };
        let base = Base::plan(&config, opened.weights)?;
        let experts = match &xlora {
            Some(x) => &x.experts,
            None => &options.adapters,
        };
        let adapters = open_adapters(experts, &config)?;
        let sites: Vec<Place> = Place::all(c.layers)
            .filter(|p| adapters.iter().any(|a| a.part(*p).is_some()))
            .collect();
        let classifier = match &xlora {
            Some(x) => Some(Classifier::open(
                &x.folder,
                x.classifier,
                c.hidden,
                Rows {
                    experts: adapters.len(),
                    sites: x.options.layerwise_scalings.then_some(sites.len()),
                },
            )?),
            None => None,
        };
        let notes = [&config.notes, &base.notes]
            .into_iter()
            .chain(xlora.iter().map(|x| &x.notes))
            .chain(classifier.iter().map(|c| &c.notes))
            .chain(adapters.iter().map(|a| &a.notes));
        for note in notes.flatten() {
            progress.note(note);
        }
        Ok(Self {
            options: xlora.map_or_else(|| neutral(adapters.len()), |x| x.options),
            config,
            base,
            adapters,
            classifier,
            sites,
            tokenizer: opened.tokenizer,
            template: opened.template,
        })
    }

    pub(crate) fn write(
        mut self,
        options: &PackOptions,
        progress: &mut dyn Progress,
    ) -> Result<Packed> {
        let total = self.base.bytes
            + self.classifier.as_ref().map_or(0, Classifier::bytes)
            + self.adapters.iter().map(Adapter::bytes).sum::<u64>();
        progress.start(total);
        let mut job = Job {
            storage: Storage::of(options),
            progress,
            report: Report::default(),
        };
        let optional = usize::from(self.classifier.is_some())
            + usize::from(self.tokenizer.is_some())
            + usize::from(self.template.is_some());
        let mut blob = BlobWriter::new(6 + optional + self.adapters.len());
        blob.section(SectionKind::Config, 0, |out| {
            section::config::write(out, &self.config, &self.sites);
            Ok(())
        })?;
        let copies = self.adapters.iter().any(|a| a.embedding_copy.is_some());
        let mut embedding = 0;
        let tied = self.config.record.tied;
        blob.section(SectionKind::Base, 0, |out| {
            embedding = self.base.write(out, &mut job, tied, copies)?;
            Ok(())
        })?;
        blob.section(SectionKind::Sites, 0, |out| {
            section::config::write_sites(out, &self.config, &self.sites);
            Ok(())
        })?;
        blob.section(SectionKind::Options, 0, |out| {
            out.push(&self.options.encode());
            Ok(())
        })?;
        if let Some(classifier) = &mut self.classifier {
            blob.section(SectionKind::Classifier, 0, |out| {
                section::classifier::write(out, classifier, &mut job)
            })?;
        }
        let bound = blob.header();
        for (class, adapter) in self.adapters.iter_mut().enumerate() {
            let class = class as u16;
            check_embedding_copy(adapter, &self.config, embedding, job.progress)?;
            blob.section(SectionKind::Expert, class, |out| {
                section::expert::write(out, class, adapter, &self.sites, bound, &mut job)
            })?;
        }
        blob.section(SectionKind::Names, 0, |out| {
            section::text::write_names(out, &self.sites);
            Ok(())
        })?;
        if let Some(tokenizer) = &self.tokenizer {
            blob.section(SectionKind::Tokenizer, 0, |out| {
                out.push(tokenizer);
                Ok(())
            })?;
        }
        blob.section(SectionKind::Provenance, 0, |out| {
            let text = section::text::provenance(options, &self.adapters, &job.report);
            out.push(text.as_bytes());
            Ok(())
        })?;
        if let Some(template) = &self.template {
            blob.section(SectionKind::Template, 0, |out| {
                out.push(template.as_bytes());
                Ok(())
            })?;
        }
        let (bytes, entries) = blob.finish();
        job.report.finish(bytes.len(), &entries);
        Ok(Packed {
            bytes,
            report: job.report,
        })
    }
}

fn check_options(options: &PackOptions) -> Result<()> {
    if !is_group(options.group as usize) {
        return Err(PackError::refused(
            format!("--group {}: not a group size", options.group),
            "use 32, 64, 128 or 256",
        ));
    }
    for (i, (key, _)) in options.adapters.iter().enumerate() {
        if key.is_empty() || options.adapters.iter().skip(i + 1).any(|(k, _)| k == key) {
            let why = if key.is_empty() {
                "an empty key"
            } else {
                "the key is there twice"
            };
            return Err(PackError::refused(
                format!("--adapter {key}=: {why}"),
                "give each adapter a key of its own: --adapter KEY=DIR",
            ));
        }
    }
    if options.adapters.len() > 1024 {
        return Err(PackError::refused(
            format!(
                "--adapter: {} adapters; at most 1024 are possible",
                options.adapters.len()
            ),
            "pass fewer",
        ));
    }
    Ok(())
}

/// Opens the adapters and names them: by folder, or by key where the folder's name is also another expert's
/// key or folder. So names are unique, as keys are.
fn open_adapters(experts: &[(String, PathBuf)], config: &BaseConfig) -> Result<Vec<Adapter>> {
    let folders: Vec<String> = experts
        .iter()
        .map(|(_, d)| section::text::folder_name(d))
        .collect();
    let mut adapters = Vec::new();
    for ((key, folder), name) in experts.iter().zip(&folders) {
        let mut adapter = open_adapter(
            key,
            folder,
            &config.record,
            config.qk_norm,
            Some(config.architecture),
        )?;
        let others = || experts.iter().zip(&folders).filter(|((k, _), _)| k != key);
        let unique = !name.is_empty() && others().all(|((k, _), f)| k != name && f != name);
        adapter.name = if unique { name.clone() } else { key.clone() };
        for (what, text) in [("name", &adapter.name), ("key", key)] {
            if text.len() > usize::from(u8::MAX) {
                return Err(PackError::refused(
                    format!(
                        "{}: the expert's {what} is longer than 255 bytes",
                        folder.display()
                    ),
                    "rename the folder, or use a shorter key",
                ));
            }
        }
        adapters.push(adapter);
    }
    Ok(adapters)
}

/// Opens a LoRA folder, or a file of GGUF, for a base, of this architecture of llama.cpp if it is known.
pub(crate) fn open_adapter(
    key: &str,
    path: &Path,
    c: &ConfigRecord,
    qk_norm: bool,
    architecture: Option<&str>,
) -> Result<Adapter> {
    let base = Modules {
        layers: c.layers,
        qk_norm,
    };
    if path.is_file() {
        let features = |p| features(c, p);
        return Adapter::open_gguf(key, path, base, architecture, c.head_dim, &features);
    }
    if !path.is_dir() {
        return Err(PackError::refused(
            format!("--adapter {key}: {} does not exist", path.display()),
            format!("pass the LoRA folder or GGUF file of this expert: --adapter {key}=DIR"),
        ));
    }
    Adapter::open(key, path, base, &|p| features(c, p))
}

/// The options of a file without a classifier: scalings are given, none of this applies.
fn neutral(experts: usize) -> OptionsRecord {
    OptionsRecord {
        experts: experts as u16,
        top_k_lora: 0,
        enable_softmax: true,
        enable_softmax_topk: false,
        layerwise_scalings: false,
        softmax_temperature: 1.0,
        scaling_pass_value: 0.0,
        global_scaling_weight: 1.0,
    }
}

/// PEFT saves the base's embedding table with an adapter that targets it, and loads it from there.
fn check_embedding_copy(
    adapter: &mut Adapter,
    config: &BaseConfig,
    embedding: u64,
    progress: &mut dyn Progress,
) -> Result<()> {
    let (vocab, hidden) = (config.record.vocab as usize, config.record.hidden as usize);
    let Some(copy) = adapter.read_embedding_copy(vocab, hidden)? else {
        return Ok(());
    };
    progress.advance(adapter.embedding_copy_bytes());
    if hash_of(&copy) == embedding {
        return Ok(());
    }
    Err(PackError::refused(
        format!(
            "{}: tensor {} differs from the base's embedding table, which PEFT would replace by it",
            adapter.folder.join("adapter_model.safetensors").display(),
            adapter.embedding_copy.as_deref().unwrap_or_default()
        ),
        "pass the base that the adapter was trained on, or save the adapter with save_embedding_layers=False",
    ))
}

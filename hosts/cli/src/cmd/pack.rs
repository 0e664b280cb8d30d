//! `pleach pack`: a checkpoint in, a model file out.

use crate::failure::{BadValue, Failure, Result};
use crate::interrupt::{self, Busy};
use crate::model;
use crate::output::{self, Bar, say};
use crate::written;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use pleach::kernels::layout::is_group;
use pleach_pack::{AdapterQuant, BaseQuant, PackOptions, Packed, Report, Target};
use std::path::{Path, PathBuf};

/// Pack a base, an X-LoRA checkpoint and LoRA adapters into one model file
#[derive(clap::Args)]
pub(crate) struct Pack {
    /// The base: a Hugging Face folder (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR|FILE.gguf", required_unless_present = "model")]
    base: Option<PathBuf>,
    /// X-LoRA folder as PEFT saves it, or the original xlora package (and mistral.rs)
    #[arg(long, value_name = "DIR")]
    xlora: Option<PathBuf>,
    /// LoRA folder of an expert, or its GGUF file; may be repeated. KEY is its key in the X-LoRA config's
    /// `adapters`; without --xlora any name, in class order
    #[arg(long = "adapter", value_name = "KEY=DIR", value_parser = adapter)]
    adapters: Vec<(String, PathBuf)>,
    /// Write one expert only, as a file for --expert: the one of this key or name (usual ending: .pleachx)
    #[arg(long, value_name = "KEY")]
    expert_only: Option<String>,
    /// With --expert-only: the model file whose expert is to be replaced, instead of its --base and the other
    /// adapters
    #[arg(
        long,
        value_name = "FILE",
        requires = "expert_only",
        conflicts_with_all = ["base", "xlora", "quant", "group", "target"]
    )]
    model: Option<PathBuf>,
    /// How the base's weights are stored
    #[arg(long, value_name = "TYPE", default_value = "q8", value_parser = quant())]
    quant: BaseQuant,
    /// How the adapters are stored [default: f16 with --quant f16, else q8]
    #[arg(long, value_name = "TYPE", value_parser = adapter_quant())]
    adapter_quant: Option<AdapterQuant>,
    /// Numbers of a row that share a scale
    #[arg(long, value_name = "G", default_value = "64", value_parser = group)]
    group: u32,
    /// Whose kernels the rows are laid out for: linux is x86-64 and aarch64, cortex-m is M4, M7 and M33, mve is M55
    /// and M85 (Helium), portable is all others. Every file runs everywhere, with the same bits; `pleach repack`
    /// changes it later
    #[arg(long = "for", value_name = "TARGET", default_value = "linux", value_parser = target())]
    target: Target,
    /// The model file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

fn adapter(text: &str) -> std::result::Result<(String, PathBuf), BadValue> {
    match text.split_once('=') {
        Some((key, dir)) if !key.is_empty() && !dir.is_empty() => Ok((key.into(), dir.into())),
        _ => Err(BadValue::new(
            "not of the form KEY=DIR",
            "pass the expert's key and its LoRA folder: --adapter KEY=DIR",
        )),
    }
}

fn quant() -> impl TypedValueParser<Value = BaseQuant> {
    PossibleValuesParser::new(["q8", "f16"]).map(|v| match v.as_str() {
        "f16" => BaseQuant::F16,
        _ => BaseQuant::Q8,
    })
}

fn adapter_quant() -> impl TypedValueParser<Value = AdapterQuant> {
    PossibleValuesParser::new(["q8", "f16", "f32"]).map(|v| match v.as_str() {
        "f32" => AdapterQuant::F32,
        "f16" => AdapterQuant::F16,
        _ => AdapterQuant::Q8,
    })
}

fn group(text: &str) -> std::result::Result<u32, BadValue> {
    match text.parse() {
        Ok(g) if is_group(g as usize) => Ok(g),
        _ => Err(BadValue::new("not a group size", "use 32, 64, 128 or 256")),
    }
}

/// The values of `--for`.
pub(super) fn target() -> impl TypedValueParser<Value = Target> {
    let named = |v: String| Target::ALL.into_iter().find(|t| t.name() == v);
    PossibleValuesParser::new(Target::ALL.map(Target::name))
        .map(move |v| named(v).unwrap_or_default())
}

impl Pack {
    pub(crate) fn run(self) -> Result<()> {
        let mut bar = Bar::new("packing");
        let busy = Busy::new();
        let packed = self.pack(&mut bar);
        bar.clear();
        let packed = packed?;
        match &self.expert_only {
            Some(_) => written::expert(&self.output, &packed.bytes)?,
            None => written::model(&self.output, &packed.bytes)?,
        }
        // The last place to stop: nothing is written yet.
        if interrupt::asked() {
            return Err(Failure::interrupted("no file was written"));
        }
        pleach_pack::write_atomically(&self.output, &packed.bytes)?;
        drop(busy);
        bar.notes.iter().for_each(|n| output::note(n));
        summary(&self.output, &packed.report)?;
        match &self.model {
            Some(model) => say!(
                "use it so: pleach run {} --expert {}",
                model.display(),
                self.output.display()
            ),
            None => Ok(()),
        }
    }

    fn pack(&self, bar: &mut Bar) -> Result<Packed> {
        if let (Some(path), Some(key)) = (&self.model, &self.expert_only) {
            return self.pack_for(path, key, bar);
        }
        let options = PackOptions {
            base: self.base.clone().unwrap_or_default(),
            xlora: self.xlora.clone(),
            adapters: self.adapters.clone(),
            quant: self.quant,
            adapter_quant: self.adapter_quant,
            group: self.group,
            target: self.target,
        };
        Ok(match &self.expert_only {
            Some(key) => pleach_pack::pack_expert(&options, key, bar)?,
            None => pleach_pack::pack(&options, bar)?,
        })
    }

    fn pack_for(&self, path: &Path, key: &str, bar: &mut Bar) -> Result<Packed> {
        let file = model::open(path)?;
        let model = model::parse(path, &file)?;
        let [(name, folder)] = self.adapters.as_slice() else {
            return Err(Failure::refused(
                format!(
                    "--model: {} adapters; the one that becomes expert {key} is needed",
                    self.adapters.len()
                ),
                format!("pass its LoRA folder: --adapter {key}=DIR"),
            ));
        };
        if name != key {
            return Err(Failure::refused(
                format!("--adapter {name}: --expert-only asks for {key}"),
                "pass the adapter under the same key",
            ));
        }
        let expert = (name.as_str(), folder.as_path());
        Ok(pleach_pack::pack_expert_for(
            (path, &model),
            expert,
            self.adapter_quant,
            bar,
        )?)
    }
}

fn summary(path: &Path, report: &Report) -> Result<()> {
    say!(
        "{}: {}, {} tensors, tables and padding {:.1} %",
        path.display(),
        output::bytes(report.file_bytes),
        report.tensors.len(),
        100.0 * (report.table_share() + report.padding_share())
    )?;
    errors(report)
}

/// The error of storage, by kind of tensor.
fn errors(report: &Report) -> Result<()> {
    let kinds = report.kinds();
    let lossy = kinds.iter().filter(|k| k.loss.error2 > 0.0);
    say!(
        "{:<12}{:>8}{:>10}{:>10}  of",
        "error",
        "tensors",
        "all",
        "worst"
    )?;
    for k in lossy {
        let percent = |v: f64| format!("{:.4} %", 100.0 * v);
        say!(
            "{:<12}{:>8}{:>10}{:>10}  {}; largest of one value {:.1e}",
            k.kind,
            k.tensors,
            percent(k.loss.relative()),
            percent(k.worst.loss.relative()),
            output::one_line(&k.worst.name),
            k.loss.largest
        )?;
    }
    let flushed = kinds.iter().filter(|k| k.loss.flushed > 0);
    let list: Vec<String> = flushed
        .map(|k| format!("{} of {}", k.loss.flushed, k.kind))
        .collect();
    match list.is_empty() {
        true => say!("no value became 0"),
        false => say!("values too small to store, now 0: {}", list.join(", ")),
    }
}

//! `pleach pack`: a checkpoint in, a model file out.

use crate::failure::{BadValue, Failure, Result};
use crate::interrupt::Busy;
use crate::output::{self, Bar, say};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use pleach::{Blob, Model};
use pleach_linux::Arena;
use pleach_pack::{AdapterQuant, BaseQuant, PackOptions, Report, Target};
use std::path::{Path, PathBuf};

/// Pack a base, an X-LoRA checkpoint and LoRA adapters into one model file
#[derive(clap::Args)]
pub(crate) struct Pack {
    /// Hugging Face folder of the base: config.json, safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// X-LoRA folder as PEFT saves it, or the original xlora package (and mistral.rs)
    #[arg(long, value_name = "DIR")]
    xlora: Option<PathBuf>,
    /// LoRA folder of an expert; may be repeated. KEY is its key in the X-LoRA config's `adapters`; without
    /// --xlora any name, in class order
    #[arg(long = "adapter", value_name = "KEY=DIR", value_parser = adapter)]
    adapters: Vec<(String, PathBuf)>,
    /// How the base's weights are stored
    #[arg(long, value_name = "TYPE", default_value = "q8", value_parser = quant())]
    quant: BaseQuant,
    /// How the adapters are stored [default: f16 with --quant f16, else q8]
    #[arg(long, value_name = "TYPE", value_parser = adapter_quant())]
    adapter_quant: Option<AdapterQuant>,
    /// Numbers of a row that share a scale
    #[arg(long, value_name = "G", default_value = "64", value_parser = group)]
    group: u32,
    /// Whose kernels the rows are laid out for; every file runs everywhere
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
        Ok(g @ (32 | 64 | 128 | 256)) => Ok(g),
        _ => Err(BadValue::new("not a group size", "use 32, 64, 128 or 256")),
    }
}

fn target() -> impl TypedValueParser<Value = Target> {
    let all = [
        Target::Linux,
        Target::CortexM,
        Target::Mve,
        Target::Portable,
    ];
    PossibleValuesParser::new(all.map(Target::name))
        .map(move |v| all.into_iter().find(|t| t.name() == v).unwrap_or_default())
}

impl Pack {
    pub(crate) fn run(self) -> Result<()> {
        let options = PackOptions {
            base: self.base,
            xlora: self.xlora,
            adapters: self.adapters,
            quant: self.quant,
            adapter_quant: self.adapter_quant,
            group: self.group,
            target: self.target,
        };
        let mut bar = Bar::new();
        let busy = Busy::new();
        let packed = pleach_pack::pack(&options, &mut bar);
        bar.clear();
        let packed = packed?;
        verify(&self.output, &packed.bytes)?;
        pleach_pack::write_atomically(&self.output, &packed.bytes)?;
        drop(busy);
        bar.notes.iter().for_each(|n| output::note(n));
        summary(&self.output, &packed.report)
    }
}

/// Reads the file back as a session would, and every value in it.
fn verify(path: &Path, bytes: &[u8]) -> Result<()> {
    let check = |bytes| {
        Blob::new(bytes)
            .and_then(Model::parse)
            .and_then(|m| m.verify())
    };
    let checked = match Blob::new(bytes) {
        Ok(_) => check(bytes),
        // Rare: an allocation that is not aligned for use in place.
        Err(_) => {
            let mut arena = Arena::new(bytes.len()).map_err(Failure::memory)?;
            let copy = arena.bytes().split_at_mut(bytes.len()).0;
            copy.copy_from_slice(bytes);
            check(copy)
        }
    };
    checked.map_err(|e| {
        Failure::machine(
            format!(
                "{}: what was packed does not pass its own checks: {e}",
                path.display()
            ),
            "this is a mistake in pleach: please report it",
        )
    })
}

fn summary(path: &Path, report: &Report) -> Result<()> {
    say!(
        "{}: {}, {} tensors, tables and padding {:.1} %",
        path.display(),
        output::bytes(report.file_bytes),
        report.tensors.len(),
        100.0 * (report.table_share() + report.padding_share())
    )?;
    if let Some(worst) = report.worst() {
        say!(
            "largest storage error: {:.4} % of {} ({} values flushed to 0 in all)",
            100.0 * worst.loss.relative(),
            worst.name,
            report.flushed()
        )?;
    }
    Ok(())
}

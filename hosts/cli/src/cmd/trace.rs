//! `pleach trace`: every scaling and every logit of a text, as a file or as one hash.

use crate::failure::{BadValue, Failure, Result};
use crate::interrupt::{self, Busy};
use crate::model::{self, Files};
use crate::options::{SessionArgs, make_room, token_count};
use crate::output::{self, say};
use crate::sampling::stop_tokens;
use crate::tensors;
use pleach::{Kernels, Model};
use pleach_linux::{End, Limits, TraceError, TraceOptions};
use serde_json::json;
use std::path::PathBuf;

/// Compute a text and keep every scaling and logit
#[derive(clap::Args)]
pub(crate) struct Trace {
    /// The model file
    file: PathBuf,
    /// The prompt as token ids: 1,2,3
    #[arg(long, value_name = "IDS", value_parser = tokens)]
    tokens: Tokens,
    /// Tokens to generate after the prompt
    #[arg(long, value_name = "N", default_value = "0", value_parser = token_count)]
    generate: usize,
    /// Write the tensors scalings, effective, logits and generated
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: Option<PathBuf>,
    /// Print one line: hash, and FNV-1a 64 over the scalings and logits of each position
    #[arg(long)]
    hash: bool,
    /// End at an end-of-text token
    #[arg(long)]
    stop_at_eos: bool,
    /// Print JSON: tokens, shapes, counters, hash
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Clone)]
struct Tokens(Vec<u32>);

fn tokens(text: &str) -> std::result::Result<Tokens, BadValue> {
    let ids: std::result::Result<Vec<u32>, _> =
        text.split(',').map(|id| id.trim().parse()).collect();
    ids.map(Tokens)
        .map_err(|_| BadValue::new("not a list of token ids", "separate ids by commas: 1,2,3"))
}

impl Trace {
    pub(crate) fn run(self) -> Result<()> {
        let files = Files::open(&self.file, &self.session.experts)?;
        let experts = files.experts()?;
        let model = files.model(&experts)?;
        let mut plan = self.session.plan(&self.file, &model)?;
        self.check(&model, plan.session.context as usize)?;
        let layout = model::layout_note(&self.file, &model);
        layout
            .iter()
            .chain(&plan.notes)
            .for_each(|n| output::note(n));
        let stop = if self.stop_at_eos {
            stop_tokens(&model)
        } else {
            Vec::new()
        };
        let options = TraceOptions {
            session: plan.session,
            setup: plan.setup,
            tokens: &self.tokens.0,
            limits: Limits::new(self.generate, &stop),
            kernels: Kernels::detect(),
            tensors: self.output.is_some(),
            interrupt: Some(interrupt::flag()),
        };
        let busy = Busy::new();
        let trace = pleach_linux::trace(&model, &options, &mut plan.executor);
        drop(busy);
        let trace = trace.map_err(|e| match e {
            TraceError::Core(e) => Failure::core(self.file.display(), e),
            TraceError::Memory(e) => Failure::memory(e),
        })?;
        if trace.end == End::Interrupted {
            return Err(Failure::interrupted("no file was written"));
        }
        if let Some(path) = &self.output {
            let bytes = tensors::file(&model, &trace);
            pleach_pack::write_atomically(path, &bytes)?;
        }
        self.print(&model, &trace)
    }

    fn check(&self, model: &Model<'_>, context: usize) -> Result<()> {
        let vocab = model.config().vocab;
        if let Some(token) = self.tokens.0.iter().find(|t| **t >= vocab) {
            return Err(Failure::refused(
                format!("--tokens: {token} is outside the vocabulary of {vocab}"),
                format!("use ids from 0 to {}", vocab.saturating_sub(1)),
            ));
        }
        let positions = self.tokens.0.len() + self.generate.saturating_sub(1);
        if positions > context {
            return Err(Failure::refused(
                format!(
                    "--tokens and --generate: {positions} positions do not fit the context of {context}"
                ),
                make_room(positions),
            ));
        }
        Ok(())
    }

    fn print(&self, model: &Model<'_>, trace: &pleach_linux::Trace) -> Result<()> {
        if self.json {
            return say!("{:#}", self.summary(model, trace));
        }
        if self.hash {
            return say!("hash {:016x}", trace.hash());
        }
        let ids: Vec<String> = trace.generated.iter().map(u32::to_string).collect();
        let [positions, sites, experts] = trace.shape;
        let c = trace.counters;
        say!(
            "positions {positions}, sites {sites}, experts {experts}, vocabulary {}",
            trace.vocab
        )?;
        say!(
            "generated {}",
            if ids.is_empty() {
                "-".into()
            } else {
                ids.join(",")
            }
        )?;
        say!(
            "sweeps {}, columns {}, guesses {}, right {}",
            c.sweeps,
            c.columns,
            c.guesses,
            c.hits
        )?;
        say!(
            "weights read {}, keys and values {}",
            output::bytes(c.weight_bytes),
            output::bytes(c.kv_bytes)
        )?;
        say!(
            "multiply-accumulates {}, arena {}",
            c.macs,
            output::bytes(trace.arena_bytes as u64)
        )
    }

    fn summary(&self, model: &Model<'_>, trace: &pleach_linux::Trace) -> serde_json::Value {
        let [positions, sites, experts] = trace.shape;
        let c = trace.counters;
        json!({
            "tokens": self.tokens.0,
            "generated": trace.generated,
            "ended": match trace.end { End::Stop => "eos", _ => "limit" },
            "hash": format!("{:016x}", trace.hash()),
            "shapes": {
                "scalings": trace.scalings.is_some().then_some([positions, sites, experts]),
                "effective": [positions, sites, experts],
                "logits": [positions, trace.vocab],
                "generated": [trace.generated.len()],
            },
            "sites": tensors::sites(model),
            "experts": tensors::experts(model),
            "counters": {
                "sweeps": c.sweeps,
                "columns": c.columns,
                "weight_bytes": c.weight_bytes,
                "classifier_bytes": c.classifier_bytes,
                "kv_bytes": c.kv_bytes,
                "guesses": c.guesses,
                "hits": c.hits,
                "held_guesses": c.held_guesses,
                "held_hits": c.held_hits,
                "macs": c.macs,
                "classifier_macs": c.classifier_macs,
            },
            "arena_bytes": trace.arena_bytes,
            "kernels": Kernels::detect().name(),
        })
    }
}

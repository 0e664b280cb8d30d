//! What int8 with groups of 32 to 256 costs.

use crate::told;
use parity::quality::{Figures, Passage, Subject, compare};
use parity::{File, Storage, smol};
use pleach::blob::format::SectionKind;
use pleach::{Error, Model, Routing};

const GROUPS: [u32; 4] = [32, 64, 128, 256];

pub(crate) fn table() -> Result<(), Error> {
    let f16 = smol::pack(Storage::F16);
    let files = GROUPS.map(|g| smol::pack(Storage::Q8.group(g)));
    let english = smol::english(&f16.model());
    let answers = smol::answers();
    let base = rows("English, base", &f16, &files, Routing::Base, &english)?;
    let xlora = rows("answers, X-LoRA", &f16, &files, Routing::Exact, &answers)?;
    println!(
        "| weights | base, bytes | bytes per weight | base: perplexity | KL, nats | top-1 | X-LoRA: perplexity | KL, nats | top-1 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let names = std::iter::once("f16".to_owned()).chain(GROUPS.map(|g| format!("q8, group {g}")));
    let all = std::iter::once(&f16).chain(&files);
    for (n, (name, file)) in names.zip(all).enumerate() {
        let bytes = base_bytes(&file.model());
        println!(
            "| {name} | {bytes} | {:.3} | {} | {} |",
            bytes as f64 / weights(&file.model()) as f64,
            cells(&base[n], &base[0]),
            cells(&xlora[n], &xlora[0]),
        );
    }
    println!(
        "\nBase: {} tokens of English; X-LoRA: {} tokens of held-out answers. Reference: f16.",
        base[0].tokens, xlora[0].tokens
    );
    Ok(())
}

/// The reference against itself, then each file against it.
fn rows(
    what: &str,
    f16: &File,
    files: &[File],
    routing: Routing<'_>,
    passages: &[Passage],
) -> Result<Vec<Figures>, Error> {
    let subject = |file| Subject {
        model: File::model(file),
        routing,
    };
    let subjects: Vec<Subject<'_, '_>> = std::iter::once(f16).chain(files).map(subject).collect();
    compare(
        subject(f16),
        &subjects,
        passages,
        told(what, passages.len()),
    )
}

fn cells(f: &Figures, reference: &Figures) -> String {
    format!(
        "{:.3} ({:+.2} %) | {:.4} | {:.3}",
        f.perplexity(),
        100.0 * (f.perplexity() / reference.perplexity() - 1.0),
        f.mean_kl(),
        f.agreement()
    )
}

fn base_bytes(model: &Model<'_>) -> u64 {
    let base = model.sections().filter(|s| s.0 == SectionKind::Base);
    base.map(|s| s.2).sum()
}

/// Weights of the base's matrices and norms.
fn weights(model: &Model<'_>) -> u64 {
    let c = model.config();
    let [hidden, layers, vocab] = [c.hidden, c.layers, c.vocab].map(u64::from);
    let q = u64::from(c.heads * c.head_dim);
    let kv = u64::from(c.kv_heads * c.head_dim);
    let mlp = u64::from(c.intermediate);
    let layer = hidden * (2 * q + 2 * kv + 3 * mlp + 2);
    vocab * hidden * if c.tied { 1 } else { 2 } + layers * layer + hidden
}

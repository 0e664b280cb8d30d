//! One hash per model file, KV type and mode: a mode for each row of the table of modes, to run under
//! emulators and compare with the native lines.
//!
//! ```text
//! hashes --prepare DIR     packs the model files into DIR
//! hashes DIR               runs every *.pleach in DIR; prints `file mode kv hash`
//! hashes --prepare-smol DIR   packs SmolLM2 with its experts, cut to four layers, into DIR
//! hashes --sampled DIR        draws 32 tokens with a seed from every *.pleach in DIR; prints `file hash tokens`
//! ```
//!
//! The prompt follows from the vocabulary, so that the lines depend on the file alone. Rows of exact routing
//! must have one hash, and so must those that are sampled; that is checked here too. Exit codes: 0 done, 1 a failure, 2 wrong usage.

use parity::cut;
use parity::subject::Subject;
use parity::text::encode;
use parity::{File, Guesses, Mode, Setup, Storage, Text, run};
use pleach::{Caches, KvType, Routing, Sampling, Speculate};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--prepare", dir] => prepare(Path::new(dir)),
        ["--prepare-smol", dir] => prepare_smol(Path::new(dir)),
        ["--sampled", dir] => all(Path::new(dir), sampled),
        [dir] if !dir.starts_with('-') => all(Path::new(dir), hash_file),
        _ => {
            eprintln!(
                "hashes: one folder is expected\n  hashes [--prepare|--prepare-smol|--sampled] DIR"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("hashes: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The intent model and three cases as the demo, and the adversarial checkpoints; f16 and q8.
fn prepare(dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for subject in Subject::all() {
        for quant in [Storage::F16, Storage::Q8] {
            let storage = subject.storages.iter().find(|s| s.quant == quant.quant);
            let Some(&storage) = storage else { continue };
            let path = dir.join(format!("{}-{}.pleach", subject.name, storage.name()));
            let file = subject.file(storage);
            std::fs::write(&path, file.bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

/// Four layers of SmolLM2, f16 and q8.
fn prepare_smol(dir: &Path) -> Result<(), String> {
    for storage in [Storage::F16, Storage::Q8] {
        let mut options = cut::smol_to(&dir.join("smol-cut"), 4);
        options.quant = storage.quant;
        options.adapter_quant = Some(storage.adapters);
        let path = dir.join(format!("smol-cut-{}.pleach", storage.name()));
        std::fs::write(&path, File::pack(&options).bytes())
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// A row of the table of modes.
struct Row {
    name: &'static str,
    mode: Mode,
    routing: Routing<'static>,
    caches: Caches,
    /// Whether its tokens are drawn with [`sampling`].
    sampled: bool,
}

/// All options of a draw.
fn sampling() -> Sampling {
    Sampling {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.1,
        presence_penalty: 0.1,
        frequency_penalty: 0.1,
        seed: 42,
        ..Sampling::GREEDY
    }
}

/// The rows. The exact ones must agree, greedy and sampled.
fn rows() -> Vec<Row> {
    let row = |name, mode, routing, caches| Row {
        name,
        mode,
        routing,
        caches,
        sampled: false,
    };
    let exact = |name, mode| row(name, mode, Routing::Exact, Caches::Two);
    let natural = Guesses::Natural;
    let sampled = |row: Row| Row {
        sampled: true,
        ..row
    };
    let whole = Mode::whole(7);
    vec![
        exact("decode-exact", Mode::NAIVE),
        exact("prefill-exact", whole),
        exact(
            "speculate-base",
            whole.speculating(Speculate::Base, natural),
        ),
        exact(
            "speculate-held",
            whole.speculating(Speculate::Held, Guesses::Wrong),
        ),
        exact("bounded-step", whole.budget(1000)),
        exact("threads", whole.threads(3)),
        exact(
            "speculate-auto",
            whole.speculating(Speculate::Auto, natural),
        ),
        sampled(exact("sampled", Mode::NAIVE)),
        sampled(exact(
            "sampled-auto",
            whole.speculating(Speculate::Auto, natural),
        )),
        row("every-3", whole, Routing::Every(3), Caches::Two),
        row("lag", whole, Routing::Lag, Caches::Two),
        row("prompt", whole, Routing::Prompt, Caches::One),
        row("base", whole, Routing::Base, Caches::One),
        row("only-0", whole, Routing::Only(0), Caches::One),
        row("all-ones", whole, Routing::AllOnes, Caches::One),
    ]
}

fn all(dir: &Path, each: fn(&Path) -> Result<(), String>) -> Result<(), String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "pleach"));
    paths.sort();
    if paths.is_empty() {
        return Err(format!(
            "{}: no *.pleach in it\n  hashes --prepare {0}",
            dir.display()
        ));
    }
    paths.iter().try_for_each(|p| each(p))
}

fn hash_file(path: &Path) -> Result<(), String> {
    let fails = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| fails(&e))?;
    let file = File::new(&bytes);
    let model = file.model();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let vocab = model.config().vocab as usize;
    let prompt: Vec<u32> = (0..11).map(|i| ((i * 13 + 5) % vocab) as u32).collect();
    for (kv, kv_name) in [(KvType::F32, "f32"), (KvType::F16, "f16")] {
        let (mut exact, sampling) = ([None; 2], sampling());
        for row in rows() {
            let setup = Setup {
                caches: row.caches,
                routing: Some(row.routing),
                ..Setup::exact(kv)
            };
            let greedy = Text::new(&prompt, 4);
            let text = Text {
                wrong: vocab as u32 - 1,
                sampling: if row.sampled {
                    &sampling
                } else {
                    greedy.sampling
                },
                ..greedy
            };
            let hash = run(model, &row.mode, &setup, &text)
                .map_err(|e| fails(&e))?
                .hash();
            println!("{name} {} {kv_name} {hash:016x}", row.name);
            let exact = &mut exact[usize::from(row.sampled)];
            if row.routing == Routing::Exact && *exact.get_or_insert(hash) != hash {
                return Err(fails(&format!("{} is not the naive answer", row.name)));
            }
        }
    }
    Ok(())
}

/// 32 tokens, drawn with a seed, under the held guess: hash of scalings and logits, and the tokens.
fn sampled(path: &Path) -> Result<(), String> {
    let fails = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = File::new(&std::fs::read(path).map_err(|e| fails(&e))?);
    let model = file.model();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let prompt = encode(
        &model,
        "<|im_start|>user\nWrite a poem about the sea.<|im_end|>\n",
    );
    let sampling = Sampling {
        temperature: 0.8,
        top_p: 0.95,
        seed: 2026,
        ..Sampling::GREEDY
    };
    let text = Text {
        sampling: &sampling,
        ..Text::new(&prompt, 32)
    };
    let mode = Mode::whole(7).speculating(Speculate::Held, Guesses::Natural);
    let trace = run(model, &mode, &Setup::exact(KvType::F16), &text).map_err(|e| fails(&e))?;
    let tokens: Vec<String> = trace.generated.iter().map(u32::to_string).collect();
    println!("{name} {:016x} {}", trace.hash(), tokens.join(","));
    Ok(())
}

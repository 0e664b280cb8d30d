//! One hash per model file, KV type and mode: a mode for each row of the table of modes, to run under
//! emulators and compare with the native lines.
//!
//! ```text
//! hashes --prepare DIR     packs the model files into DIR
//! hashes DIR               runs every *.pleach in DIR; prints `file mode kv hash`
//! hashes --prepare-smol DIR   packs SmolLM2 with its experts, cut to four layers, into DIR
//! hashes --sampled DIR        draws 32 tokens with a seed from every *.pleach in DIR; prints `file hash tokens`
//! hashes --prepare-layouts DIR    packs the intent model, a Qwen2 case and the adversarial checkpoints in every layout
//! hashes --backends DIR [NAME...] runs every *.pleach in DIR, or those whose names begin with a NAME, on every backend
//!                                 of this CPU, in 1 to 8 columns, on 1 to 4 threads; prints `file kv hash`, then
//!                                 which kernels ran
//! ```
//!
//! The prompt follows from the vocabulary, so that the lines depend on the file alone. Rows of exact routing
//! must have one hash, and so must those that are sampled; that is checked here too, and so is that all layouts of a
//! file (`name.layout.pleach`) have one hash and, where files of all targets ran, that no kernel of a backend was
//! left out. Exit codes: 0 done, 1 a failure, 2 wrong usage.

use parity::backends::{self, Ran};
use parity::cut;
use parity::subject::Subject;
use parity::text::{self, encode};
use parity::{File, Guesses, Mode, Setup, Storage, Text, run};
use pleach::{Caches, Kernels, KvType, Routing, Sampling, Speculate};
use pleach_pack::{AdapterQuant, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--prepare", dir] => prepare(Path::new(dir)),
        ["--prepare-smol", dir] => prepare_smol(Path::new(dir)),
        ["--sampled", dir] => all(Path::new(dir), sampled),
        ["--prepare-layouts", dir] => prepare_layouts(Path::new(dir)),
        ["--backends", dir] => on_backends(Path::new(dir), &[""]),
        ["--backends", dir, ref names @ ..] => on_backends(Path::new(dir), names),
        [dir] if !dir.starts_with('-') => all(Path::new(dir), hash_file),
        _ => {
            eprintln!(
                "hashes: one folder is expected\n  hashes [--prepare|--prepare-smol|--prepare-layouts|--sampled] DIR\n  hashes --backends DIR [NAME...]"
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

/// Three kinds of models in every layout: q8 with experts in q8, f16 with experts in f32.
fn prepare_layouts(dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut subjects = vec![Subject::intent()];
    subjects.extend(Subject::cases().into_iter().take(1));
    subjects.extend(Subject::adversarial());
    for subject in subjects {
        for quant in [Storage::Q8, Storage::F16] {
            let storage = subject.storages.iter().find(|s| s.quant == quant.quant);
            let Some(&storage) = storage else { continue };
            let adapters = match storage.adapters {
                AdapterQuant::F16 => AdapterQuant::F32,
                other => other,
            };
            let storage = Storage {
                adapters,
                ..storage
            };
            for target in Target::ALL {
                let bits = storage.bits_name();
                let path = dir.join(format!("{}-{bits}.{}.pleach", subject.name, target.name()));
                let file = subject.file(storage.target(target));
                std::fs::write(&path, file.bytes())
                    .map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
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
    files(dir)?.iter().try_for_each(|p| each(p))
}

/// The model files in a folder.
fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
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
    Ok(paths)
}

/// All files whose names begin with one of `starts`, on all backends.
fn on_backends(dir: &Path, starts: &[&str]) -> Result<(), String> {
    let names: Vec<&str> = Kernels::available().map(Kernels::name).collect();
    println!("backends: {}", names.join(" "));
    let (mut ran, mut hashes, mut layouts) = (Ran::all(), BTreeMap::new(), BTreeSet::new());
    for path in files(dir)? {
        let fails = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if !starts.iter().any(|s| name.starts_with(s)) {
            continue;
        }
        let file = File::new(&std::fs::read(&path).map_err(|e| fails(&e))?);
        // A real vocabulary takes long: one kind of cache.
        let (generate, caches) = match text::is_large(&file.model()) {
            false => (4, &[KvType::F32, KvType::F16][..]),
            true => (1, &[KvType::F16][..]),
        };
        let prompt = text::of_vocabulary(&file.model());
        for &kv in caches {
            let text = Text::new(&prompt, generate);
            let hash = backends::one_hash(&file, kv, &text, &mut ran).map_err(|e| fails(&e))?;
            println!("{name} {kv:?} {hash:016x}");
            let (model, layout) = name.split_once('.').unwrap_or((&name, "its layout"));
            layouts.insert(layout.to_owned());
            let (first, other) = hashes
                .entry((model.to_owned(), kv.bytes()))
                .or_insert_with(|| (hash, layout.to_owned()));
            if *first != hash {
                return Err(fails(&format!("its hash is not that of {other}")));
            }
        }
    }
    if hashes.is_empty() {
        let starts = starts.join(" or ");
        return Err(format!("{}: no name begins with {starts}", dir.display()));
    }
    // A part of the files need not reach every kernel.
    let all = layouts.len() == Target::ALL.len();
    for r in &ran {
        print!("{}", r.table());
        if let Some(kernel) = r.missing().first().filter(|_| all) {
            return Err(format!("{kernel} did not run"));
        }
    }
    Ok(())
}

fn hash_file(path: &Path) -> Result<(), String> {
    let fails = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| fails(&e))?;
    let file = File::new(&bytes);
    let model = file.model();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let vocab = model.config().vocab as usize;
    let prompt = text::of_vocabulary(&model);
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

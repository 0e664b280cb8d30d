//! Every X-LoRA checkpoint of `tests/fixtures/peft` against PEFT's own f32 results: scalings before and
//! after top-k, logits, generated tokens. Tolerances as `tests/fixtures/README.md` states them.

use parity::{Case, Guesses, Mode, Setup, Storage, Text, run};
use pleach::{KvType, Speculate};

/// Largest difference of a scaling.
const SCALINGS: f32 = 1e-4;
/// Largest difference of a prompt's logit, as a share of the case's largest.
const LOGITS: f32 = 1e-4;
/// The same after generated tokens: PEFT's own rounding adds up.
const GENERATED: f32 = 3e-4;

fn largest_difference(what: &str, ours: &[f32], theirs: &[f32]) -> Result<f32, String> {
    if ours.len() != theirs.len() {
        let (a, b) = (ours.len(), theirs.len());
        return Err(format!("{what}: {a} values, PEFT has {b}"));
    }
    // A NaN is no smaller than any limit.
    Ok(ours.iter().zip(theirs).fold(0.0, |m, (a, b)| {
        let d = (a - b).abs();
        if d <= m { m } else { d }
    }))
}

/// Compares one case in one mode; returns its figures.
fn check(case: &Case, mode: &Mode) -> Result<String, String> {
    let file = case.pack(Storage::F16);
    let model = file.model();
    model.verify().map_err(|e| e.to_string())?;
    sites(case, &model)?;
    let (prompt, expected) = (case.tokens("prompt"), case.tokens("generated"));
    let setup = Setup {
        scaling_pass_value: case.set_scaling_pass_value(),
        ..Setup::exact(KvType::F32)
    };
    let text = Text::new(&prompt, expected.len());
    let trace = run(model, mode, &setup, &text).map_err(|e| e.to_string())?;
    if trace.generated != expected {
        return Err(format!("tokens {:?}, PEFT {expected:?}", trace.generated));
    }
    let (width, vocab, n) = (trace.width, trace.vocab, prompt.len());
    let (logits, generated) = (case.floats("logits"), case.floats("generated_logits"));
    let largest = logits
        .iter()
        .chain(&generated)
        .fold(1.0f32, |m, v| m.max(v.abs()));
    let figures = [
        (
            "scalings",
            &trace.scalings[..n * width],
            case.floats("scalings"),
            SCALINGS,
        ),
        (
            "effective",
            &trace.effective[..n * width],
            case.floats("effective"),
            SCALINGS,
        ),
        (
            "generated_scalings",
            &trace.scalings[(n - 1) * width..],
            case.floats("generated_scalings"),
            SCALINGS,
        ),
        (
            "logits",
            &trace.logits[..n * vocab],
            logits,
            LOGITS * largest,
        ),
        (
            "generated_logits",
            &trace.logits[(n - 1) * vocab..],
            generated,
            GENERATED * largest,
        ),
    ];
    let mut line = String::new();
    for (what, ours, theirs, limit) in figures {
        let d = largest_difference(what, ours, &theirs)?;
        if d > limit || d.is_nan() {
            return Err(format!("{what} differ by {d:.2e}, allowed {limit:.2e}"));
        }
        line += &format!(" {what} {d:.1e}");
    }
    Ok(line)
}

/// The sites in PEFT's order, by name.
fn sites(case: &Case, model: &pleach::Model<'_>) -> Result<(), String> {
    let expected: Vec<&str> = case.json["sites"]
        .as_array()
        .expect("sites")
        .iter()
        .filter_map(|s| s.as_str())
        .collect();
    let ours: Vec<&str> = (0..model.n_sites())
        .filter_map(|n| model.site_name(n))
        .collect();
    if ours != expected {
        return Err(format!("sites {ours:?}, PEFT {expected:?}"));
    }
    Ok(())
}

fn every_case(mode: Mode) {
    let mut failed = Vec::new();
    for case in Case::all() {
        match check(&case, &mode) {
            Ok(line) => println!("{:<26}{line}", case.name),
            Err(e) => failed.push(format!("{}: {e}", case.name)),
        }
    }
    assert!(failed.is_empty(), "{}\n{}", mode.name(), failed.join("\n"));
}

#[test]
fn token_by_token() {
    every_case(Mode::NAIVE);
}

#[test]
fn in_chunks_of_seven() {
    every_case(Mode::whole(7));
}

#[test]
fn speculating_with_the_base_guess() {
    every_case(Mode::whole(32).speculating(Speculate::Base, Guesses::Natural));
}

#[test]
fn speculating_with_the_held_guess() {
    every_case(Mode::whole(2).speculating(Speculate::Held, Guesses::Natural));
}

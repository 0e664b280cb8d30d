//! What PEFT and transformers computed for a case, against ours. Tolerances as `tests/fixtures/README.md` states
//! them.
#![allow(unreachable_pub)]

use parity::{Case, Mode, Setup, Storage, Text, run};
use pleach::KvType;

/// Largest difference of a scaling.
const SCALINGS: f32 = 1e-4;
/// Largest difference of a prompt's logit, as a share of the case's largest.
pub const LOGITS: f32 = 1e-4;
/// The same after generated tokens: PEFT's own rounding adds up.
pub const GENERATED: f32 = 3e-4;

/// The largest difference of two lists; an error if their lengths differ.
pub fn largest_difference(what: &str, ours: &[f32], theirs: &[f32]) -> Result<f32, String> {
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

/// Compares one case in one mode, f16 with f32 caches; returns its figures.
pub fn check(case: &Case, mode: &Mode) -> Result<String, String> {
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

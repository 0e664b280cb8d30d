//! What storage cost, per tensor, for the provenance: short enough for a model of 0.25 M parameters.
//!
//! ```text
//! {"base": {"embed": [5210], "q_proj": [5190, 5233, ..]}, "classifier": [0, ..],
//!  "experts": [{"A": [..], "B": [..]}, ..], "largest": {"q_proj": 0.0011, ..}, "flushed": {"lora B": 3}}
//! ```
//! Numbers are root mean square errors, relative to the tensor's own root mean square, in millionths. A list is in
//! the order of the file: by layer, for an expert by the sites that it targets. A kind whose tensors are all exact
//! is left out. `largest` is the largest error of one value, `flushed` counts values that became 0.

use crate::report::{Report, TensorReport};
use serde_json::{Map, Value, json};

/// Most tensors whose errors are listed one by one; of more experts' only the largest error of A and B is kept.
const MOST_TENSORS: usize = 8192;

/// The errors of a report.
pub(crate) fn errors(report: &Report) -> Value {
    let list = |of: &dyn Fn(&&TensorReport) -> bool| -> Vec<u64> {
        report
            .tensors
            .iter()
            .filter(|t| of(t))
            .map(millionths)
            .collect()
    };
    let mut errors = Map::new();
    let mut base = Map::new();
    let (mut largest, mut flushed) = (Map::new(), Map::new());
    for k in report.kinds() {
        if k.loss.largest > 0.0 {
            largest.insert(k.kind.into(), json!(three_digits(k.loss.largest)));
        }
        if k.loss.flushed > 0 {
            flushed.insert(k.kind.into(), json!(k.loss.flushed));
        }
        if k.worst.class.is_none() && k.loss.error2 > 0.0 {
            let all = list(&|t| t.kind == k.kind);
            match k.kind {
                "classifier" => errors.insert(k.kind.into(), json!(all)),
                kind => base.insert(kind.into(), json!(all)),
            };
        }
    }
    errors.insert("base".into(), base.into());
    let classes = report.tensors.iter().filter_map(|t| t.class).max();
    let short = report.tensors.len() > MOST_TENSORS;
    let expert = |class: u16| {
        let of = |kind: &str| {
            let all = list(&|t| t.class == Some(class) && t.kind == kind);
            match short {
                true => all.into_iter().max().into_iter().collect(),
                false => all,
            }
        };
        json!({"A": of("lora A"), "B": of("lora B")})
    };
    let experts: Vec<Value> = classes.map_or(0..0, |c| 0..c + 1).map(expert).collect();
    errors.insert("experts".into(), experts.into());
    errors.insert("largest".into(), largest.into());
    errors.insert("flushed".into(), flushed.into());
    errors.retain(|_, v| match v {
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
        _ => true,
    });
    errors.into()
}

/// A relative error in millionths; what is there is at least 1.
fn millionths(t: &TensorReport) -> u64 {
    let relative = (t.loss.relative() * 1e6).round() as u64;
    relative.max(u64::from(t.loss.error2 > 0.0))
}

/// A number as short as people read it.
fn three_digits(v: f64) -> f64 {
    format!("{v:.2e}").parse().unwrap_or(v)
}

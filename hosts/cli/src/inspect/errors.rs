//! What storage cost each tensor, as `pleach pack` wrote it into the provenance.

use crate::tensors;
use pleach::Model;
use pleach::blob::format::Module;
use serde_json::{Map, Value, json};

/// The errors of a file; empty for one that says nothing.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub(crate) kinds: Vec<Kind>,
}

/// The tensors of one kind.
#[derive(Debug)]
pub(crate) struct Kind {
    /// `embed`, `q_proj`, `lora A`, ..
    pub(crate) name: String,
    /// Name and root mean square error, relative to the tensor's own root mean square.
    pub(crate) tensors: Vec<(String, f64)>,
    /// Largest error of one value.
    pub(crate) largest: Option<f64>,
    /// Values that became 0.
    pub(crate) flushed: u64,
}

impl Errors {
    /// Reads them. What is not as pack writes it is passed over: it is text for people.
    pub(crate) fn of(model: &Model<'_>) -> Self {
        let provenance = model.provenance().unwrap_or_default();
        let json: Value = serde_json::from_str(provenance).unwrap_or_default();
        let Some(errors) = json.get("errors") else {
            return Self::default();
        };
        let layers = model.config().layers as usize;
        let mut kinds: Vec<Kind> = Vec::new();
        let mut add = |name: &str, tensors: Vec<(String, f64)>| {
            let number = |of: &str| errors.get(of).and_then(|m| m.get(name));
            match kinds.iter_mut().find(|k| k.name == name) {
                Some(kind) => kind.tensors.extend(tensors),
                None => kinds.push(Kind {
                    name: name.to_owned(),
                    tensors,
                    largest: number("largest").and_then(Value::as_f64),
                    flushed: number("flushed").and_then(Value::as_u64).unwrap_or(0),
                }),
            }
        };
        let empty = Map::new();
        let base = errors.get("base").and_then(Value::as_object);
        for (kind, list) in base.unwrap_or(&empty) {
            let list = numbers(Some(list)).into_iter().enumerate();
            add(
                kind,
                list.map(|(n, v)| (base_name(kind, n, layers), v)).collect(),
            );
        }
        let classifier = numbers(errors.get("classifier")).into_iter().enumerate();
        let part = |n: usize| {
            if n.is_multiple_of(2) {
                "weight"
            } else {
                "bias"
            }
        };
        let named: Vec<_> = classifier
            .map(|(n, v)| (format!("classifier.{}.{}", n / 2, part(n)), v))
            .collect();
        if !named.is_empty() {
            add("classifier", named);
        }
        let experts = errors.get("experts").and_then(Value::as_array);
        for (class, e) in experts.into_iter().flatten().enumerate() {
            // An expert file brings no provenance.
            if model.replaced().iter().any(|f| f.class() == class) {
                continue;
            }
            add("lora A", lora(model, class, 'A', numbers(e.get("A"))));
            add("lora B", lora(model, class, 'B', numbers(e.get("B"))));
        }
        Self { kinds }
    }

    /// All of it for scripts; `None` for a file that says nothing.
    pub(crate) fn json(&self) -> Value {
        if self.kinds.is_empty() {
            return Value::Null;
        }
        let kind = |k: &Kind| {
            let tensors: Vec<Value> = k
                .tensors
                .iter()
                .map(|(name, relative)| json!({"name": name, "relative": relative}))
                .collect();
            json!({
                "kind": k.name,
                "largest": k.largest,
                "flushed": k.flushed,
                "tensors": tensors,
            })
        };
        self.kinds.iter().map(kind).collect()
    }
}

impl Kind {
    /// Lowest and highest error of a tensor.
    pub(crate) fn range(&self) -> (f64, f64) {
        let all = || self.tensors.iter().map(|(_, v)| *v);
        (
            all().fold(f64::INFINITY, f64::min),
            all().fold(0.0, f64::max),
        )
    }
}

/// A list of millionths.
fn numbers(list: Option<&Value>) -> Vec<f64> {
    let list = list.and_then(Value::as_array);
    let all = list.into_iter().flatten().filter_map(Value::as_u64);
    all.map(|v| v as f64 / 1e6).collect()
}

/// The name of tensor `n` of a kind of the base.
fn base_name(kind: &str, n: usize, layers: usize) -> String {
    let module = Module::LAYER.into_iter().find(|m| m.path().ends_with(kind));
    match (kind, module) {
        ("embed", _) => "model.embed_tokens".into(),
        ("head", _) => "lm_head".into(),
        (_, Some(m)) if n < layers => format!("model.layers.{n}.{}", m.path()),
        _ => format!("{kind} {n}"),
    }
}

/// The A or B panels of an expert at the sites that it targets; a single number for many is the largest.
fn lora(model: &Model<'_>, class: usize, panel: char, values: Vec<f64>) -> Vec<(String, f64)> {
    let Some(expert) = model.expert(class) else {
        return Vec::new();
    };
    let targeted = (0..model.n_sites()).filter(|n| expert.rank(*n) > 0);
    let names: Vec<String> = match (values.len(), targeted.clone().count()) {
        (1, sites) if sites > 1 => vec!["the largest".into()],
        _ => targeted.map(|n| tensors::site(model, n)).collect(),
    };
    let named = names.into_iter().zip(values);
    named
        .map(|(site, v)| (format!("{}: {site}.lora_{panel}", expert.name()), v))
        .collect()
}

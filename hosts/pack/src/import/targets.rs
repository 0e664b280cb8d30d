//! Which modules a LoRA configuration targets, and with which rank and alpha: PEFT 0.19.1's rules
//! (`check_target_module_exists`, `get_pattern_key`).

use super::json::Json;
use super::modules::{Modules, Place};
use crate::error::{PackError, Result};
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most patterns under one key: each costs time to compile.
const MOST_PATTERNS: usize = 4096;
/// Most entries of `layers_pattern`, which are kept compiled.
const MOST_LAYER_PATTERNS: usize = 16;
/// Bytes of a compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;

/// A target list, or a pattern.
enum Names<'a> {
    List(Vec<&'a str>),
    Pattern(Regex),
    AllLinear,
}

/// The rules of one adapter.
pub(crate) struct Targets<'a> {
    targets: Names<'a>,
    exclude: Option<Names<'a>>,
    layers: Option<Vec<u32>>,
    layer_patterns: Vec<Regex>,
}

impl<'a> Targets<'a> {
    /// Reads `target_modules`, `exclude_modules`, `layers_to_transform` and `layers_pattern`.
    pub(crate) fn read(json: &'a Json) -> Result<Self> {
        json.required("target_modules")?;
        let targets = match json.get("target_modules") {
            Some(Value::String(s)) if s.to_lowercase() == "all-linear" => Names::AllLinear,
            _ => names(json, "target_modules")?.unwrap_or(Names::List(Vec::new())),
        };
        // PEFT takes an empty list, unlike an empty number, for "all layers".
        let layers = json.u32s("layers_to_transform")?.filter(|l| !l.is_empty());
        let patterns = json.texts("layers_pattern")?.unwrap_or_default();
        if patterns.len() > MOST_LAYER_PATTERNS {
            return Err(too_many(json, "layers_pattern", MOST_LAYER_PATTERNS));
        }
        let pattern_key = if layers.is_some() {
            "layers_to_transform"
        } else {
            "layers_pattern"
        };
        if matches!(targets, Names::Pattern(_)) && (layers.is_some() || !patterns.is_empty()) {
            return Err(json.refuse(
                format!("{pattern_key} together with a pattern in target_modules, which PEFT refuses too"),
                "name the modules in a list, or the layers in the pattern",
            ));
        }
        let layer_patterns = if patterns.is_empty() {
            vec![regex(json, "layers_pattern", r"[^.]*", |p| {
                format!(r"^.*\.{p}\.(\d+)\.")
            })?]
        } else {
            patterns
                .into_iter()
                .map(|p| regex(json, "layers_pattern", p, |p| format!(r"^.*\.{p}\.(\d+)\.")))
                .collect::<Result<_>>()?
        };
        Ok(Self {
            targets,
            exclude: names(json, "exclude_modules")?,
            layers,
            layer_patterns,
        })
    }

    /// The places that are targeted, in the order of sites.
    ///
    /// Errors: a target that is a module of the base, but none that LoRA can have here; no target at all.
    pub(crate) fn places(&self, json: &Json, base: Modules) -> Result<Vec<Place>> {
        let layers = base.layers;
        if let Some(name) = base.others().find(|n| self.hits(n, false)) {
            return Err(json.refuse(
                format!("target_modules targets {name}, which cannot be a site"),
                "train with the linear modules of the layers and embed_tokens only",
            ));
        }
        let places: Vec<_> = Place::all(layers)
            .filter(|p| self.hits(&p.name(), p.layer != pleach::blob::format::NO_LAYER))
            .collect();
        if places.is_empty() {
            return Err(json.refuse(
                "target_modules (with exclude_modules and layers_to_transform) names no module of the base",
                format!("pass the adapter's own base: this one has model.embed_tokens and model.layers.0 to {}", layers.saturating_sub(1)),
            ));
        }
        Ok(places)
    }

    fn hits(&self, name: &str, linear: bool) -> bool {
        if self.exclude.as_ref().is_some_and(|e| e.matches(name)) {
            return false;
        }
        match &self.targets {
            Names::AllLinear => linear,
            Names::Pattern(_) => self.targets.matches(name),
            // A full name is taken whatever its layer.
            Names::List(list) if list.contains(&name) => true,
            Names::List(_) => self.targets.matches(name) && self.layer_hits(name),
        }
    }

    fn layer_hits(&self, name: &str) -> bool {
        let Some(layers) = &self.layers else {
            return true;
        };
        self.layer_patterns
            .iter()
            .find_map(|p| p.captures(name))
            .and_then(|c| c.get(1)?.as_str().parse::<u32>().ok())
            .is_some_and(|n| layers.contains(&n))
    }
}

impl Names<'_> {
    /// A list holds full names or ends of names; a pattern must match as a whole.
    fn matches(&self, name: &str) -> bool {
        match self {
            Names::AllLinear => false,
            Names::Pattern(p) => p.is_match(name),
            Names::List(list) => list.iter().any(|t| {
                name == *t || name.strip_suffix(t).is_some_and(|head| head.ends_with('.'))
            }),
        }
    }
}

fn names<'a>(json: &'a Json, key: &str) -> Result<Option<Names<'a>>> {
    match json.get(key) {
        Some(Value::String(p)) if !p.is_empty() => {
            let p = regex(json, key, p, |p| format!("^(?:{p})$"))?;
            Ok(Some(Names::Pattern(p)))
        }
        Some(Value::String(_)) => Ok(None),
        _ => Ok(json.texts(key)?.filter(|l| !l.is_empty()).map(Names::List)),
    }
}

/// A pattern as Python would read it, put into its frame.
fn regex(json: &Json, key: &str, pattern: &str, frame: impl Fn(&str) -> String) -> Result<Regex> {
    let compile = |p: &str| RegexBuilder::new(p).size_limit(PATTERN_BYTES).build();
    compile(pattern)
        .and_then(|_| compile(&frame(pattern)))
        .map_err(|e| {
            let why = e.to_string();
            let why = why.lines().last().unwrap_or_default().trim().to_string();
            json.refuse(
                format!("{key}: the pattern {pattern:?} cannot be used: {why}"),
                "write it without look-around and back references, or name the modules in a list",
            )
            .with_source(e)
        })
}

fn too_many(json: &Json, key: &str, most: usize) -> PackError {
    json.refuse(
        format!("{key} has more than {most} entries"),
        "write fewer, more general patterns",
    )
}

/// `rank_pattern` or `alpha_pattern`: values for modules whose name ends in a match of the key.
pub(crate) struct Patterns(BTreeMap<String, f64>);

impl Patterns {
    /// Reads the object under `key` for the modules of these names: the first key that matches counts. One
    /// pattern is held at a time.
    pub(crate) fn read(json: &Json, key: &str, names: &[String]) -> Result<Self> {
        let mut values = BTreeMap::new();
        let mut left: Vec<&String> = names.iter().collect();
        for (n, (pattern, value)) in json.object(key)?.into_iter().flatten().enumerate() {
            if n >= MOST_PATTERNS {
                return Err(too_many(json, key, MOST_PATTERNS));
            }
            let Some(value) = value.as_f64().filter(|v| v.is_finite()) else {
                return Err(json.refuse(
                    format!("{key}.{pattern} is {value}, a number is expected"),
                    format!("correct {key}"),
                ));
            };
            let pattern = regex(json, key, pattern, |p| format!(r"^(?:.*\.)?(?:{p})$"))?;
            left.retain(|name| {
                let hit = pattern.is_match(name);
                if hit {
                    values.insert(name.to_string(), value);
                }
                !hit
            });
        }
        Ok(Self(values))
    }

    /// The value for a module.
    pub(crate) fn find(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

//! Inverse frequencies of the rotary embedding: in f64, with libm's `pow`, rounded once.

use super::json::Json;
use crate::error::Result;
use serde_json::{Map, Value};

/// Cure where the old and the new keys contradict each other.
const TWICE: &str = "keep the one that the base was trained with, and remove the other";
/// Keys that only mean something together with a kind of scaling.
const FACTORS: [&str; 5] = [
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "short_factor",
    "long_factor",
];

/// How positions are stretched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scaling {
    /// Not at all.
    None,
    /// All by the same factor.
    Linear { factor: f64 },
    /// By wavelength, as Llama 3.1 does.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

/// Base and scaling of the rotary embedding, from `rope_theta` and `rope_scaling`, or from
/// `rope_parameters`, which newer versions of transformers write. `default` stands in for a missing
/// `rope_theta`.
///
/// Errors: a scaling that is not supported or of no kind; old and new keys that contradict each other.
pub(crate) fn import(config: &Json, default: f64) -> Result<(f64, Scaling)> {
    let parameters = config.object("rope_parameters")?;
    if let Some((key, _)) = parameters.and_then(|p| p.iter().find(|(_, v)| v.is_object())) {
        return Err(config.refuse(
            format!("rope_parameters.{key}: rotary embeddings that differ between kinds of layers"),
            "use a base with one rotary embedding for all its layers",
        ));
    }
    let inner = |key: &str| parameters.and_then(|p| p.get(key)).and_then(Value::as_f64);
    let theta = match (inner("rope_theta"), config.number("rope_theta")?) {
        (Some(inner), Some(outer)) if inner != outer => {
            return Err(config.refuse(
                format!("rope_theta is {outer}, but {inner} in rope_parameters"),
                TWICE,
            ));
        }
        (Some(theta), _) => theta,
        (None, _) => config.number_or("rope_theta", default)?,
    };
    if !(1.0..=1e12).contains(&theta) {
        return Err(config.refuse(
            format!("rope_theta is {theta}; 1 to 1e12 is possible"),
            "correct rope_theta",
        ));
    }
    let outer = config.number("partial_rotary_factor")?;
    let partial = [outer, inner("partial_rotary_factor")];
    if partial.into_iter().flatten().any(|p| p != 1.0) {
        return Err(config.refuse(
            "partial_rotary_factor is not 1",
            "use another base: partly rotated heads are not supported",
        ));
    }
    let named = |key: &str| match config.object(key)? {
        Some(s) => scaling(config, key, s).map(Some),
        None => Ok(None),
    };
    match (named("rope_parameters")?, named("rope_scaling")?) {
        (Some(new), Some(old)) if new != old => Err(config.refuse(
            format!("rope_scaling says {old:?}, rope_parameters says {new:?}"),
            TWICE,
        )),
        (new, old) => Ok((theta, new.or(old).unwrap_or(Scaling::None))),
    }
}

/// What `key` says. `type` is the older name of `rope_type`, and where both are there `transformers` 4 takes
/// `type`.
fn scaling(config: &Json, key: &str, s: &Map<String, Value>) -> Result<Scaling> {
    let kind = |name: &str| match s.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(kind)) => Ok(Some(kind.as_str())),
        Some(_) => Err(config.refuse(
            format!("{key}.{name} is not a text"),
            format!("correct {key} as the base was trained with"),
        )),
    };
    let stated = match (kind("type")?, kind("rope_type")?) {
        (Some(old), Some(new)) if old != new => {
            return Err(config.refuse(
                format!("{key}.type is {old:?}, {key}.rope_type is {new:?}"),
                "keep the one that the base was trained with: transformers 4 takes type",
            ));
        }
        (old, new) => old.or(new),
    };
    let stretches = |name: &&str| s.get(*name).is_some_and(|v| !v.is_null());
    if stated.is_none()
        && let Some(name) = FACTORS.iter().find(|name| stretches(name))
    {
        return Err(config.refuse(
            format!("{key}.{name} is there, {key}.rope_type is missing: a factor of no kind"),
            "add rope_type as the base was trained with, for instance \"linear\"",
        ));
    }
    let kind = stated.unwrap_or("default");
    if s.get("mrope_section").is_some_and(|v| !v.is_null()) {
        return Err(config.refuse(
            format!("{key}.mrope_section: positions of more than one dimension"),
            "use a base for text: the others are not supported",
        ));
    }
    let number = |name: &str| {
        s.get(name)
            .and_then(Value::as_f64)
            .filter(|v| v.is_finite() && *v > 0.0)
            .ok_or_else(|| {
                config.refuse(
                    format!("{key}.{name} is missing, or not a number above 0"),
                    format!("add {name} as the base was trained with"),
                )
            })
    };
    match kind {
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear {
            factor: number("factor")?,
        }),
        "llama3" => {
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            if low >= high {
                return Err(config.refuse(
                    format!("{key}: low_freq_factor {low} is not below high_freq_factor {high}"),
                    "correct the two factors",
                ));
            }
            Ok(Scaling::Llama3 {
                factor: number("factor")?,
                low,
                high,
                original: number("original_max_position_embeddings")?,
            })
        }
        other => Err(config.refuse(
            format!("{key} of type {other:?}"),
            "use a base with none, linear or llama3 scaling: the others are not supported",
        )),
    }
}

/// The inverse frequencies of pairs (i, i + dim/2): f32(1 / theta^(2i / dim)), stretched.
pub(crate) fn inverse_frequencies(theta: f64, scaling: Scaling, dim: u32) -> Vec<f32> {
    (0..dim / 2)
        .map(|i| {
            let f = 1.0 / libm::pow(theta, f64::from(2 * i) / f64::from(dim));
            stretch(f, scaling) as f32
        })
        .collect()
}

fn stretch(f: f64, scaling: Scaling) -> f64 {
    match scaling {
        Scaling::None => f,
        Scaling::Linear { factor } => f / factor,
        Scaling::Llama3 {
            factor,
            low,
            high,
            original,
        } => {
            let wavelength = 2.0 * std::f64::consts::PI / f;
            if wavelength < original / high {
                f
            } else if wavelength > original / low {
                f / factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 - smooth) * f / factor + smooth * f
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let f = inverse_frequencies(10000.0, Scaling::None, 4);
        assert_eq!(f, [1.0, 0.01]);
        let f = inverse_frequencies(10000.0, Scaling::Linear { factor: 4.0 }, 4);
        assert_eq!(f, [0.25, 0.0025]);
    }

    #[test]
    fn llama3_by_wavelength() {
        // Llama 3.2: wavelengths below 8192/4 = 2048 stay, above 8192/1 are divided by 32.
        let s = Scaling::Llama3 {
            factor: 32.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        assert_eq!(stretch(1.0, s), 1.0);
        assert_eq!(
            stretch(2.0 * std::f64::consts::PI / 10000.0, s),
            2.0 * std::f64::consts::PI / 320_000.0
        );
        // In the middle: 4096 is half of the original, smooth = (2 - 1) / 3.
        let f = 2.0 * std::f64::consts::PI / 4096.0;
        let expected = (2.0 / 3.0) * f / 32.0 + f / 3.0;
        assert!((stretch(f, s) - expected).abs() < 1e-18);
    }
}

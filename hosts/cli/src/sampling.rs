//! The options that `run` and `chat` share: how each token is chosen, and what ends a text.

use crate::failure::{BadValue, Failure, Result};
use pleach::Model;
use pleach::sample::{MAX_PENALTY_TOKENS, MAX_STOP_BYTES, MAX_STOP_STRINGS, Sampling};
use pleach_linux::Limits;
use pleach_linux::chat::Ends;

/// Smallest magnitude but 0 that takes part in the arithmetic, 2^-24, and the largest, the largest f16.
const FACTORS: std::ops::RangeInclusive<f32> = 5.960_464_5e-8..=65504.0;

type Parsed<T> = std::result::Result<T, BadValue>;

/// Options of a draw.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0 takes the most probable token each time; 0.7 varies, above 1.5 it rambles [default: 0]
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = temperature)]
    temperature: Option<f32>,
    /// Draw only among the K most probable tokens; 0: among all [default: 0]
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = count)]
    top_k: Option<u32>,
    /// Draw only among the most probable tokens that together have this share, such as 0.95 [default: 1]
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = share)]
    top_p: Option<f32>,
    /// Draw only tokens at least P times as probable as the most probable, such as 0.05 [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = share)]
    min_p: Option<f32>,
    /// Which of the texts that could be drawn: the same seed gives the same text on every machine [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    seed: Option<u64>,
    /// Divide the logits of recent tokens by this (multiply, where negative); above 1 repeats less [default: 1]
    #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = penalty_factor)]
    repetition_penalty: Option<f32>,
    /// Subtract this from the logits of recent tokens [default: 0]
    #[arg(long, value_name = "V", allow_negative_numbers = true, value_parser = addend)]
    presence_penalty: Option<f32>,
    /// Subtract this from a token's logit for each time that it is among the recent ones [default: 0]
    #[arg(long, value_name = "V", allow_negative_numbers = true, value_parser = addend)]
    frequency_penalty: Option<f32>,
    /// How many tokens are recent, the prompt's included [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = penalty_tokens)]
    penalty_tokens: Option<u32>,
    /// Add VALUE to a token's logit; -inf forbids the token; may be repeated
    #[arg(long, value_name = "TOKEN_ID=VALUE", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// End before this string, which is not shown; may be repeated. The model's own end of text always ends
    #[arg(long, value_name = "STRING", allow_hyphen_values = true, value_parser = stop_string)]
    stop: Vec<String>,
}

fn number(text: &str, example: &str) -> Parsed<f32> {
    let bad = || BadValue::new("not a number", format!("use a number, such as {example}"));
    text.parse().map_err(|_| bad())
}

fn temperature(text: &str) -> Parsed<f32> {
    match number(text, "0.7")? {
        0.0 => Ok(0.0),
        v if FACTORS.contains(&v) => Ok(v),
        _ => Err(BadValue::new(
            "out of range",
            "use 0 for the most probable token each time, or a number up to 65504, such as 0.7",
        )),
    }
}

fn share(text: &str) -> Parsed<f32> {
    match number(text, "0.9")? {
        0.0 => Ok(0.0),
        v if v <= 1.0 && FACTORS.contains(&v) => Ok(v),
        _ => Err(BadValue::new(
            "out of range",
            "use a number from 0 to 1, and 0 for what is below 2^-24 (6e-8)",
        )),
    }
}

fn penalty_factor(text: &str) -> Parsed<f32> {
    match number(text, "1.1")? {
        v if FACTORS.contains(&v) => Ok(v),
        _ => Err(BadValue::new(
            "out of range",
            "use a number above 0, such as 1.1; 1 is off",
        )),
    }
}

fn addend(text: &str) -> Parsed<f32> {
    match number(text, "0.5")? {
        0.0 => Ok(0.0),
        v if FACTORS.contains(&v.abs()) => Ok(v),
        _ => Err(BadValue::new(
            "out of range",
            "use a number from -65504 to 65504, such as 0.5; 0 is off",
        )),
    }
}

fn whole<T: std::str::FromStr>(text: &str, cure: String) -> Parsed<T> {
    let bad = || BadValue::new("not a whole number in range", cure);
    text.parse().map_err(|_| bad())
}

fn count(text: &str) -> Parsed<u32> {
    whole(text, "use a whole number from 0, such as 40".to_owned())
}

fn seed(text: &str) -> Parsed<u64> {
    whole(text, format!("use a whole number from 0 to {}", u64::MAX))
}

fn penalty_tokens(text: &str) -> Parsed<u32> {
    let cure = || format!("use a whole number from 0 to {MAX_PENALTY_TOKENS}");
    match whole(text, cure())? {
        n if n <= MAX_PENALTY_TOKENS => Ok(n),
        _ => Err(BadValue::new("out of range", cure())),
    }
}

fn bias(text: &str) -> Parsed<(u32, f32)> {
    let form = "use TOKEN_ID=VALUE, such as 198=-2.5 or 198=-inf";
    let (token, value) = text
        .split_once('=')
        .ok_or_else(|| BadValue::new("no value", form))?;
    let token = token
        .parse()
        .map_err(|_| BadValue::new("not a token's number", form))?;
    match value.parse::<f32>() {
        Ok(v) if v == 0.0 || FACTORS.contains(&v.abs()) || v == f32::NEG_INFINITY => Ok((token, v)),
        Ok(_) => Err(BadValue::new(
            "out of range",
            "use a value from -65504 to 65504, or -inf to forbid the token",
        )),
        Err(_) => Err(BadValue::new("the value is not a number", form)),
    }
}

fn stop_string(text: &str) -> Parsed<String> {
    match text.len() {
        0 => Err(BadValue::new(
            "empty",
            "give the string that ends the text, or leave --stop out",
        )),
        n if n > MAX_STOP_BYTES => Err(BadValue::new(
            format!("{n} bytes"),
            format!("use at most {MAX_STOP_BYTES} bytes: the beginning is enough"),
        )),
        _ => Ok(text.to_owned()),
    }
}

/// The tokens that end a text.
pub(crate) fn stop_tokens(model: &Model<'_>) -> Vec<u32> {
    let eos = model.config().eos.into_iter();
    eos.filter(|t| *t != pleach::blob::format::NO_TOKEN)
        .collect()
}

/// What the options mean for one model.
#[derive(Debug)]
pub(crate) struct Drawing {
    pub(crate) sampling: Sampling,
    /// Tokens that end a text: the model's own, and what a template ends its answers with.
    pub(crate) stop: Vec<u32>,
    pub(crate) stop_strings: Vec<String>,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

impl SamplingArgs {
    /// Checks the options against a model.
    ///
    /// Errors: an option that the model or the sampler cannot serve, by name.
    pub(crate) fn drawing(&self, model: &Model<'_>) -> Result<Drawing> {
        let off = Sampling::GREEDY;
        let mut sampling = Sampling {
            temperature: self.temperature.unwrap_or(off.temperature),
            top_k: self.top_k.unwrap_or(off.top_k),
            top_p: self.top_p.unwrap_or(off.top_p),
            min_p: self.min_p.unwrap_or(off.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(off.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(off.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(off.frequency_penalty),
            penalty_tokens: self.penalty_tokens.unwrap_or(off.penalty_tokens),
            seed: self.seed.unwrap_or(off.seed),
            ..off
        };
        let vocab = model.config().vocab;
        for &(token, value) in &self.logit_bias {
            if token >= vocab {
                return Err(Failure::refused(
                    format!(
                        "--logit-bias {token}={value}: the model has no such token: its vocabulary is {vocab}"
                    ),
                    format!("use tokens from 0 to {}", vocab.saturating_sub(1)),
                ));
            }
            if sampling.bias.push((token, value)).is_err() {
                return Err(Failure::refused(
                    format!("--logit-bias {token}={value}: one too many"),
                    format!("pass at most {}", sampling.bias.capacity()),
                ));
            }
        }
        if let Some(extra) = self.stop.get(MAX_STOP_STRINGS) {
            return Err(Failure::refused(
                format!("--stop {extra:?}: one too many"),
                format!("pass at most {MAX_STOP_STRINGS}"),
            ));
        }
        // What the parsers let through, the sampler takes.
        sampling
            .check()
            .map_err(|e| Failure::core("sampling options", e))?;
        Ok(Drawing {
            sampling,
            stop: stop_tokens(model),
            stop_strings: self.stop.clone(),
            notes: self.notes(),
        })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.temperature.unwrap_or(0.0) == 0.0 {
            let unused = [
                ("--top-k", self.top_k.is_some()),
                ("--top-p", self.top_p.is_some()),
                ("--min-p", self.min_p.is_some()),
                ("--seed", self.seed.is_some()),
            ];
            let given = unused.iter().filter(|(_, given)| *given);
            notes.extend(given.map(|(option, _)| {
                format!(
                    "{option} has no effect without --temperature: the most probable token is taken"
                )
            }));
        }
        let penalised = [
            self.repetition_penalty.is_some_and(|v| v != 1.0),
            self.presence_penalty.is_some_and(|v| v != 0.0),
            self.frequency_penalty.is_some_and(|v| v != 0.0),
        ];
        if self.penalty_tokens.is_some() && !penalised.contains(&true) {
            notes.push("--penalty-tokens has no effect without a penalty".to_owned());
        }
        notes
    }
}

impl Drawing {
    /// Ends texts where a template ends its answers, too. A string that is too long, or one too many, finds no
    /// place: then only the model's own end of text ends.
    pub(crate) fn end_answers(&mut self, ends: Ends) {
        self.stop.extend(ends.token);
        let fits = |s: &String| s.len() <= MAX_STOP_BYTES && !s.is_empty();
        if self.stop_strings.len() < MAX_STOP_STRINGS {
            self.stop_strings.extend(ends.string.filter(fits));
        }
    }

    /// The limits of a text of at most so many tokens. `strings` are [`Drawing::strings`].
    pub(crate) fn limits<'s>(&'s self, tokens: usize, strings: &'s [&'s str]) -> Limits<'s> {
        Limits {
            stop_strings: strings,
            sampling: self.sampling.clone(),
            ..Limits::new(tokens, &self.stop)
        }
    }

    pub(crate) fn strings(&self) -> Vec<&str> {
        self.stop_strings.iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(temperature("0"), Ok(0.0));
        assert_eq!(temperature("0.7"), Ok(0.7));
        for bad in ["-1", "nan", "inf", "1e-9", "70000", "warm", ""] {
            assert!(temperature(bad).is_err(), "{bad}");
        }
        assert_eq!((share("0"), share("1")), (Ok(0.0), Ok(1.0)));
        assert_eq!(share("5.9604645e-8"), Ok(2f32.powi(-24)));
        assert!(share("1e-30").is_err() && share("-1e-30").is_err());
        assert!(share("1.01").is_err() && share("-0.1").is_err() && share("nan").is_err());
        assert!(penalty_factor("0").is_err() && penalty_factor("1.1").is_ok());
        assert_eq!(addend("-0.5"), Ok(-0.5));
        assert!(addend("1e6").is_err());
        assert!(penalty_tokens("4096").is_ok() && penalty_tokens("4097").is_err());
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert!(seed("18446744073709551616").is_err() && seed("-1").is_err());
    }

    #[test]
    fn biases() {
        assert_eq!(bias("3=-1.5"), Ok((3, -1.5)));
        assert_eq!(bias("3=-inf"), Ok((3, f32::NEG_INFINITY)));
        for bad in ["3", "=1", "x=1", "3=", "3=inf", "3=nan", "3=1e9", "-1=2"] {
            assert!(bias(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stop_strings_are_bounded() {
        assert!(stop_string("").is_err() && stop_string(&"é".repeat(33)).is_err());
        assert_eq!(stop_string("\n\n"), Ok("\n\n".to_owned()));
    }
}

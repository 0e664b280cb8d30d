//! The options of a session, which `run`, `chat`, `trace`, `plan` and `bench` share, and what they mean for a model.

use crate::failure::{BadValue, Failure, Result};
use crate::output::{labelled, one_line};
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use pleach::{Caches, KvType, LogitsKind, Model, Routing, SessionOptions, Speculate};
use pleach_linux::{MAX_THREADS, Setup, ThreadPool};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Smallest magnitude but 0 that takes part in the arithmetic: 2^-24.
const SMALLEST: f32 = 5.960_464_5e-8;
/// Largest: the largest f16.
const LARGEST: f32 = 65504.0;

/// The longest context that a session holds.
const LONGEST: u32 = 131_072;

type Parsed<T> = std::result::Result<T, BadValue>;

/// Options of a session.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Session")]
pub(crate) struct SessionArgs {
    /// Expert file in the place of the model's expert of its class; may be repeated
    #[arg(long = "expert", value_name = "FILE")]
    pub(crate) experts: Vec<PathBuf>,
    /// Tokens that the session can hold [default: the base's own limit, at most 2048]
    #[arg(long, value_name = "N", value_parser = whole::<1, LONGEST>)]
    context: Option<u32>,
    /// How keys and values are stored [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = kv())]
    kv: Option<KvType>,
    /// Tokens of the prompt that one read of the weights takes [default: 32]
    #[arg(long, value_name = "N", value_parser = whole::<1, 4096>)]
    chunk: Option<u32>,
    /// Threads, at most 64; for bench also a list of numbers to compare [default: one for each big core]
    #[arg(long, value_name = "N", value_parser = thread_counts)]
    threads: Option<ThreadCounts>,
    /// Which scalings a token gets: exact, every:N, lag, prompt, static:W,W,.., only:NAME, all-ones, base
    #[arg(long, value_name = "R", allow_hyphen_values = true, value_parser = RoutingChoice::from_str)]
    routing: Option<RoutingChoice>,
    /// How the next token is guessed ahead; it never changes the answer [default: auto]
    #[arg(long, value_name = "S", value_parser = speculate())]
    speculate: Option<Speculate>,
    /// Keep the K largest scalings per token and site, or all with none [default: the model's]
    #[arg(long, value_name = "K|none", value_parser = top_k)]
    top_k_lora: Option<Maybe<u16>>,
    /// What every expert gets in the scaling pass; none: 1 / experts [default: the model's]
    #[arg(long, value_name = "V|none", allow_hyphen_values = true, value_parser = pass_value)]
    scaling_pass_value: Option<Maybe<f32>>,
    /// Factor of every expert's output [default: the model's]
    #[arg(long, value_name = "W", allow_hyphen_values = true, value_parser = factor)]
    global_scaling_weight: Option<f32>,
}

/// A value, or `none`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Maybe<T>(Option<T>);

fn whole<const MIN: u32, const MAX: u32>(text: &str) -> Parsed<u32> {
    let cure = || format!("use a whole number from {MIN} to {MAX}");
    match text.parse() {
        Ok(n) if (MIN..=MAX).contains(&n) => Ok(n),
        Ok(_) => Err(BadValue::new("out of range", cure())),
        Err(_) => Err(BadValue::new("not a whole number", cure())),
    }
}

/// Numbers of threads: one, or for `bench` several.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ThreadCounts(Vec<u32>);

fn thread_counts(text: &str) -> Parsed<ThreadCounts> {
    let counts: Parsed<Vec<u32>> = text
        .split(',')
        .map(whole::<1, { MAX_THREADS as u32 }>)
        .collect();
    counts.map(ThreadCounts)
}

impl fmt::Display for ThreadCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&all.join(","))
    }
}

/// A pool of the first of these numbers; without them, of a thread for each big core.
fn pool(counts: Option<&ThreadCounts>) -> ThreadPool {
    match counts.and_then(|t| t.0.first()) {
        Some(n) => ThreadPool::new(*n as usize),
        None => ThreadPool::available(),
    }
}

fn kv() -> impl TypedValueParser<Value = KvType> {
    PossibleValuesParser::new(["f32", "f16"]).map(|v| match v.as_str() {
        "f16" => KvType::F16,
        _ => KvType::F32,
    })
}

fn speculate() -> impl TypedValueParser<Value = Speculate> {
    PossibleValuesParser::new(["auto", "off", "base", "held"]).map(|v| match v.as_str() {
        "off" => Speculate::Off,
        "base" => Speculate::Base,
        "held" => Speculate::Held,
        _ => Speculate::Auto,
    })
}

fn factor(text: &str) -> Parsed<f32> {
    match text.parse::<f32>() {
        Ok(0.0) => Ok(0.0),
        Ok(v) if (SMALLEST..=LARGEST).contains(&v.abs()) => Ok(v),
        Ok(_) => Err(BadValue::new(
            "outside what the arithmetic holds",
            "use 0, or a magnitude from 6e-8 to 65504",
        )),
        Err(_) => Err(BadValue::new("not a number", "use a number, such as 0.5")),
    }
}

fn pass_value(text: &str) -> Parsed<Maybe<f32>> {
    match text {
        "none" => Ok(Maybe(None)),
        _ => factor(text).map(|v| Maybe(Some(v))),
    }
}

fn top_k(text: &str) -> Parsed<Maybe<u16>> {
    match (text, text.parse()) {
        ("none", _) => Ok(Maybe(None)),
        (_, Ok(0)) => Err(BadValue::new(
            "without any expert only the base is left",
            "use --routing base",
        )),
        (_, Ok(k)) => Ok(Maybe(Some(k))),
        (_, Err(_)) => Err(BadValue::new(
            "not a number of experts",
            "use a whole number, or none",
        )),
    }
}

/// A routing as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RoutingChoice {
    Exact,
    Every(u32),
    Lag,
    Prompt,
    Static(Vec<f32>),
    Only(String),
    AllOnes,
    Base,
}

impl RoutingChoice {
    /// What can be written, for messages.
    pub(crate) const ALL: &str =
        "exact, lag, every:N, prompt, static:W,W,.., only:NAME, all-ones or base";

    /// The routing of a model.
    pub(crate) fn resolve(&self, model: &Model<'_>) -> Parsed<Routing<'_>> {
        let experts = model.n_experts();
        Ok(match self {
            _ if self.needs_classifier() && !model.has_classifier() => {
                return Err(BadValue::new(
                    "the model has no classifier, which this routing needs",
                    "use static:W,W,.., only:NAME, all-ones or base",
                ));
            }
            RoutingChoice::Exact => Routing::Exact,
            RoutingChoice::Every(n) => Routing::Every(*n),
            RoutingChoice::Lag => Routing::Lag,
            RoutingChoice::Prompt => Routing::Prompt,
            RoutingChoice::Static(weights) if weights.len() == experts => Routing::Static(weights),
            RoutingChoice::Static(weights) => {
                return Err(BadValue::new(
                    format!("{} weights for {experts} experts", weights.len()),
                    format!(
                        "give one weight per expert, in this order: {}",
                        names(model)
                    ),
                ));
            }
            RoutingChoice::Only(name) => match model.find_expert(name) {
                Some(class) => Routing::Only(class as u16),
                None => {
                    return Err(BadValue::new(
                        "the model has no such expert",
                        format!("its experts are: {}", names(model)),
                    ));
                }
            },
            RoutingChoice::AllOnes => Routing::AllOnes,
            RoutingChoice::Base => Routing::Base,
        })
    }

    fn needs_classifier(&self) -> bool {
        matches!(
            self,
            RoutingChoice::Exact
                | RoutingChoice::Every(_)
                | RoutingChoice::Lag
                | RoutingChoice::Prompt
        )
    }

    fn needs_two_caches(&self) -> bool {
        self.needs_classifier() && *self != RoutingChoice::Prompt
    }
}

impl FromStr for RoutingChoice {
    type Err = BadValue;

    fn from_str(text: &str) -> Parsed<Self> {
        let (word, rest) = match text.split_once(':') {
            Some((word, rest)) => (word, Some(rest)),
            None => (text, None),
        };
        Ok(match (word, rest) {
            ("exact", None) => RoutingChoice::Exact,
            ("lag", None) => RoutingChoice::Lag,
            ("prompt", None) => RoutingChoice::Prompt,
            ("all-ones", None) => RoutingChoice::AllOnes,
            ("base", None) => RoutingChoice::Base,
            ("only", Some(name)) if !name.is_empty() => RoutingChoice::Only(name.to_owned()),
            ("every", Some(n)) => match n.parse() {
                Ok(n) if n > 0 => RoutingChoice::Every(n),
                _ => return Err(BadValue::new("not a period", "use every:N with N from 1")),
            },
            ("static", Some(list)) => {
                let weights: Parsed<Vec<f32>> = list.split(',').map(factor).collect();
                RoutingChoice::Static(weights?)
            }
            _ => {
                return Err(BadValue::new(
                    "no such routing",
                    format!("use {}", Self::ALL),
                ));
            }
        })
    }
}

impl fmt::Display for RoutingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoutingChoice::Exact => f.write_str("exact"),
            RoutingChoice::Every(n) => write!(f, "every:{n}"),
            RoutingChoice::Lag => f.write_str("lag"),
            RoutingChoice::Prompt => f.write_str("prompt"),
            RoutingChoice::Static(weights) => {
                let list: Vec<String> = weights.iter().map(f32::to_string).collect();
                write!(f, "static:{}", list.join(","))
            }
            RoutingChoice::Only(name) => write!(f, "only:{name}"),
            RoutingChoice::AllOnes => f.write_str("all-ones"),
            RoutingChoice::Base => f.write_str("base"),
        }
    }
}

/// Each routing with what it does, a line each that fits `width`.
pub(crate) fn routings(model: &Model<'_>, width: usize) -> String {
    let rows = [
        (
            "exact",
            "each token its own scalings: PEFT's answer".to_owned(),
        ),
        (
            "lag",
            "the scalings of the token before: one sweep a token".to_owned(),
        ),
        ("every:N", "new scalings every N tokens".to_owned()),
        (
            "prompt",
            "the last scalings of the first text for all".to_owned(),
        ),
        (
            "only:NAME",
            format!("one expert at weight 1: {}", names(model)),
        ),
        ("static:W,..", "given weights, one per expert".to_owned()),
        ("all-ones", "every expert at weight 1".to_owned()),
        ("base", "no expert".to_owned()),
    ];
    rows.map(|(word, text)| labelled(word, 13, &text, width))
        .join("\n")
}

/// How many tokens to generate.
pub(crate) fn token_count(text: &str) -> Parsed<usize> {
    match text.parse::<u32>() {
        Ok(n) => Ok(n as usize),
        Err(_) => Err(BadValue::new(
            "not a number of tokens",
            "use a whole number from 0",
        )),
    }
}

/// What to do where `needed` positions do not fit the context.
pub(crate) fn make_room(needed: usize) -> String {
    match u32::try_from(needed) {
        Ok(n) if n <= LONGEST => format!("use less text, or pass --context {n}"),
        _ => format!("use less text: no session holds more than {LONGEST} tokens"),
    }
}

/// The names of a model's experts in class order.
pub(crate) fn names(model: &Model<'_>) -> String {
    let names: Vec<String> = (0..model.n_experts())
        .filter_map(|c| model.expert(c))
        .map(|e| one_line(e.name()))
        .collect();
    names.join(", ")
}

/// What the options mean for one model.
#[derive(Debug)]
pub(crate) struct Plan<'m> {
    /// What decides the arena.
    pub(crate) session: SessionOptions,
    /// What is set on the session.
    pub(crate) setup: Setup<'m>,
    /// What runs the rows, with the first of the numbers of threads.
    pub(crate) executor: ThreadPool,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

impl SessionArgs {
    /// Checks the options against a model.
    ///
    /// Errors: an option that the model cannot serve, by name.
    pub(crate) fn plan<'m>(&'m self, file: &Path, model: &Model<'_>) -> Result<Plan<'m>> {
        match &self.threads {
            Some(counts) if counts.0.len() > 1 => Err(Failure::refused(
                format!("--threads {counts}: this command takes one number of threads"),
                "pass one; `pleach bench` compares several",
            )),
            _ => self.plan_each(file, model),
        }
    }

    /// The routing that was asked for.
    pub(crate) fn routing(&self) -> Option<&RoutingChoice> {
        self.routing.as_ref()
    }

    /// The same options with another routing.
    pub(crate) fn with_routing(&self, choice: RoutingChoice) -> Self {
        Self {
            routing: Some(choice),
            ..self.clone()
        }
    }

    /// The numbers of threads that were given.
    pub(crate) fn thread_counts(&self) -> Option<Vec<usize>> {
        let counts = self.threads.as_ref()?.0.iter();
        Some(counts.map(|n| *n as usize).collect())
    }

    /// The same for a command that goes through [`thread_counts`](Self::thread_counts) itself.
    pub(crate) fn plan_each<'m>(&'m self, file: &Path, model: &Model<'_>) -> Result<Plan<'m>> {
        let routing = self.chosen(file, model)?;
        self.check_xlora(model)?;
        let two = match &self.routing {
            Some(choice) => choice.needs_two_caches(),
            None => model.has_classifier(),
        };
        let exact =
            model.has_classifier() && matches!(self.routing, None | Some(RoutingChoice::Exact));
        let speculate = match self.speculate {
            Some(Speculate::Auto) | None if exact => Speculate::Auto,
            Some(Speculate::Base | Speculate::Held) if !exact => {
                let option = match self.speculate {
                    Some(Speculate::Held) => "--speculate held",
                    _ => "--speculate base",
                };
                return Err(Failure::refused(
                    format!(
                        "{option}: only exact routing waits for scalings that could be guessed ahead"
                    ),
                    "leave it out, or route exactly with a model that has a classifier",
                ));
            }
            Some(Speculate::Base) => Speculate::Base,
            Some(Speculate::Held) => Speculate::Held,
            _ => Speculate::Off,
        };
        let context = self.context(model)?;
        Ok(Plan {
            session: SessionOptions {
                context,
                chunk: self.chunk.unwrap_or(32).min(context),
                kv: self.kv.unwrap_or(KvType::F32),
                caches: if two { Caches::Two } else { Caches::One },
                logits: LogitsKind::Last,
                log_tokens: 0,
                embedding_rows: 0,
                speculate,
            },
            setup: Setup {
                routing,
                top_k_lora: self.top_k_lora.map(|v| v.0),
                scaling_pass_value: self.scaling_pass_value.map(|v| v.0),
                global_scaling_weight: self.global_scaling_weight,
            },
            executor: pool(self.threads.as_ref()),
            notes: self.notes(model, context),
        })
    }

    /// Tokens of a session: as asked for, or what the base was made for, at most 2048; never beyond its
    /// attention window, inside which attention is full.
    fn context(&self, model: &Model<'_>) -> Result<u32> {
        let made_for = model.config().max_position.clamp(1, 2048);
        match (self.context, model.window()) {
            (Some(n), Some(window)) if n > window => Err(Failure::refused(
                format!("--context {n}: the base's attention window is {window} tokens"),
                format!("use --context {window} or less: sliding windows are not computed"),
            )),
            (Some(n), _) => Ok(n),
            (None, window) => Ok(made_for.min(window.unwrap_or(made_for))),
        }
    }

    fn chosen(&self, file: &Path, model: &Model<'_>) -> Result<Option<Routing<'_>>> {
        match &self.routing {
            Some(choice) => match choice.resolve(model) {
                Ok(routing) => Ok(Some(routing)),
                Err(bad) => Err(bad.of("--routing", choice)),
            },
            None if !model.has_classifier() && model.n_experts() > 1 => Err(Failure::refused(
                format!(
                    "{}: {} experts and no classifier: --routing is required",
                    file.display(),
                    model.n_experts()
                ),
                format!(
                    "choose --routing all-ones, static:W,W,.., base, or only:NAME with one of: {}",
                    names(model)
                ),
            )),
            None => Ok(None),
        }
    }

    /// Refuses what the session's setters would refuse, by the names of the options.
    fn check_xlora(&self, model: &Model<'_>) -> Result<()> {
        let (file, experts) = (model.xlora_config(), model.n_experts());
        let k = self.top_k_lora.map_or(file.top_k_lora, |v| v.0);
        let value = match self.scaling_pass_value {
            Some(Maybe(Some(v))) => v,
            Some(Maybe(None)) => 1.0 / experts.max(1) as f32,
            None => file.scaling_pass_value,
        };
        let Some(k) = k else { return Ok(()) };
        if usize::from(k) > experts {
            return Err(Failure::refused(
                format!("--top-k-lora {k}: the model has {experts} experts"),
                format!("use at most {experts}, or none"),
            ));
        }
        if value != 0.0 {
            let option = match self.scaling_pass_value {
                Some(_) => "--scaling-pass-value",
                None => "--top-k-lora",
            };
            return Err(Failure::refused(
                format!(
                    "{option}: top-{k} of a scaling pass value of {value}: every expert ties, so none can be chosen"
                ),
                "pass --top-k-lora none or --scaling-pass-value 0",
            ));
        }
        Ok(())
    }

    fn notes(&self, model: &Model<'_>, context: u32) -> Vec<String> {
        let mut notes = crate::model::notes(model);
        let max = model.config().max_position;
        if context > max {
            notes.push(format!(
                "--context {context}: the base was made for {max} positions"
            ));
        }
        let scaled = match &self.routing {
            Some(choice) => choice.needs_classifier(),
            None => model.has_classifier(),
        };
        let unused = [
            ("--top-k-lora", self.top_k_lora.is_some()),
            ("--scaling-pass-value", self.scaling_pass_value.is_some()),
        ];
        for (option, _) in unused.iter().filter(|(_, given)| *given && !scaled) {
            notes.push(format!("{option} has no effect under this routing"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routings_are_read_and_written() {
        let all = [
            "exact",
            "lag",
            "every:3",
            "prompt",
            "static:0.5,-1,0",
            "only:de",
            "all-ones",
            "base",
        ];
        for text in all {
            assert_eq!(RoutingChoice::from_str(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "every",
            "every:0",
            "every:-1",
            "only:",
            "static:",
            "static:1,x",
            "static:nan",
            "static:1e30",
            "exact:1",
            "Exact",
        ] {
            assert!(RoutingChoice::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pool_has_the_first_number_of_threads_or_one_for_each_big_core() {
        let given = ThreadCounts(vec![3, 1]);
        assert_eq!(pool(Some(&given)).threads(), 3);
        assert_eq!(pool(None).threads(), ThreadPool::available().threads());
    }

    #[test]
    fn numbers_have_ranges() {
        assert_eq!(whole::<1, 4>("4"), Ok(4));
        assert!(whole::<1, 4>("5").is_err() && whole::<1, 4>("-1").is_err());
        assert_eq!(factor("-0.5"), Ok(-0.5));
        assert!(factor("1e-9").is_err() && factor("inf").is_err() && factor("1e6").is_err());
        assert_eq!(top_k("none"), Ok(Maybe(None)));
        assert_eq!(top_k("2"), Ok(Maybe(Some(2))));
        assert!(top_k("0").is_err() && top_k("-1").is_err());
        assert_eq!(pass_value("none"), Ok(Maybe(None)));
    }
}

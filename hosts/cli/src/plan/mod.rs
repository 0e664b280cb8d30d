//! What a model needs before it runs: bytes by section and expert, RAM by part, the cost of a token.
//!
//! All sizes are the core's own (`Model::arena_map`, `layers_cost`, ..); here is only which passes a token of each
//! routing takes.

mod json;
mod text;
mod token;

pub(crate) use json::json;
pub(crate) use text::text;
use token::Passes;
pub(crate) use token::TokenCost;

use crate::options;
use pleach::blob::format::SectionKind;
use pleach::session::{ArenaPart, Cost, CostRange};
use pleach::{Model, Routing, SessionOptions, Speculate};
use pleach_linux::Setup;

/// What `pleach plan` prints.
pub(crate) struct Figures<'b> {
    pub(crate) model: Model<'b>,
    pub(crate) options: SessionOptions,
    /// The routing, as `--routing` takes it.
    pub(crate) routing: String,
    pub(crate) sections: Vec<Section<'b>>,
    /// The header, the section table and the alignment of sections.
    pub(crate) table_bytes: u64,
    pub(crate) parts: Vec<ArenaPart>,
    pub(crate) arena_bytes: usize,
    /// What the arena takes with each kind of speculation that the routing allows.
    pub(crate) speculation: Vec<(&'static str, usize)>,
    pub(crate) ram: Option<Ram>,
    /// What a column costs, by part of the model.
    pub(crate) column: Vec<(&'static str, CostRange)>,
    /// The experts that a routed column selects, in words.
    pub(crate) selection: String,
    /// What a token costs after the prompt.
    pub(crate) tokens: Vec<TokenCost>,
}

/// A section of the file.
pub(crate) struct Section<'b> {
    pub(crate) kind: &'static str,
    /// Class and name of an expert.
    pub(crate) expert: Option<(usize, &'b str)>,
    pub(crate) bytes: u64,
}

/// The answer to `--ram`.
pub(crate) struct Ram {
    pub(crate) bytes: u64,
    /// The largest context, and the arena that it takes.
    pub(crate) fits: Option<(u32, usize)>,
    /// The arena of one token, for where nothing fits.
    pub(crate) least: usize,
}

impl<'b> Figures<'b> {
    /// The figures of a session with these options.
    pub(crate) fn new(
        model: Model<'b>,
        options: SessionOptions,
        setup: &Setup<'_>,
        ram: Option<u64>,
    ) -> Self {
        let routing = setup.routing.unwrap_or(default_routing(&model));
        let passes = Passes::new(&model, setup, routing);
        let sections: Vec<Section<'b>> = model
            .sections()
            .map(|(kind, index, bytes)| section(&model, kind, index, bytes))
            .collect();
        let stored: u64 = sections.iter().map(|s| s.bytes).sum();
        let kinds = [
            ("off", Speculate::Off),
            ("base", Speculate::Base),
            ("held", Speculate::Held),
            ("auto", Speculate::Auto),
        ];
        let speculates = routing == Routing::Exact && model.has_classifier();
        let arena_with = |speculate| {
            model.arena_bytes(&SessionOptions {
                speculate,
                ..options
            })
        };
        let exactly = |cost: Cost| CostRange {
            least: cost,
            most: cost,
        };
        Self {
            table_bytes: (model.file_len() as u64).saturating_sub(stored),
            sections,
            parts: model.arena_map(&options).to_vec(),
            arena_bytes: model.arena_bytes(&options),
            speculation: kinds
                .into_iter()
                .filter(|_| speculates)
                .map(|(name, s)| (name, arena_with(s)))
                .collect(),
            ram: ram.map(|bytes| Ram::new(&model, &options, bytes)),
            column: vec![
                ("embedding", exactly(model.embedding_cost())),
                ("layers", exactly(model.layers_cost())),
                ("experts", passes.routed_experts()),
                ("classifier", exactly(model.classifier_cost())),
                ("head", exactly(model.head_cost())),
            ],
            selection: passes.selection(&model),
            tokens: passes.tokens(options.speculate),
            routing: written(routing, &model),
            model,
            options,
        }
    }
}

impl Ram {
    fn new(model: &Model<'_>, options: &SessionOptions, bytes: u64) -> Self {
        let with = |context| SessionOptions {
            context,
            ..*options
        };
        let available = usize::try_from(bytes).unwrap_or(usize::MAX);
        let largest = model.largest_context(options, available);
        Self {
            bytes,
            fits: largest.map(|n| (n, model.arena_bytes(&with(n)))),
            least: model.arena_bytes(&with(1)),
        }
    }
}

fn section<'b>(model: &Model<'b>, kind: SectionKind, index: u16, bytes: u64) -> Section<'b> {
    let class = usize::from(index);
    let expert = match kind {
        SectionKind::Expert => model.expert(class).map(|e| (class, e.name())),
        _ => None,
    };
    Section {
        kind: kind.name(),
        expert,
        bytes,
    }
}

/// What a session begins with where nothing is said.
fn default_routing(model: &Model<'_>) -> Routing<'static> {
    match (model.has_classifier(), model.n_experts()) {
        (true, _) => Routing::Exact,
        (false, 0) => Routing::Base,
        (false, _) => Routing::AllOnes,
    }
}

/// A routing as `--routing` takes it.
fn written(routing: Routing<'_>, model: &Model<'_>) -> String {
    use options::RoutingChoice as Choice;
    match routing {
        Routing::Exact => Choice::Exact,
        Routing::Every(n) => Choice::Every(n),
        Routing::Lag => Choice::Lag,
        Routing::Prompt => Choice::Prompt,
        Routing::Static(w) => Choice::Static(w.to_vec()),
        Routing::Only(c) => Choice::Only(
            model
                .expert(usize::from(c))
                .map_or_else(|| c.to_string(), |e| e.name().to_owned()),
        ),
        Routing::AllOnes => Choice::AllOnes,
        Routing::Base => Choice::Base,
    }
    .to_string()
}

//! Which sweeps a token takes under each routing, and what they cost.

use pleach::session::{Cost, CostRange};
use pleach::{Model, Routing, Speculate};
use pleach_linux::Setup;

/// What one token costs after the prompt, but for attention, which grows with the text: at position p each
/// column adds `attention_macs(p)` and `attention_bytes(p)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenCost {
    /// A word, for scripts.
    pub(crate) name: &'static str,
    /// When a token costs this.
    pub(crate) when: String,
    pub(crate) sweeps: u32,
    pub(crate) columns: u32,
    /// Least and most bytes of weights read.
    pub(crate) weight_bytes: (u64, u64),
    /// Least and most multiply-accumulates.
    pub(crate) macs: (u64, u64),
}

/// What the columns of a sweep are.
#[derive(Clone, Copy, Default)]
struct Sweep {
    /// In the scaling pass.
    scaling: usize,
    /// In the routed pass.
    routed: usize,
    /// Columns that reach the classifier.
    classified: usize,
    /// Columns that need logits.
    heads: usize,
}

/// Which experts a routed column selects.
#[derive(Clone, Debug, PartialEq)]
enum Selected {
    /// The k largest scalings.
    Largest(usize),
    /// These classes.
    Classes(Vec<usize>),
}

/// What passes cost under one routing.
pub(crate) struct Passes<'r> {
    routing: Routing<'r>,
    selected: Selected,
    /// One column through the base, without head.
    pass: Cost,
    classifier: Cost,
    head: Cost,
    /// What a routed column's experts cost.
    routed: CostRange,
    /// What a scaling column's experts cost: all of them, or none with a scaling pass value of 0.
    scaling: Cost,
}

impl<'r> Passes<'r> {
    pub(crate) fn new(model: &Model<'_>, setup: &Setup<'_>, routing: Routing<'r>) -> Self {
        let stored = model.xlora_config();
        let all = model.n_experts();
        let k = setup.top_k_lora.unwrap_or(stored.top_k_lora);
        let pass_value = match setup.scaling_pass_value {
            Some(value) => value.unwrap_or(1.0),
            None => stored.scaling_pass_value,
        };
        let global = setup
            .global_scaling_weight
            .unwrap_or(stored.global_scaling_weight);
        let selected = match routing {
            Routing::Only(class) => Selected::Classes(vec![usize::from(class)]),
            Routing::AllOnes => Selected::Classes((0..all).collect()),
            Routing::Base => Selected::Classes(Vec::new()),
            // A weight of 0 for everything: no expert takes part.
            _ if global == 0.0 => Selected::Classes(Vec::new()),
            Routing::Static(w) => Selected::Classes(
                w.iter()
                    .enumerate()
                    .filter(|(_, w)| **w != 0.0)
                    .map(|(class, _)| class)
                    .collect(),
            ),
            _ => Selected::Largest(k.map_or(all, usize::from)),
        };
        let routed = match &selected {
            Selected::Largest(k) => model.experts_cost(*k),
            Selected::Classes(list) => {
                let sum = list
                    .iter()
                    .fold(Cost::NONE, |sum, c| sum.plus(model.expert_cost(*c)));
                CostRange {
                    least: sum,
                    most: sum,
                }
            }
        };
        Self {
            routing,
            selected,
            pass: model.embedding_cost().plus(model.layers_cost()),
            classifier: model.classifier_cost(),
            head: model.head_cost(),
            routed,
            scaling: if pass_value == 0.0 || global == 0.0 {
                Cost::NONE
            } else {
                model.experts_cost(all).most
            },
        }
    }

    /// What the experts of a routed column cost.
    pub(crate) fn routed_experts(&self) -> CostRange {
        self.routed
    }

    /// The experts of a routed column in words.
    pub(crate) fn selection(&self, model: &Model<'_>) -> String {
        match &self.selected {
            Selected::Largest(k) => format!("{k} of {} at each site", model.n_experts()),
            Selected::Classes(list) if list.is_empty() => "none".into(),
            Selected::Classes(list) => {
                let name = |c: &usize| model.expert(*c).map_or("?", |e| e.name());
                list.iter().map(name).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The kinds of token that the routing knows.
    pub(crate) fn tokens(&self, speculate: Speculate) -> Vec<TokenCost> {
        let alone = Sweep {
            routed: 1,
            heads: 1,
            ..Sweep::default()
        };
        let scaling = Sweep {
            scaling: 1,
            classified: 1,
            ..Sweep::default()
        };
        match self.routing {
            Routing::Exact => self.exact(speculate),
            Routing::Every(n) => vec![
                self.token("scaled", format!("at multiples of {n}"), &[scaling, alone]),
                self.token(
                    "between",
                    "between them".into(),
                    &[Sweep {
                        scaling: 1,
                        ..alone
                    }],
                ),
            ],
            Routing::Lag => vec![self.token(
                "each",
                "each".into(),
                &[Sweep {
                    scaling: 1,
                    classified: 1,
                    ..alone
                }],
            )],
            _ => vec![self.token("each", "each".into(), &[alone])],
        }
    }

    fn exact(&self, speculate: Speculate) -> Vec<TokenCost> {
        let scaling = Sweep {
            scaling: 1,
            classified: 1,
            ..Sweep::default()
        };
        let routed = Sweep {
            routed: 1,
            heads: 1,
            ..Sweep::default()
        };
        // routed(t) and scaling(t + 1): the scaling column or a held one guesses, and needs logits.
        let base = Sweep {
            scaling: 1,
            routed: 1,
            classified: 1,
            heads: 2,
        };
        let held = Sweep { routed: 2, ..base };
        let token = |name, when: &str, sweeps: &[Sweep]| self.token(name, when.into(), sweeps);
        let naive = || token("naive", "without a guess", &[scaling, routed]);
        let of_base = || {
            let again = Sweep {
                heads: 1,
                ..scaling
            };
            [
                token("base_right", "base guess, right", &[base]),
                token("base_wrong", "base guess, wrong", &[again, base]),
            ]
        };
        let of_held = || {
            let again = Sweep {
                routed: 1,
                heads: 1,
                ..scaling
            };
            [
                token("held_right", "held guess, right", &[held]),
                token("held_wrong", "held guess, wrong", &[again, held]),
            ]
        };
        match speculate {
            Speculate::Off => vec![naive()],
            Speculate::Base => of_base().into(),
            Speculate::Held => of_held().into(),
            Speculate::Auto => [naive()]
                .into_iter()
                .chain(of_base())
                .chain(of_held())
                .collect(),
        }
    }

    fn token(&self, name: &'static str, when: String, sweeps: &[Sweep]) -> TokenCost {
        let costs: Vec<CostRange> = sweeps.iter().map(|s| self.sweep(*s)).collect();
        let sum = |f: &dyn Fn(&CostRange) -> u64| costs.iter().map(f).sum();
        TokenCost {
            name,
            when,
            sweeps: sweeps.len() as u32,
            columns: sweeps.iter().map(|s| (s.scaling + s.routed) as u32).sum(),
            weight_bytes: (sum(&|c| c.least.bytes()), sum(&|c| c.most.bytes())),
            macs: (sum(&|c| c.least.macs), sum(&|c| c.most.macs)),
        }
    }

    fn sweep(&self, s: Sweep) -> CostRange {
        let whole = |cost: Cost, columns: usize| match columns {
            0 => Cost::NONE,
            n => cost.for_columns(n),
        };
        let rest = whole(self.pass, s.scaling + s.routed)
            .plus(whole(self.classifier, s.classified))
            .plus(whole(self.head, s.heads));
        let scaling = whole(self.scaling, s.scaling);
        let with = |selected: Cost| {
            let routed = whole(selected, s.routed);
            let both = rest.plus(routed).plus(scaling);
            Cost {
                // Where the scaling pass takes all experts, the routed pass finds its own among them.
                sweep_bytes: both
                    .sweep_bytes
                    .saturating_sub(routed.sweep_bytes.min(scaling.sweep_bytes)),
                ..both
            }
        };
        CostRange {
            least: with(self.routed.least),
            most: with(self.routed.most),
        }
    }
}

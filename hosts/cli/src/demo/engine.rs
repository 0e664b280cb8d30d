//! One sentence: the call with the experts, the base's own call, and the experts' shares.

use crate::failure::{Failure, Result};
use crate::options::RoutingChoice;
use pleach::tokenizer::{AddedTokens, Decoder, EncodeOptions, SpecialTokens, Template, Tokenizer};
use pleach::{
    Caches, Inline, Kernels, KvType, LogitsKind, Model, Routing, Session, SessionOptions, Speculate,
};
use pleach_linux::{End, Limits, Watch, generate};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

/// The model was trained on texts of at most 64 tokens; its scaling pass, which is the base's own pass,
/// guesses nearly every next token.
pub(super) const OPTIONS: SessionOptions = SessionOptions {
    context: 64,
    chunk: 32,
    kv: KvType::F32,
    caches: Caches::Two,
    logits: LogitsKind::Last,
    log_tokens: 0,
    embedding_rows: 0,
    speculate: Speculate::Base,
};

/// The token that ends an answer.
const STOP: [u32; 1] = [2];

/// What a sentence became.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// The call, as the routing in force gives it.
    pub(super) call: String,
    /// The base's call, without any expert.
    pub(super) base: String,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Tokens of the call, with the one that ends it.
    pub(super) tokens: usize,
    /// Reads of the base's weights for prompt and call.
    pub(super) sweeps: u64,
    /// Time for them.
    pub(super) time: Duration,
    /// Per expert, its share of the effective scalings over all tokens and sites; empty if all are 0.
    pub(super) shares: Vec<f32>,
}

/// Why a sentence got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) cure: String,
}

impl Refusal {
    pub(super) fn new(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            cure: cure.into(),
        }
    }
}

/// The model with a session over it.
pub(super) struct Engine<'m, 'a> {
    model: &'m Model<'static>,
    tokenizer: Tokenizer<'static>,
    session: Session<'static, 'a>,
}

impl<'m, 'a> Engine<'m, 'a> {
    pub(super) fn new(model: &'m Model<'static>, arena: &'a mut [u8]) -> Result<Self> {
        let ours = |e| Failure::core("the embedded model", e);
        let tokenizer = model.tokenizer().ok_or_else(|| {
            Failure::machine("the embedded model has no tokenizer", "build pleach again")
        })?;
        Ok(Self {
            model,
            tokenizer,
            session: Session::new(*model, &OPTIONS, arena).map_err(ours)?,
        })
    }

    /// Answers a sentence, or says why not. Errors: what is nobody's sentence's fault.
    pub(super) fn answer(
        &mut self,
        sentence: &str,
        routing: &RoutingChoice,
    ) -> Result<std::result::Result<Answer, Refusal>> {
        let ours = |e| Failure::core("the embedded model", e);
        let prompt = self.encode(sentence).map_err(ours)?;
        let context = OPTIONS.context as usize;
        if prompt.len() >= context {
            return Ok(Err(Refusal::new(
                format!(
                    "{} tokens; the model reads at most {}",
                    prompt.len(),
                    context - 1
                ),
                "say it in fewer words",
            )));
        }
        let routing = routing
            .resolve(self.model)
            .map_err(|e| e.of("/routing", routing))?;
        let before = self.session.counters().sweeps;
        let start = Instant::now();
        let mut shares = Shares(vec![0.0; self.model.n_experts()]);
        let (call, tokens, end) = self.run(&prompt, routing, &mut shares).map_err(ours)?;
        let time = start.elapsed();
        let sweeps = self.session.counters().sweeps - before;
        if end == End::Context {
            return Ok(Err(Refusal::new(
                format!(
                    "{} tokens leave no room for an answer in {context}: {call} ..",
                    prompt.len()
                ),
                "say it in fewer words",
            )));
        }
        let (base, ..) = self.run(&prompt, Routing::Base, &mut ()).map_err(ours)?;
        Ok(Ok(Answer {
            call,
            base,
            prompt: prompt.len(),
            tokens,
            sweeps,
            time,
            shares: shares.normalised(),
        }))
    }

    /// BOS, the sentence, one newline.
    fn encode(&self, sentence: &str) -> std::result::Result<Vec<u32>, pleach::Error> {
        let text = format!("{sentence}\n");
        let options = EncodeOptions {
            added: AddedTokens::None,
            template: Template::Apply,
        };
        let mut scratch = vec![0; Tokenizer::scratch_len(text.len() + 1)];
        let mut tokens = vec![0; text.len() + 3];
        let n = self
            .tokenizer
            .encode(&text, options, &mut scratch, &mut tokens)?;
        tokens.truncate(n);
        Ok(tokens)
    }

    fn run(
        &mut self,
        prompt: &[u32],
        routing: Routing<'_>,
        watch: &mut dyn Watch,
    ) -> std::result::Result<(String, usize, End), pleach::Error> {
        self.session.rewind(0)?;
        self.session.set_routing(routing)?;
        let limits = Limits::new(OPTIONS.context as usize, &STOP);
        let kernels = Kernels::detect();
        let done = generate(
            &mut self.session,
            kernels,
            // So small a model is done before a second thread has started.
            &mut Inline,
            prompt,
            &limits,
            watch,
        )?;
        let mut decoder = Decoder::new(self.tokenizer, SpecialTokens::Skip);
        let mut text = String::new();
        for token in &done.tokens {
            text.extend(decoder.push(*token));
        }
        text.extend(decoder.finish());
        // A call is one line; anything else would break the table that scripts read.
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok((line, done.tokens.len(), done.end))
    }
}

/// Sums the effective scalings of each expert.
struct Shares(Vec<f32>);

impl Shares {
    fn normalised(self) -> Vec<f32> {
        let total: f32 = self.0.iter().sum();
        if total == 0.0 {
            return Vec::new();
        }
        self.0.into_iter().map(|v| v / total).collect()
    }
}

impl Watch for Shares {
    fn sweep(&mut self, session: &Session<'_, '_>, positions: Range<usize>) -> ControlFlow<()> {
        for effective in positions.filter_map(|p| session.effective_at(p)) {
            let [_, sites, _] = effective.shape();
            for site in 0..sites {
                for (sum, v) in self.0.iter_mut().zip(effective.row(0, site)) {
                    *sum += v.abs();
                }
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{INTENT, lines::normalise, screen::EXAMPLES};
    use super::*;
    use pleach_linux::Arena;

    fn with_engine<T>(f: impl FnOnce(&mut Engine<'_, '_>) -> T) -> T {
        let mut arena = Arena::new(INTENT.arena_bytes(&OPTIONS)).unwrap();
        f(&mut Engine::new(&INTENT, arena.bytes()).unwrap())
    }

    fn answer(engine: &mut Engine<'_, '_>, sentence: &str, routing: &RoutingChoice) -> Answer {
        engine
            .answer(&normalise(sentence), routing)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn the_lines_to_try_are_answered_rightly() {
        let calls = [
            "lightset area=dachboden brightness=30 domain=light",
            "turnon area=küche domain=light",
            "shoppinglistadditem item=reis",
            "climategettemperature area=bad",
            "lightset area=office brightness=30 domain=light",
            "shoppinglistadditem item=beurre",
            "turnoff name=televisión",
        ];
        with_engine(|engine| {
            for (sentence, call) in EXAMPLES.iter().zip(calls) {
                let a = answer(engine, sentence, &RoutingChoice::Exact);
                assert_eq!(a.call, call, "{sentence}");
                let sum: f32 = a.shares.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5);
            }
        });
    }

    #[test]
    fn routings_change_shares_and_base_has_none() {
        with_engine(|engine| {
            let a = answer(engine, EXAMPLES[0], &RoutingChoice::Only("de".into()));
            assert_eq!(a.shares, [0.0, 1.0, 0.0, 0.0]);
            let a = answer(engine, EXAMPLES[0], &RoutingChoice::Base);
            assert!(a.shares.is_empty() && a.call == a.base);
        });
    }

    #[test]
    fn a_long_sentence_is_refused_and_the_next_one_answered() {
        with_engine(|engine| {
            let before = answer(engine, EXAMPLES[1], &RoutingChoice::Exact);
            for words in [11, 30, 200] {
                let long = "küche ".repeat(words);
                let refused = engine
                    .answer(&normalise(&long), &RoutingChoice::Exact)
                    .unwrap();
                assert!(words < 30 || refused.is_err(), "{words}");
            }
            let after = answer(engine, EXAMPLES[1], &RoutingChoice::Exact);
            assert_eq!((before.call, before.shares), (after.call, after.shares));
        });
    }
}

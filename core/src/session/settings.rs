//! What a session's owner sets: the routing, the X-LoRA options, what guesses.

use crate::blob::is_signed_factor;
use crate::error::Error;
use crate::session::arena::NO_POSITION;
use crate::session::options::{Caches, Routing};
use crate::session::schedule::Mode;
use crate::session::{Guess, Session};
use crate::xlora::XLoraConfig;

impl Session<'_, '_> {
    /// Sets which scalings the tokens from here on get.
    ///
    /// Errors: [`Error::Option`] for weights, a period or an expert out of range; [`Error::Refused`] if the
    /// routing needs a classifier or a second cache that is not there, the scaling pass of embedding rows that
    /// are gone, or (`prompt`) length 0; while a sweep is suspended.
    pub fn set_routing(&mut self, routing: Routing<'_>) -> Result<(), Error> {
        self.no_sweep()?;
        let experts = self.model.n_experts();
        let mode = match routing {
            Routing::Exact => Mode::Exact,
            Routing::Every(n) => Mode::Every(n),
            Routing::Lag => Mode::Lag,
            Routing::Prompt => Mode::Prompt,
            Routing::Static(_) => Mode::Given { global: true },
            Routing::Only(_) | Routing::AllOnes => Mode::Given { global: false },
            Routing::Base => Mode::Base,
        };
        let why = match routing {
            Routing::Every(0) => "routing every:N needs N of at least 1",
            Routing::Only(class) if class as usize >= experts => "the model has no such expert",
            Routing::Static(w) if w.len() != experts => {
                "static routing takes one weight per expert"
            }
            Routing::Static(w) if !w.iter().all(|v| is_signed_factor(*v)) => {
                "a static weight must be 0 or lie within 2^-24..=65504"
            }
            _ => "",
        };
        if !why.is_empty() {
            return Err(Error::Option { why });
        }
        let why = if mode.needs_scaling() && !self.model.has_classifier() {
            "this routing needs a classifier, which the model does not have"
        } else if mode.needs_scaling() && mode != Mode::Prompt && self.options.caches == Caches::One
        {
            "this routing needs two caches"
        } else if mode == Mode::Prompt && self.pushed != 0 {
            "routing prompt begins with the text: rewind to 0 first"
        } else if self.needs_gone_embeddings(mode, self.pushed) {
            "this routing needs the scaling pass of embedding rows that are gone"
        } else {
            ""
        };
        if !why.is_empty() {
            return Err(Error::Refused { why });
        }
        if mode.needs_scaling() && self.mode == Some(mode) {
            return Ok(());
        }
        self.prompt_held = false;
        self.prompt = self.prompt.min(self.pushed);
        self.mode_since = self.routed;
        self.mode = Some(mode);
        self.guess.forget();
        self.state.row_positions.fill(NO_POSITION);
        match routing {
            Routing::Static(w) => self.hold(|class| w.get(class).copied().unwrap_or(0.0)),
            Routing::Only(only) => self.hold(|class| (class == only as usize) as u8 as f32),
            Routing::AllOnes => self.hold(|_| 1.0),
            _ => self.hold(|_| 0.0),
        }
        self.rescale();
        Ok(())
    }

    /// Writes one weight per expert into the held row.
    fn hold(&mut self, weight: impl Fn(usize) -> f32) {
        let experts = self.model.n_experts().max(1);
        let width = self.model.scalings_width();
        for row in self.state.rows.chunks_exact_mut(width.max(1)).take(2) {
            for row in row.chunks_exact_mut(experts) {
                for (class, v) in row.iter_mut().enumerate() {
                    *v = weight(class);
                }
            }
        }
    }

    /// Sets what the speculative pass guesses with. The sampling is not checked: a bad one makes bad guesses, which
    /// change no answer.
    pub fn set_guess(&mut self, guess: Guess) {
        self.guess.set(guess);
    }

    fn at_start(&self) -> Result<(), Error> {
        if self.pushed != 0 {
            return Err(Error::Refused {
                why: "the caches hold the old values: rewind to 0 first",
            });
        }
        Ok(())
    }

    fn set_xlora(&mut self, xlora: XLoraConfig) -> Result<(), Error> {
        self.at_start()?;
        xlora.check(self.model.n_experts())?;
        self.xlora = xlora;
        Ok(())
    }

    /// The X-LoRA options in force.
    pub fn xlora_config(&self) -> XLoraConfig {
        self.xlora
    }

    /// Keeps the k largest scalings per token and site; at length 0.
    ///
    /// Errors: [`Error::Refused`] at another length, [`Error::Option`] for what the importer refuses too.
    pub fn set_topk_lora(&mut self, k: Option<u16>) -> Result<(), Error> {
        self.set_xlora(XLoraConfig {
            top_k_lora: k,
            ..self.xlora
        })
    }

    /// Sets the constant of pass 1, `None` for 1 / experts; at length 0.
    ///
    /// Errors: as [`Session::set_topk_lora`].
    pub fn set_scaling_pass_value(&mut self, value: Option<f32>) -> Result<(), Error> {
        let value = value.unwrap_or(1.0 / self.model.n_experts().max(1) as f32);
        self.set_xlora(XLoraConfig {
            scaling_pass_value: value,
            ..self.xlora
        })
    }

    /// Sets the factor of every expert's output; at length 0.
    ///
    /// Errors: as [`Session::set_topk_lora`].
    pub fn set_global_scaling_weight(&mut self, weight: f32) -> Result<(), Error> {
        self.set_xlora(XLoraConfig {
            global_scaling_weight: weight,
            ..self.xlora
        })
    }

    /// The factor of every expert's output.
    pub fn get_global_scaling_weight(&self) -> f32 {
        self.xlora.global_scaling_weight
    }
}

//! The settings of a session that do not decide its arena.

use pleach::{Error, Routing, Session};

/// What differs from the model file; `None` keeps the file's value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Setup<'r> {
    /// Which scalings tokens get.
    pub routing: Option<Routing<'r>>,
    /// Experts kept per token and site; `Some(None)` keeps all.
    pub top_k_lora: Option<Option<u16>>,
    /// Constant of the scaling pass; `Some(None)` is 1 / experts.
    pub scaling_pass_value: Option<Option<f32>>,
    /// Factor of every expert's output.
    pub global_scaling_weight: Option<f32>,
}

impl Setup<'_> {
    /// Applies the settings to a session at length 0.
    ///
    /// Errors: as the session's setters.
    pub fn apply(&self, session: &mut Session<'_, '_>) -> Result<(), Error> {
        if let Some(weight) = self.global_scaling_weight {
            session.set_global_scaling_weight(weight)?;
        }
        // Top-k and a scaling pass value exclude each other: what is switched off goes first.
        if self.top_k_lora == Some(None) {
            session.set_topk_lora(None)?;
        }
        if let Some(value) = self.scaling_pass_value {
            session.set_scaling_pass_value(value)?;
        }
        if let Some(Some(k)) = self.top_k_lora {
            session.set_topk_lora(Some(k))?;
        }
        match self.routing {
            Some(routing) => session.set_routing(routing),
            None => Ok(()),
        }
    }
}

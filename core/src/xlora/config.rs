//! The options that matter at inference.

use crate::blob::{is_factor, is_signed_factor};
use crate::error::Error;

/// X-LoRA's options under PEFT's names (`peft/tuners/xlora/config.py`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct XLoraConfig {
    /// Keep the k largest scalings per token and site.
    pub top_k_lora: Option<u16>,
    /// Softmax over experts inside the classifier.
    pub enable_softmax: bool,
    /// Softmax over the selected experts at each site.
    pub enable_softmax_topk: bool,
    /// Divides the classifier's logits before its softmax.
    pub softmax_temperature: f32,
    /// One row of scalings per site instead of one for all.
    pub layerwise_scalings: bool,
    /// Constant of pass 1.
    pub scaling_pass_value: f32,
    /// Multiplies every expert's output, in both passes.
    pub global_scaling_weight: f32,
}

impl XLoraConfig {
    /// PEFT's defaults: softmax, no top-k, one row for all sites.
    pub const DEFAULT: XLoraConfig = XLoraConfig {
        top_k_lora: None,
        enable_softmax: true,
        enable_softmax_topk: false,
        softmax_temperature: 1.0,
        layerwise_scalings: false,
        scaling_pass_value: 0.0,
        global_scaling_weight: 1.0,
    };

    /// Whether the options make sense together for `experts` experts.
    ///
    /// Errors: [`Error::Option`] that names the option.
    pub const fn check(&self, experts: usize) -> Result<(), Error> {
        let why = match self.top_k_lora {
            Some(0) => "top_k_lora 0 would be the base: use routing base",
            Some(k) if k as usize > experts => "top_k_lora is larger than the number of experts",
            Some(_) if self.scaling_pass_value != 0.0 => {
                "top_k_lora with a scaling_pass_value: every value ties; set one of the two to none"
            }
            _ if !is_factor(self.softmax_temperature) => {
                "softmax_temperature must lie within 2^-24..=65504"
            }
            _ if !is_signed_factor(self.scaling_pass_value) => {
                "scaling_pass_value must be 0 or lie within 2^-24..=65504"
            }
            _ if !is_signed_factor(self.global_scaling_weight) => {
                "global_scaling_weight must be 0 or lie within 2^-24..=65504"
            }
            _ => return Ok(()),
        };
        Err(Error::Option { why })
    }

    /// What every expert gets at every site in the scaling pass: the scaling pass value, after top-k
    /// softmax, where all ties share alike.
    pub(crate) fn scaling_pass_gate(&self, experts: usize) -> f32 {
        if self.enable_softmax_topk && self.scaling_pass_value != 0.0 {
            // Every exp is exp(0) = 1 and their sum is exact.
            1.0 / experts.max(1) as f32
        } else {
            self.scaling_pass_value
        }
    }
}

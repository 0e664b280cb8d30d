//! The classifier: a small MLP from the scaling pass's hidden states to scalings.

use crate::math;
use crate::xlora::XLoraConfig;

/// Classifier outputs → scalings: softmax over the experts of each site, or the outputs themselves.
///
/// Shape: `row` [sites][experts] (or [experts]), read and written.
pub(crate) fn scalings_from_logits(row: &mut [f32], config: &XLoraConfig, experts: usize) {
    if config.enable_softmax {
        for row in row.chunks_exact_mut(experts.max(1)) {
            math::softmax_scalings(row, config.softmax_temperature);
        }
    }
}

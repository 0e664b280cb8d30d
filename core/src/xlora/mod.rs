//! X-LoRA: the scalings of each token, and which experts they keep.
//!
//! | PEFT (0.19.1) | here | what differs |
//! |---|---|---|
//! | `XLoraConfig` | [`XLoraConfig`] | only what inference needs; `scaling_pass_value = None` is stored as f32(1 / experts) |
//! | `XLoraClassifier.forward` | [`XLoraClassifier::forward`] | one row per token, no batch; flushed, no subnormal |
//! | `XLoraLayer.apply_scalings_to_x` | [`apply_scalings_to_x`] | gates one token; our own layers gate the r-vector instead, which is the same and cheaper |
//! | `XLoraLayer.get_maybe_topk_scalings` | [`get_maybe_topk_scalings`] | one row; ties go to the lowest index; returns what to compute |
//! | `XLoraLinearLayer`, `XLoraEmbeddingLayer` | [`XLoraLinearLayer`], [`XLoraEmbeddingLayer`] | built from borrowed tensors; computes selected experts only |
//! | `XLoraConv2dLayer` | | later |
//! | `model.set_topk_lora`, `set_scaling_pass_value`, `set_global_scaling_weight`, `get_global_scaling_weight` | [`Session`](crate::Session), same names | at length 0 (rewind first): the caches hold the old values |
//! | `model.get_latest_scalings` | [`Session::get_latest_scalings`](crate::Session::get_latest_scalings) | of the last committed token |
//! | `enable_scalings_logging`, `disable_scalings_logging`, `get_scalings_log`, `clear_scalings_log`, `get_bucketed_scalings_log` | [`Session`](crate::Session), same names | an entry per push instead of per forward; room for `log_tokens` tokens, what does not fit is counted |
//! | `disable_adapter()`, `scalings=None` | [`Routing::AllOnes`](crate::Routing::AllOnes) | every expert at weight 1, global weight unused; [`Routing::Base`](crate::Routing::Base) is the base itself |
//! | `set_adapter("1")` (scales expert 1 with class 0) | [`Routing::Only`](crate::Routing::Only) | weight 1 for that expert; the bug is not reproduced |
//! | `set_use_trainable_adapters`, `print_scalings_predictions` | | training only |

mod classifier;
mod config;
mod layer;

mod scalings;
mod topk;

pub use classifier::XLoraClassifier;
pub use config::XLoraConfig;
pub use layer::{Context, XLoraEmbeddingLayer, XLoraLayer, XLoraLinearLayer};

pub use scalings::Scalings;
pub use topk::{Selected, apply_scalings_to_x, get_maybe_topk_scalings};

pub(crate) use classifier::scalings_from_logits;

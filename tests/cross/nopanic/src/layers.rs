//! `xlora`, `layers`: the layer-level API.

use crate::blob::show;
use crate::{any, floats};
use core::hint::black_box;
use pleach::xlora::{Scalings, XLoraConfig, apply_scalings_to_x, get_maybe_topk_scalings};

pub(crate) fn call() {
    let config = config();
    let _ = show(config.check(any()));
    let mut out = [0.0; 64];
    let out = black_box(&mut out[..]);
    if let Some(kept) = show(get_maybe_topk_scalings(floats(), &config, out)) {
        for pair in kept.iter() {
            black_box(pair);
        }
        black_box(kept.row());
    }
    let _ = show(apply_scalings_to_x(out, floats(), any(), any()));
    for s in [Scalings::new(floats(), any()), Scalings::shared(floats(), any())] {
        if let Some(s) = show(s) {
            black_box((s.shape(), s.row(any(), any())));
        }
    }
}

fn config() -> XLoraConfig {
    XLoraConfig {
        top_k_lora: any::<bool>().then(any),
        enable_softmax: any(),
        enable_softmax_topk: any(),
        softmax_temperature: any(),
        layerwise_scalings: any(),
        scaling_pass_value: any(),
        global_scaling_weight: any(),
    }
}

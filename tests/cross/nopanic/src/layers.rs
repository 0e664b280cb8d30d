//! `xlora`, `layers`: the layer-level API.

use crate::blob::{model, show};
use crate::{any, floats};
use core::hint::black_box;
use pleach::blob::{BPanel, Lora, Tensor};
use pleach::xlora::{
    Context, Scalings, XLoraClassifier, XLoraConfig, XLoraEmbeddingLayer, XLoraLayer,
    XLoraLinearLayer, apply_scalings_to_x, get_maybe_topk_scalings,
};
use pleach::{Inline, Kernels};

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
    for s in [
        Scalings::new(floats(), any()),
        Scalings::shared(floats(), any()),
    ] {
        if let Some(s) = show(s) {
            black_box((s.shape(), s.row(any(), any())));
        }
    }
    forward();
}

/// The layers, with an adapter that the compiler knows nothing about.
fn forward() {
    let mut scratch = pleach::Aligned([0; 64]);
    let mut cx = Context {
        kernels: Kernels::portable(),
        executor: &mut Inline,
        scratch: black_box(&mut scratch.0[..]),
    };
    let mut y = [0.0; 64];
    let y = black_box(&mut y[..]);
    let (config, scalings) = (config(), Scalings::new(floats(), any()).ok());
    let (a, b) = (
        Tensor::from_rows(floats(), any(), any()),
        BPanel::from_rows(floats(), any(), any()),
    );
    let (Some(a), Some(b)) = (a, b) else { return };
    let adapters = [Some(Lora { a, b, scale: any() }), None];
    let adapters = black_box(&adapters[..]);
    let bias = any::<bool>().then(floats);

    if let Some(layer) = show(XLoraLinearLayer::new(any(), a, bias, adapters)) {
        black_box((layer.layer_number(), layer.scratch_bytes(any())));
        let _ = show(layer.forward(floats(), scalings, &config, y, &mut cx));
    }
    if let Some(layer) = show(XLoraEmbeddingLayer::new(any(), a, adapters)) {
        black_box((layer.layer_number(), layer.scratch_bytes(any())));
        let tokens: &[u32] = black_box(&[0; 4]);
        let _ = show(layer.forward(tokens, scalings, &config, y, &mut cx));
    }
    let layers = [(a, floats())];
    let borrowed = show(XLoraClassifier::new(black_box(&layers[..]), any(), any()));
    let model = model();
    for c in [borrowed, model.as_ref().and_then(|m| m.classifier())]
        .into_iter()
        .flatten()
    {
        black_box((c.depth(), c.width(), c.scratch_bytes(any())));
        let _ = show(c.forward(floats(), &config, y, &mut cx));
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

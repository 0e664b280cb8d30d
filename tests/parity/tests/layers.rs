//! Single layers against PEFT's own outputs (`tests/fixtures/peft/layers`), through the layer API.

use pleach::blob::{BPanel, Lora, Tensor};
use pleach::xlora::{
    Context, Scalings, XLoraClassifier, XLoraConfig, XLoraEmbeddingLayer, XLoraLayer,
    XLoraLinearLayer,
};
use pleach::{Aligned, Error, Inline, Kernels};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::path::Path;

/// PEFT computes these layers in f32 too, in another order: a few hundred roundings of values near 1.
const TOLERANCE: f32 = 1e-5;

struct Case {
    file: Vec<u8>,
    name: String,
}

impl Case {
    fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fixtures/peft/layers")
            .join(format!("{name}.safetensors"));
        Self {
            file: std::fs::read(path).unwrap(),
            name: name.to_string(),
        }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.file).unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        floats(&self.tensors().tensor(name).unwrap())
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_vec()
    }

    fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// A, B and scale of each adapter, A under `a`, B under `b`.
    fn adapters(&self, a: &str, b: &str) -> Vec<(Vec<f32>, Vec<f32>, usize, f32)> {
        let (_, metadata) = SafeTensors::read_metadata(&self.file).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        let list: serde_json::Value = serde_json::from_str(&metadata["adapters"]).unwrap();
        let list = list.as_array().unwrap();
        list.iter()
            .enumerate()
            .map(|(i, adapter)| {
                (
                    self.floats(&format!("{a}.{i}")),
                    self.floats(&format!("{b}.{i}")),
                    adapter["r"].as_u64().unwrap() as usize,
                    adapter["scale"].as_f64().unwrap() as f32,
                )
            })
            .collect()
    }

    fn config(&self) -> XLoraConfig {
        let (_, metadata) = SafeTensors::read_metadata(&self.file).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        XLoraConfig {
            top_k_lora: metadata["top_k"].parse().ok(),
            enable_softmax_topk: metadata["enable_softmax_topk"] == "True",
            global_scaling_weight: metadata["global_scaling_weight"].parse().unwrap(),
            ..XLoraConfig::DEFAULT
        }
    }

    fn check(&self, y: &[f32]) {
        let expected = self.floats("y");
        let largest = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        assert_eq!(y.len(), expected.len());
        for (i, (y, e)) in y.iter().zip(&expected).enumerate() {
            assert!(
                (y - e).abs() <= TOLERANCE * largest,
                "{}: y[{i}] is {y}, PEFT says {e}",
                self.name
            );
        }
    }
}

fn floats(t: &TensorView<'_>) -> Vec<f32> {
    t.data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// Runs `layer` in exactly the scratch that it asks for.
fn run<L: XLoraLayer>(
    layer: &L,
    x: &L::In,
    scalings: Scalings<'_>,
    config: &XLoraConfig,
    y: &mut [f32],
) {
    let [tokens, ..] = scalings.shape();
    let mut memory = Box::new(Aligned([0u8; 1 << 16]));
    let scratch = &mut memory.0[..layer.scratch_bytes(tokens)];
    let mut cx = Context {
        kernels: Kernels::portable(),
        executor: &mut Inline,
        scratch,
    };
    layer
        .forward(x, Some(scalings), config, y, &mut cx)
        .unwrap();
}

fn linear(name: &str, fan_in_fan_out: bool) {
    let case = Case::load(name);
    let shape = case.shape("weight");
    let (out, inputs) = match fan_in_fan_out {
        true => (shape[1], shape[0]),
        false => (shape[0], shape[1]),
    };
    let weight = case.floats("weight");
    let weight = match fan_in_fan_out {
        true => Tensor::from_columns(&weight, out, inputs),
        false => Tensor::from_rows(&weight, out, inputs),
    };
    let bias = case.has("bias").then(|| case.floats("bias"));
    let adapters = case.adapters("lora_A", "lora_B");
    let adapters: Vec<Option<Lora<'_>>> = adapters
        .iter()
        .map(|(a, b, r, scale)| {
            Some(Lora {
                a: Tensor::from_rows(a, *r, inputs).unwrap(),
                b: BPanel::from_rows(b, out, *r).unwrap(),
                scale: *scale,
            })
        })
        .collect();
    let layer = XLoraLinearLayer::new(0, weight.unwrap(), bias.as_deref(), &adapters).unwrap();
    let (x, s) = (case.floats("x"), case.floats("scalings"));
    let tokens = x.len() / inputs;
    let scalings = Scalings::new(&s, [tokens, 1, adapters.len()]).unwrap();
    let mut y = vec![f32::NAN; tokens * out];
    run(&layer, &x, scalings, &case.config(), &mut y);
    case.check(&y);
}

#[test]
fn linear_top2_with_a_global_weight() {
    linear("linear", false);
}

#[test]
fn linear_softmax_over_the_top2_odd_sizes_no_bias() {
    linear("linear-softmax-topk", false);
}

#[test]
fn linear_fan_in_fan_out() {
    linear("linear-fan-in-fan-out", true);
}

#[test]
fn embedding() {
    let case = Case::load("embedding");
    let [vocab, out] = case.shape("weight")[..] else {
        panic!("weight is not a matrix")
    };
    let weight = case.floats("weight");
    let adapters = case.adapters("lora_embedding_A", "lora_embedding_B");
    let adapters: Vec<Option<Lora<'_>>> = adapters
        .iter()
        .map(|(a, b, r, scale)| {
            Some(Lora {
                a: Tensor::from_columns(a, vocab, *r).unwrap(),
                b: BPanel::from_rows(b, out, *r).unwrap(),
                scale: *scale,
            })
        })
        .collect();
    let weight = Tensor::from_rows(&weight, vocab, out).unwrap();
    let layer = XLoraEmbeddingLayer::new(0, weight, &adapters).unwrap();
    let tensors = case.tensors();
    let x: Vec<u32> = tensors
        .tensor("x")
        .unwrap()
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
        .collect();
    let s = case.floats("scalings");
    let scalings = Scalings::new(&s, [x.len(), 1, adapters.len()]).unwrap();
    let mut y = vec![f32::NAN; x.len() * out];
    run(&layer, &x[..], scalings, &case.config(), &mut y);
    case.check(&y);
}

#[test]
fn wrong_shapes_are_refused() {
    let w = [1.0f32; 6];
    let weight = Tensor::from_rows(&w, 2, 3).unwrap();
    assert!(Tensor::from_rows(&w, 2, 4).is_none());
    assert!(XLoraLinearLayer::new(0, weight, Some(&[1.0]), &[]).is_err());
    let adapters = [Some(Lora {
        a: Tensor::from_rows(&w, 3, 2).unwrap(),
        b: BPanel::from_rows(&w, 2, 3).unwrap(),
        scale: 1.0,
    })];
    assert!(XLoraLinearLayer::new(0, weight, None, &adapters).is_err());
    let layer = XLoraLinearLayer::new(1, weight, None, &[]).unwrap();
    let mut memory = Aligned([0u8; 4096]);
    let mut cx = Context {
        kernels: Kernels::portable(),
        executor: &mut Inline,
        scratch: &mut memory.0,
    };
    let config = XLoraConfig::DEFAULT;
    let scalings = Scalings::new(&[], [1, 2, 0]).unwrap();
    let mut y = [0.0; 2];
    let ok = layer.forward(&w[..3], Some(scalings), &config, &mut y, &mut cx);
    assert_eq!((ok, y), (Ok(()), [3.0, 3.0]));
    assert!(
        layer
            .forward(&w[..4], Some(scalings), &config, &mut y, &mut cx)
            .is_err()
    );
    assert!(
        layer
            .forward(&w, Some(scalings), &config, &mut [0.0; 4], &mut cx)
            .is_err()
    );
    cx.scratch = &mut [];
    assert!(
        layer
            .forward(&w[..3], Some(scalings), &config, &mut y, &mut cx)
            .is_err()
    );
}

/// A in columns instead of rows, at ranks that are, or are not, those of a tile: the same bits.
#[test]
fn a_transposed_adapter() {
    let (inputs, out) = (5, 3);
    let weight: Vec<f32> = (0..inputs * out).map(|i| i as f32 * 0.25 - 1.0).collect();
    let x: Vec<f32> = (0..inputs).map(|i| 1.5 - i as f32).collect();
    for r in [1, 3, 4, 16, 17] {
        let a: Vec<f32> = (0..r * inputs)
            .map(|i| ((i * 7 % 11) as f32) * 0.125 - 0.5)
            .collect();
        let b: Vec<f32> = (0..out * r)
            .map(|i| ((i * 5 % 13) as f32) * 0.25 - 1.0)
            .collect();
        let columns: Vec<f32> = (0..inputs * r)
            .map(|i| a[(i % r) * inputs + i / r])
            .collect();
        let answer = |a: Tensor<'_>| {
            let adapters = [Some(Lora {
                a,
                b: BPanel::from_rows(&b, out, r).unwrap(),
                scale: 0.5,
            })];
            let weight = Tensor::from_rows(&weight, out, inputs).unwrap();
            let layer = XLoraLinearLayer::new(0, weight, None, &adapters).unwrap();
            let mut y = vec![f32::NAN; out];
            let scalings = Scalings::new(&[1.0], [1, 1, 1]).unwrap();
            run(&layer, &x, scalings, &XLoraConfig::DEFAULT, &mut y);
            y
        };
        let rows = answer(Tensor::from_rows(&a, r, inputs).unwrap());
        assert_eq!(
            rows,
            answer(Tensor::from_columns(&columns, r, inputs).unwrap()),
            "rank {r}"
        );
        // By hand, exactly: every value is a small multiple of 1/128.
        for (n, y) in rows.iter().enumerate() {
            let base: f32 = (0..inputs).map(|k| weight[n * inputs + k] * x[k]).sum();
            let delta: f32 = (0..r)
                .map(|j| b[n * r + j] * (0..inputs).map(|k| a[j * inputs + k] * x[k]).sum::<f32>())
                .sum();
            assert_eq!(*y, base + 0.5 * delta, "rank {r}, row {n}");
        }
    }
}

#[test]
fn a_classifier_refuses_what_is_not_finite() {
    let (w, b) = ([1.0f32, 0.0, 0.0, 1.0], [0.0f32; 2]);
    let layer = (Tensor::from_rows(&w, 2, 2).unwrap(), &b[..]);
    let layers = [layer, layer];
    let classifier = XLoraClassifier::new(&layers, true, 2).unwrap();
    let mut memory = Aligned([0u8; 1024]);
    let mut cx = Context {
        kernels: Kernels::portable(),
        executor: &mut Inline,
        scratch: &mut memory.0,
    };
    let mut s = [0.0; 4];
    let config = XLoraConfig::DEFAULT;
    classifier
        .forward(&[1.0, 2.0, -3.0, -4.0], &config, &mut s, &mut cx)
        .unwrap();
    assert_eq!(s[2..], [0.5, 0.5], "ReLU makes both outputs 0");
    for bad in [f32::NAN, f32::INFINITY] {
        let e = classifier.forward(&[1.0, 2.0, -3.0, bad], &config, &mut s, &mut cx);
        assert!(
            matches!(e, Err(Error::NonFinite { position: 1, .. })),
            "{e:?}"
        );
    }
}

//! Checkpoints of any shape, as PEFT saves them, with weights that follow from a seed.

use crate::random::Random;
use pleach::math::from_f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::path::Path;

/// An f32 tensor with its name.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// As in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub data: Vec<f32>,
}

/// The f32 and f16 tensors of a safetensors file.
pub fn read(file: &[u8]) -> Vec<Tensor> {
    let file = SafeTensors::deserialize(file).expect("a safetensors file");
    let tensor = |(name, t): (String, TensorView<'_>)| Tensor {
        name,
        shape: t.shape().to_vec(),
        data: match t.dtype() {
            Dtype::F32 => floats(t.data()),
            Dtype::F16 => {
                let halves = t.data().as_chunks::<2>().0.iter();
                halves.map(|b| from_f16(u16::from_le_bytes(*b))).collect()
            }
            other => panic!("{other:?}"),
        },
    };
    file.tensors().into_iter().map(tensor).collect()
}

fn floats(data: &[u8]) -> Vec<f32> {
    let words = data.as_chunks::<4>().0.iter();
    words.map(|b| f32::from_le_bytes(*b)).collect()
}

/// Writes a safetensors file, and the folders to it.
pub fn save(path: &Path, tensors: &[Tensor]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|t| t.data.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(t, data)| {
        let view = TensorView::new(Dtype::F32, t.shape.clone(), data);
        (t.name.clone(), view.expect("a shape that fits"))
    });
    write(path, &safetensors::serialize(views, None).expect("tensors"));
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// One expert.
#[derive(Clone, Debug)]
pub struct Expert {
    /// r.
    pub rank: usize,
    /// Its `target_modules`.
    pub targets: Vec<&'static str>,
}

/// What a layer has beside the common parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: `llama`.
    Llama,
    /// A norm on each head of q and k: `qwen3`.
    Qwen3,
    /// Biases, and only the layers of this mask are rotated: `smollm3`.
    SmolLm3 {
        /// Bit n for layer n.
        rotated: u32,
    },
}

/// Shapes and options of a checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its family.
    pub kind: Kind,
    /// The seed of all weights.
    pub seed: u64,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Tokens.
    pub vocab: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Blocks.
    pub layers: usize,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// The experts, in class order.
    pub experts: Vec<Expert>,
    /// Layers of the classifier.
    pub depth: usize,
    /// Keys of the X-LoRA config that differ from PEFT's defaults.
    pub options: Value,
}

/// The modules of a block in module order, with their paths.
pub const MODULES: [(&str, &str); 7] = [
    ("q_proj", "self_attn.q_proj"),
    ("k_proj", "self_attn.k_proj"),
    ("v_proj", "self_attn.v_proj"),
    ("o_proj", "self_attn.o_proj"),
    ("gate_proj", "mlp.gate_proj"),
    ("up_proj", "mlp.up_proj"),
    ("down_proj", "mlp.down_proj"),
];

impl Checkpoint {
    /// A small Llama, its head tied, without experts.
    pub const SMALL: Checkpoint = Checkpoint {
        kind: Kind::Llama,
        seed: 1,
        hidden: 64,
        vocab: 61,
        intermediate: 96,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        layers: 2,
        tied: true,
        experts: Vec::new(),
        depth: 1,
        options: Value::Null,
    };

    /// Outputs and inputs of a module.
    fn shape(&self, module: &str) -> [usize; 2] {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match module {
            "q_proj" => [q, self.hidden],
            "k_proj" | "v_proj" => [kv, self.hidden],
            "o_proj" => [self.hidden, q],
            "down_proj" => [self.hidden, self.intermediate],
            _ => [self.intermediate, self.hidden],
        }
    }

    /// The names of its sites in module order: what any expert targets.
    pub fn sites(&self) -> Vec<String> {
        let targeted = |m: &str| self.experts.iter().any(|e| e.targets.contains(&m));
        let modules = MODULES.iter().filter(|(m, _)| targeted(m));
        let of_layer = |n| {
            let names = modules.clone();
            names.map(move |(_, path)| format!("model.layers.{n}.{path}"))
        };
        (0..self.layers).flat_map(of_layer).collect()
    }

    /// Writes `base`, `expert-N` and `xlora` into `folder`.
    pub fn write(&self, folder: &Path) {
        self.write_base(&folder.join("base"));
        for (n, expert) in self.experts.iter().enumerate() {
            self.write_expert(&folder.join(format!("expert-{n}")), n, expert);
        }
        self.write_xlora(&folder.join("xlora"));
    }

    fn write_base(&self, folder: &Path) {
        let mut random = Random::new(self.seed);
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[usize], mean: f32, deviation: f32| {
            tensors.push(random_tensor(&mut random, name, shape, mean, deviation));
        };
        let table = [self.vocab, self.hidden];
        add("model.embed_tokens.weight".into(), &table, 0.0, 0.5);
        add("model.norm.weight".into(), &[self.hidden], 1.0, 0.1);
        if !self.tied {
            add("lm_head.weight".into(), &table, 0.0, 0.5);
        }
        for n in 0..self.layers {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                let name = format!("model.layers.{n}.{norm}.weight");
                add(name, &[self.hidden], 1.0, 0.1);
            }
            for (module, path) in MODULES {
                let shape = self.shape(module);
                let name = format!("model.layers.{n}.{path}.weight");
                add(name, &shape, 0.0, 1.0 / (shape[1] as f32).sqrt());
                if matches!(self.kind, Kind::SmolLm3 { .. }) {
                    let name = format!("model.layers.{n}.{path}.bias");
                    add(name, &shape[..1], 0.0, 0.3);
                }
            }
            for norm in ["q_norm", "k_norm"] {
                if self.kind == Kind::Qwen3 {
                    let name = format!("model.layers.{n}.self_attn.{norm}.weight");
                    add(name, &[self.head_dim], 1.0, 0.2);
                }
            }
        }
        save(&folder.join("model.safetensors"), &tensors);
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": self.vocab, "hidden_size": self.hidden,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "intermediate_size": self.intermediate, "max_position_embeddings": 128,
            "tie_word_embeddings": self.tied, "rope_theta": 10000.0, "rope_scaling": null,
            "rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": false,
            "mlp_bias": false, "torch_dtype": "float32",
        });
        let family = match self.kind {
            Kind::Llama => json!({}),
            Kind::Qwen3 => json!({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}),
            Kind::SmolLm3 { rotated } => json!({
                "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3",
                "attention_bias": true, "mlp_bias": true,
                "no_rope_layers": (0..self.layers).map(|n| rotated >> n & 1).collect::<Vec<_>>(),
            }),
        };
        for (key, value) in family.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        write(&folder.join("config.json"), config.to_string().as_bytes());
    }

    fn write_expert(&self, folder: &Path, class: usize, expert: &Expert) {
        let mut random = Random::new(self.seed + 1000 + class as u64);
        let mut tensors = Vec::new();
        for n in 0..self.layers {
            for (module, path) in MODULES {
                if !expert.targets.contains(&module) {
                    continue;
                }
                let [rows, cols] = self.shape(module);
                let mut add = |matrix: &str, shape: [usize; 2]| {
                    let name =
                        format!("base_model.model.model.layers.{n}.{path}.lora_{matrix}.weight");
                    tensors.push(random_tensor(&mut random, name, &shape, 0.0, 0.1));
                };
                add("A", [expert.rank, cols]);
                add("B", [rows, expert.rank]);
            }
        }
        save(&folder.join("adapter_model.safetensors"), &tensors);
        let config = json!({
            "peft_type": "LORA", "r": expert.rank, "lora_alpha": 2 * expert.rank,
            "target_modules": expert.targets, "bias": "none", "use_rslora": false,
            "use_dora": false, "fan_in_fan_out": false, "rank_pattern": {}, "alpha_pattern": {},
            "modules_to_save": null, "init_lora_weights": true,
        });
        write(
            &folder.join("adapter_config.json"),
            config.to_string().as_bytes(),
        );
    }

    fn write_xlora(&self, folder: &Path) {
        const SIZE: usize = 24;
        let mut config = json!({
            "peft_type": "XLORA", "hidden_size": self.hidden, "adapters": {},
            "enable_softmax": true, "enable_softmax_topk": false, "layerwise_scalings": false,
            "xlora_depth": self.depth, "xlora_size": SIZE, "xlora_dropout_p": 0.2,
            "softmax_temperature": 1.0, "top_k_lora": null, "scaling_pass_value": 0.0,
            "global_scaling_weight": 1.0, "use_trainable_adapters": false,
        });
        for n in 0..self.experts.len() {
            config["adapters"][n.to_string()] = json!(format!("../expert-{n}"));
        }
        for (key, value) in self.options.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let rows = match config["layerwise_scalings"] == json!(true) {
            true => self.experts.len() * self.sites().len(),
            false => self.experts.len(),
        };
        let mut random = Random::new(self.seed + 7);
        let mut tensors = Vec::new();
        for n in 0..self.depth {
            let inputs = if n == 0 { self.hidden } else { SIZE };
            let outputs = if n + 1 == self.depth { rows } else { SIZE };
            // PEFT counts Linear, ReLU and Dropout as layers.
            let name = format!("base_model.internal_xlora_classifier.layers.{}", 3 * n);
            for (part, shape) in [("weight", &[outputs, inputs][..]), ("bias", &[outputs])] {
                let name = format!("{name}.{part}");
                tensors.push(random_tensor(&mut random, name, shape, 0.0, 0.5));
            }
        }
        save(&folder.join("adapter_model.safetensors"), &tensors);
        write(
            &folder.join("adapter_config.json"),
            config.to_string().as_bytes(),
        );
    }
}

fn random_tensor(
    random: &mut Random,
    name: String,
    shape: &[usize],
    mean: f32,
    deviation: f32,
) -> Tensor {
    let n = shape.iter().product();
    Tensor {
        name,
        shape: shape.to_vec(),
        data: (0..n).map(|_| mean + random.normal(deviation)).collect(),
    }
}

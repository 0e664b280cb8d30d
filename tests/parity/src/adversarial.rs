//! Checkpoints made to be hard on the arithmetic, from a seed: sizes that are no multiple of anything,
//! values at the edges that ARITHMETIC.md names. Each is a folder as PEFT saves it, packed by the packer.
//!
//! | recipe | what is in it |
//! |---|---|
//! | `odd` | hidden 38, vocabulary 37, intermediate 29, three heads of 6 over one kv head: short last groups everywhere; ranks 1, 3, 5, 17; a very cold layerwise softmax with top-k softmax (placeholders, exact zeros); tied logits; weights of -0 |
//! | `zeros` | groups, rows and whole panels of zeros beside normal ones |
//! | `floor` | activations whose group maximum lies on both sides of 2^-40 |
//! | `sharp` | attention scores far below exp's cut; a negative global weight |
//! | `raw` | Qwen2's biases, an untied head, an embedding site, raw scalings of both signs with top-k, experts that miss sites |
//! | `heads` | Qwen3's norms of heads: heads that are zero (sqrt(eps) alone divides), that are as small as a flush lets them be, weights from 2^-24 to 30; head_dim 18 |
//!
//! In `q8` weights of -127 are made -128: no weight byte is illegal. All of B, of the rest those that `m4` has a
//! halfword for (at an odd column, beside a weight that is not negative), so that they are the same in every layout.

use crate::random::Random;
use crate::reseal;
use crate::{File, Storage};
use pleach::blob::format::{
    ConfigRecord, EXPERT_HEADER_BYTES, EXPERT_SITE_BYTES, ExpertHeader, ExpertSite, SectionKind,
    TABLE_HEAD_BYTES, TENSOR_ENTRY_BYTES, TensorEntry,
};
use pleach::kernels::layout::{Dtype, Layout, b_scale_bytes, scale_bytes, tile_bytes};
use pleach_pack::{PackOptions, Silent, Target, pack, repack};
use safetensors::tensor::{Dtype as FileDtype, TensorView, serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Weights of a matrix `[rows][cols]` by the tensor's name.
type Fill = fn(name: &str, rows: usize, cols: usize, random: &mut Random) -> Vec<f32>;

/// A checkpoint that can be made.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// A group that leaves short last groups.
    pub group: u32,
    hidden: usize,
    vocab: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    layers: usize,
    model_type: &'static str,
    /// Rank and targets of each expert.
    experts: &'static [(usize, &'static [&'static str])],
    depth: usize,
    options: fn(&mut Value),
    fill: Fill,
}

const ALL: &[&str] = &[
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// All recipes.
pub const RECIPES: [Recipe; 6] = [
    Recipe {
        name: "odd",
        group: 32,
        hidden: 38,
        vocab: 37,
        intermediate: 29,
        heads: 3,
        kv_heads: 1,
        head_dim: 6,
        layers: 2,
        model_type: "llama",
        experts: &[
            (1, ALL),
            (3, ALL),
            (5, &["q_proj", "v_proj", "down_proj"]),
            (17, ALL),
        ],
        depth: 2,
        options: |o| {
            o["softmax_temperature"] = json!(1e-3);
            o["layerwise_scalings"] = json!(true);
            o["enable_softmax_topk"] = json!(true);
            o["top_k_lora"] = json!(3);
        },
        fill: odd,
    },
    Recipe {
        name: "zeros",
        group: 32,
        hidden: 70,
        vocab: 67,
        intermediate: 97,
        heads: 5,
        kv_heads: 5,
        head_dim: 10,
        layers: 2,
        model_type: "llama",
        experts: &[(5, ALL), (3, &["o_proj", "gate_proj"])],
        depth: 1,
        options: |o| o["scaling_pass_value"] = json!(0.5),
        fill: zeros,
    },
    Recipe {
        name: "floor",
        group: 32,
        hidden: 38,
        vocab: 41,
        intermediate: 45,
        heads: 4,
        kv_heads: 2,
        head_dim: 14,
        layers: 2,
        model_type: "llama",
        experts: &[(3, ALL), (1, ALL)],
        depth: 1,
        options: |o| o["scaling_pass_value"] = json!(Value::Null),
        fill: floor,
    },
    Recipe {
        name: "sharp",
        group: 64,
        hidden: 66,
        vocab: 35,
        intermediate: 71,
        heads: 6,
        kv_heads: 3,
        head_dim: 2,
        layers: 3,
        model_type: "llama",
        experts: &[(17, &["q_proj", "k_proj"]), (3, ALL), (1, &["up_proj"])],
        depth: 3,
        options: |o| {
            o["global_scaling_weight"] = json!(-1.5);
            o["top_k_lora"] = json!(2);
        },
        fill: sharp,
    },
    Recipe {
        name: "raw",
        group: 128,
        hidden: 42,
        vocab: 53,
        intermediate: 131,
        heads: 7,
        kv_heads: 1,
        head_dim: 18,
        layers: 2,
        model_type: "qwen2",
        experts: &[
            (5, &["q_proj", "k_proj", "v_proj"]),
            (3, &["embed_tokens", "down_proj"]),
            (1, ALL),
            (17, &["embed_tokens", "o_proj", "up_proj"]),
            (3, &["layers.1.mlp.gate_proj"]),
        ],
        depth: 1,
        options: |o| {
            o["enable_softmax"] = json!(false);
            o["layerwise_scalings"] = json!(true);
            o["top_k_lora"] = json!(3);
        },
        fill: normal,
    },
    Recipe {
        name: "heads",
        group: 32,
        hidden: 34,
        vocab: 31,
        intermediate: 35,
        heads: 6,
        kv_heads: 3,
        head_dim: HEAD,
        layers: 2,
        model_type: "qwen3",
        experts: &[(3, &["q_proj", "k_proj"]), (1, ALL)],
        depth: 1,
        options: |o| o["top_k_lora"] = json!(1),
        fill: heads,
    },
];

/// Width of a head in `heads`.
const HEAD: usize = 18;

/// `recipe-quant-adapters-group-target` and bytes of every recipe in f16 and q8, for Linux and portable.
/// All pass [`Model::verify`](pleach::Model::verify).
pub fn blobs() -> Vec<(String, Vec<u8>)> {
    let mut blobs = Vec::new();
    for recipe in RECIPES {
        for storage in [Storage::F16, Storage::Q8] {
            for target in [Target::Linux, Target::Portable] {
                let storage = storage.group(recipe.group).target(target);
                let name = format!("{}-{}", recipe.name, storage.name());
                blobs.push((name, recipe.bytes(storage)));
            }
        }
    }
    blobs
}

impl Recipe {
    /// The packed model.
    pub fn file(&self, storage: Storage) -> File {
        File::new(&self.bytes(storage))
    }

    /// The packed model's bytes. Panics if the packer refuses the checkpoint.
    pub fn bytes(&self, storage: Storage) -> Vec<u8> {
        let folder = Folder::new(self.name);
        self.write(&folder.0);
        let target = storage.target;
        // Bytes are lowered where each is a weight.
        let bytewise = match target {
            Target::Linux | Target::Portable => target,
            Target::CortexM | Target::Mve => Target::Portable,
        };
        let storage = storage.target(bytewise);
        let options: PackOptions =
            storage.options(folder.0.join("base"), Some(folder.0.join("xlora")));
        let packed = match pack(&options, &mut Silent) {
            Ok(p) => p.bytes,
            Err(e) => panic!("{}: {e}", self.name),
        };
        let lowered = lower(&packed);
        if target == bytewise {
            return lowered;
        }
        let file = File::new(&lowered);
        let moved = repack(self.name.as_ref(), &file.model(), target, &mut Silent);
        moved.unwrap_or_else(|e| panic!("{e}")).bytes
    }

    /// A prompt of `n` tokens that meets the whole vocabulary.
    pub fn prompt(&self, n: usize) -> Vec<u32> {
        (0..n).map(|i| (i * 7 % self.vocab) as u32).collect()
    }

    /// Writes the checkpoint: `base`, `xlora` and a folder per expert.
    fn write(&self, folder: &Path) {
        let mut random = Random::new(self.hidden as u64);
        let mut base = Tensors::default();
        let mut add = |name: &str, rows: usize, cols: usize| {
            base.add(
                name,
                &[rows, cols],
                (self.fill)(name, rows, cols, &mut random),
            );
        };
        add("model.embed_tokens.weight", self.vocab, self.hidden);
        add("model.norm.weight", 1, self.hidden);
        if self.qwen2() {
            add("lm_head.weight", self.vocab, self.hidden);
        }
        for n in 0..self.layers {
            let layer = format!("model.layers.{n}");
            add(&format!("{layer}.input_layernorm.weight"), 1, self.hidden);
            add(
                &format!("{layer}.post_attention_layernorm.weight"),
                1,
                self.hidden,
            );
            if self.model_type == "qwen3" {
                add(&format!("{layer}.self_attn.q_norm.weight"), 1, HEAD);
                add(&format!("{layer}.self_attn.k_norm.weight"), 1, HEAD);
            }
            for module in ALL {
                let (path, rows, cols) = self.module(module);
                add(&format!("{layer}.{path}.weight"), rows, cols);
                if self.qwen2() && ["q_proj", "k_proj", "v_proj"].contains(module) {
                    add(&format!("{layer}.{path}.bias"), 1, rows);
                }
            }
        }
        base.write(&folder.join("base/model.safetensors"));
        write_json(&folder.join("base/config.json"), &self.base_config());

        let mut paths = BTreeMap::new();
        let mut sites = 0;
        for n in 0..self.layers {
            sites += ALL.iter().filter(|m| self.targeted(n, m)).count();
        }
        let embed = |targets: &[&str]| targets.contains(&"embed_tokens");
        sites += usize::from(self.experts.iter().any(|(_, t)| embed(t)));
        for (class, (rank, targets)) in self.experts.iter().enumerate() {
            let name = format!("expert-{class}");
            self.write_expert(&folder.join(&name), *rank, targets, &mut random);
            paths.insert(class.to_string(), json!(format!("../{name}")));
        }
        let mut options = json!({
            "peft_type": "XLORA", "hidden_size": self.hidden, "adapters": paths,
            "xlora_depth": self.depth, "xlora_size": 27, "xlora_dropout_p": 0.0,
            "enable_softmax": true, "enable_softmax_topk": false, "layerwise_scalings": false,
            "softmax_temperature": 1.0, "scaling_pass_value": 0.0, "global_scaling_weight": 1.0,
            "top_k_lora": null, "use_trainable_adapters": false,
        });
        (self.options)(&mut options);
        let layerwise = options["layerwise_scalings"] == json!(true);
        write_json(&folder.join("xlora/adapter_config.json"), &options);
        let rows = self.experts.len() * if layerwise { sites } else { 1 };
        self.classifier(rows, &mut random)
            .write(&folder.join("xlora/adapter_model.safetensors"));
    }

    /// Biases of q, k and v, and a head of its own.
    fn qwen2(&self) -> bool {
        self.model_type == "qwen2"
    }

    fn base_config(&self) -> Value {
        json!({
            "model_type": self.model_type,
            "vocab_size": self.vocab, "hidden_size": self.hidden,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "intermediate_size": self.intermediate, "max_position_embeddings": 128,
            "tie_word_embeddings": !self.qwen2(), "rope_theta": 10000.0, "rope_scaling": null,
            "rms_norm_eps": if self.model_type == "qwen3" { 1e-12 } else { 1e-6 }, "hidden_act": "silu", "attention_bias": false,
            "mlp_bias": false, "bos_token_id": 1, "eos_token_id": 2,
        })
    }

    /// Path, rows and columns of a layer's module.
    fn module(&self, module: &str) -> (String, usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let (group, rows, cols) = match module {
            "q_proj" => ("self_attn", q, self.hidden),
            "k_proj" | "v_proj" => ("self_attn", kv, self.hidden),
            "o_proj" => ("self_attn", self.hidden, q),
            "down_proj" => ("mlp", self.hidden, self.intermediate),
            _ => ("mlp", self.intermediate, self.hidden),
        };
        (format!("{group}.{module}"), rows, cols)
    }

    fn targeted(&self, layer: usize, module: &str) -> bool {
        let path = format!(".layers.{layer}.{}", self.module(module).0);
        let hit = |t: &&str| path.ends_with(&format!(".{t}"));
        self.experts
            .iter()
            .any(|(_, targets)| targets.iter().any(hit))
    }

    fn write_expert(&self, folder: &Path, rank: usize, targets: &[&str], random: &mut Random) {
        let mut tensors = Tensors::default();
        let mut add = |name: String, rows: usize, cols: usize| {
            let data = (self.fill)(&name, rows, cols, random);
            tensors.add(
                &format!("base_model.model.model.{name}"),
                &[rows, cols],
                data,
            );
        };
        if targets.contains(&"embed_tokens") {
            add("embed_tokens.lora_embedding_A".into(), rank, self.vocab);
            add("embed_tokens.lora_embedding_B".into(), self.hidden, rank);
        }
        for n in 0..self.layers {
            for module in ALL {
                let (path, rows, cols) = self.module(module);
                let path = format!("layers.{n}.{path}");
                if targets
                    .iter()
                    .any(|t| format!(".{path}").ends_with(&format!(".{t}")))
                {
                    add(format!("{path}.lora_A.weight"), rank, cols);
                    add(format!("{path}.lora_B.weight"), rows, rank);
                }
            }
        }
        tensors.write(&folder.join("adapter_model.safetensors"));
        let config = json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets,
            "use_rslora": rank == 17, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none",
        });
        write_json(&folder.join("adapter_config.json"), &config);
    }

    /// Linear layers from hidden to `rows`. With a temperature of 1e-3 the last biases put the experts'
    /// logits 0, -70, -90 and -120 apart: a quotient, two placeholders, a zero; the hidden state moves them.
    fn classifier(&self, rows: usize, random: &mut Random) -> Tensors {
        let experts = self.experts.len();
        let mut tensors = Tensors::default();
        let mut cols = self.hidden;
        for n in 0..self.depth {
            let last = n + 1 == self.depth;
            let out = if last { rows } else { 27 };
            let bias = |i: usize| match (last, i % experts) {
                (false, _) => 0.01 * (i as f32 - 13.0),
                (true, 0) => 0.0,
                (true, e) => -0.03 - 0.02 * e as f32 - if e == 3 { 0.03 } else { 0.0 },
            };
            let prefix = format!("base_model.internal_xlora_classifier.layers.{}", 2 * n);
            let spread = if last { 0.003 } else { 0.2 };
            let weight = (0..out * cols).map(|_| random.normal(spread)).collect();
            tensors.add(&format!("{prefix}.weight"), &[out, cols], weight);
            let bias = (0..out).map(bias).collect();
            tensors.add(&format!("{prefix}.bias"), &[out], bias);
            cols = out;
        }
        tensors
    }
}

fn normal(name: &str, rows: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    let vector = rows == 1 && name.contains("norm");
    let spread = if name.contains("lora_B") {
        0.3
    } else {
        1.0 / (cols as f32).sqrt()
    };
    let mut one = || match vector {
        true => 1.0 + random.normal(0.1),
        false => random.normal(spread),
    };
    (0..rows * cols).map(|_| one()).collect()
}

/// Rows of the table that are the same (logits tie), rows and elements of -0.
fn odd(name: &str, rows: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    let mut w = normal(name, rows, cols, random);
    w.iter_mut().step_by(11).for_each(|v| *v = -0.0);
    if name.contains("embed_tokens") {
        w[3 * cols..4 * cols].fill(-0.0);
        let (first, second) = w.split_at_mut(rows / 2 * cols);
        second[..first.len()].copy_from_slice(first);
    }
    w
}

/// Zero groups: the first 32 columns of every third row, the last ones of every fifth, all of every
/// seventh; one expert's A, another module's B, and a token of zeros.
fn zeros(name: &str, rows: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    let mut w = normal(name, rows, cols, random);
    if rows > 1 {
        for (r, row) in w.chunks_exact_mut(cols).enumerate() {
            let first = cols.min(32);
            match r {
                _ if r % 7 == 6 => row.fill(0.0),
                _ if r % 5 == 4 => row[first..].fill(0.0),
                _ if r % 3 == 2 => row[..first].fill(0.0),
                _ => {}
            }
        }
    }
    if name.contains("layers.1.self_attn.o_proj.lora_A") || name.contains("gate_proj.lora_B") {
        w.fill(0.0);
    }
    w
}

/// Norms of 2^-24 and value rows with one weight of 2^-17: attention outputs of about 2^-41 to 2^-39, the
/// input of o_proj; tiny gates and ups that do the same for down_proj.
fn floor(name: &str, rows: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    let mut w = normal(name, rows, cols, random);
    if name.contains("layers.0.input_layernorm") {
        w.iter_mut().for_each(|v| *v = 2f32.powi(-24));
    }
    if name.contains("layers.0.self_attn.v_proj.weight") {
        for (r, row) in w.chunks_exact_mut(cols).enumerate() {
            row.fill(0.0);
            row[r % cols] = 2f32.powi(-17);
        }
    }
    if name.contains("layers.1.post_attention_layernorm") {
        w.iter_mut().for_each(|v| *v = 2f32.powi(-10));
    }
    if name.contains("layers.1.mlp.gate_proj.weight")
        || name.contains("layers.1.mlp.up_proj.weight")
    {
        w.iter_mut().for_each(|v| *v *= 2f32.powi(-9));
    }
    w
}

/// Queries and keys of size 40: scores hundreds apart.
fn sharp(name: &str, rows: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    let mut w = normal(name, rows, cols, random);
    if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
        w.iter_mut().for_each(|v| *v *= 30.0);
    }
    w
}

/// A third of the heads of q and k is zero, a third has weights of 2^-24: with the second layer's inputs, of
/// about 2^-24 too, its values lie on both sides of 2^-48.
fn heads(name: &str, rows: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    let tiny = 2f32.powi(-24);
    let mut w = normal(name, rows, cols, random);
    if name.contains("layers.1.input_layernorm") {
        w.fill(tiny);
    }
    if name.contains("q_norm") || name.contains("k_norm") {
        let sizes = [tiny, 1.0, -30.0, 0.0, 2f32.powi(-12)];
        let sizes = sizes.into_iter().cycle();
        w.iter_mut().zip(sizes).for_each(|(v, size)| *v = size);
    }
    if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
        for (r, row) in w.chunks_exact_mut(cols).enumerate() {
            match r / HEAD % 3 {
                0 => row.fill(0.0),
                1 => row.iter_mut().for_each(|v| *v = tiny.copysign(*v)),
                _ => {}
            }
        }
    }
    w
}

/// Makes q8 weights of -127 a -128, and seals the file again. Padding is 0, so that no layout shows.
fn lower(blob: &[u8]) -> Vec<u8> {
    let mut sections = reseal::sections(blob);
    let Some(config) = sections.first().and_then(|s| s.bytes.first_chunk()) else {
        return blob.to_vec();
    };
    let group = ConfigRecord::decode(config).group as usize;
    for s in &mut sections {
        match s.kind {
            SectionKind::Base => lower_table(&mut s.bytes, group),
            SectionKind::Expert => lower_expert(&mut s.bytes, group),
            _ => {}
        }
    }
    reseal::assemble(&sections)
}

fn lower_table(section: &mut [u8], group: usize) {
    let count = u32::from_le_bytes(*section.first_chunk().expect("a table")) as usize;
    for n in 0..count {
        let at = TABLE_HEAD_BYTES + n * TENSOR_ENTRY_BYTES;
        let entry = TensorEntry::decode(section[at..].first_chunk().expect("an entry"));
        if entry.dtype == Dtype::Q8 as u8 {
            let at = entry.offset as usize;
            let data = &mut section[at..at + entry.length as usize];
            lower_tiles(data, entry.layout, entry.cols as usize, group);
        }
    }
}

fn lower_expert(section: &mut [u8], group: usize) {
    let header = ExpertHeader::decode(section.first_chunk().expect("a header"));
    for n in 0..header.sites as usize {
        let at = EXPERT_HEADER_BYTES + n * EXPERT_SITE_BYTES;
        let site = ExpertSite::decode(section[at..].first_chunk().expect("a record"));
        if site.rank == 0 {
            continue;
        }
        if site.a_dtype == Dtype::Q8 as u8 {
            let at = site.a_offset as usize * 16;
            let data = &mut section[at..at + site.a_length as usize];
            // All rows of A are in whole tiles of `[k]`: the tile's size follows from the panel's.
            let layout = Layout::from_tag(site.a_layout).expect("a layout");
            let tiles = (site.rank as usize).div_ceil(layout.tile_rows());
            let cols = (1..)
                .find(|c| tile_bytes(Dtype::Q8, layout, *c, group) * tiles == data.len())
                .expect("columns");
            lower_tiles(data, site.a_layout, cols, group);
        }
        if site.b_dtype == Dtype::Q8 as u8 {
            let at = site.b_offset as usize * 16;
            let head = b_scale_bytes(Dtype::Q8, site.rank as usize);
            let panel = &mut section[at + head..at + site.b_length as usize];
            panel.iter_mut().for_each(lower_byte);
        }
    }
}

fn lower_tiles(data: &mut [u8], layout: u8, cols: usize, group: usize) {
    let layout = Layout::from_tag(layout).expect("a layout");
    let scales = scale_bytes(layout.tile_rows(), cols, group);
    for tile in data.chunks_exact_mut(tile_bytes(Dtype::Q8, layout, cols, group)) {
        // Vectors are of four columns of a row: two neighbours are an even column and the odd one after it.
        for [even, odd] in tile[scales..].as_chunks_mut::<2>().0 {
            lower_byte(even);
            if *even as i8 >= 0 {
                lower_byte(odd);
            }
        }
    }
}

fn lower_byte(q: &mut u8) {
    if *q as i8 == -127 {
        *q = i8::MIN as u8;
    }
}

/// Tensors on their way to a safetensors file.
#[derive(Default)]
struct Tensors(Vec<(String, Vec<usize>, Vec<u8>)>);

impl Tensors {
    /// Adds an f32 tensor; `[1, n]` is saved as `[n]`.
    fn add(&mut self, name: &str, shape: &[usize], data: Vec<f32>) {
        let shape = match shape {
            [1, n] if name.contains("norm") || name.ends_with(".bias") => vec![*n],
            shape => shape.to_vec(),
        };
        let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.push((name.into(), shape, bytes));
    }

    fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(FileDtype::F32, shape.clone(), bytes);
            (name, view.expect("a shape of its data"))
        });
        write(path, &serialize(views, None).expect("tensors"));
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let folder = path.parent().expect("a folder");
    std::fs::create_dir_all(folder).expect("a folder can be made");
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn write_json(path: &Path, value: &Value) {
    write(path, value.to_string().as_bytes());
}

/// A folder that goes when it is dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    /// A new, empty folder among the temporary ones.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pleach-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

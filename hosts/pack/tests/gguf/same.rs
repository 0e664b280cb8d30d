//! The same values from GGUF and from safetensors give the same file.

use crate::common::Heard;
use crate::common::reader::{File, f32_at};
use crate::common::source::Source;
use crate::common::{AlignedCopy, fixtures};
use crate::gguf;
use pleach::{Blob, Model};
use pleach_pack::{BaseQuant, PackOptions, Packed, Silent, Target, pack};
use std::path::PathBuf;

const CONFIG: u16 = 1;
const BASE: u16 = 2;
const TOKENIZER: u16 = 8;
/// Where the inverse frequencies begin in the config section.
const INV_FREQ: usize = 128;

fn packed(base: PathBuf, quant: BaseQuant, group: u32) -> Packed {
    let mut o = PackOptions::new(base);
    (o.quant, o.group) = (quant, group);
    pack(&o, &mut Silent).unwrap_or_else(|e| panic!("{e}"))
}

/// Packs both; the bases must be equal byte for byte. Returns the config sections.
fn both(file: &str, folder: PathBuf, quant: BaseQuant) -> [Vec<u8>; 2] {
    let [a, b] = [gguf(file), folder].map(|p| File::read(&packed(p, quant, 64).bytes));
    assert!(a.section(BASE) == b.section(BASE), "{file}");
    [a, b].map(|f| f.section(CONFIG).to_vec())
}

fn family(name: &str) -> PathBuf {
    fixtures().join(format!("families/case-{name}/base"))
}

#[test]
fn families() {
    for quant in [BaseQuant::F16, BaseQuant::Q8] {
        for name in ["qwen25", "qwen3"] {
            let [a, b] = both(&format!("{name}.gguf"), family(name), quant);
            assert_eq!(a, b, "{name}");
        }
    }
}

/// GGUF does not say which layers are not rotated: llama.cpp takes every fourth, as the trained model has it.
/// The family's small model has every second.
#[test]
fn smollm3() {
    let [mut a, mut b] = both("smollm3.gguf", family("smollm3"), BaseQuant::F16);
    let rotated = |config: &mut Vec<u8>| -> Vec<u8> {
        let table = &mut config[INV_FREQ + 4 * 6..];
        table
            .chunks_mut(16)
            .map(|l| std::mem::take(&mut l[6]))
            .collect()
    };
    assert_eq!(rotated(&mut a), [1, 1, 1, 0]);
    assert_eq!(rotated(&mut b), [1, 0, 1, 0]);
    assert_eq!(a, b);
}

/// GGUF has Llama 3's stretching as a table of f32 factors: each frequency is within one rounding of a factor
/// and one of the result, 2^-23 relatively.
#[test]
fn llama3_frequencies() {
    let [a, b] = both("llama32.gguf", family("llama32"), BaseQuant::F16);
    let end = INV_FREQ + 4 * 8;
    assert_eq!(a[..INV_FREQ], b[..INV_FREQ]);
    assert_eq!(a[end..], b[end..]);
    let mut stretched = 0;
    for at in (INV_FREQ..end).step_by(4) {
        let (ours, theirs) = (f32_at(&a, at), f32_at(&b, at));
        assert!(
            (ours - theirs).abs() <= theirs * f32::powi(2.0, -23),
            "{ours} {theirs}"
        );
        let plain = 500_000f64.powf(-((at - INV_FREQ) as f64 / 4.0) / 8.0);
        stretched += u32::from(f64::from(ours) < 0.9 * plain);
    }
    assert_eq!(stretched, 7);
    let mut heard = Heard::default();
    pack(&PackOptions::new(gguf("llama32.gguf")), &mut heard).expect("packs");
    assert!(
        heard.notes.iter().all(|n| !n.contains("ignored")),
        "{:?}",
        heard.notes
    );
}

#[test]
fn quantised_values_as_f16_and_as_another_group() {
    both("exact.gguf", gguf("exact"), BaseQuant::F16);
    both("exact.gguf", gguf("exact"), BaseQuant::Q8);
}

/// Products of two numbers of 11 and 8 bits do not fit f16: how many do not is said.
#[test]
fn rounding_to_f16_is_counted() {
    let values = Source::open(gguf("exact/model.safetensors"));
    let matrices = values
        .names()
        .into_iter()
        .map(|n| values.tensor(&n))
        .filter(|(shape, _)| shape.len() == 2);
    let all: Vec<f32> = matrices.flat_map(|(_, v)| v).collect();
    let rounded = all
        .iter()
        .filter(|v| half::f16::from_f32(**v).to_f32() != **v)
        .count();
    let mut o = PackOptions::new(gguf("exact.gguf"));
    o.quant = BaseQuant::F16;
    let mut heard = Heard::default();
    pack(&o, &mut heard).expect("packs");
    let words = format!(
        "{rounded} of the base's {} weights are rounded to f16",
        all.len()
    );
    assert!(
        heard.notes.iter().any(|n| n.starts_with(&words)),
        "{:?}",
        heard.notes
    );
}

/// At group 32 the file's numbers are the GGUF's: scales with their sign, subnormal ones lifted, -128 kept.
#[test]
fn q8_0_and_q4_0_are_taken_as_they_are() {
    let expected = Source::open(gguf("exact/model.safetensors"));
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let names = [
        "model.embed_tokens.weight".into(),
        "model.norm.weight".into(),
        layer("input_layernorm"),
        layer("self_attn.q_proj"),
        layer("self_attn.k_proj"),
        layer("self_attn.v_proj"),
        layer("self_attn.o_proj"),
        layer("post_attention_layernorm"),
        layer("mlp.gate_proj"),
        layer("mlp.up_proj"),
        layer("mlp.down_proj"),
    ];
    for target in Target::ALL {
        let mut o = PackOptions::new(gguf("exact.gguf"));
        (o.group, o.target) = (32, target);
        let mut heard = Heard::default();
        let packed = pack(&o, &mut heard).expect("packs");
        assert_eq!(heard.done, heard.total);
        assert!(
            heard
                .notes
                .iter()
                .any(|n| n.contains("are taken as they are"))
        );
        let tensors = File::read(&packed.bytes).tensors(BASE);
        assert_eq!(tensors.len(), names.len());
        let (mut lifted, mut lowest) = (0, 0);
        for ((t, report), name) in tensors.iter().zip(&packed.report.tensors).zip(&names) {
            assert_eq!(t.values(32), expected.tensor(name).1, "{name}");
            assert_eq!(
                (report.loss.error2, report.loss.flushed),
                (0.0, 0),
                "{name}"
            );
            if t.dtype == 1 {
                lifted += u32::from(t.scale_exp == -10);
                lowest = (0..t.cols).map(|c| t.q(0, c, 32)).fold(lowest, i8::min);
            }
        }
        assert_eq!((lifted, lowest), (7, -128));
        let copy = AlignedCopy::of(&packed.bytes);
        let model = Model::parse(Blob::new(copy.get()).expect("blob")).expect("model");
        model.verify().expect("every scale is legal");
    }
}

#[test]
fn tokenizer_and_template() {
    let file = packed(gguf("exact.gguf"), BaseQuant::F16, 64);
    let intent = packed(fixtures().join("xlora-intent/base"), BaseQuant::F16, 64);
    let section = |p: &Packed| File::read(&p.bytes).section(TOKENIZER).to_vec();
    assert_eq!(section(&file), section(&intent));
    let copy = AlignedCopy::of(&file.bytes);
    let model = Model::parse(Blob::new(copy.get()).expect("blob")).expect("model");
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    assert_eq!(model.chat_template(), Some(template));
}

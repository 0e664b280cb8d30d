//! Adapters that convert_lora_to_gguf.py's rules made of PEFT's folders.

use crate::common::edit::{Checkpoint, refusal};
use crate::common::reader::{Expert, File};
use crate::common::{AlignedCopy, Heard, fixtures};
use crate::gguf;
use crate::write::llama;
use pleach::{Blob, Model};
use pleach_pack::{AdapterQuant, PackOptions, Silent, pack, pack_expert_for};
use std::path::PathBuf;

fn expert(base: &str, adapter: PathBuf) -> Expert {
    let mut o = PackOptions::new(fixtures().join(base));
    o.adapters = vec![("key".into(), adapter)];
    o.adapter_quant = Some(AdapterQuant::F32);
    let bytes = pack(&o, &mut Silent)
        .unwrap_or_else(|e| panic!("{e}"))
        .bytes;
    File::read(&bytes).experts().remove(0)
}

/// The same sites, ranks, scales and values.
fn same(base: &str, folder: &str, file: &str) {
    let ours = expert(base, gguf(&format!("lora/{file}.gguf")));
    let peft = expert(base, fixtures().join(folder));
    assert_eq!((ours.name.as_str(), ours.key.as_str()), (file, "key"));
    assert_eq!(ours.sites.len(), peft.sites.len());
    for (a, b) in ours.sites.iter().flatten().zip(peft.sites.iter().flatten()) {
        assert_eq!((a.rank, a.scale), (b.rank, b.scale), "{file}");
        assert!(a.a.bytes == b.a.bytes && a.b.bytes == b.b.bytes, "{file}");
    }
}

#[test]
fn pefts_folders() {
    let (llama, qwen3) = ("families/case-llama32", "families/case-qwen3");
    for n in 0..3 {
        let (base, folder) = (format!("{llama}/base"), format!("{llama}/experts/{n}"));
        same(&base, &folder, &format!("llama32-{n}"));
    }
    same(
        &format!("{qwen3}/base"),
        &format!("{qwen3}/experts/0"),
        "qwen3-0",
    );
}

/// At the embedding A lies transposed.
#[test]
fn an_embedding_site() {
    same("peft/base-llama", "peft/experts/llama-f", "llama-f");
}

#[test]
fn over_a_gguf_base_and_under_the_classifier() {
    let c = Checkpoint::family("llama32");
    let mut o = c.options();
    let from_folders = pack(&o, &mut Silent).expect("packs").bytes;
    o.base = gguf("llama32.gguf");
    for n in 0..3 {
        let file = gguf(&format!("lora/llama32-{n}.gguf"));
        o.adapters.push((n.to_string(), file));
    }
    let from_files = pack(&o, &mut Silent).expect("packs").bytes;
    let [a, b] = [from_folders, from_files].map(|bytes| File::read(&bytes));
    assert!(a.section(5) == b.section(5));
    for (a, b) in a.experts().iter().zip(&b.experts()) {
        for (a, b) in a.sites.iter().flatten().zip(b.sites.iter().flatten()) {
            assert!(a.scale == b.scale && a.a.bytes == b.a.bytes && a.b.bytes == b.b.bytes);
        }
    }
}

/// Without alpha llama.cpp takes A and B as they are.
#[test]
fn no_alpha() {
    let base = "families/case-llama32/base";
    let e = expert(base, gguf("lora/llama32-no-alpha.gguf"));
    assert!(e.sites.iter().flatten().all(|s| s.scale == 1.0));
}

#[test]
fn refused() {
    let says = |base: PathBuf, adapter: &str, words: &[&str]| {
        let mut o = PackOptions::new(base);
        o.adapters = vec![("a".into(), gguf(adapter))];
        let e = refusal(&o);
        for w in words {
            assert!(e.cause.contains(w), "{e}: {w}");
        }
    };
    let base = gguf("llama32.gguf");
    says(
        base.clone(),
        "qwen3.gguf",
        &["general.type is model", "adapter"],
    );
    says(
        base.clone(),
        "lora/nothing.gguf",
        &["nothing.gguf", "does not exist"],
    );
    // Of another base: by architecture, by vocabulary, by shape, by layers that are not there.
    says(
        base.clone(),
        "lora/qwen3-0.gguf",
        &["an adapter of architecture qwen3"],
    );
    says(
        gguf("qwen3.gguf"),
        "lora/llama32-0.gguf",
        &["an adapter of architecture llama"],
    );
    says(
        base,
        "lora/llama-f.gguf",
        &[
            "token_embd.weight.lora_a",
            "[4, 256]",
            "the base asks for [4, 211]",
        ],
    );
    says(
        gguf("exact.gguf"),
        "lora/llama32-0.gguf",
        &["blk.0.", "shape"],
    );
    let folder = tempfile::tempdir().expect("folder");
    let one_layer = folder.path().join("m.gguf");
    std::fs::write(&one_layer, llama([1, 64, 101, 4, 211]).bytes()).expect("write");
    says(
        one_layer,
        "lora/llama32-2.gguf",
        &["blk.1.ffn_down.weight.lora_a", "of 1 layers"],
    );
    // An adapter as a base.
    let e = refusal(&PackOptions::new(gguf("lora/llama-f.gguf")));
    assert!(e.cause.contains("general.type is \"adapter\""), "{e}");
}

/// Of llama the rows of q and k are reordered, of qwen2 they are not; shapes and modules are the same.
#[test]
fn of_another_architecture_with_the_same_shapes() {
    let folder = tempfile::tempdir().expect("folder");
    let adapter = folder.path().join("a.gguf");
    let mut bytes = std::fs::read(gguf("lora/llama-f.gguf")).expect("read");
    let key = b"general.architecture";
    let value = |w: &[u8]| w.starts_with(b"llama");
    let at = bytes
        .windows(key.len())
        .position(|w| w == key)
        .expect("key");
    let at = at + bytes[at..].windows(5).position(value).expect("value");
    bytes[at..at + 5].copy_from_slice(b"qwen2");
    std::fs::write(&adapter, bytes).expect("write");

    let base = fixtures().join("peft/base-llama");
    let mut o = PackOptions::new(&base);
    o.adapters = vec![("a".into(), adapter.clone())];
    let e = refusal(&o);
    assert!(e.cause.contains("an adapter of architecture qwen2"), "{e}");

    // A model file does not keep its base's architecture.
    o.adapters = vec![("a".into(), gguf("lora/llama-f.gguf"))];
    let file = pack(&o, &mut Silent).expect("packs").bytes;
    let file = AlignedCopy::of(&file);
    let model = Model::parse(Blob::new(file.get()).expect("aligned")).expect("a model");
    let mut heard = Heard::default();
    let place = (std::path::Path::new("m.pleach"), &model);
    pack_expert_for(place, ("a", &adapter), None, &mut heard).expect("packs");
    let note = "an adapter of architecture qwen2: the model file does not say";
    assert!(
        heard.notes.iter().any(|n| n.contains(note)),
        "{:?}",
        heard.notes
    );
}

//! Files that are damaged, or were made to harm: refused in two lines, never a panic.

use crate::common::edit::refusal;
use crate::write::{ARRAY, F32, TEXT, U32, Writer, array, llama, text, value};
use pleach_pack::{Kind, PackError, PackOptions, Silent, pack};
use tempfile::TempDir;

/// What is done to a good file.
type Change = fn(&mut Writer);

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("folder"))
    }

    fn options(&self, bytes: &[u8]) -> PackOptions {
        let path = self.0.path().join("m.gguf");
        std::fs::write(&path, bytes).expect("write");
        PackOptions::new(path)
    }

    fn refusal(&self, bytes: &[u8]) -> PackError {
        refusal(&self.options(bytes))
    }
}

fn small() -> Writer {
    llama([1, 16, 24, 2, 8])
}

/// Applies each change to a good file; the refusal must say the words.
fn each(cases: &[(&str, Change)]) {
    let folder = Folder::new();
    pack(&folder.options(&small().bytes()), &mut Silent).expect("the unchanged file packs");
    for (words, change) in cases {
        let mut w = small();
        change(&mut w);
        let e = folder.refusal(&w.bytes());
        for word in words.split('|') {
            assert!(e.cause.contains(word), "{e}\n{word}");
        }
        assert!(e.cause.contains("m.gguf"), "{e}");
    }
}

#[test]
fn the_head() {
    each(&[
        ("does not begin with GGUF", |w| w.magic = *b"GGML"),
        ("GGUF version 1", |w| w.version = 1),
        ("GGUF version 4", |w| w.version = 4),
        ("big-endian", |w| w.version = 3u32.swap_bytes()),
        ("1152921504606846976 tensors", |w| {
            w.counts[0] = Some(1 << 60)
        }),
        ("1152921504606846976 keys", |w| w.counts[1] = Some(1 << 60)),
        ("4096", |w| w.counts[1] = Some(4097)),
        ("part 2 of a model in 3 files", |w| {
            w.u32("split.count", 3).u32("split.no", 1);
        }),
    ]);
}

#[test]
fn metadata() {
    each(&[
        ("1152921504606846976 bytes expected at byte", |w| {
            w.keys
                .push((String::new(), value(TEXT, &(1u64 << 60).to_le_bytes())));
        }),
        ("metadata x: an array of arrays", |w| {
            w.key("x", array(ARRAY, 1, &array(U32, 0, &[])));
        }),
        ("metadata x|array of 1152921504606846976 texts", |w| {
            w.key("x", array(TEXT, 1 << 60, &[]));
        }),
        ("metadata x|bytes expected", |w| {
            w.key("x", array(F32, 1 << 60, &[]));
        }),
        ("metadata x|bytes expected", |w| {
            w.key("x", array(F32, u64::MAX, &[]));
        }),
        ("metadata x|array of type 77", |w| {
            w.key("x", array(77, 1, &[]));
        }),
        ("metadata x|value of type 13", |w| {
            w.key("x", value(13, &[]));
        }),
        ("metadata x|twice", |w| {
            w.u32("x", 1);
            w.keys.push(("x".into(), value(U32, &[0; 4])));
        }),
        ("metadata x|UTF-8", |w| {
            w.key("x", value(TEXT, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]));
        }),
        ("metadata key number 0|a text of 2000 bytes", |w| {
            w.keys.insert(0, ("k".repeat(2000), value(U32, &[0; 4])));
        }),
        ("more than 4194304 bytes of texts", |w| {
            for n in 0..80 {
                w.text(&n.to_string(), &"x".repeat(60_000));
            }
        }),
        ("general.alignment is 0", |w| {
            w.u32("general.alignment", 0);
        }),
        ("general.alignment is 24", |w| {
            w.u32("general.alignment", 24);
        }),
        ("general.alignment is \"32\"", |w| {
            w.text("general.alignment", "32");
        }),
    ]);
}

#[test]
fn tensors() {
    each(&[
        ("tensor token_embd.weight|1152921504606846976", |w| {
            w.tensor("token_embd.weight").shape[1] = 1 << 60;
        }),
        ("shape [18446744073709551615, 18446744073709551615]", |w| {
            w.tensor("token_embd.weight").shape = vec![u64::MAX; 2];
        }),
        ("shape [0, 8]", |w| {
            w.tensor("token_embd.weight").shape[0] = 0
        }),
        ("0 dimensions", |w| {
            w.tensor("output_norm.weight").shape.clear()
        }),
        ("5 dimensions", |w| {
            w.tensor("output_norm.weight").shape = vec![1; 5]
        }),
        ("tensor blk.0.ffn_up.weight|takes 768 bytes from", |w| {
            w.tensor("blk.0.ffn_up.weight").offset = 1 << 40;
        }),
        ("takes 768 bytes from", |w| {
            w.tensor("blk.0.ffn_up.weight").offset = u64::MAX - 31;
        }),
        ("not a multiple of 32", |w| {
            w.tensor("blk.0.ffn_up.weight").offset = 8
        }),
        ("overlaps", |w| {
            let gate = w.tensor("blk.0.ffn_gate.weight").offset;
            w.tensor("blk.0.ffn_up.weight").offset = gate;
        }),
        ("the name is there twice", |w| {
            w.tensor("blk.0.attn_k.weight").name = "blk.0.attn_q.weight".into();
        }),
        ("stored as Q2_K", |w| {
            w.tensor("blk.0.attn_k.weight").kind = 10
        }),
        ("stored as IQ4_NL", |w| {
            w.tensor("blk.0.attn_k.weight").kind = 20
        }),
        ("type 99, which is not known", |w| {
            w.tensor("blk.0.attn_k.weight").kind = 99
        }),
        ("rows of 16 numbers as Q8_0", |w| {
            w.tensor("blk.0.attn_k.weight").kind = 8
        }),
        ("tensor blk.0.attn_v.weight is missing", |w| {
            w.tensors.retain(|t| t.name != "blk.0.attn_v.weight");
        }),
        ("tensor blk.0.attn_norm.bias is not one", |w| {
            w.zeros("blk.0.attn_norm.bias", &[16]);
        }),
        ("tensor blk.0.attn_q_norm.bias is not one", |w| {
            w.zeros("blk.0.attn_q_norm.bias", &[8]);
        }),
        ("tensor output_norm.bias is not one", |w| {
            w.zeros("output_norm.bias", &[16]);
        }),
        ("tensor token_embd.weight is missing", |w| {
            w.tensors.retain(|t| t.name != "token_embd.weight");
        }),
        ("shape [16, 24], the metadata asks for [24, 16]", |w| {
            w.tensor("blk.0.ffn_down.weight").shape = vec![16, 24];
        }),
        ("blk.0.ffn_gate_inp.weight is not one that llama", |w| {
            w.zeros("blk.0.ffn_gate_inp.weight", &[16, 4]);
        }),
        (
            "blk.1.attn_norm.weight is not one that llama of 1 layers",
            |w| {
                w.zeros("blk.1.attn_norm.weight", &[16]);
            },
        ),
        ("blk.0.attn_q_norm.weight is not one that llama", |w| {
            w.zeros("blk.0.attn_q_norm.weight", &[8]);
        }),
        ("blk.0.attn_k.bias is missing", |w| {
            *w = llama([2, 16, 24, 2, 8]);
            w.zeros("blk.1.attn_k.bias", &[16]);
        }),
        ("token_embd.weight|[16, 8, 1, 1]", |w| {
            w.tensor("token_embd.weight").shape = vec![16, 8, 1, 1];
        }),
    ]);
}

#[test]
fn values_that_no_file_can_hold() {
    let folder = Folder::new();
    for (bits, words) in [(0x7e00u16, "NaN"), (0x7c00, "inf"), (0xfc00, "inf")] {
        let mut w = small();
        let at = w.tensor("blk.0.ffn_down.weight").offset as usize;
        w.data[at + 2..at + 4].copy_from_slice(&bits.to_le_bytes());
        let e = folder.refusal(&w.bytes());
        assert!(e.cause.contains("blk.0.ffn_down.weight[0, 1]"), "{e}");
        assert!(e.cause.contains(words), "{e}");
    }
    // A scale that is not finite, or too large for its values, where blocks are taken as they are.
    for (bits, cause) in [(0x7c00u16, "inf"), (0x7e00, "NaN"), (0x7bff, "limit")] {
        let mut w = llama([1, 32, 32, 2, 8]);
        let up = w.tensor("blk.0.ffn_up.weight");
        up.kind = 8;
        let at = up.offset as usize;
        w.data[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        w.data[at + 2] = 100;
        let mut o = folder.options(&w.bytes());
        o.group = 32;
        let e = refusal(&o);
        assert!(
            e.cause.contains("blk.0.ffn_up.weight") && e.cause.contains(cause),
            "{e}"
        );
    }
}

#[test]
fn architectures() {
    each(&[
        ("architecture \"gemma3\"", |w| {
            w.text("general.architecture", "gemma3");
        }),
        ("architecture \"\"", |w| {
            w.keys.retain(|(k, _)| k != "general.architecture")
        }),
        ("llama.block_count is missing", |w| {
            w.keys.retain(|(k, _)| k != "llama.block_count")
        }),
        ("llama.embedding_length is 0", |w| {
            w.u32("llama.embedding_length", 0);
        }),
        ("llama.expert_count: a mixture of 8", |w| {
            w.u32("llama.expert_count", 8);
        }),
        ("rope.dimension_count: 4, where a head has 8", |w| {
            w.u32("llama.rope.dimension_count", 4);
        }),
        ("rope.scaling.type is \"yarn\"", |w| {
            w.text("llama.rope.scaling.type", "yarn");
        }),
        ("llama.vocab_size: 9", |w| {
            w.u32("llama.vocab_size", 9);
        }),
        ("tokenizer.ggml.tokens has 9 tokens", |w| {
            w.key(
                "tokenizer.ggml.tokens",
                array(TEXT, 9, &text("a").repeat(9)),
            );
        }),
        ("tokenizer.ggml.eos_token_id 8 is outside", |w| {
            w.u32("tokenizer.ggml.eos_token_id", 8);
        }),
        ("llama.feed_forward_length is an array", |w| {
            w.key("llama.feed_forward_length", array(U32, 1, &[24, 0, 0, 0]));
        }),
        ("general.type is \"adapter\"", |w| {
            w.text("general.type", "adapter");
        }),
        ("rope.scaling.factor: -2", |w| {
            w.key(
                "llama.rope.scaling.factor",
                value(F32, &(-2f32).to_le_bytes()),
            );
        }),
    ]);
}

#[test]
fn version_2() {
    let folder = Folder::new();
    let mut w = small();
    let three = pack(&folder.options(&w.bytes()), &mut Silent).expect("packs");
    w.version = 2;
    let two = pack(&folder.options(&w.bytes()), &mut Silent).expect("packs");
    assert!(two.bytes == three.bytes);
}

/// A tokenizer that is not there, or not supported, leaves a model for token ids.
#[test]
fn without_a_tokenizer() {
    let folder = Folder::new();
    let bert: Change = |w| {
        w.text("tokenizer.ggml.model", "bert");
    };
    let none: Change = |_| ();
    for (change, word) in [(none, "no tokenizer"), (bert, "bert")] {
        let mut w = small();
        change(&mut w);
        let mut heard = crate::common::Heard::default();
        pack(&folder.options(&w.bytes()), &mut heard).expect("packs");
        assert!(
            heard.notes.iter().any(|n| n.contains(word)),
            "{:?}",
            heard.notes
        );
    }
    let mut w = small();
    w.text("tokenizer.chat_template", &"x".repeat(70_000));
    let mut heard = crate::common::Heard::default();
    pack(&folder.options(&w.bytes()), &mut heard).expect("packs");
    assert!(
        heard.notes.iter().any(|n| n.contains("70000 bytes")),
        "{:?}",
        heard.notes
    );
}

/// One that contradicts itself is a damaged file, whatever its kind.
#[test]
fn a_broken_tokenizer() {
    let tokens = |w: &mut Writer, list: [&str; 3]| {
        let items: Vec<u8> = list.iter().flat_map(|t| text(t)).collect();
        w.key("tokenizer.ggml.tokens", array(TEXT, 3, &items));
    };
    let folder = Folder::new();
    for model in ["llama", "gpt2", "bert"] {
        for (list, scores, words) in [
            (
                ["a", "b", "c"],
                2,
                "tokenizer.ggml.scores: 2 entries for 3 tokens",
            ),
            (
                ["a", "b", "a"],
                3,
                "tokenizer.ggml.tokens: 0 and 2 are both \"a\"",
            ),
        ] {
            let mut w = small();
            w.text("tokenizer.ggml.model", model);
            tokens(&mut w, list);
            let zeros = vec![0; 4 * scores as usize];
            w.key("tokenizer.ggml.scores", array(F32, scores, &zeros));
            let e = folder.refusal(&w.bytes());
            assert!(e.cause.contains(words), "{e}");
        }
    }
}

#[test]
fn cut_at_every_byte() {
    let folder = Folder::new();
    let w = small();
    let bytes = w.bytes();
    // After the header a tensor misses its end, and the last one's padding may go.
    let ends = (0..w.header().len()).chain((w.header().len()..bytes.len() - 32).step_by(97));
    for end in ends {
        folder.refusal(&bytes[..end]);
    }
}

#[test]
fn every_byte_of_the_header_changed() {
    let folder = Folder::new();
    let w = small();
    let (bytes, header) = (w.bytes(), w.header().len());
    let mut refused = 0;
    for at in 0..header {
        for new in [0, 0xff, bytes[at] ^ 1] {
            let mut changed = bytes.clone();
            changed[at] = new;
            match pack(&folder.options(&changed), &mut Silent) {
                Ok(_) => {}
                Err(e) => {
                    assert_eq!(e.kind, Kind::Refused, "byte {at} = {new}: {e}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > header / 2, "{refused} of {}", 3 * header);
}

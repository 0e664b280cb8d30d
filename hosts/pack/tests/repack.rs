//! Moving a file to another layout gives what packing for it gives.

mod common;

use common::reader::File;
use common::{AlignedCopy, Heard, base_of, cases, fixtures};
use pleach::kernels::layout::Layout;
use pleach::{Blob, ExpertFile, Model};
use pleach_pack::{
    AdapterQuant, BaseQuant, PackError, PackOptions, Progress, Repacked, Silent, Target, pack,
    pack_expert, pack_expert_for, repack, repack_expert,
};
use std::path::{Path, PathBuf};

const BASE: u16 = 2;

fn packed(o: &PackOptions, target: Target) -> Vec<u8> {
    let mut o = o.clone();
    o.target = target;
    pack(&o, &mut Silent)
        .unwrap_or_else(|e| panic!("{e}"))
        .bytes
}

/// `f` with the model in these bytes.
fn with<R>(bytes: &[u8], f: impl FnOnce(&Model<'_>) -> R) -> R {
    let copy = AlignedCopy::of(bytes);
    let model = Blob::new(copy.get()).and_then(Model::parse);
    f(&model.expect("a model"))
}

fn moved(bytes: &[u8], target: Target) -> Result<Repacked, PackError> {
    with(bytes, |m| {
        let mut heard = Heard::default();
        let done = repack(Path::new("in.pleach"), m, target, &mut heard);
        if done.is_ok() {
            assert!(heard.total > 0 && heard.done <= heard.total, "{heard:?}");
        }
        done
    })
}

fn xlora(case: &Path) -> PackOptions {
    let base = match case.ends_with("xlora-intent/xlora") {
        true => case.join("../base"),
        false => base_of(case),
    };
    let mut o = PackOptions::new(base);
    o.xlora = Some(case.into());
    o
}

/// Every case of PEFT and the intent model, each in one kind of storage.
fn all() -> Vec<(PathBuf, PackOptions)> {
    let mut all = cases();
    all.push(fixtures().join("xlora-intent/xlora"));
    let kinds = [
        (BaseQuant::Q8, None, 64),
        (BaseQuant::F16, Some(AdapterQuant::Q8), 32),
        (BaseQuant::Q8, Some(AdapterQuant::F32), 128),
        (BaseQuant::F16, None, 64),
        (BaseQuant::Q8, None, 256),
    ];
    let storage = kinds.iter().cycle();
    all.into_iter()
        .zip(storage)
        .map(|(case, (quant, adapters, group))| {
            let mut o = xlora(&case);
            (o.quant, o.adapter_quant, o.group) = (*quant, *adapters, *group);
            (case, o)
        })
        .collect()
}

#[test]
fn is_packing_for_the_target() {
    for (case, o) in all() {
        let files = Target::ALL.map(|t| packed(&o, t));
        for (from, file) in Target::ALL.iter().zip(&files) {
            for (to, expected) in Target::ALL.iter().zip(&files) {
                let out = moved(file, *to).unwrap_or_else(|e| panic!("{e}"));
                let what = format!("{}: {} to {}", case.display(), from.name(), to.name());
                assert!(out.bytes == *expected, "{what}");
                // Without q8 the parts with SIMD have nothing of their own.
                let q8 = o.quant == BaseQuant::Q8 || o.adapter_quant == Some(AdapterQuant::Q8);
                let plain = matches!(from, Target::CortexM | Target::Mve) && !q8;
                let of = if plain { Target::Portable } else { *from };
                assert_eq!(out.from, Some(of), "{what}");
            }
        }
    }
}

/// What a bar was told.
#[derive(Default)]
struct Seen {
    total: Vec<u64>,
    done: u64,
}

impl Progress for Seen {
    fn start(&mut self, total: u64) {
        self.total.push(total);
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
    }

    fn note(&mut self, _: &str) {}
}

/// The model or an expert file of it: bound to the same base, in any layout.
#[test]
fn expert_files_move_with_either_model_file() {
    let case = fixtures().join("peft/case-six-experts-top3");
    for (quant, adapters) in [
        (BaseQuant::Q8, None),
        (BaseQuant::F16, Some(AdapterQuant::Q8)),
    ] {
        let mut o = xlora(&case);
        (o.quant, o.adapter_quant) = (quant, adapters);
        let models = Target::ALL.map(|t| packed(&o, t));
        let experts = Target::ALL.map(|t| {
            let mut o = o.clone();
            o.target = t;
            pack_expert(&o, "2", &mut Silent).expect("packs").bytes
        });
        for from in &experts {
            let copy = AlignedCopy::of(from);
            let file = Blob::new(copy.get()).and_then(ExpertFile::parse);
            let file = file.expect("an expert");
            for model in &models {
                for ((to, expected), whole) in Target::ALL.iter().zip(&experts).zip(&models) {
                    let mut seen = Seen::default();
                    let out = with(model, |m| {
                        let place = (Path::new("m.pleach"), m);
                        let expert = (Path::new("e.pleachx"), &file);
                        repack_expert(expert, place, *to, &mut seen)
                    });
                    let out = out.unwrap_or_else(|e| panic!("{e}")).bytes;
                    // Each byte once: the expert's panels say at once in which layout its base is.
                    let (total, rest) = (seen.total.iter().sum::<u64>(), copy.get().len() as u64);
                    assert_eq!(seen.total.len(), 1);
                    assert!(total - seen.done < rest, "{} of {total}", seen.done);
                    assert!(out == *expected, "{}", to.name());
                    with(whole, |m| {
                        let copy = AlignedCopy::of(&out);
                        let e = Blob::new(copy.get()).and_then(ExpertFile::parse);
                        let e = [e.expect("an expert")];
                        assert!(e[0].knows_classifier(m));
                        m.with_experts(&e)
                            .and_then(|m| m.verify())
                            .expect("belongs");
                    });
                }
            }
        }
    }
}

/// An expert for a model file lies as the file does.
#[test]
fn an_expert_is_packed_for_the_layout_of_its_model() {
    let case = fixtures().join("peft/case-six-experts-top3");
    for quant in [BaseQuant::Q8, BaseQuant::F16] {
        for target in Target::ALL {
            let mut o = xlora(&case);
            (o.quant, o.adapter_quant, o.target) = (quant, Some(AdapterQuant::Q8), target);
            let whole = pack_expert(&o, "2", &mut Silent).expect("packs").bytes;
            let folder = fixtures().join("peft/experts/llama-c");
            let alone = with(&packed(&o, target), |m| {
                let expert = ("2", folder.as_path());
                pack_expert_for((Path::new("m.pleach"), m), expert, None, &mut Silent)
            });
            let alone = alone.unwrap_or_else(|e| panic!("{e}")).bytes;
            assert!(alone == whole, "{}", target.name());
        }
    }
}

/// An expert that was packed with another classifier goes on to say so.
#[test]
fn an_expert_of_another_classifier_stays_one() {
    let o = xlora(&fixtures().join("peft/case-six-experts-top3"));
    let mut expert = pack_expert(&o, "2", &mut Silent).expect("packs").bytes;
    expert[40] ^= 1;
    let crc = pleach::hash::crc32(&expert[..56]).to_le_bytes();
    expert[56..60].copy_from_slice(&crc);
    let copy = AlignedCopy::of(&expert);
    let file = Blob::new(copy.get()).and_then(ExpertFile::parse);
    let file = file.expect("an expert");
    let moved = with(&packed(&o, Target::Linux), |m| {
        let expert = (Path::new("e.pleachx"), &file);
        repack_expert(expert, (Path::new("m.pleach"), m), Target::Mve, &mut Silent)
    });
    let moved = moved.unwrap_or_else(|e| panic!("{e}")).bytes;
    assert_eq!(moved[40..48], expert[40..48]);
    let copy = AlignedCopy::of(&moved);
    let file = Blob::new(copy.get()).and_then(ExpertFile::parse);
    let file = [file.expect("an expert")];
    with(&packed(&o, Target::Mve), |m| {
        assert!(!file[0].knows_classifier(m));
        let m = m.with_experts(&file).expect("belongs");
        m.verify().expect("sound");
    });
}

#[test]
fn an_expert_of_another_base_is_refused() {
    let [ours, theirs] = ["case-six-experts-top3", "case-qwen2-embedding"]
        .map(|c| xlora(&fixtures().join("peft").join(c)));
    let expert = pack_expert(&ours, "2", &mut Silent).expect("packs").bytes;
    let copy = AlignedCopy::of(&expert);
    let file = Blob::new(copy.get()).and_then(ExpertFile::parse);
    let file = file.expect("an expert");
    let e = with(&packed(&theirs, Target::Linux), |m| {
        let expert = (Path::new("e.pleachx"), &file);
        repack_expert(expert, (Path::new("m.pleach"), m), Target::Mve, &mut Silent)
    });
    let e = e.expect_err("another base");
    assert!(
        e.cause
            .starts_with("e.pleachx: it is bound to another base"),
        "{e}"
    );
    assert!(
        e.cause.contains("m.pleach") && e.cure.contains("--model"),
        "{e}"
    );
    // The right base, but a damaged panel.
    let mut bytes = expert.clone();
    *bytes.last_mut().expect("bytes") ^= 1;
    let copy = AlignedCopy::of(&bytes);
    let file = Blob::new(copy.get()).and_then(ExpertFile::parse);
    let file = file.expect("its header is sound");
    for target in Target::ALL {
        let e = with(&packed(&ours, target), |m| {
            let expert = (Path::new("e.pleachx"), &file);
            repack_expert(expert, (Path::new("m.pleach"), m), Target::Mve, &mut Silent)
        });
        let e = e.expect_err("damage");
        assert!(
            e.cause.starts_with("e.pleachx: ") && e.cause.contains("CRC"),
            "{e}"
        );
    }
}

/// The base is the same: sites, group or classes are not.
#[test]
fn an_expert_of_another_model_is_refused() {
    let packed_as = |case: &str, group: u32| {
        let mut o = xlora(&fixtures().join("peft").join(case));
        // The group of a base in f16 is that of its experts alone.
        (o.quant, o.group) = (BaseQuant::F16, group);
        o
    };
    let plain = packed_as("case-plain", 64);
    let cases = [
        (
            &plain,
            "0",
            packed_as("case-embedding-site", 64),
            "it is bound to another table of sites",
        ),
        (
            &plain,
            "0",
            packed_as("case-plain", 32),
            "its groups are of 64, those of m.pleach of 32",
        ),
        (
            &packed_as("case-layerwise-top2", 64),
            "3",
            packed_as("case-plain", 64),
            "it is expert 3, m.pleach has 2, numbered from 0",
        ),
    ];
    for (ours, key, theirs, why) in cases {
        let expert = pack_expert(ours, key, &mut Silent).expect("packs").bytes;
        let copy = AlignedCopy::of(&expert);
        let file = Blob::new(copy.get()).and_then(ExpertFile::parse);
        let file = file.expect("an expert");
        for layout in Target::ALL {
            let e = with(&packed(&theirs, layout), |m| {
                let expert = (Path::new("e.pleachx"), &file);
                repack_expert(expert, (Path::new("m.pleach"), m), Target::Mve, &mut Silent)
            });
            let e = e.expect_err(why);
            assert!(e.cause.starts_with(&format!("e.pleachx: {why}")), "{e}");
            assert_eq!(
                e.cure,
                "pass the model file that the expert was packed for: --model FILE"
            );
        }
    }
}

/// Damage is not sealed.
#[test]
fn damage_is_refused() {
    let file = packed(&xlora(&fixtures().join("peft/case-plain")), Target::Linux);
    let sections = File::read(&file).sections;
    let at = |bytes: &[u8]| {
        file.windows(bytes.len())
            .position(|w| w == bytes)
            .expect("a section")
    };
    for (kind, index, bytes) in sections {
        let mut damaged = file.clone();
        damaged[at(&bytes) + bytes.len() - 1] ^= 1;
        let copy = AlignedCopy::of(&damaged);
        // Some damage is found by parse already.
        let Ok(model) = Blob::new(copy.get()).and_then(Model::parse) else {
            continue;
        };
        let e = repack(Path::new("in.pleach"), &model, Target::Mve, &mut Silent);
        let e = e.expect_err("damage");
        assert!(
            e.cause.starts_with("in.pleach: ") && e.cure.contains("damaged"),
            "{kind} {index}: {e}"
        );
    }
}

/// -128 beside a negative weight has no place in m4: such tensors lie in rows, and lose nothing.
#[test]
fn weights_of_minus_128_survive() {
    let gguf = fixtures().join("gguf/exact.gguf");
    let mut o = PackOptions::new(gguf);
    o.group = 32;
    let files = Target::ALL.map(|t| packed(&o, t));
    let m4 = File::read(&files[1]);
    let weights =
        |f: &File| -> Vec<Vec<f32>> { f.tensors(BASE).iter().map(|t| t.values(f.group)).collect() };
    let q8 = m4.tensors(BASE).into_iter().filter(|t| t.dtype == 1);
    let layouts: Vec<u8> = q8.map(|t| t.layout).collect();
    assert!(layouts.contains(&(Layout::Rows as u8)), "{layouts:?}");
    for file in &files {
        assert_eq!(weights(&File::read(file)), weights(&m4));
        for (to, expected) in Target::ALL.iter().zip(&files) {
            assert!(moved(file, *to).expect("moves").bytes == *expected);
        }
    }
}

/// A halfword of m4 may hold 128; nothing else can.
#[test]
fn a_weight_of_128_is_refused_where_it_does_not_fit() {
    let mut o = xlora(&fixtures().join("peft/case-plain"));
    o.quant = BaseQuant::Q8;
    let file = packed(&o, Target::CortexM);
    let base = File::read(&file).section(BASE).to_vec();
    let start = file
        .windows(base.len())
        .position(|w| w == base)
        .expect("base");
    let t = File::read(&file).tensors(BASE);
    let first = &t[t.iter().position(|t| t.layout == 4).expect("m4")];
    let at = file
        .windows(first.bytes.len())
        .position(|w| w == first.bytes)
        .expect("a tensor");
    let mut bad = file.clone();
    // 0x7fff = 256 * 128 - 1, the last halfword of the tile's first row.
    let groups = first.cols.div_ceil(64);
    let scales = (8 * groups).next_multiple_of(16);
    bad[at + scales..at + scales + 2].copy_from_slice(&[0xff, 0x7f]);
    seal(&mut bad, start..start + base.len());
    let e = moved(&bad, Target::Linux).expect_err("128");
    assert!(
        e.cause.contains("base tensor 0") && e.cause.contains("128"),
        "{e}"
    );
    // In its own layout too: nothing is moved that cannot be read everywhere.
    assert!(moved(&bad, Target::CortexM).is_err());
}

/// New hashes and checksums for a base of the same length.
fn seal(file: &mut [u8], base: std::ops::Range<usize>) {
    use pleach::hash::{crc32, fnv1a};
    let hash = fnv1a(&file[base.clone()]).to_le_bytes();
    file[24..32].copy_from_slice(&hash);
    let n = u16::from_le_bytes([file[10], file[11]]) as usize;
    for row in 0..n {
        let at = 64 + 32 * row;
        let word =
            |f: &[u8], i: usize| u64::from_le_bytes(f[i..i + 8].try_into().expect("8")) as usize;
        let (offset, length) = (word(file, at + 8), word(file, at + 16));
        if file[at] == 6 {
            file[offset + 24..offset + 32].copy_from_slice(&hash);
            let crc = crc32(&file[offset..offset + 56]).to_le_bytes();
            file[offset + 56..offset + 60].copy_from_slice(&crc);
        }
        let crc = crc32(&file[offset..offset + length]).to_le_bytes();
        file[at + 4..at + 8].copy_from_slice(&crc);
    }
    let crc = crc32(&file[64..64 + 32 * n]).to_le_bytes();
    file[48..52].copy_from_slice(&crc);
    let crc = crc32(&file[..60]).to_le_bytes();
    file[60..64].copy_from_slice(&crc);
}

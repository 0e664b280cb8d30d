//! Layouts: the same model gives the same bits in all of them, alone and mixed, and a tensor that cannot lie as
//! its tag says is refused.

use parity::adversarial::{RECIPES, Recipe};
use parity::mutate::mutate;
use parity::random::Random;
use parity::reseal::{self, Section};
use parity::subject::Subject;
use parity::{File, Guesses, Mode, Setup, Storage, Text, fixture, run};
use pleach::blob::format::{SectionKind, TensorEntry};
use pleach::kernels::layout::{Dtype, Layout, packed_size};
use pleach::{Blob, Error, KvType, Model, Speculate};
use pleach_pack::{AdapterQuant, Silent, Target, repack};
use std::collections::BTreeSet;

/// Model files in the four layouts, and one whose sections are each in another.
fn layouts(subject: &Subject, storage: Storage) -> Vec<(&'static str, File)> {
    let files = Target::ALL.map(|t| (t.name(), subject.file(storage.target(t))));
    let sections = |n: usize| reseal::sections(files[n].1.bytes());
    let all: Vec<Vec<Section>> = (0..4).map(sections).collect();
    let [linux, cortex_m, mve, portable] = [0, 1, 2, 3];
    let from = |s: &Section| match (s.kind, s.index) {
        (SectionKind::Base, _) => cortex_m,
        (SectionKind::Classifier, _) => portable,
        (SectionKind::Expert, 0) => linux,
        (SectionKind::Expert, 1) => portable,
        (SectionKind::Expert, _) => mve,
        _ => linux,
    };
    let mixed: Vec<Section> = (0..all[linux].len())
        .map(|n| all[from(&all[linux][n])][n].clone())
        .collect();
    let mut files = Vec::from(files);
    files.push(("mixed", File::new(&reseal::assemble(&mixed))));
    files
}

/// The modes that take a kernel's columns from 1 to many, and its rows in pieces.
fn modes() -> [Mode; 4] {
    [
        Mode::NAIVE,
        Mode::whole(7).speculating(Speculate::Held, Guesses::Natural),
        Mode::whole(32).threads(2),
        Mode::whole(2).budget(1),
    ]
}

fn one_hash(subject: &Subject) {
    let mut storages = subject.storages.clone();
    // q8 adapters over a base that lies in rows.
    storages.push(Storage {
        adapters: AdapterQuant::Q8,
        ..storages[0]
    });
    for storage in storages {
        let text = Text::new(&subject.prompt, 4);
        let mut first = None;
        for (layout, file) in layouts(subject, storage) {
            let model = file.model();
            model.verify().expect("sound");
            for mode in modes() {
                let name = format!(
                    "{} {} {layout}, {}",
                    subject.name,
                    storage.bits_name(),
                    mode.name()
                );
                let trace = run(model, &mode, &Setup::exact(KvType::F32), &text);
                let trace = trace.unwrap_or_else(|e| panic!("{name}: {e}"));
                let first = first.get_or_insert_with(|| trace.clone());
                if let Some(d) = first.difference(&trace, model.n_experts()) {
                    panic!("{name}: not the bits of linux\n  {d}");
                }
            }
        }
        let hash = first.map_or(0, |t| t.hash());
        println!(
            "{} {} {hash:016x} in 4 layouts and mixed",
            subject.name,
            storage.bits_name()
        );
    }
}

#[test]
fn intent() {
    one_hash(&Subject::intent());
}

#[test]
fn cases() {
    Subject::cases().iter().for_each(one_hash);
}

#[test]
fn families() {
    Subject::families().iter().for_each(one_hash);
}

/// Odd sizes, -128, zeros.
#[test]
fn adversarial() {
    Subject::adversarial().iter().for_each(one_hash);
}

/// Groups of all sizes, over columns that are no multiple of them.
#[test]
fn groups() {
    let [odd, zeros, ..] = RECIPES;
    for recipe in [odd, zeros] {
        for group in [32, 64, 128, 256] {
            let prompt = recipe.prompt(9);
            let hashes = Target::ALL.map(|target| {
                let file = recipe.file(Storage::Q8.group(group).target(target));
                let text = Text::new(&prompt, 2);
                let trace = run(
                    file.model(),
                    &Mode::NAIVE,
                    &Setup::exact(KvType::F32),
                    &text,
                );
                trace.unwrap().hash()
            });
            assert_eq!(hashes, [hashes[0]; 4], "{} {group}", recipe.name);
        }
    }
}

#[test]
fn a_mixed_file_is_for_nobody_and_can_be_repacked() {
    let subject = Subject::intent();
    let all = layouts(&subject, Storage::Q8);
    let mixed = &all[4].1;
    assert_eq!(Target::of(&mixed.model()), None);
    for (target, (name, file)) in Target::ALL.into_iter().zip(&all) {
        let model = file.model();
        assert_eq!(Target::of(&model), Some(target));
        let moved = repack("mixed".as_ref(), &mixed.model(), target, &mut Silent);
        let moved = moved.unwrap().bytes;
        assert!(moved == file.bytes(), "{name}");
    }
}

/// Damaged files, every checksum recomputed: what repack takes, its result verifies and has the same answer.
#[test]
fn damaged_files_are_refused_or_moved() {
    let bases = [
        fixture::intent(Storage::Q8),
        RECIPES[0].file(Storage::Q8.group(32).target(Target::CortexM)),
        raw().file(Storage::F16.group(32)),
        raw().file(Storage::Q8.group(32).target(Target::Mve)),
    ];
    let (mut moved, mut refused, mut answers) = (0, 0, 0);
    for (n, base) in bases.iter().enumerate() {
        for seed in 0..400 {
            let mut random = Random::new(seed);
            let mut damaged = mutate(base.bytes(), &mut random);
            reseal::bind(&mut damaged);
            reseal::seal(&mut damaged);
            let file = File::new(&damaged);
            let Ok(model) = Blob::new(file.bytes()).and_then(Model::parse) else {
                continue;
            };
            let target = random.pick(&Target::ALL);
            let Ok(out) = repack("damaged".as_ref(), &model, target, &mut Silent) else {
                refused += 1;
                continue;
            };
            moved += 1;
            let what = format!("base {n}, seed {seed}");
            let out = File::new(&out.bytes);
            assert_eq!(out.model().verify(), Ok(()), "{what}");
            let text = Text::new(&[1, 2, 3], 2);
            let setup = Setup::exact(KvType::F32);
            let [old, new] = [model, out.model()].map(|m| run(m, &Mode::NAIVE, &setup, &text));
            match (old, new) {
                (Ok(old), Ok(new)) => {
                    answers += 1;
                    assert_eq!(old.difference(&new, model.n_experts()), None, "{what}");
                }
                (old, new) => assert_eq!(old.err(), new.err(), "{what}"),
            }
        }
    }
    println!("{moved} moved, {answers} with an answer, {refused} refused");
    assert!(moved > 200 && answers > 100 && refused > 20);
}

/// Why a damaged file is refused; `None` if it passes.
fn refusal(bytes: &[u8]) -> Option<Error> {
    let file = File::new(bytes);
    Blob::new(file.bytes()).and_then(Model::parse).err()
}

/// `f` with a section, sealed afterwards.
fn with(file: &File, kind: SectionKind, class: u16, f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut sections = reseal::sections(file.bytes());
    let found = sections
        .iter_mut()
        .find(|s| (s.kind, s.index) == (kind, class));
    f(&mut found.expect("the section").bytes);
    reseal::assemble(&sections)
}

/// Odd sizes, an untied head, biases, an embedding site.
fn raw() -> Recipe {
    let raw = RECIPES.into_iter().find(|r| r.name == "raw");
    raw.expect("a recipe")
}

/// What `parse` says of a legal layout in which the tensor takes as many bytes, or others. The former is other
/// numbers, and harmless.
fn by_size(same: bool, why: &'static str) -> Option<&'static str> {
    (!same).then_some(why)
}

/// Every tag at every tensor of the base.
#[test]
fn layout_tags_of_the_base() {
    let (raw, mut kinds) = (raw(), BTreeSet::new());
    for storage in [Storage::Q8, Storage::F16] {
        for target in Target::ALL {
            let file = raw.file(storage.group(raw.group).target(target));
            let count = (0..).map_while(|n| file.model().base_tensor(n)).count();
            for n in 0..count {
                let at = 16 + 32 * n;
                let entry = |b: &[u8]| TensorEntry::decode(b[at..].first_chunk().unwrap());
                let base = reseal::sections(file.bytes())
                    .into_iter()
                    .find(|s| s.kind == SectionKind::Base);
                let e = entry(&base.unwrap().bytes);
                for tag in (0..=8).chain([0x7f, 0xff]).filter(|t| *t != e.layout) {
                    let bytes = with(&file, SectionKind::Base, 0, |b| b[at + 29] = tag);
                    let layout = Layout::from_tag(tag);
                    let illegal = Some("a dtype or layout that is not legal here");
                    let why = match layout {
                        None => Some("a dtype or layout that this build does not know"),
                        Some(Layout::R4K4) => illegal,
                        Some(Layout::M4 | Layout::R4K16) if e.dtype != 1 => illegal,
                        // Vectors are one row of f32.
                        Some(_) if e.dtype == 3 => illegal,
                        Some(l) => {
                            let dtype = Dtype::from_tag(e.dtype).unwrap();
                            let group = raw.group as usize;
                            let size =
                                packed_size(dtype, l, e.rows as usize, e.cols as usize, group);
                            by_size(size as u64 == e.length, "its length does not fit its shape")
                        }
                    };
                    let found = refusal(&bytes);
                    let (section, index) = (SectionKind::Base, n as u16);
                    let expected = why.map(|why| Error::Tensor {
                        section,
                        index,
                        why,
                    });
                    assert_eq!(found, expected, "tensor {n} of {} as {tag}", target.name());
                    kinds.insert(why);
                }
            }
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

/// The same for A.
#[test]
fn layout_tags_of_a_panels() {
    let (raw, mut kinds) = (raw(), BTreeSet::new());
    for adapters in [AdapterQuant::Q8, AdapterQuant::F16, AdapterQuant::F32] {
        for target in Target::ALL {
            let storage = Storage {
                adapters,
                ..Storage::Q8.group(raw.group).target(target)
            };
            let file = raw.file(storage);
            let model = file.model();
            let sites = (0..model.n_experts())
                .flat_map(|class| (0..model.n_sites()).map(move |n| (class, n)));
            for (class, n) in sites {
                let expert = model.expert(class).expect("an expert");
                if expert.rank(n) == 0 {
                    continue;
                }
                let class = class as u16;
                let site = model.site(n).expect("a site");
                let a = expert.lora(&site).expect("panels").a;
                let embed = site.module == pleach::blob::format::Module::Embed;
                let q8 = a.dtype() as u8 == 1;
                for tag in 0..=7u8 {
                    if tag == a.layout() as u8 {
                        continue;
                    }
                    let bytes = with(&file, SectionKind::Expert, class, |b| {
                        b[64 + 32 * n + 23] = tag
                    });
                    let layout = Layout::from_tag(tag);
                    let illegal =
                        Some("the layout of A must be rows or r4k4, or m4 or r4k16 for q8");
                    let why = match layout {
                        None => Some("a dtype or layout that this build does not know"),
                        Some(_) if embed => {
                            Some("A of an embedding site must be f16 or f32 in plain rows")
                        }
                        Some(Layout::R16K4) => illegal,
                        Some(Layout::M4 | Layout::R4K16) if !q8 => illegal,
                        Some(l) => {
                            let group = raw.group as usize;
                            let size = packed_size(a.dtype(), l, a.rows(), a.cols(), group);
                            by_size(size == a.bytes(), "a panel's length does not fit its shape")
                        }
                    };
                    let site = Some(n as u16);
                    let expected = why.map(|why| Error::Expert { class, site, why });
                    assert_eq!(refusal(&bytes), expected, "site {n} as {tag}");
                    kinds.insert(why);
                }
            }
        }
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

/// The classifier is never q8: m4 and r4k16 are refused.
#[test]
fn layout_tags_of_the_classifier() {
    let file = fixture::intent(Storage::Q8);
    let (unknown, illegal) = ("not know", "not legal");
    for (tag, words) in [
        (0, unknown),
        (3, illegal),
        (4, illegal),
        (5, illegal),
        (6, unknown),
    ] {
        let bytes = with(&file, SectionKind::Classifier, 0, |b| b[16 + 29] = tag);
        let why = refusal(&bytes).expect("refused").why();
        assert!(why.contains(words), "{tag}: {why}");
    }
}

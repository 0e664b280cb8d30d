//! Experts as files: the bytes of a section are the bytes of a file, bound to its base by hashes.

use parity::{Case, File, Storage};
use pleach::blob::format::SectionKind;
use pleach::{Blob, Error, ExpertFile, Inline, Kernels, KvType, Model, Session, SessionOptions};

/// The bytes of an expert's section: what an expert file holds.
fn section(file: &File, class: u16) -> File {
    let mut at = 0u64;
    let n = file.model().sections().count();
    let mut end = 64 + 32 * n as u64;
    for (kind, index, length) in file.model().sections() {
        at = end.next_multiple_of(64);
        end = at + length;
        if kind == SectionKind::Expert && index == class {
            return File::new(&file.bytes()[at as usize..end as usize]);
        }
    }
    panic!("no expert {class} before {at}")
}

fn parse(file: &File) -> ExpertFile<'_> {
    ExpertFile::parse(Blob::new(file.bytes()).unwrap()).unwrap()
}

fn logits(model: Model<'_>) -> Vec<u32> {
    let options = SessionOptions {
        kv: KvType::F32,
        chunk: 8,
        ..SessionOptions::DEFAULT
    };
    let mut arena = pleach_linux::Arena::new(model.arena_bytes(&options)).unwrap();
    let mut session = Session::new(model, &options, arena.bytes()).unwrap();
    session.push(&[5, 9, 77, 3, 5, 200]).unwrap();
    session.run(Kernels::portable(), &mut Inline).unwrap();
    let logits = session.logits().unwrap();
    logits.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_file_of_the_same_bytes_gives_the_same_answer() {
    let file = Case::open("case-layerwise-top2").pack(Storage::Q8);
    let part = section(&file, 2);
    let experts = [parse(&part)];
    let model = file.model().with_experts(&experts).unwrap();
    assert!(experts[0].knows_classifier(&model));
    assert_eq!(
        model.expert(2).unwrap().name(),
        file.model().expert(2).unwrap().name()
    );
    assert_eq!(logits(model), logits(file.model()));
    model.verify().unwrap();
    assert!(model.with_experts(&experts).is_err(), "all files at once");
}

#[test]
fn verify_reads_replaced_experts_too() {
    let file = Case::open("case-layerwise-top2").pack(Storage::Q8);
    let part = section(&file, 1);
    let mut damaged = part.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 0x55;
    let damaged = File::new(&damaged);
    let experts = [parse(&damaged)];
    let model = file.model().with_experts(&experts).unwrap();
    assert!(matches!(model.verify(), Err(Error::Crc { .. })));
}

#[test]
fn a_retrained_expert_replaces_the_old_one() {
    // The same adapters in another class order: class 0 of the second file is class 1 of the first.
    let case = Case::open("case-plain");
    let experts = case.experts();
    let swapped = [("0", &experts[1]), ("1", &experts[0])];
    let mut options = Storage::F16.options(case.base(), Some(case.folder.clone()));
    options.adapters = swapped.map(|(k, d)| (k.to_string(), d.clone())).to_vec();
    let (first, second) = (case.pack(Storage::F16), File::pack(&options));
    let parts = [section(&second, 0), section(&second, 1)];
    let files = [parse(&parts[0]), parse(&parts[1])];
    let model = first.model();
    let replaced = model.with_experts(&files).unwrap();
    assert_eq!(logits(replaced), logits(second.model()));
    assert_ne!(logits(model), logits(second.model()));
}

/// The file of class 0 is named like the key of class 1; keys come first, and each class can be reached.
#[test]
fn a_key_is_found_before_a_name() {
    let case = Case::open("case-plain");
    let file = case.pack(Storage::F16);
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("1");
    std::fs::create_dir(&folder).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(case.experts()[0].join(name), folder.join(name)).unwrap();
    }
    let mut options = Storage::F16.options(case.base(), Some(case.folder.clone()));
    options.xlora = None;
    let other = ("other".to_string(), case.experts()[1].clone());
    options.adapters = vec![("0".into(), folder), other];
    let part = section(&File::pack(&options), 0);
    let files = [parse(&part)];
    let model = file.model().with_experts(&files).unwrap();
    let names = |class| model.expert(class).map(|e| (e.key(), e.name()));
    assert_eq!(names(0), Some(("0", "1")));
    assert_eq!(names(1).map(|n| n.0), Some("1"));
    assert_eq!(model.find_expert("0"), Some(0));
    assert_eq!(model.find_expert("1"), Some(1));
    assert_eq!(model.find_expert(names(1).unwrap().1), Some(1));
    assert_eq!(model.find_expert("2"), None);
}

#[test]
fn files_of_another_model_are_refused() {
    let llama = Case::open("case-layerwise-top2").pack(Storage::F16);
    let qwen = Case::open("case-qwen2").pack(Storage::F16);
    let part = section(&qwen, 0);
    let files = [parse(&part)];
    assert_eq!(
        llama.model().with_experts(&files).unwrap_err(),
        Error::Expert {
            class: 0,
            site: None,
            why: "it is bound to another base"
        }
    );
    let part = section(&llama, 1);
    let twice = [parse(&part), parse(&part)];
    assert!(llama.model().with_experts(&twice).is_err());
    let fewer = Case::open("case-plain").pack(Storage::F16);
    let part = section(&llama, 3);
    let files = [parse(&part)];
    let e = fewer.model().with_experts(&files).unwrap_err();
    assert!(
        matches!(
            e,
            Error::Expert {
                class: 3,
                site: None,
                ..
            }
        ),
        "{e}"
    );
}

#[test]
fn cut_and_changed_files_are_refused() {
    let file = section(&Case::open("case-plain").pack(Storage::Q8), 0);
    let bytes = file.bytes();
    for cut in [0, 7, 63, 64, bytes.len() - 1] {
        let part = File::new(&bytes[..cut]);
        assert!(
            ExpertFile::parse(Blob::new(part.bytes()).unwrap()).is_err(),
            "cut at {cut}"
        );
    }
    for at in 0..60 {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        let changed = File::new(&changed);
        assert!(
            ExpertFile::parse(Blob::new(changed.bytes()).unwrap()).is_err(),
            "byte {at}"
        );
    }
}

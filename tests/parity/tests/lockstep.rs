//! The finder of the first difference finds it: a weight of one row changed under one of the two sides.

use parity::adversarial::RECIPES;
use parity::lockstep::{Elsewhere, Here, first_difference};
use parity::reseal::{self, Section};
use parity::{File, Storage};
use pleach::blob::format::{SectionKind, TensorEntry};
use pleach::kernels::layout::Dtype;
use pleach::{Kernels, SessionOptions};
use std::path::Path;
use std::process::Command;

/// The first `q8` matrix of `rows` rows, with the largest scale at row `row`'s first group.
fn damage(sections: &mut [Section], rows: u32, row: usize) {
    let base = sections.iter_mut().find(|s| s.kind == SectionKind::Base);
    let bytes = &mut base.expect("a base").bytes;
    let entries = bytes[16..].as_chunks::<32>().0.iter();
    let e = entries
        .map(TensorEntry::decode)
        .find(|e| e.rows == rows && e.dtype == Dtype::Q8 as u8)
        .expect("a matrix of so many rows");
    // r16k4: scales come first, 16 rows at a time.
    let tiles = e.rows.div_ceil(16) as usize;
    let at = e.offset as usize + e.length as usize / tiles * (row / 16) + row % 16 * 2;
    bytes[at + 1] ^= 0x04;
}

/// A file, and one that differs in a weight of the first matrix of 29 rows: `odd`'s intermediate, so layer 0's gate_proj.
fn files() -> [File; 2] {
    let file = RECIPES[0].file(Storage::Q8.group(RECIPES[0].group));
    let mut sections = reseal::sections(file.bytes());
    damage(&mut sections, 29, 21);
    let other = File::new(&reseal::assemble(&sections));
    [file, other]
}

const FIRST: &str = "Linear { layer: 0, group: GateUp }, unit 1, ";

#[test]
fn a_weight_that_differs() {
    let [file, other] = files();
    let options = SessionOptions {
        context: 8,
        chunk: 3,
        ..SessionOptions::DEFAULT
    };
    let tokens = RECIPES[0].prompt(6);
    let run = |model| Here {
        model,
        kernels: Kernels::portable(),
        options: &options,
        tokens: &tokens,
    };
    let map = file.model().arena_map(&options);
    let find = |b| first_difference(&run(file.model()), &run(b), &map).unwrap();
    assert_eq!(find(file.model()), None);
    let found = find(other.model()).expect("a difference");
    let head = format!("{FIRST}3 columns: output row 21, column 0: ");
    assert!(found.starts_with(&head), "{found}");
}

/// The same between two processes: what step `aarch64` prints of an emulated CPU.
#[test]
fn a_program_whose_bits_differ() {
    let tool = env!("CARGO_BIN_EXE_difference");
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.pleach", "b.pleach"].map(|name| folder.path().join(name));
    for (path, file) in paths.iter().zip(&files()) {
        std::fs::write(path, file.bytes()).unwrap();
    }
    let find = |other: &Path| {
        let mut c = Command::new(tool);
        c.arg(&paths[0]).args(["f32", tool, "--state"]).arg(other);
        let out = c.arg("f32").output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(
        find(&paths[0]),
        "none in the vocabulary's text, token by token\n"
    );
    let found = find(&paths[1]);
    // A chunk of one token: its scaling column, and the routed one of the token before.
    let head = format!("{FIRST}2 columns: output row 21, column 0: ");
    assert!(found.starts_with(&head), "{found}");
}

#[test]
fn a_program_that_answers_nothing() {
    let [file, _] = files();
    let options = SessionOptions {
        context: 8,
        ..SessionOptions::DEFAULT
    };
    let (model, tokens) = (file.model(), RECIPES[0].prompt(6));
    let here = Here {
        model,
        kernels: Kernels::portable(),
        options: &options,
        tokens: &tokens,
    };
    let silent = ["true".to_owned()];
    let e = first_difference(&here, &Elsewhere(&silent), &model.arena_map(&options)).unwrap_err();
    assert_eq!(e, "true: no state (exit status: 0)");
}

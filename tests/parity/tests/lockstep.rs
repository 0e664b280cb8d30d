//! The finder of the first difference finds it: a weight of one row changed under one of the two sides.

use parity::adversarial::RECIPES;
use parity::lockstep::{Side, first_difference};
use parity::reseal::{self, Section};
use parity::{File, Storage};
use pleach::blob::format::{SectionKind, TensorEntry};
use pleach::kernels::layout::Dtype;
use pleach::{Kernels, SessionOptions};

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

#[test]
fn a_weight_that_differs() {
    // `odd`: intermediate 29, so the first matrix of 29 rows is layer 0's gate_proj.
    let file = RECIPES[0].file(Storage::Q8.group(RECIPES[0].group));
    let mut sections = reseal::sections(file.bytes());
    damage(&mut sections, 29, 21);
    let other = File::new(&reseal::assemble(&sections));
    let side = |model| Side {
        model,
        kernels: Kernels::portable(),
    };
    let options = SessionOptions {
        context: 8,
        chunk: 3,
        ..SessionOptions::DEFAULT
    };
    let tokens = RECIPES[0].prompt(6);
    let find = |b| first_difference(side(file.model()), side(b), &options, &tokens).unwrap();
    assert_eq!(find(file.model()), None);
    let found = find(other.model()).expect("a difference");
    let head = "Linear { layer: 0, group: GateUp }, unit 1, 3 columns: output row 21, column 0: ";
    assert!(found.starts_with(head), "{found}");
}

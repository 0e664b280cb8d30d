//! Headers that announce more than there is cost no memory. A process of its own, so that the peak is theirs.
#![cfg(target_os = "linux")]

mod common;

use common::edit::Checkpoint;
use common::peak;
use std::fs;
use std::io::{BufWriter, Write};

/// Writes a header of a million tensors without holding it.
fn million(path: &std::path::Path) {
    let entry = |i: u32| {
        let comma = if i == 0 { "{" } else { "," };
        format!("{comma}\"t{i:07}\":{{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[0,0]}}")
    };
    let length = 1_000_000 * entry(1).len() as u64 + 1;
    let mut file = BufWriter::new(fs::File::create(path).expect("create"));
    file.write_all(&length.to_le_bytes()).expect("write");
    for i in 0..1_000_000 {
        file.write_all(entry(i).as_bytes()).expect("write");
    }
    file.write_all(b"}").expect("write");
}

#[test]
fn announced_sizes_are_not_allocated() {
    let c = Checkpoint::of("case-plain");
    let weights = c.path("base/model.safetensors");
    // Once through the same path, so that its own small needs are in the first figure.
    fs::write(&weights, u64::MAX.to_le_bytes()).expect("write");
    c.refusal();
    let before = peak();
    let mut huge = (1u64 << 60).to_le_bytes().to_vec();
    huge.extend_from_slice(b"{}");
    fs::write(&weights, huge).expect("write");
    c.refusal();
    million(&weights);
    assert!(fs::metadata(&weights).expect("file").len() > 50 << 20);
    assert!(c.refusal().cause.contains("header"));
    let more = peak() - before;
    assert!(more < 2048, "{more} KiB more");
}

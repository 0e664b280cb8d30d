//! Every parser over its seeds and over each input that the fuzzer once found something with: see `tests/fuzz`.

use parity::hostile::{TARGETS, target};
use std::fs;
use std::path::Path;

fn kept() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/kept")
}

/// The seeds are what mutations begin with: those that nobody accepts would teach a fuzzer nothing, so each
/// target's own test of them is that they run.
#[test]
fn the_seeds_of_every_target_come_back() {
    for t in TARGETS {
        let seeds = (t.seeds)();
        assert!(!seeds.is_empty(), "{}", t.name);
        for seed in seeds {
            (t.run)(&seed);
        }
    }
}

#[test]
fn short_and_empty_inputs_come_back() {
    for t in TARGETS {
        for input in [
            &b""[..],
            b"\0",
            b"{",
            b"{}",
            b"[]",
            b"null",
            b"GGUF\x03\0\0\0",
            b"PLEACH",
        ] {
            (t.run)(input);
        }
        for seed in (t.seeds)().iter().take(2) {
            for n in 1..8 {
                (t.run)(&seed[..seed.len() * n / 8]);
            }
        }
    }
}

/// `cargo xtask fuzz` has a list of its own: it does not depend on what it tests.
#[test]
fn xtask_knows_every_target() {
    let source = include_str!("../../xtask/src/fuzz.rs");
    let list = source.split("TARGETS: [&str; ").nth(1).expect("the list");
    let list = list.split("];").next().expect("its end");
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let ours: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
    assert_eq!(names, ours);
}

/// A folder for each target that ever had a find, a file for each find.
#[test]
fn every_kept_input_comes_back() {
    for folder in fs::read_dir(kept()).expect("tests/fuzz/kept").flatten() {
        if !folder.path().is_dir() {
            continue;
        }
        let name = folder.file_name().into_string().expect("a target's name");
        let target = target(&name).unwrap_or_else(|| panic!("kept/{name}: no such target"));
        for input in fs::read_dir(folder.path()).expect("a folder").flatten() {
            println!("{name} {}", input.file_name().display());
            (target.run)(&fs::read(input.path()).expect("a kept input"));
        }
    }
}

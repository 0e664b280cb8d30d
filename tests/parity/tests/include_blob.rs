//! `include_blob!` of a bad blob is a compile error that says why; of a good one it compiles.

use parity::adversarial::{Folder, RECIPES};
use parity::reseal::{self, Section};
use parity::{Storage, fixture};
use pleach::blob::format::SectionKind;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A program for each blob, checked by cargo with the core as it is.
fn write_crate(root: &Path, blobs: &[(&str, Vec<u8>, &str)]) {
    let workspace = fixture::root()
        .join("../..")
        .canonicalize()
        .expect("the workspace");
    let core = workspace.join("core");
    let manifest = format!(
        "[package]\nname = \"included\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [dependencies]\npleach = {{ path = {core:?}, default-features = false }}\n[workspace]\n"
    );
    fs::create_dir_all(root.join("src/bin")).expect("a folder");
    fs::write(root.join("Cargo.toml"), manifest).expect("a manifest");
    // The core inherits from its workspace; the versions are those that this build uses.
    fs::copy(workspace.join("Cargo.lock"), root.join("Cargo.lock")).expect("a lock file");
    for (name, blob, _) in blobs {
        fs::write(root.join(format!("{name}.pleach")), blob).expect("a blob");
        let main = format!(
            "use pleach::session::{{ARENA_PARTS, ArenaPart, CostRange}};\n\
             use pleach::SessionOptions;\n\
             pleach::include_blob!(static MODEL = \"../../{name}.pleach\");\n\
             const OPTIONS: SessionOptions = SessionOptions::DEFAULT;\n\
             const MAP: [ArenaPart; ARENA_PARTS] = MODEL.arena_map(&OPTIONS);\n\
             const COST: CostRange = MODEL.experts_cost(1);\n\
             const CONTEXT: Option<u32> = MODEL.largest_context(&OPTIONS, 1 << 20);\n\
             const _: () = assert!(MODEL.layers_cost().bytes() > MODEL.head_cost().bytes() / 1000);\n\
             fn main() {{ println!(\"{{}} {{MAP:?}} {{COST:?}} {{CONTEXT:?}}\", MODEL.file_len()) }}\n"
        );
        fs::write(root.join(format!("src/bin/{name}.rs")), main).expect("a program");
    }
}

fn changed(blob: &[u8], change: impl Fn(&mut Section)) -> Vec<u8> {
    let mut sections = reseal::sections(blob);
    sections.iter_mut().for_each(change);
    reseal::assemble(&sections)
}

#[test]
fn bad_blobs_do_not_compile() {
    let [odd, ..] = RECIPES;
    let good = odd.bytes(Storage::Q8.group(odd.group));
    let with = |change: fn(&mut Vec<u8>)| {
        let mut blob = good.clone();
        change(&mut blob);
        blob
    };
    let blobs = [
        ("good", good.clone(), ""),
        (
            "cut",
            with(|b| b.truncate(b.len() / 2)),
            "the blob is truncated",
        ),
        ("other", b"GGUF".repeat(64), "not a pleach blob"),
        (
            "later",
            with(|b| {
                b[8] = 2;
                reseal::seal(b)
            }),
            "a format version that this build does not read",
        ),
        (
            "damaged",
            with(|b| {
                let n = b.len() / 2;
                b[n] ^= 1
            }),
            "a CRC-32 differs",
        ),
        (
            "no-hidden",
            changed(&good, |s| {
                if s.kind == SectionKind::Config {
                    s.bytes[..4].fill(0)
                }
            }),
            "hidden is outside 1..=2^24",
        ),
        (
            "other-sites",
            changed(&good, |s| {
                if s.kind == SectionKind::Sites {
                    s.bytes[16] ^= 1
                }
            }),
            "another module is expected here",
        ),
    ];
    let root = Folder::new("included");
    write_crate(&root.0, &blobs);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("included");
    for (name, _, why) in blobs {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let output = Command::new(cargo)
            .args(["check", "--offline", "--quiet", "--bin", name])
            .current_dir(&root.0)
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .output()
            .expect("cargo");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), why.is_empty(), "{name}: {text}");
        assert!(text.contains(why), "{name}: {why:?} not in: {text}");
        if !why.is_empty() {
            let first = text.lines().find(|l| l.contains(why));
            println!("{name}: {}", first.unwrap_or_default().trim());
        }
    }
}

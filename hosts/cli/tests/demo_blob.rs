//! The blob that is checked in is what `pleach pack` makes of the checkpoint, byte by byte.

mod common;

use common::{fixtures, intent, pleach, text};

#[test]
fn the_demos_blob_is_the_checkpoint_packed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("intent.pleach");
    let checkpoint = fixtures().join("xlora-intent");
    let (base, xlora) = (checkpoint.join("base"), checkpoint.join("xlora"));
    pleach(&[
        "pack",
        "--base",
        text(&base),
        "--xlora",
        text(&xlora),
        "-o",
        text(&out),
    ])
    .ok();
    let (packed, kept) = (
        std::fs::read(&out).unwrap(),
        std::fs::read(intent()).unwrap(),
    );
    assert!(
        packed == kept,
        "hosts/cli/intent.pleach is not the checkpoint packed: `cargo xtask demo-blob` packs it again"
    );
}

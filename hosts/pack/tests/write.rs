//! Files appear whole or not at all.

use pleach_pack::{Kind, write_atomically};
use std::fs;

#[test]
fn writes_and_replaces() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.pleach");
    write_atomically(&path, b"one").expect("write");
    write_atomically(&path, b"two").expect("replace");
    assert_eq!(fs::read(&path).expect("read"), b"two");
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
}

#[test]
fn leaves_nothing_behind_on_failure() {
    let folder = tempfile::tempdir().expect("folder");
    let inside = folder.path().join("there");
    fs::create_dir(&inside).expect("folder");
    let e = write_atomically(&inside, b"one").expect_err("a folder is in the way");
    assert!(e.kind == Kind::Refused && e.cause.contains("there"), "{e}");
    let e =
        write_atomically(&folder.path().join("no/such/folder/x"), b"one").expect_err("no folder");
    assert!(
        e.kind == Kind::Refused && e.cause.contains("no/such/folder/x"),
        "{e}"
    );
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    assert_eq!(fs::read_dir(&inside).expect("list").count(), 0);
}

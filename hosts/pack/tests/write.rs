//! Files appear whole or not at all, and what was there stays what it was.

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

#[cfg(unix)]
#[test]
fn the_target_of_a_link_is_written() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().expect("folder");
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("models")).expect("folder");
    fs::write(place("models/v1"), "old").expect("file");
    symlink("models/v1", place("v")).expect("link");
    symlink("v", place("latest")).expect("link to a link");
    symlink("models/v2", place("next")).expect("dangling link");
    for (link, target) in [("latest", "models/v1"), ("next", "models/v2")] {
        write_atomically(&place(link), link.as_bytes()).expect("write");
        assert_eq!(fs::read(place(target)).expect("read"), link.as_bytes());
        assert!(place(link).is_symlink(), "{link}");
    }
    assert!(place("v").is_symlink());
    assert_eq!(fs::read_dir(place("models")).expect("list").count(), 2);

    symlink("round", place("round")).expect("link");
    let e = write_atomically(&place("round"), b"x").expect_err("a link to itself");
    assert!(e.cause.contains("round: cannot write"), "{e}");
    assert!(place("round").is_symlink());
}

#[cfg(unix)]
#[test]
fn a_pipe_and_a_device_are_written_to() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = tempfile::tempdir().expect("folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let link = folder.path().join("link");
    symlink("pipe", &link).expect("link");
    for out in [&pipe, &link] {
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).expect("read")
        });
        // More than a pipe holds.
        let bytes = vec![7; 1 << 20];
        write_atomically(out, &bytes).expect("write");
        assert!(reader.join().expect("joins") == bytes);
        let kind = fs::symlink_metadata(&pipe).expect("there").file_type();
        assert!(kind.is_fifo());
    }
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 2);

    let null = folder.path().join("null");
    symlink("/dev/null", &null).expect("link");
    write_atomically(&null, b"gone").expect("write");
    assert!(null.is_symlink());
    let kind = fs::metadata("/dev/null").expect("there").file_type();
    assert!(kind.is_char_device());
}

#[cfg(unix)]
#[test]
fn a_file_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.pleach");
    for mode in [0o600, 0o640, 0o444] {
        fs::write(&path, "old").expect("file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        write_atomically(&path, b"new").expect("write");
        let there = fs::metadata(&path).expect("there").permissions();
        assert_eq!(there.mode() & 0o7777, mode);
        assert_eq!(fs::read(&path).expect("read"), b"new");
        fs::remove_file(&path).expect("remove");
    }
}

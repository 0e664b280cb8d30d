//! Where `unsafe` may stand.

use crate::context::Context;
use std::fs;
use std::path::Path;

/// Files and folders of the shipped crates that hold it; each block has a `SAFETY:` comment (clippy).
const ALLOWED: [&str; 5] = [
    "core/src/kernels/",
    "hosts/linux/src/mmap.rs",
    "hosts/linux/src/threads/team.rs",
    "hosts/mcu/src/memory.rs",
    "hosts/mcu/src/start.rs",
];

/// Looks through the sources of the core and the hosts.
pub(crate) fn stands_where_it_may(cx: &Context) -> Result<(), String> {
    let mut found = Vec::new();
    for folder in ["core", "hosts"] {
        look(&cx.root, Path::new(folder), &mut found)?;
    }
    check(&found, &ALLOWED)?;
    let mut files: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    files.dedup();
    println!("unsafe in {} lines of {} files:", found.len(), files.len());
    files.iter().for_each(|f| println!("  {f}"));
    Ok(())
}

/// Every line is allowed, and every permission is used: a scan that finds nothing fails too.
fn check(found: &[(String, usize)], allowed: &[&str]) -> Result<(), String> {
    let may = |path: &str| allowed.iter().any(|a| path.starts_with(a));
    if let Some((path, line)) = found.iter().find(|(path, _)| !may(path)) {
        return Err(format!("{path}:{line}: unsafe does not belong here"));
    }
    let used = |a: &str| found.iter().any(|(path, _)| path.starts_with(a));
    match allowed.iter().find(|a| !used(a)) {
        Some(dead) => Err(format!(
            "{dead}: allowed to hold unsafe, and none is found there: take it off the list"
        )),
        None => Ok(()),
    }
}

fn look(root: &Path, folder: &Path, found: &mut Vec<(String, usize)>) -> Result<(), String> {
    let fails = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut entries: Vec<_> = fs::read_dir(root.join(folder))
        .map_err(fails)?
        .collect::<Result<_, _>>()
        .map_err(fails)?;
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let path = folder.join(entry.file_name());
        if root.join(&path).is_dir() {
            look(root, &path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(root.join(&path)).map_err(fails)?;
            let lines = text.lines().enumerate().filter(|(_, l)| is_unsafe(l));
            found.extend(lines.map(|(n, _)| (path.display().to_string(), n + 1)));
        }
    }
    Ok(())
}

/// Whether the keyword stands in the code of a line. The names of lints are other words.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| c != '_' && !c.is_alphanumeric())
        .any(|word| word == "unsafe")
}

#[cfg(test)]
mod tests {
    use super::{check, is_unsafe};

    #[test]
    fn the_keyword_only() {
        for line in [
            "unsafe { f() }",
            "pub unsafe fn f() {",
            "#[unsafe(no_mangle)]",
        ] {
            assert!(is_unsafe(line), "{line}");
        }
        for line in [
            "// unsafe",
            "x(); // no unsafe",
            "#![deny(unsafe_code)]",
            "/// unsafe",
        ] {
            assert!(!is_unsafe(line), "{line}");
        }
    }

    #[test]
    fn every_line_is_allowed_and_every_permission_used() {
        let found = [("a/x.rs".to_owned(), 3), ("b.rs".to_owned(), 7)];
        let checked = |allowed: &[&str]| check(&found, allowed);
        assert_eq!(checked(&["a/", "b.rs"]), Ok(()));
        let refused = checked(&["a/"]).unwrap_err();
        assert!(refused.starts_with("b.rs:7: "), "{refused}");
        let dead = checked(&["a/", "b.rs", "gone.rs"]).unwrap_err();
        assert!(dead.starts_with("gone.rs: "), "{dead}");
        assert!(check(&[], &["a/"]).is_err());
    }
}

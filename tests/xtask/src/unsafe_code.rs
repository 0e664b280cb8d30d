//! Where `unsafe` may stand.

use crate::context::Context;
use std::fs;
use std::path::Path;

/// Files and folders of the shipped crates that may hold it; each block has a `SAFETY:` comment (clippy).
const ALLOWED: [&str; 6] = [
    "core/src/kernels/",
    "core/src/blob/cast.rs",
    "hosts/linux/src/mmap.rs",
    "hosts/linux/src/threads.rs",
    "hosts/linux/src/threads/",
    "hosts/mcu/src/",
];

/// Looks through the sources of the core and the hosts.
pub(crate) fn stands_where_it_may(cx: &Context) -> Result<(), String> {
    let mut found = Vec::new();
    for folder in ["core", "hosts"] {
        look(&cx.root, Path::new(folder), &mut found)?;
    }
    let (allowed, other): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(path, _)| ALLOWED.iter().any(|a| path.starts_with(a)));
    if let Some((path, line)) = other.first() {
        return Err(format!("{path}:{line}: unsafe does not belong here"));
    }
    let mut files: Vec<&str> = allowed.iter().map(|(path, _)| path.as_str()).collect();
    files.dedup();
    // The scan itself: the kernels and the mapping are known to hold some.
    for known in ["core/src/kernels/x86/", "hosts/linux/src/mmap.rs"] {
        if !files.iter().any(|f| f.starts_with(known)) {
            return Err(format!("{known}: no unsafe found, so the scan is broken"));
        }
    }
    println!(
        "unsafe in {} lines of {} files:",
        allowed.len(),
        files.len()
    );
    files.iter().for_each(|f| println!("  {f}"));
    Ok(())
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
    use super::is_unsafe;

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
}

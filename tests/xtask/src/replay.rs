//! `tests/cross/replay`: the kept damaged blobs on the emulated Cortex-M4F.

use crate::blobs::CHECKPOINT;
use crate::context::{Context, stream};
use crate::cross::M4;
use crate::qemu;
use std::path::{Path, PathBuf};

const KEPT: &str = "tests/fixtures/corrupt/kept.txt";

/// Every line of [`KEPT`] goes in and must end with the outcome that it states.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    let build = [
        "build",
        "--release",
        "--manifest-path",
        "tests/cross/replay/Cargo.toml",
        "--target",
        M4,
    ];
    stream(cx.cargo(build))?;
    let text = std::fs::read_to_string(cx.root.join(KEPT)).map_err(|e| format!("{KEPT}: {e}"))?;
    let input = with_paths(&text, |name| base(cx, name))?;
    let elf = cx.built(&format!("{M4}/release"), "replay");
    let mut last = String::new();
    let status = qemu::run(&elf, qemu::Input::Bytes(input.into_bytes()), &mut |line| {
        println!("{line}");
        last = line.to_owned();
    })?;
    let count = text.lines().filter(|l| is_patch(l)).count();
    if status != 0 || !last.starts_with(&format!("{count} damaged blobs end as they must")) {
        return Err(format!(
            "{count} outcomes expected, the firmware exited with {status}"
        ));
    }
    Ok(())
}

fn is_patch(line: &str) -> bool {
    !line.starts_with('#') && !line.starts_with("base ")
}

/// The lines without comments, each base with the path of its blob right before its first patch: the firmware
/// holds one base at a time.
fn with_paths(
    text: &str,
    mut path: impl FnMut(&str) -> Result<PathBuf, String>,
) -> Result<String, String> {
    let mut input = String::new();
    let mut loaded = "";
    for line in text.lines().filter(|l| is_patch(l)) {
        let name = line.split(' ').next().unwrap_or_default();
        if name != loaded {
            let head = format!("base {name} ");
            let stamp = text.lines().find_map(|l| l.strip_prefix(&head));
            let stamp = stamp.ok_or(format!("{KEPT}: no line `base {name}`"))?;
            input += &format!("base {stamp} {}\n", path(name)?.display());
            loaded = name;
        }
        input += &format!("{line}\n");
    }
    Ok(input)
}

/// The blob of this name: the intent model or a case of `fixtures/peft`, packed.
fn base(cx: &Context, name: &str) -> Result<PathBuf, String> {
    match name.strip_suffix("-q8-q8-64-portable") {
        Some(case) => packed(cx, case, "portable"),
        None => Err(format!(
            "{KEPT}: {name} is not packed as q8 with groups of 64, portable"
        )),
    }
}

/// The intent model or a case of `fixtures/peft`, packed in q8 for a target.
pub(crate) fn packed(cx: &Context, case: &str, target: &str) -> Result<PathBuf, String> {
    let (base, xlora) = if case == "intent" {
        let checkpoint = Path::new(CHECKPOINT);
        (checkpoint.join("base"), checkpoint.join("xlora"))
    } else {
        let peft = Path::new("tests/fixtures/peft").join(case);
        (peft.join(base_of(cx, &peft)?), peft)
    };
    let out = cx.target.join(format!("{case}-q8-{target}.pleach"));
    let mut c = cx.cargo([
        "run",
        "--quiet",
        "--release",
        "--package",
        "pleach-cli",
        "--",
        "pack",
    ]);
    c.arg("--base").arg(base).arg("--xlora").arg(xlora);
    c.args(["--quant", "q8", "--for", target, "-o"]).arg(&out);
    stream(c)?;
    Ok(out)
}

/// Where the base model of a case lies, from its folder.
fn base_of(cx: &Context, case: &Path) -> Result<String, String> {
    let expected = cx.root.join(case).join("expected.json");
    let text =
        std::fs::read_to_string(&expected).map_err(|e| format!("{}: {e}", expected.display()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let base = json.get("base").and_then(|b| b.as_str());
    base.map(str::to_owned)
        .ok_or(format!("{}: no base", case.display()))
}

#[cfg(test)]
mod tests {
    use super::with_paths;

    #[test]
    fn each_base_precedes_its_patches() {
        let text = "# head\nbase a 10 ff\nbase b 20 ee\na 3 1=00\na 0 2=01\nb 7 4=02\n";
        let input = with_paths(text, |n| Ok(format!("/{n}.pleach").into())).unwrap();
        assert_eq!(
            input,
            "base 10 ff /a.pleach\na 3 1=00\na 0 2=01\nbase 20 ee /b.pleach\nb 7 4=02\n"
        );
        assert!(with_paths("c 1 2=00\n", |_| Ok("/".into())).is_err());
    }
}

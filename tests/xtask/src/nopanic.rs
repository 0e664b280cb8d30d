//! `tests/cross/nopanic`: a program that links only if no panic can be reached.

use crate::context::{Context, shown, stream};
use crate::cross::{M0, M4};
use crate::scan;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

/// The symbol that its panic handler calls and nobody defines.
const REACHED: &str = "pleach_panic_reached";

/// A program that calls the whole core cannot be smaller; if it is, the calls were optimised away.
const LEAST_CODE: u64 = 24 * 1024;

/// It links for both targets, and with the feature `bad` (an index out of bounds) for neither.
pub(crate) fn links(cx: &Context) -> Result<(), String> {
    for target in [M0, M4] {
        if let Err(e) = stream(cx.cargo(build("build", target))) {
            for line in culprits(cx, target).unwrap_or_default() {
                println!("panics: {line}");
            }
            return Err(e);
        }
        let code = scan::code(&elf(cx, target))?;
        println!("{target}: no panic path in {} bytes of code", code.text);
        if code.text < LEAST_CODE {
            return Err(format!(
                "{target}: only {} bytes of code: the calls are gone",
                code.text
            ));
        }
        control(cx, target)?;
    }
    Ok(())
}

fn build<'a>(command: &'a str, target: &'a str) -> [&'a str; 6] {
    [
        command,
        "--release",
        "--manifest-path",
        "tests/cross/nopanic/Cargo.toml",
        "--target",
        target,
    ]
}

fn elf(cx: &Context, target: &str) -> PathBuf {
    cx.built(&format!("{target}/release"), "nopanic")
}

fn control(cx: &Context, target: &str) -> Result<(), String> {
    let mut bad = cx.cargo(build("build", target));
    bad.args(["--features", "bad"]);
    println!("$ {}   (must fail to link)", shown(&bad));
    let out = bad
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if out.status.success() {
        return Err(format!("{target}: the control with a panic path links"));
    }
    let text = String::from_utf8_lossy(&out.stderr);
    if !text.contains(REACHED) {
        return Err(format!(
            "{target}: the control fails for another reason\n{text}"
        ));
    }
    println!("{target}: the control with a panic path does not link");
    Ok(())
}

/// The functions that call one of the standard library's panics: links with the symbol defined and reads
/// the disassembly.
fn culprits(cx: &Context, target: &str) -> Result<Vec<String>, String> {
    let mut c = cx.cargo(build("rustc", target));
    c.args(["--", &format!("-Clink-arg=--defsym={REACHED}=0")]);
    stream(c)?;
    Ok(panicking(&scan::disassembly(cx, &elf(cx, target))?))
}

/// Chains `function <- .. <- panic` of a disassembly, from the first function outside `core`.
fn panicking(disassembly: &str) -> Vec<String> {
    let calls = calls(disassembly);
    let mut found = vec![];
    let mut rest: Vec<Vec<&str>> = calls
        .iter()
        .map(|(_, callee)| *callee)
        .filter(|c| c.starts_with("core::") && (c.contains("panic") || c.contains("_fail")))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|callee| vec![callee])
        .collect();
    while let Some(chain) = rest.pop() {
        let Some(&last) = chain.last() else { continue };
        if last.starts_with("pleach") || last.starts_with("nopanic") || last.starts_with("<pleach")
        {
            found.push(chain.iter().rev().copied().collect::<Vec<_>>().join(" -> "));
            continue;
        }
        let callers = calls
            .iter()
            .filter(|(_, callee)| *callee == last)
            .map(|(f, _)| *f);
        for f in callers.collect::<BTreeSet<_>>() {
            if !chain.contains(&f) {
                rest.push(chain.iter().copied().chain([f]).collect());
            }
        }
    }
    found.sort();
    found
}

/// Pairs (function, function that it branches to).
fn calls(disassembly: &str) -> Vec<(&str, &str)> {
    let mut pairs = vec![];
    let mut function = "";
    for line in disassembly.lines() {
        let Some((_, name)) = line.split_once(" <") else {
            continue;
        };
        if let Some(name) = name.strip_suffix(">:") {
            function = name;
        } else if let Some(at) = name.rfind('>') {
            let callee = name[..at].split("+0x").next().unwrap_or_default();
            if callee != function {
                pairs.push((function, callee));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_the_function_that_panics() {
        let text = "00002292 <core::iter::Zip::new>:
    22f4: bne 0x2300 <core::iter::Zip::new+0x10> @ imm = #4
    22f6: bl\t0x2188 <core::panicking::panic_const::panic_const_div_by_zero> @ imm = #-370
00002188 <core::panicking::panic_const::panic_const_div_by_zero>:
    218c: bl\t0x2010 <core::panicking::panic_fmt> @ imm = #-384
00003000 <pleach::scale_bytes>:
    3002: bl\t0x2292 <core::iter::Zip::new> @ imm = #-4
";
        let chain = "pleach::scale_bytes -> core::iter::Zip::new -> \
                     core::panicking::panic_const::panic_const_div_by_zero";
        assert_eq!(
            super::panicking(text),
            [chain, &format!("{chain} -> core::panicking::panic_fmt")]
        );
    }
}

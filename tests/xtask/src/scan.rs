//! What the compiler made of the core: no fused multiply-add, each kernel's instruction, no call of an intrinsic, and how much code.

use crate::context::{Context, capture, side_by_side, stream};
use crate::cross::{AARCH64, M4, M55, X86_64};
use crate::install::objdump;
use crate::instructions;
use object::{Architecture, Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::path::{Path, PathBuf};

/// The targets that have such an instruction: with the CPU that gives it to the compiler, and one for the
/// control.
const TARGETS: [(&str, &str, &str); 4] = [
    (X86_64, "x86-64-v3", "vfmadd213ss xmm0, xmm1, xmm2"),
    (AARCH64, "generic", "fmadd s0, s0, s1, s2"),
    (M4, "cortex-m4", "vfma.f32 s0, s1, s2"),
    (M55, "cortex-m55", "vfma.f32 s0, s1, s2"),
];

/// A function that calls `fmaf`, to which the instruction is added: the scan must find both.
const CONTROL: &str = "#![no_std]
unsafe extern \"C\" { safe fn fmaf(a: f32, b: f32, c: f32) -> f32; }
#[unsafe(no_mangle)]
pub fn fuses(a: f32, b: f32, c: f32) -> f32 { fmaf(a, b, c) }
";

/// Compiles the core alone for each target and reads its disassembly.
pub(crate) fn no_fused_multiply_add(cx: &Context) -> Result<(), String> {
    let dir = cx.target.join("fma");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    // One object is one thread's work: side by side, and so each with a target folder of its own.
    side_by_side(&TARGETS, |(target, cpu, _)| {
        compile_core(cx, &dir, target, cpu)
    })?;
    for (target, cpu, instruction) in TARGETS {
        let cpu = format!("-Ctarget-cpu={cpu}");
        let text = disassembly(cx, &object_of(&dir, target))?;
        for line in instructions::check(target, &text)? {
            println!("{line}");
        }
        let found = fused(&text);
        if let Some(f) = found.first() {
            return Err(format!(
                "{target}: {} fused operations, the first: {f}",
                found.len()
            ));
        }

        if let Some(f) = apart(&text).next() {
            return Err(format!(
                "{target}: {f} is called, not inlined: from a closure, or a function without `inline(always)`, that is \
                 compiled without the backend's features"
            ));
        }

        let control = compile_control(cx, &dir, target, &cpu, instruction)?;
        if fused(&disassembly(cx, &control)?).len() != 2 {
            return Err(format!(
                "{target}: the scan does not find the control's two operations"
            ));
        }
        println!("{target}: none in the core, both in the control");
    }
    Ok(())
}

fn object_of(dir: &Path, target: &str) -> PathBuf {
    dir.join(format!("pleach-{target}.o"))
}

/// The core alone, as one object.
fn compile_core(cx: &Context, dir: &Path, target: &str, cpu: &str) -> Result<(), String> {
    let emit = format!("--emit=obj={}", object_of(dir, target).display());
    let cpu = format!("-Ctarget-cpu={cpu}");
    let build = [
        "rustc",
        "--release",
        "-p",
        "pleach",
        "--lib",
        "--target",
        target,
        "--",
    ];
    let options = ["-Ccodegen-units=1", &cpu, &emit];
    let mut c = cx.cargo(build.iter().chain(&options));
    c.env("CARGO_TARGET_DIR", dir.join(target));
    if target == M55 {
        // Where the core's build script sees it too.
        c.env("CARGO_ENCODED_RUSTFLAGS", &cpu);
    }
    stream(c)
}

fn compile_control(
    cx: &Context,
    dir: &Path,
    target: &str,
    cpu: &str,
    instruction: &str,
) -> Result<PathBuf, String> {
    // The name of a crate: no dots.
    let name = format!("control-{target}").replace('.', "_");
    let source = dir.join(format!("{name}.rs"));
    let object = source.with_extension("o");
    let text = format!("{CONTROL}core::arch::global_asm!(\"{instruction}\");\n");
    std::fs::write(&source, text).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut c = cx.command("rustc");
    c.args([
        "--edition=2024",
        "--crate-type=lib",
        "-O",
        "-Ccodegen-units=1",
        "--target",
        target,
        cpu,
    ])
    .arg(format!("--emit=obj={}", object.display()))
    .arg(&source);
    stream(c)?;
    Ok(object)
}

/// The disassembly of an object or program, with names as in the source.
pub(crate) fn disassembly(cx: &Context, object: &Path) -> Result<String, String> {
    let tool: PathBuf = objdump(cx).ok_or("llvm-objdump is missing")?;
    let mut c = cx.command(tool);
    c.args([
        "--disassemble",
        "--reloc",
        "--demangle",
        "--no-show-raw-insn",
    ])
    .arg(object);
    // LLVM 14, which Debian has, shows what an extension adds as data unless told; newer ones know all.
    let bytes = std::fs::read(object).map_err(|e| format!("{}: {e}", object.display()))?;
    if parse(object, &bytes)?.architecture() == Architecture::Aarch64 {
        c.arg("--mattr=+dotprod,+i8mm");
    }
    let text = capture(c)?;
    if text.lines().count() < 5 {
        return Err(format!("{}: nothing to disassemble", object.display()));
    }
    Ok(text)
}

/// Intrinsics that have a body of their own, and so cost a call for an instruction.
fn apart(disassembly: &str) -> impl Iterator<Item = &str> {
    disassembly
        .lines()
        .filter_map(|l| l.split_once('<')?.1.strip_suffix(">:"))
        .filter(|name| name.contains("core_arch"))
}

/// Lines with an instruction that rounds a product and a sum once, or a reference to C's `fma`.
fn fused(disassembly: &str) -> Vec<String> {
    disassembly
        .lines()
        .filter(|l| l.split_whitespace().any(is_fused))
        .map(tidy)
        .collect()
}

/// Mnemonics and symbols. Integer multiply-adds (`mla`, `madd`, `vpmaddwd`, `smlad`) are exact and allowed;
/// `vmla.f32` rounds twice but is refused too, for parts that fuse it.
fn is_fused(word: &str) -> bool {
    const FLOAT: [&str; 4] = ["vmla.f", "vmls.f", "vnmla.f", "vnmls.f"];
    const START: [&str; 12] = [
        "vfmadd", "vfmsub", "vfnmadd", "vfnmsub", "fmadd", "fmsub", "fnmadd", "fnmsub", "fmla",
        "fmls", "vfma", "vfms",
    ];
    const ARM: [&str; 2] = ["vfnma", "vfnms"];
    const CALLS: [&str; 3] = ["fma", "fmaf", "fmaf16"];
    let symbol = word
        .trim_start_matches('<')
        .split(['-', '+', '@', '>'])
        .next()
        .unwrap_or(word);
    START
        .iter()
        .chain(&ARM)
        .chain(&FLOAT)
        .any(|m| word.starts_with(m))
        || CALLS.contains(&symbol)
}

fn tidy(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bytes of code in an ELF.
pub(crate) struct Code {
    /// All of `.text`.
    pub(crate) text: u64,
    /// Its functions whose names are the core's; the rest was inlined elsewhere or is not the core.
    pub(crate) core: u64,
}

fn parse<'b>(path: &Path, bytes: &'b [u8]) -> Result<object::File<'b>, String> {
    object::File::parse(bytes).map_err(|e| format!("{}: {e}", path.display()))
}

/// Sizes from the section and symbol tables.
pub(crate) fn code(elf: &Path) -> Result<Code, String> {
    let bytes = std::fs::read(elf).map_err(|e| format!("{}: {e}", elf.display()))?;
    let file = parse(elf, &bytes)?;
    let text = file
        .section_by_name(".text")
        .ok_or("the firmware has no .text")?;
    let core = file
        .symbols()
        .filter(|s| s.kind() == SymbolKind::Text)
        // Both manglings write the crate's name after its length.
        .filter(|s| s.name().is_ok_and(|n| n.contains("6pleach")))
        .map(|s| s.size())
        .sum();
    Ok(Code {
        text: text.size(),
        core,
    })
}

#[cfg(test)]
mod tests {
    use super::{apart, fused};

    #[test]
    fn finds_intrinsics_with_a_body() {
        let text = "0000000000123d50 <core::core_arch::x86::avx::_mm256_set1_ps>:
  123d50: callq 0x123d60 <core::core_arch::x86::avx::_mm256_loadu_ps>
0000000000123d90 <pleach::kernels::lora::sums>:";
        let found: Vec<_> = apart(text).collect();
        assert_eq!(found, ["core::core_arch::x86::avx::_mm256_set1_ps"]);
    }

    #[test]
    fn finds_fused_instructions_of_each_target() {
        for line in [
            " 1f: vfmadd213ss %xmm2, %xmm1, %xmm0",
            "  4: fmadd s0, s0, s1, s2",
            "  8: fmla v0.4s, v1.4s, v2.4s",
            "  c: vfma.f32 s4, s0, s2",
            "  c: vmla.f32 s4, s0, s2",
            "\t\t0000000000000012:  R_X86_64_PLT32\tfmaf-0x4",
            "  0: bl 0x0 <fmaf>",
        ] {
            assert_eq!(fused(line).len(), 1, "{line}");
        }
    }

    #[test]
    fn leaves_other_arithmetic_alone() {
        for line in [
            " 1f: vpmaddwd %ymm2, %ymm1, %ymm0",
            "  4: madd x0, x1, x2, x3",
            "  8: mla v0.4s, v1.4s, v2.4s",
            "  c: vmul.f32 s4, s0, s2",
            "  c: vmla.i32 q0, q1, q2",
            "00000000 <_ZN6pleach4math6formatE>:",
        ] {
            assert_eq!(fused(line).len(), 0, "{line}");
        }
    }
}

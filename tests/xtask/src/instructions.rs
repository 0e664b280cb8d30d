//! Kernels hold the instruction that they are named after, and none that belongs to a larger CPU.

use crate::cross::{AARCH64, M4, M55, X86_64};

/// What must stand in every function of a kernel, and what must not.
struct Kernel {
    target: &'static str,
    name: &'static str,
    has: &'static str,
    lacks: &'static [&'static str],
    /// Functions that do without it.
    without: usize,
}

const KERNELS: [Kernel; 12] = [
    kernel(X86_64, "gemv_q8_r16k4_x86_avx512vnni", "vpdpbusd", &[]),
    kernel(X86_64, "gemv_q8_r4k4_x86_avx512vnni", "vpdpbusd", &[]),
    kernel(
        X86_64,
        "gemv_q8_r16k4_x86_avx2",
        "vpmaddubsw",
        &["vpdpbusd", "zmm"],
    ),
    kernel(
        X86_64,
        "gemv_q8_r4k4_x86_avx2",
        "vpmaddubsw",
        &["vpdpbusd", "zmm"],
    ),
    kernel(AARCH64, "gemv_q8_r16k4_neon", "smull", &["sdot", "smmla"]),
    kernel(AARCH64, "gemv_q8_r4k4_neon", "smull", &["sdot", "smmla"]),
    kernel(AARCH64, "gemv_q8_r16k4_neon_dotprod", "sdot", &["smmla"]),
    kernel(AARCH64, "gemv_q8_r4k4_neon_dotprod", "sdot", &["smmla"]),
    // One column is the dot products'.
    kernel(AARCH64, "gemv_q8_r16k4_neon_i8mm", "smmla", &[]).but(1),
    kernel(AARCH64, "gemv_q8_r4k4_neon_i8mm", "smmla", &[]).but(1),
    kernel(M4, "gemv_q8_m4_cortex_m_smlad", "smlad", &[]),
    // What VMLADAV is called where it does not exchange pairs.
    kernel(M55, "gemv_q8_r4k16_mve_vmladav", "vmlav", &[]),
];

const fn kernel(
    target: &'static str,
    name: &'static str,
    has: &'static str,
    lacks: &'static [&'static str],
) -> Kernel {
    Kernel {
        target,
        name,
        has,
        lacks,
        without: 0,
    }
}

/// Checks the kernels of a target in the disassembly of its core, or of a program. Returns a line for each.
pub(crate) fn check(target: &str, disassembly: &str) -> Result<Vec<String>, String> {
    KERNELS
        .iter()
        .filter(|k| k.target == target)
        .map(|k| k.check(disassembly))
        .collect()
}

/// Checks that QEMU executed the kernels of a target, by its log of what it translated (`-d in_asm`): a block of code when it is
/// first reached, under the name of its function. Returns a line for each.
pub(crate) fn executed(target: &str, translated: &str) -> Result<Vec<String>, String> {
    let heads = translated.lines().filter_map(|l| l.strip_prefix("IN: "));
    let mut heads: Vec<&str> = heads.collect();
    heads.sort_unstable();
    heads.dedup();
    let kernels = KERNELS.iter().filter(|k| k.target == target);
    kernels
        .map(
            |Kernel { name, .. }| match heads.iter().filter(|h| is(h, name)).count() {
                0 => Err(format!("{name} was not executed")),
                functions => Ok(format!("{name}: executed, {functions} functions")),
            },
        )
        .collect()
}

/// Refuses conversions between integers and floats with a fixed point in Helium's registers. LLVM 22 makes them of products
/// with a power of two, and in some of them the number of a register stands where the
/// exponent belongs.
pub(crate) fn no_fixed_point(disassembly: &str) -> Result<(), String> {
    let fixed = |l: &&str| l.contains("vcvt") && l.contains("\tq") && l.contains('#');
    match disassembly.lines().find(fixed) {
        None => Ok(()),
        Some(line) => Err(format!(
            "a conversion with a fixed point, which LLVM may get wrong:{line}"
        )),
    }
}

impl Kernel {
    const fn but(self, without: usize) -> Self {
        Self { without, ..self }
    }

    fn check(&self, disassembly: &str) -> Result<String, String> {
        let (name, has) = (self.name, self.has);
        let found = functions(disassembly, name);
        if found.is_empty() {
            return Err(format!("{name}: there is no such function"));
        }
        let holding = found.iter().filter(|lines| executes(lines, has)).count();
        if holding == 0 || holding + self.without < found.len() {
            let all = found.len();
            return Err(format!("{name}: {has} in {holding} of {all} functions"));
        }
        match self
            .lacks
            .iter()
            .find(|l| found.iter().any(|f| mentions(f, l)))
        {
            Some(other) => Err(format!("{name}: {other} in it")),
            None => Ok(format!(
                "{name}: {has} in {holding} of {} functions",
                found.len()
            )),
        }
    }
}

/// Whether an instruction stands there: a word that begins with it. Branches name the function, and it may be named
/// after its instruction.
fn executes(lines: &[&str], instruction: &str) -> bool {
    lines
        .iter()
        .any(|l| l.split_whitespace().any(|w| w.starts_with(instruction)))
}

/// Whether an instruction or a register stands there in any form.
fn mentions(lines: &[&str], word: &str) -> bool {
    lines.iter().any(|l| l.contains(word))
}

/// The lines of each function whose name is `name`, with its parameters or without.
fn functions<'a>(disassembly: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut inside = false;
    for line in disassembly.lines() {
        if let Some(head) = line.strip_suffix(">:") {
            inside = is(head, name);
            if inside {
                found.push(Vec::new());
            }
        } else if inside && let Some(lines) = found.last_mut() {
            lines.push(line);
        }
    }
    found
}

/// Whether a symbol, mangled or not, is a function of this name: `_neon` is not `_neon_dotprod`.
fn is(symbol: &str, name: &str) -> bool {
    let after = symbol.find(name).map(|at| &symbol[at + name.len()..]);
    after.is_some_and(|a| !a.starts_with(|c: char| c == '_' || c.is_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
0000 <pleach::kernels::neon::smull::gemv_q8_r16k4_neon::<1>>:
   0: smull v0.8h, v1.8b, v2.8b
0010 <pleach::kernels::neon::dotprod::gemv_q8_r16k4_neon_dotprod::<1>>:
   10: sdot v0.4s, v1.16b, v2.4b[0]
0020 <pleach::kernels::neon::dotprod::gemv_q8_r16k4_neon_dotprod::<2>>:
   20: ret
";

    #[test]
    fn finds_what_a_function_holds() {
        let k = |name, has, lacks| kernel(AARCH64, name, has, lacks).check(TEXT);
        assert!(k("gemv_q8_r16k4_neon", "smull", &["sdot"]).is_ok());
        let dotprod = || kernel(AARCH64, "gemv_q8_r16k4_neon_dotprod", "sdot", &[]);
        assert!(dotprod().check(TEXT).is_err());
        let line = dotprod().but(1).check(TEXT).unwrap();
        assert!(line.ends_with("1 of 2 functions"), "{line}");
        assert!(k("gemv_q8_r16k4_neon", "sdot", &[]).is_err());
        let dotprod = kernel(AARCH64, "gemv_q8_r16k4_neon_dotprod", "sdot", &["ret"]).but(1);
        assert!(dotprod.check(TEXT).is_err());
        assert!(k("gemv_q8_r4k4_neon", "smull", &[]).is_err());
    }

    #[test]
    fn translated_code_was_executed() {
        let log = "----------------
IN: _ZN6pleach7kernels8cortex_m2q825gemv_q8_m4_cortex_m_smlad17he8446b15e836fca8E
0x0000172c:  e92d 4ffc  push.w {r2, r3}
";
        let lines = executed(M4, log).unwrap();
        assert_eq!(lines, ["gemv_q8_m4_cortex_m_smlad: executed, 1 functions"]);
        let e = executed(M4, "IN: memset\n").unwrap_err();
        assert_eq!(e, "gemv_q8_m4_cortex_m_smlad was not executed");
    }

    #[test]
    fn fixed_points_are_found_in_vectors_only() {
        assert!(
            no_fixed_point("  4: \tvcvt.f32.s32\tq0, q1\n  8: \tvcvt.f32.s32\ts0, s0, #0x4\n")
                .is_ok()
        );
        assert!(no_fixed_point("  4: \tvcvt.f32.s32\tq0, q0, #0xb\n").is_err());
    }

    #[test]
    fn a_name_is_no_instruction() {
        let k = |text| kernel(M4, "gemv_smlad", "smlad", &[]).check(text);
        let branch = "0000 <a::gemv_smlad::h1>:\n  0: bne 0x0 <a::gemv_smlad::h1+0x8>\n";
        assert!(k(branch).is_err());
        let other = format!("{branch}\n0008 <b>:\n  8: smlad r0, r1\n");
        assert!(k(&other).is_err());
        let held = format!("{branch}  4: smladx r0, r1\n");
        assert!(k(&held).is_ok());
    }
}

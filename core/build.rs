//! Says which Cortex-M backend the target has: stable compilers do not show Arm's `dsp` and `mve` to
//! `cfg(target_feature)`.
//!
//! | cfg | kernels | where |
//! |---|---|---|
//! | `pleach_cortex_m` | SMLAD, SXTB16, half-precision conversions of the FPU | `thumbv7em-none-eabihf`; `thumbv8m.main-none-eabihf` with `-C target-cpu=cortex-m33` or `-C target-feature=+dsp` |
//! | `pleach_mve` | Helium with floats | `thumbv8m.main-none-eabihf` with `-C target-cpu=cortex-m52`, `-m55`, `-m85` or `-C target-feature=+mve.fp` |
//!
//! At most one of the two is set, and on bare metal only. Anything else runs the scalar code.
//!
//! `pleach_armv8m` is set beside `pleach_cortex_m` on an Armv8-M, whose assembler has to be told about DSP.
//!
//! `pleach_small` is set on bare metal of 32-bit Arm and RISC-V, where flash is scarce.

use std::env::var;

/// CPUs whose Helium has floats.
const MVE: [&str; 3] = ["cortex-m52", "cortex-m55", "cortex-m85"];
/// CPUs with DSP, among those of the Armv8-M target.
const DSP: [&str; 5] = [
    "cortex-m33",
    "cortex-m35p",
    "cortex-m52",
    "cortex-m55",
    "cortex-m85",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(pleach_armv8m)");
    println!("cargo:rustc-check-cfg=cfg(pleach_cortex_m)");
    println!("cargo:rustc-check-cfg=cfg(pleach_mve)");
    println!("cargo:rustc-check-cfg=cfg(pleach_small)");
    if var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    if let Ok("arm" | "riscv32") = var("CARGO_CFG_TARGET_ARCH").as_deref() {
        println!("cargo:rustc-cfg=pleach_small");
    }
    let target = var("TARGET").unwrap_or_default();
    let cortex_m = target.starts_with("thumbv7em") || target.starts_with("thumbv8m.main");
    if !(cortex_m && target.ends_with("hf")) {
        return;
    }
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let known = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let options = Options::of(&flags);
    // A later flag overrules the CPU's features and those before it.
    let has = |feature: &str, by_cpu: bool| {
        options
            .feature(feature)
            .unwrap_or(by_cpu || known.split(',').any(|f| f == feature))
    };
    let cpu = options.cpu.unwrap_or_default();
    let fpu = has("fp-armv8d16sp", true) && has("vfp4d16sp", true);
    let dsp = has("dsp", target.starts_with("thumbv7em") || DSP.contains(&cpu));
    if has("mve", true) && has("mve.fp", MVE.contains(&cpu)) && fpu {
        println!("cargo:rustc-cfg=pleach_mve");
    } else if dsp && fpu {
        println!("cargo:rustc-cfg=pleach_cortex_m");
        if target.starts_with("thumbv8m.main") {
            println!("cargo:rustc-cfg=pleach_armv8m");
        }
    }
}

/// What the compiler's flags say about the CPU.
#[derive(Default)]
struct Options<'a> {
    cpu: Option<&'a str>,
    /// `+name` and `-name`, in order.
    features: Vec<&'a str>,
}

impl<'a> Options<'a> {
    /// Flags as cargo passes them to build scripts: separated by 0x1f.
    fn of(flags: &'a str) -> Self {
        let mut options = Self::default();
        let mut rest = flags.split('\x1f');
        while let Some(flag) = rest.next() {
            let option = match flag {
                "-C" | "--codegen" => rest.next().unwrap_or_default(),
                _ => flag
                    .strip_prefix("-C")
                    .or(flag.strip_prefix("--codegen="))
                    .unwrap_or_default(),
            };
            match option.split_once('=') {
                Some(("target-cpu", cpu)) => options.cpu = Some(cpu),
                Some(("target-feature", list)) => options.features.extend(list.split(',')),
                _ => {}
            }
        }
        options
    }

    /// What the last flag about `feature` says.
    fn feature(&self, feature: &str) -> Option<bool> {
        let signs = self.features.iter().rev();
        signs
            .filter_map(|f| f.split_at_checked(1))
            .find_map(|(sign, name)| (name == feature).then_some(sign == "+"))
    }
}

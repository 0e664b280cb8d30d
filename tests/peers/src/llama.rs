//! llama.cpp, built by its own CMake files for a named instruction set, and the proof that it was.

use crate::Result;
use crate::machine::{Cpu, folder, target};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The crate whose package carries the sources.
const CRATE: &str = "llama-cpp-sys-2";

/// For what llama.cpp is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// `-march=native`, without AMX: pleach has no kernels for it, both sides have the same instructions, and under some
    /// hypervisors it is announced and traps.
    Native,
    /// AVX2, FMA, F16C and BMI2, and nothing later.
    Avx2,
    /// `-march=armv8.2-a+dotprod+fp16`: a cortex-a76.
    CortexA76,
    /// `-march=armv8-a`: a cortex-a72.
    CortexA72,
}

impl Isa {
    /// The folder of its build.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Native => "native",
            Isa::Avx2 => "avx2",
            Isa::CortexA76 => "cortex-a76",
            Isa::CortexA72 => "cortex-a72",
        }
    }

    /// Whether an emulator must run it.
    pub fn is_aarch64(self) -> bool {
        matches!(self, Isa::CortexA76 | Isa::CortexA72)
    }

    fn options(self, cpu: &Cpu) -> &'static [&'static str] {
        match self {
            // A compiler that knows no AMX refuses the flags, and needs none.
            Isa::Native if cpu.has("amx_tile") => &[
                "-DGGML_NATIVE=ON",
                "-DCMAKE_C_FLAGS=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16",
                "-DCMAKE_CXX_FLAGS=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16",
            ],
            Isa::Native => &["-DGGML_NATIVE=ON"],
            Isa::Avx2 => &[
                "-DGGML_NATIVE=OFF",
                "-DGGML_AVX2=ON",
                "-DGGML_FMA=ON",
                "-DGGML_F16C=ON",
                "-DGGML_BMI2=ON",
            ],
            Isa::CortexA76 => &[
                "-DGGML_NATIVE=OFF",
                "-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16",
            ],
            Isa::CortexA72 => &["-DGGML_NATIVE=OFF", "-DGGML_CPU_ARM_ARCH=armv8-a"],
        }
    }

    /// What the system information must say, and what it must not.
    fn expected(self, cpu: &Cpu) -> (Vec<&'static str>, Vec<&'static str>) {
        match self {
            Isa::Native => {
                let pairs = [
                    ("avx2", "AVX2 = 1"),
                    ("avx_vnni", "AVX_VNNI = 1"),
                    ("avx512f", "AVX512 = 1"),
                    ("avx512_vnni", "AVX512_VNNI = 1"),
                ];
                let has = pairs.into_iter().filter(|(flag, _)| cpu.has(flag));
                let mut all: Vec<&str> = has.map(|(_, said)| said).collect();
                all.extend(["OPENMP = 1", "REPACK = 1"]);
                (all, vec!["AMX_INT8 = 1"])
            }
            Isa::Avx2 => (
                vec![
                    "AVX2 = 1",
                    "FMA = 1",
                    "F16C = 1",
                    "OPENMP = 1",
                    "REPACK = 1",
                ],
                vec!["VNNI = 1", "AVX512"],
            ),
            Isa::CortexA76 => (
                vec!["NEON = 1", "FP16_VA = 1", "DOTPROD = 1", "REPACK = 1"],
                vec!["MATMUL_INT8 = 1", "SVE = 1"],
            ),
            Isa::CortexA72 => (
                vec!["NEON = 1", "REPACK = 1"],
                vec!["DOTPROD = 1", "FP16_VA = 1", "MATMUL_INT8 = 1"],
            ),
        }
    }
}

/// A built `peer` and what is known of it.
#[derive(Clone, Debug)]
pub struct Llama {
    /// For what it was built.
    pub isa: Isa,
    /// The program.
    pub program: PathBuf,
    /// The flags that its CPU kernels were compiled with.
    pub flags: String,
    /// What llama.cpp says of its own build.
    pub system: String,
    /// The version of the crate.
    pub version: String,
}

impl Llama {
    /// Builds it, unless it is built, and checks what it says of itself.
    pub fn build(isa: Isa) -> Result<Self> {
        let (sources, version) = sources()?;
        let cpu = Cpu::of_machine();
        let build = target().join("llama").join(isa.name());
        fs::create_dir_all(&build).map_err(|e| format!("{}: {e}", build.display()))?;
        let mut configure = Command::new("cmake");
        configure
            .arg("-S")
            .arg(folder().join("llama"))
            .arg("-B")
            .arg(&build)
            .arg(format!("-DLLAMA_CPP={}", sources.display()))
            .arg("-DCMAKE_BUILD_TYPE=Release")
            .args(isa.options(&cpu));
        if isa.is_aarch64() {
            // One thread and no other file: an emulator runs it.
            configure.args([
                "-DCMAKE_SYSTEM_NAME=Linux",
                "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
                "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc",
                "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
                "-DCMAKE_EXE_LINKER_FLAGS=-static",
                "-DGGML_OPENMP=OFF",
            ]);
        }
        if moved(&build) {
            configure.arg("--fresh");
        }
        logged(configure, &build.join("configure.log"))?;
        if !build.join("peer").exists() {
            eprintln!("building llama.cpp for {}: some minutes, once", isa.name());
        }
        let mut make = Command::new("cmake");
        make.arg("--build")
            .arg(&build)
            .args(["--target", "peer", "--parallel"]);
        if let Ok(jobs) = std::env::var("CARGO_BUILD_JOBS") {
            make.arg(jobs);
        } else {
            make.arg(
                std::thread::available_parallelism()
                    .map_or(1, usize::from)
                    .to_string(),
            );
        }
        logged(make, &build.join("build.log"))?;
        let mut llama = Self {
            isa,
            program: build.join("peer"),
            flags: flags(&build)?,
            system: String::new(),
            version,
        };
        let mut ask = llama.command(&[]);
        ask.arg("system");
        let out = ask.output().map_err(|e| format!("{}: {e}", isa.name()))?;
        llama.system = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        llama.check(&cpu)?;
        Ok(llama)
    }

    /// A command that runs it, through qemu with `options` if it is not for this machine.
    pub fn command(&self, options: &[String]) -> Command {
        if self.isa.is_aarch64() {
            emulated(self.isa.name(), options, &self.program)
        } else {
            Command::new(&self.program)
        }
    }

    /// Fails unless llama.cpp says that it uses what it should.
    fn check(&self, cpu: &Cpu) -> Result<()> {
        let (must, must_not) = self.isa.expected(cpu);
        let missing = must.iter().find(|m| !self.system.contains(**m));
        if let Some(missing) = missing {
            return Err(format!(
                "llama.cpp for {}: its system information lacks {missing:?}: {}",
                self.isa.name(),
                self.system
            ));
        }
        match must_not.iter().find(|m| self.system.contains(**m)) {
            Some(extra) => Err(format!(
                "llama.cpp for {}: its system information has {extra:?}: {}",
                self.isa.name(),
                self.system
            )),
            None => Ok(()),
        }
    }

    /// What ran, for the head of a report.
    pub fn lines(&self) -> [String; 2] {
        [
            format!("llama.cpp of {CRATE} {}: {}", self.version, self.flags),
            format!("its system information: {}", self.system),
        ]
    }
}

/// qemu-aarch64 as a named CPU.
pub fn emulated(cpu: &str, options: &[String], program: &Path) -> Command {
    let mut c = Command::new("qemu-aarch64");
    c.args(["-cpu", cpu]).args(options).arg(program);
    c
}

/// Whether a build folder was configured from another clone: CMake then refuses to go on with it.
fn moved(build: &Path) -> bool {
    let cache = fs::read_to_string(build.join("CMakeCache.txt")).unwrap_or_default();
    let mut lines = cache.lines();
    let home = lines.find_map(|l| l.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    home.is_some_and(|home| Path::new(home) != folder().join("llama"))
}

/// Where cargo put the sources, and the crate's version.
fn sources() -> Result<(PathBuf, String)> {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--manifest-path",
    ])
    .arg(folder().join("Cargo.toml"))
    .stderr(Stdio::inherit());
    let out = c.output().map_err(|e| format!("cargo metadata: {e}"))?;
    let metadata: Value =
        serde_json::from_slice(&out.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages
        .into_iter()
        .find(|p| p["name"] == CRATE)
        .ok_or_else(|| format!("cargo metadata does not name {CRATE}"))?;
    let manifest = package["manifest_path"].as_str().unwrap_or_default();
    let version = package["version"].as_str().unwrap_or_default().to_owned();
    Ok((Path::new(manifest).with_file_name("llama.cpp"), version))
}

/// Runs a command with all that it prints in a file.
fn logged(mut c: Command, log: &Path) -> Result<()> {
    let program = c.get_program().to_string_lossy().into_owned();
    let io = |e: std::io::Error| format!("{}: {e}", log.display());
    let file = fs::File::create(log).map_err(io)?;
    let status = c
        .stdout(file.try_clone().map_err(io)?)
        .stderr(file)
        .status()
        .map_err(|e| {
            format!("{program}: {e}\n  cargo xtask peers --install COMMAND installs it")
        })?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let error = text.lines().find(|l| l.contains("rror"));
    Err(format!(
        "{program} ({status}): {}\n  all of it: {}",
        error.unwrap_or_default().trim(),
        log.display()
    ))
}

/// The flags that its int8 kernels were compiled with, out of CMake's own list.
fn flags(build: &Path) -> Result<String> {
    let path = build.join("compile_commands.json");
    let text = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let all: Value =
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let commands = all.as_array().into_iter().flatten();
    let mut kernels = commands.into_iter().filter(|c| {
        let file = c["file"].as_str().unwrap_or_default();
        file.ends_with("ggml-cpu/quants.c")
    });
    let line = kernels.next().and_then(|c| c["command"].as_str());
    let line = line.ok_or_else(|| format!("{}: no ggml-cpu/quants.c", path.display()))?;
    let compiler = line.split(' ').next().unwrap_or_default();
    let matters = |w: &&str| w.starts_with("-m") || w.starts_with("-O") || w.starts_with("-f");
    let mut words: Vec<&str> = line.split(' ').filter(matters).collect();
    words.insert(0, compiler.rsplit('/').next().unwrap_or(compiler));
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama(isa: Isa, system: &str) -> Llama {
        Llama {
            isa,
            program: PathBuf::new(),
            flags: String::new(),
            system: system.into(),
            version: String::new(),
        }
    }

    #[test]
    fn a_peer_without_the_machines_instructions_is_refused() {
        let cpu = Cpu {
            name: String::new(),
            flags: ["avx2", "avx512f", "avx512_vnni"]
                .map(String::from)
                .to_vec(),
        };
        let full = "CPU : AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | OPENMP = 1 | REPACK = 1 | ";
        assert!(llama(Isa::Native, full).check(&cpu).is_ok());
        let less = full.replace("AVX512_VNNI = 1 | ", "");
        let refused = llama(Isa::Native, &less).check(&cpu).unwrap_err();
        assert!(refused.contains("AVX512_VNNI = 1"), "{refused}");
        let amx = format!("{full}AMX_INT8 = 1 | ");
        assert!(llama(Isa::Native, &amx).check(&cpu).is_err());
        // And one that has more than it may.
        let avx2 = "AVX2 = 1 | F16C = 1 | FMA = 1 | OPENMP = 1 | REPACK = 1 | ";
        assert!(llama(Isa::Avx2, avx2).check(&cpu).is_ok());
        let more = format!("{avx2}AVX512_VNNI = 1");
        assert!(llama(Isa::Avx2, &more).check(&cpu).is_err());
        assert!(
            llama(Isa::CortexA76, "NEON = 1 | REPACK = 1")
                .check(&cpu)
                .is_err()
        );
    }
}

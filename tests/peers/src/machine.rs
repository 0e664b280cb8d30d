//! What this machine is, and where things lie.

use std::path::{Path, PathBuf};

/// The processor, as Linux tells it.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// Its name.
    pub name: String,
    /// What it can do: `avx512_vnni`.
    pub flags: Vec<String>,
}

impl Cpu {
    /// The first processor of `/proc/cpuinfo`.
    pub fn of_machine() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |key: &str| {
            let line = text.lines().find(|l| l.starts_with(key));
            let value = line.and_then(|l| l.split_once(": "));
            value.map_or("", |v| v.1).trim().to_owned()
        };
        Self {
            name: value("model name"),
            flags: value("flags").split(' ').map(str::to_owned).collect(),
        }
    }

    /// Whether it has a flag.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Its name and the flags that matter here.
    pub fn line(&self) -> String {
        let matter = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8"];
        let flags: Vec<&str> = matter.into_iter().filter(|f| self.has(f)).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        format!(
            "{}, {cores} processors, load {load}, {}",
            self.name,
            if flags.is_empty() {
                "none of these flags".to_owned()
            } else {
                flags.join(" ")
            }
        )
    }
}

/// This crate's folder.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where this crate's builds and models go: `peers` in the target folder that this program was built into.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    // <target>/release/peers
    let target = exe.ancestors().nth(2).unwrap_or(Path::new("target"));
    target.join("peers")
}

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
        format!(
            "{}, {cores} processors, {}",
            self.name,
            if flags.is_empty() {
                "none of these flags".to_owned()
            } else {
                flags.join(" ")
            }
        )
    }
}

/// How much of the processors' time went to others since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    all: Ticks,
    own: u64,
}

/// Ticks of all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    total: u64,
}

/// Above this share two threads of either side wait for others, and figures mean little.
pub const MANY: f64 = 0.05;

impl Others {
    /// From now on; `pids` are processes that count as this one.
    pub fn since_now(pids: &[u32]) -> Self {
        Self {
            all: Ticks::read(),
            own: own(pids),
        }
    }

    /// Their share of the processors' time; `None` if Linux did not tell. Time that a hypervisor took counts as theirs.
    pub fn share(&self, pids: &[u32]) -> Option<f64> {
        let now = Ticks::read();
        let busy = now.busy.checked_sub(self.all.busy)? as f64;
        let total = now.total.checked_sub(self.all.total)? as f64;
        let own = own(pids).saturating_sub(self.own) as f64;
        (total > 0.0).then(|| ((busy - own) / total).max(0.0))
    }
}

impl Ticks {
    fn read() -> Self {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::parse(&text)
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal; guests count as user.
    fn parse(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let fields = line.split_ascii_whitespace().skip(1).take(8);
        let fields: Vec<u64> = fields.map(|f| f.parse().unwrap_or(0)).collect();
        let total = fields.iter().sum();
        let idle: u64 = fields.iter().skip(3).take(2).sum();
        Self {
            busy: total - idle,
            total,
        }
    }
}

/// Ticks of this process and of some others.
fn own(pids: &[u32]) -> u64 {
    let all = [std::process::id()].into_iter().chain(pids.iter().copied());
    all.map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        ticks_of_process(&text)
    })
    .sum()
}

/// Fields 14 and 15: user and system time. The name before them may hold anything but its last parenthesis.
fn ticks_of_process(stat: &str) -> u64 {
    let rest = stat.rsplit_once(')').map_or("", |r| r.1);
    let fields = rest.split_ascii_whitespace().skip(11).take(2);
    fields.map(|f| f.parse().unwrap_or(0)).sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks() {
        let stat = "cpu  100 1 20 300 4 0 5 6 0 0\ncpu0 1 1 1 1\n";
        let all = Ticks::parse(stat);
        assert_eq!((all.busy, all.total), (132, 436));
        let process = "7 (a (b) c) S 1 7 7 0 -1 4194560 10 0 0 0 42 8 0 0 20 0 1 0 5";
        assert_eq!(ticks_of_process(process), 50);
        assert_eq!(ticks_of_process(""), 0);
    }

    #[test]
    fn what_this_process_takes_is_its_own() {
        let others = Others::since_now(&[]);
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 100 {
            std::hint::black_box(0);
        }
        let share = others.share(&[]).expect("Linux tells");
        assert!((0.0..=1.0).contains(&share));
    }
}

//! `tests/fuzz`: libFuzzer over the parsers of files, on the stable toolchain.

use crate::context::{Context, shown, stream};
use crate::install::{Need, advice, host};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

/// Seconds for each target in `cargo xtask test --full`.
pub(crate) const SECONDS: u64 = 60;

/// What `cargo fuzz` passes, but for the sanitizers, which need a nightly compiler: coverage at every edge, and the
/// operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// Limits of a run: resident memory, and seconds after which an input counts as one that never ends. The
/// parsers' heap has a limit of its own, in `tests/fuzz/src/main.rs`.
const LIMITS: [&str; 3] = ["-rss_limit_mb=1024", "-timeout=60", "-print_final_stats=1"];

/// The parsers; the same list as `parity::hostile`'s, which the first run of each checks.
pub(crate) const TARGETS: [&str; 12] = [
    "gguf",
    "safetensors",
    "index",
    "base-config",
    "lora-config",
    "lora",
    "xlora-config",
    "blob",
    "expert",
    "tokenizer",
    "tokenizer-json",
    "template",
];

/// The step of `cargo xtask test --full`.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    run(cx, &[], SECONDS)
}

/// Fuzzes the targets in `only`, or all, each for so many seconds; as many at a time as there are processors.
pub(crate) fn run(cx: &Context, only: &[String], seconds: u64) -> Result<(), String> {
    let program = build(cx)?;
    let work = cx.target.join("fuzz");
    let scratch = scratch();
    make(&scratch)?;
    let chosen: Vec<&str> = TARGETS
        .into_iter()
        .filter(|t| only.is_empty() || only.iter().any(|o| o == t))
        .collect();
    let next = Mutex::new(chosen.iter());
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, Into::into);
    println!(
        "{} targets, {seconds} s each, {workers} at a time; logs, inputs and corpora in {}",
        chosen.len(),
        work.display()
    );
    std::thread::scope(|scope| {
        for _ in 0..workers.min(chosen.len()) {
            scope.spawn(|| {
                loop {
                    let Some(target) = lock(&next).next() else {
                        break;
                    };
                    let one = Fuzz {
                        cx,
                        program: &program,
                        work: &work,
                        scratch: &scratch,
                        target,
                    };
                    match one.run(seconds) {
                        Ok(line) => println!("{line}"),
                        Err(e) => {
                            println!("{target}: {e}");
                            lock(&failures).push(format!("{target}: {e}"));
                        }
                    }
                }
            });
        }
    });
    let _ = fs::remove_dir_all(&scratch);
    match lock(&failures).first() {
        Some(first) => Err(first.clone()),
        None => Ok(()),
    }
}

/// Runs one target over one input, as a debugger would want it.
pub(crate) fn replay(cx: &Context, target: &str, input: &Path) -> Result<(), String> {
    let program = build(cx)?;
    let scratch = scratch();
    make(&scratch)?;
    let mut c = cx.command(program);
    c.env("PLEACH_FUZZ", target)
        .env("TMPDIR", &scratch)
        .env("RUST_BACKTRACE", "1")
        .arg(std::env::current_dir().unwrap_or_default().join(input));
    let done = stream(c);
    let _ = fs::remove_dir_all(&scratch);
    done
}

fn build(cx: &Context) -> Result<PathBuf, String> {
    if !Need::CPP.present(cx) {
        let line = advice(cx, &[Need::CPP]);
        return Err(format!(
            "libFuzzer needs a C++ compiler; to install one: {line}"
        ));
    }
    let host = host(cx).ok_or("rustc does not say for which machine it is")?;
    let folder = cx.target.join("fuzz/build");
    let build = "build --release --manifest-path tests/fuzz/Cargo.toml --target";
    let mut c = cx.cargo(build.split(' ').chain([host.as_str()]));
    // With --target the flags are for the program alone, not for what builds it.
    c.env("RUSTFLAGS", COVERAGE)
        .env("CARGO_TARGET_DIR", &folder);
    stream(c)?;
    Ok(folder.join(host).join("release/fuzz"))
}

/// Where checkpoints with one hostile file are written, thousands of times a second: memory, where there is
/// such a place.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = match memory.is_dir() {
        true => memory.to_path_buf(),
        false => std::env::temp_dir(),
    };
    parent.join(format!("pleach-fuzz-{}", std::process::id()))
}

struct Fuzz<'c> {
    cx: &'c Context,
    program: &'c Path,
    work: &'c Path,
    scratch: &'c Path,
    target: &'c str,
}

impl Fuzz<'_> {
    /// The line about a run without a find.
    fn run(&self, seconds: u64) -> Result<String, String> {
        let folder = |kind: &str| -> Result<PathBuf, String> {
            let folder = self.work.join(kind).join(self.target);
            make(&folder)?;
            Ok(folder)
        };
        let (corpus, seeds, finds) = (folder("corpus")?, folder("seeds")?, folder("finds")?);
        let kept = self.cx.root.join("tests/fuzz/kept").join(self.target);
        let mut prepare = self.command();
        prepare.env("PLEACH_FUZZ_SEEDS", &seeds);
        self.logged(prepare, "seeds")?;

        let mut c = self.command();
        c.args(LIMITS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", finds.display()))
            .arg(&corpus)
            .arg(&seeds);
        if kept.is_dir() {
            c.arg(&kept);
        }
        let start = Instant::now();
        let log = self.logged(c, "run")?;
        let inputs = statistic(&log, "stat::number_of_executed_units:");
        if inputs == 0 {
            return Err("no input was run".into());
        }
        Ok(format!(
            "{:<15} {inputs:>9} inputs in {:.0} s, {} features, {} MiB at most, no find",
            self.target,
            start.elapsed().as_secs_f64(),
            features(&log),
            statistic(&log, "stat::peak_rss_mb:")
        ))
    }

    fn command(&self) -> Command {
        let mut c = self.cx.command(self.program);
        c.env("PLEACH_FUZZ", self.target)
            .env("TMPDIR", self.scratch)
            .env("RUST_BACKTRACE", "1");
        c
    }

    /// Runs a command with its output in a file, which is the result.
    fn logged(&self, mut c: Command, what: &str) -> Result<String, String> {
        let path = self.work.join(format!("{}-{what}.log", self.target));
        let io = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = File::create(&path).map_err(io)?;
        let status = c
            .stdout(file.try_clone().map_err(io)?)
            .stderr(file)
            .status()
            .map_err(|e| format!("{}: {e}", shown(&c)))?;
        let log = fs::read(&path).map_err(io)?;
        let log = String::from_utf8_lossy(&log).into_owned();
        match status.success() {
            true => Ok(log),
            false => Err(find(&log, self.target, &path)),
        }
    }
}

/// What a log says about a find, and how to see it again.
fn find(log: &str, target: &str, path: &Path) -> String {
    let starts = ["thread '", "==", "PLEACH_FUZZ"];
    let line = log
        .lines()
        .position(|l| starts.iter().any(|s| l.starts_with(s)));
    let lines: Vec<&str> = log.lines().skip(line.unwrap_or(0)).take(3).collect();
    let why = lines.join("; ");
    let unit = log
        .lines()
        .rev()
        .find_map(|l| l.split("Test unit written to ").nth(1));
    let again = match unit {
        Some(unit) => format!("; again: cargo xtask fuzz {target} --input {unit}"),
        None => String::new(),
    };
    format!("{why}{again}; log: {}", path.display())
}

/// A figure of the statistics at the end.
fn statistic(log: &str, name: &str) -> u64 {
    let line = log.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Coverage at the end: the last `ft:`.
fn features(log: &str) -> u64 {
    let last = log.rsplit(" ft: ").next();
    let number = last.and_then(|l| l.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_log() {
        let log = "#8\tINITED cov: 20 ft: 21 corp: 1/1b\n#99\tDONE   cov: 36 ft: 417 corp: 12/300b\n\
                   stat::number_of_executed_units: 99\nstat::peak_rss_mb:              47\n";
        assert_eq!(features(log), 417);
        assert_eq!(statistic(log, "stat::number_of_executed_units:"), 99);
        assert_eq!(statistic(log, "stat::peak_rss_mb:"), 47);
        assert_eq!(statistic("", "stat::peak_rss_mb:"), 0);
    }

    #[test]
    fn a_find_says_how_to_see_it_again() {
        let log = "INFO: Seed: 1\nthread '<unnamed>' panicked at src/a.rs:1:2:\nwhy\n\
                   artifact_prefix='x'; Test unit written to /f/crash-1\nBase64: aa==\n";
        let text = find(log, "gguf", Path::new("/l"));
        assert!(
            text.starts_with("thread '<unnamed>' panicked at src/a.rs:1:2:; why;"),
            "{text}"
        );
        assert!(
            text.contains("cargo xtask fuzz gguf --input /f/crash-1"),
            "{text}"
        );
    }
}

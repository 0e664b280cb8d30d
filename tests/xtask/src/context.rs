//! Where things lie, and how a step runs a command.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// What every step is given.
pub(crate) struct Context {
    /// The repository.
    pub(crate) root: PathBuf,
    /// The one target folder: excluded crates share it.
    pub(crate) target: PathBuf,
    /// What takes long, too: fuzzing, more sentences through the firmware.
    pub(crate) full: bool,
}

impl Context {
    pub(crate) fn new(full: bool) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.ancestors().nth(2).unwrap_or(here).to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => root.join("target"),
        };
        Self { root, target, full }
    }

    /// A cargo command at the root, with the shared target folder.
    pub(crate) fn cargo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut c = self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        c.args(args).env("CARGO_TARGET_DIR", &self.target);
        // A run builds most things once: what makes a second build short makes the first one a tenth longer.
        c.env("CARGO_INCREMENTAL", "0");
        // A linker for the one hosted cross target; the others link with rust-lld.
        c.env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        );
        c
    }

    /// Any command at the root.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut c = Command::new(program);
        c.current_dir(&self.root);
        c
    }

    /// A built file, e.g. `("thumbv7em-none-eabihf/release", "intent")`.
    pub(crate) fn built(&self, folder: &str, name: &str) -> PathBuf {
        self.target.join(folder).join(name)
    }
}

/// The command as one would type it.
pub(crate) fn shown(c: &Command) -> String {
    let program = Path::new(c.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let mut line = program.into_owned();
    for a in c.get_args() {
        line.push(' ');
        line.push_str(&a.to_string_lossy());
    }
    line
}

/// Runs a command with its output streamed.
pub(crate) fn stream(mut c: Command) -> Result<(), String> {
    println!("$ {}", shown(&c));
    let status = c.status().map_err(|e| format!("{}: {e}", shown(&c)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} ({status})", shown(&c)))
    }
}

/// Runs a command; its standard output is the result, standard error is streamed.
pub(crate) fn capture(mut c: Command) -> Result<String, String> {
    let out = c
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", shown(&c)))?;
    if !out.status.success() {
        return Err(format!("{} ({})", shown(&c), out.status));
    }
    String::from_utf8(out.stdout).map_err(|_| format!("{}: output is not UTF-8", shown(&c)))
}

/// Runs a command with its output streamed; its standard output is the result, too.
pub(crate) fn echoed(mut c: Command) -> Result<String, String> {
    let command = shown(&c);
    println!("$ {command}");
    let fails = |e: std::io::Error| format!("{command}: {e}");
    let mut child = c.stdout(Stdio::piped()).spawn().map_err(fails)?;
    let mut text = String::new();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.map_err(fails)?;
            println!("{line}");
            text += &line;
            text.push('\n');
        }
    }
    let status = child.wait().map_err(fails)?;
    if status.success() {
        Ok(text)
    } else {
        Err(format!("{command} ({status})"))
    }
}

/// Runs a command that may hang: after `limit` it is killed, which is an error. It is given `input`, if any, and `each` what
/// it writes to those of standard output and standard error that are pipes, as it comes.
pub(crate) fn limited(
    mut c: Command,
    limit: Duration,
    input: Option<Vec<u8>>,
    each: &mut dyn FnMut(&[u8]),
) -> Result<ExitStatus, String> {
    const PAUSE: Duration = Duration::from_millis(10);
    let program = c.get_program().display().to_string();
    let fails = |e: std::io::Error| format!("{program}: {e}");
    if input.is_some() {
        c.stdin(Stdio::piped());
    }
    let end = Instant::now() + limit;
    let mut child = c.spawn().map_err(fails)?;
    if let (Some(bytes), Some(mut stdin)) = (input, child.stdin.take()) {
        // One that ends early closes the pipe; its status says so.
        thread::spawn(move || stdin.write_all(&bytes).ok());
    }
    let (to, pieces) = channel();
    forward(child.stdout.take(), &to);
    forward(child.stderr.take(), &to);
    drop(to);
    let mut open = true;
    while Instant::now() < end {
        if open {
            match pieces.recv_timeout(PAUSE) {
                Ok(piece) => each(&piece),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        } else if let Some(status) = child.try_wait().map_err(fails)? {
            return Ok(status);
        } else {
            thread::sleep(PAUSE);
        }
    }
    child.kill().map_err(fails)?;
    child.wait().map_err(fails)?;
    Err(format!("{program}: killed after {limit:?}: it hangs"))
}

/// Sends what comes out of a pipe, up to its end.
fn forward(pipe: Option<impl Read + Send + 'static>, to: &Sender<Vec<u8>>) {
    let Some(mut pipe) = pipe else {
        return;
    };
    let to = to.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut buffer)
            && to.send(buffer[..n].to_vec()).is_ok()
        {}
    });
}

/// Runs a command and says nothing: whether it succeeded.
pub(crate) fn quiet(mut c: Command) -> bool {
    c.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// Does the same for all of `items`, in a thread each; the first error, when all are through.
pub(crate) fn side_by_side<T: Sync>(
    items: &[T],
    each: impl Fn(&T) -> Result<(), String> + Sync,
) -> Result<(), String> {
    thread::scope(|s| {
        let each = &each;
        let threads: Vec<_> = items.iter().map(|i| s.spawn(move || each(i))).collect();
        let results: Vec<_> = threads.into_iter().map(joined).collect();
        results.into_iter().collect()
    })
}

/// Does two things side by side; the first error, when both are through.
pub(crate) fn both<A: Send, B>(
    a: impl FnOnce() -> Result<A, String> + Send,
    b: impl FnOnce() -> Result<B, String>,
) -> Result<(A, B), String> {
    thread::scope(|s| {
        let a = s.spawn(a);
        let b = b();
        Ok((joined(a)?, b?))
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    let died = |_| Err("a thread of xtask panicked".into());
    thread.join().unwrap_or_else(died)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, args: &[&str], limit: Duration) -> (Result<bool, String>, String) {
        let mut c = Command::new(program);
        c.args(args).stdout(Stdio::piped());
        let mut text = String::new();
        let mut each = |piece: &[u8]| text += &String::from_utf8_lossy(piece);
        let ended = limited(c, limit, Some(b"a line\n".to_vec()), &mut each);
        (ended.map(|s| s.success()), text)
    }

    #[test]
    fn what_ends_in_time_is_heard() {
        let minute = Duration::from_secs(60);
        assert_eq!(run("cat", &[], minute), (Ok(true), "a line\n".into()));
        assert_eq!(run("false", &[], minute), (Ok(false), String::new()));
        assert!(run("no-such-program", &[], minute).0.is_err());
    }

    #[test]
    fn what_hangs_is_killed() {
        let began = Instant::now();
        // Silent; after its output's end; while it writes.
        for script in ["exec sleep 600", "exec sleep 600 >&-", "exec yes"] {
            let (ended, _) = run("sh", &["-c", script], Duration::from_millis(50));
            assert_eq!(ended, Err("sh: killed after 50ms: it hangs".into()));
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

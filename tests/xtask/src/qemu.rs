//! Runs a firmware in `qemu-system-arm` and decodes what it logs.

use defmt_decoder::{DecodeError, StreamDecoder, Table};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// After this a firmware is stopped: it hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// The firmware's standard input.
pub(crate) enum Input {
    /// Ours.
    Inherit,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Runs `elf` on an mps2-an386, one virtual nanosecond an instruction, and calls `line` for each line of
/// its log. Returns its exit status.
pub(crate) fn run(elf: &Path, input: Input, line: &mut dyn FnMut(&str)) -> Result<i32, String> {
    let bytes = std::fs::read(elf).map_err(|e| format!("{}: {e}", elf.display()))?;
    let table = Table::parse(&bytes).map_err(|e| format!("{}: {e}", elf.display()))?;
    let mut log = match &table {
        Some(t) => Log::Defmt(t.new_stream_decoder()),
        None => Log::Text(vec![]),
    };

    let mut c = Command::new("qemu-system-arm");
    c.args([
        "-M",
        "mps2-an386",
        "-nographic",
        "-serial",
        "null",
        "-monitor",
        "none",
    ])
    .args(["-icount", "shift=0", "-semihosting-config"])
    .arg("enable=on,target=native,arg=firmware")
    .arg("-kernel")
    .arg(elf)
    .stdout(Stdio::piped());
    if let Input::Bytes(_) = input {
        c.stdin(Stdio::piped());
    }
    let mut child = c.spawn().map_err(|e| format!("qemu-system-arm: {e}"))?;
    let mut out = child
        .stdout
        .take()
        .ok_or("qemu-system-arm: no standard output")?;
    let feeder = match (input, child.stdin.take()) {
        // A firmware that ends early closes the pipe; its status says so.
        (Input::Bytes(b), Some(mut stdin)) => Some(thread::spawn(move || stdin.write_all(&b).ok())),
        _ => None,
    };
    let child = Arc::new(Mutex::new(child));
    let (done, watchdog) = guard(&child);

    let mut buffer = [0; 4096];
    loop {
        match out.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => log.feed(&buffer[..n], line),
            Err(e) => return Err(format!("qemu-system-arm: {e}")),
        }
    }
    log.end(line);
    let status = lock(&child)
        .wait()
        .map_err(|e| format!("qemu-system-arm: {e}"))?;
    drop(done);
    drop(feeder);
    if watchdog.join().unwrap_or(false) {
        return Err(format!(
            "{}: stopped after {} s",
            elf.display(),
            LIMIT.as_secs()
        ));
    }
    status
        .code()
        .ok_or_else(|| format!("qemu-system-arm: {status}"))
}

/// Kills `child` after [`LIMIT`] unless the sender is dropped; the thread says whether it had to.
fn guard(child: &Arc<Mutex<Child>>) -> (std::sync::mpsc::Sender<()>, thread::JoinHandle<bool>) {
    let (tx, rx) = channel();
    let child = Arc::clone(child);
    let thread = thread::spawn(move || {
        let late = rx.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = lock(&child).kill();
        }
        late
    });
    (tx, thread)
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(|e| e.into_inner())
}

/// What arrives on the firmware's standard output.
enum Log<'t> {
    /// defmt frames; their formats are in the ELF.
    Defmt(Box<dyn StreamDecoder + Send + Sync + 't>),
    /// Text; an unfinished line.
    Text(Vec<u8>),
}

impl Log<'_> {
    fn feed(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        match self {
            Log::Defmt(decoder) => {
                decoder.received(bytes);
                loop {
                    match decoder.decode() {
                        Ok(frame) => line(&frame.display_message().to_string()),
                        Err(DecodeError::UnexpectedEof) => break,
                        Err(DecodeError::Malformed) => {
                            line("(a defmt frame that cannot be decoded)")
                        }
                    }
                }
            }
            Log::Text(rest) => {
                rest.extend_from_slice(bytes);
                while let Some(at) = rest.iter().position(|&b| b == b'\n') {
                    let whole: Vec<u8> = rest.drain(..=at).collect();
                    line(String::from_utf8_lossy(&whole).trim_end());
                }
            }
        }
    }

    fn end(self, line: &mut dyn FnMut(&str)) {
        if let Log::Text(rest) = self
            && !rest.is_empty()
        {
            line(&String::from_utf8_lossy(&rest));
        }
    }
}

//! Runs a firmware in `qemu-system-arm` and decodes what it logs.

use crate::context::limited;
use defmt_decoder::{DecodeError, StreamDecoder, Table};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// After this a firmware is killed: it hangs. The longest takes minutes.
pub(crate) const LIMIT: Duration = Duration::from_secs(900);

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
    let input = match input {
        Input::Inherit => None,
        Input::Bytes(bytes) => Some(bytes),
    };
    let ended = limited(c, LIMIT, input, &mut |piece| log.feed(piece, line));
    log.end(line);
    let status = ended.map_err(|e| format!("{}: {e}", elf.display()))?;
    status
        .code()
        .ok_or_else(|| format!("qemu-system-arm: {status}"))
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

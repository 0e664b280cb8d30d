//! A llama.cpp that runs as another process: `llama/peer.cpp` says how one talks to it.

use crate::Result;
use crate::llama::Llama;
use crate::wire::command;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// The process, its model loaded.
pub struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The buffers that hold its weights.
    pub buffers: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Time in `llama_decode`, and until its logits could be read.
    pub seconds: f64,
    /// What `check` found.
    pub ids: Vec<u32>,
}

impl Peer {
    /// Starts it, and waits until the model is loaded.
    pub fn start(llama: &Llama, model: &Path, context: usize) -> Result<Self> {
        let mut child = llama
            .command(&[])
            .arg("run")
            .arg(model)
            .arg(context.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", llama.program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or("the peer has no standard output")?;
        let mut peer = Self {
            child,
            input,
            output: BufReader::new(output),
            buffers: String::new(),
        };
        let line = peer.line()?;
        let buffers = line.strip_prefix("ready");
        peer.buffers = buffers
            .ok_or_else(|| format!("the peer is not ready: {line:?}"))?
            .trim()
            .to_owned();
        Ok(peer)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .map_err(|e| format!("the peer: {e}"))?;
        match line.is_empty() {
            true => Err("the peer ended: see what it printed".into()),
            false => Ok(line.trim().to_owned()),
        }
    }

    fn ask(&mut self, command: &str) -> Result<Answer> {
        let input = self
            .input
            .as_mut()
            .ok_or("the peer has no standard input")?;
        writeln!(input, "{command}").map_err(|e| format!("the peer: {e}"))?;
        answer(&self.line()?)
    }

    /// Sets the number of threads.
    pub fn threads(&mut self, threads: usize) -> Result<()> {
        self.ask(&format!("threads {threads}")).map(|_| ())
    }

    /// A new text: seconds until the last token's logits.
    pub fn prompt(&mut self, tokens: &[u32]) -> Result<f64> {
        self.ask(&command("prompt", tokens)).map(|a| a.seconds)
    }

    /// Shortens the text.
    pub fn rewind(&mut self, tokens: usize) -> Result<()> {
        self.ask(&format!("rewind {tokens}")).map(|_| ())
    }

    /// More tokens, one by one: seconds.
    pub fn tokens(&mut self, tokens: &[u32]) -> Result<f64> {
        self.ask(&command("tokens", tokens)).map(|a| a.seconds)
    }

    /// The same, and the best next token after each.
    pub fn check(&mut self, tokens: &[u32]) -> Result<Vec<u32>> {
        self.ask(&command("check", tokens)).map(|a| a.ids)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input is the end of it.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn answer(line: &str) -> Result<Answer> {
    let refused = || format!("the peer says {line:?}");
    let mut words = line.strip_prefix("ok ").ok_or_else(refused)?.split(' ');
    let seconds = words.next().and_then(|w| w.parse().ok());
    let ids: std::result::Result<Vec<u32>, _> = words.map(str::parse).collect();
    Ok(Answer {
        seconds: seconds.ok_or_else(refused)?,
        ids: ids.map_err(|_| refused())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let a = answer("ok 0.25 7 8").unwrap();
        assert_eq!((a.seconds, a.ids), (0.25, vec![7, 8]));
        assert!(answer("error llama_decode failed").is_err());
        assert!(answer("ok").is_err());
    }
}

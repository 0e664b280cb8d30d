//! pleach on the other end of a pipe, with the commands of `llama/peer.cpp`, and `base` and `routed` (by the prompt's last
//! token) for models with experts: what the emulator runs beside it.

use peers::Result;
use peers::ours::{Ours, executor, options};
use peers::wire::command_of;
use pleach::{Model, Routing};
use pleach_linux::{Arena, ModelFile};
use std::io::{Write, stdin, stdout};
use std::path::Path;

fn main() {
    if let Err(e) = run() {
        eprintln!("pleach-peer: {e}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, path, context, chunk] = arguments.as_slice() else {
        return Err("usage: pleach-peer run MODEL CONTEXT CHUNK".into());
    };
    let number = |s: &str| s.parse::<usize>().map_err(|e| format!("{run} {s}: {e}"));
    let file = ModelFile::open(Path::new(path)).map_err(|e| format!("{path}: {e}"))?;
    let model = file.blob().and_then(Model::parse);
    let model = model.map_err(|e| format!("{path}: {e}"))?;
    let options = options(number(context)?, number(chunk)?);
    let mut arena = Arena::new(model.arena_bytes(&options)).map_err(|e| e.to_string())?;
    let mut ours = Ours::new(model, &options, arena.bytes())?;
    let mut one = executor(1);
    println!("ready {}", ours.kernels());
    for line in stdin().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let (name, tokens) = command_of(&line)?;
        let seconds = match name {
            "threads" if tokens == [1] => 0.0,
            "base" | "routed" if tokens.is_empty() => {
                let routing = match name {
                    "base" => Routing::Base,
                    _ => Routing::Prompt,
                };
                let set = ours.session.set_routing(routing);
                set.map_err(|e| format!("{name}: {e}"))?;
                0.0
            }
            "prompt" => ours.prompt(&tokens, &mut one)?.seconds,
            "tokens" => ours.tokens(&tokens, &mut one)?.seconds,
            _ => return Err(format!("no such command: {line}")),
        };
        println!("ok {seconds:.9}");
        stdout().flush().map_err(|e| e.to_string())?;
    }
    Ok(())
}

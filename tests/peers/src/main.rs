//! The commands. `peers --help` lists them.

mod cmd;
mod report;

use clap::{Parser, Subcommand, ValueEnum};
use peers::llama::Isa;
use peers::verdict::EXIT_CODES;
use std::process::ExitCode;

/// pleach beside llama.cpp, and beside what this machine reads from memory
///
/// Both sides have SmolLM2-135M-Instruct, pleach as q8 (group 64), llama.cpp as Q8_0, with f16 keys and values; llama.cpp's
/// other options are its defaults. Sides take turns; a figure is the median of the rounds' ratios. Stop whatever else
/// uses the machine: with a busy processor two threads of either side wait for each other.
///
/// `cargo xtask peers --install COMMAND` installs what the command lacks first: apt-get as root, pip for the model.
#[derive(Parser)]
#[command(name = "cargo xtask peers", bin_name = "cargo xtask peers", after_help = EXIT_CODES, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object, with every round
    #[arg(long, global = true)]
    json: bool,
}

/// What most commands read.
#[derive(clap::Args, Clone, Debug)]
struct How {
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    instructions: Instructions,
    #[command(flatten)]
    chunk: Chunk,
}

#[derive(clap::Args, Clone, Copy, Debug)]
struct Rounds {
    /// Rounds; fewer than 10 give no verdict
    #[arg(long = "rounds", value_name = "ROUNDS", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

#[derive(clap::Args, Clone, Debug)]
struct Threads {
    /// Numbers of threads
    #[arg(
        long = "threads",
        value_name = "THREADS",
        value_delimiter = ',',
        default_value = "1,2"
    )]
    counts: Vec<usize>,
}

#[derive(clap::Args, Clone, Copy, Debug)]
struct Instructions {
    /// The instruction set that llama.cpp is built for and pleach may use
    #[arg(long = "isa", value_name = "ISA", value_enum, default_value_t = IsaOption::Native)]
    set: IsaOption,
}

#[derive(clap::Args, Clone, Copy, Debug)]
struct Chunk {
    /// Tokens of a prompt that one sweep of pleach takes
    #[arg(long = "chunk", value_name = "CHUNK", default_value_t = 32)]
    tokens: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IsaOption {
    /// All that the processor has
    Native,
    /// AVX2 and nothing later
    Avx2,
}

impl IsaOption {
    fn isa(self) -> Isa {
        match self {
            IsaOption::Native => Isa::Native,
            IsaOption::Avx2 => Isa::Avx2,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Tokens one by one: beside llama.cpp, and beside what the machine reads
    Decode(How),
    /// A prompt of 128 tokens, the last one's logits
    Prompt(How),
    /// A sweep of two columns beside one of one, both with logits
    Columns(How),
    /// What experts, classifier and guesses cost
    Xlora(How),
    /// Tokens after 4,000 others, at one thread
    Long {
        #[command(flatten)]
        rounds: Rounds,
        #[command(flatten)]
        instructions: Instructions,
        #[command(flatten)]
        chunk: Chunk,
    },
    /// Instructions of a token and of a prompt on a Cortex-A76 and a Cortex-A72, under qemu
    Aarch64 {
        /// pleach's instructions of a token after so many others, too: takes long
        #[arg(long, value_name = "TOKENS")]
        after: Option<usize>,
        #[command(flatten)]
        chunk: Chunk,
    },
    /// What the machine reads, each way
    Read {
        /// Megabytes of the buffer
        #[arg(long, default_value_t = 140)]
        megabytes: usize,
        #[command(flatten)]
        rounds: Rounds,
        #[command(flatten)]
        threads: Threads,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Decode(how) => cmd::decode::run(&how),
        Command::Prompt(how) => cmd::prompt::run(&how),
        Command::Columns(how) => cmd::columns::run(&how),
        Command::Xlora(how) => cmd::xlora::run(&how),
        Command::Long {
            rounds,
            instructions,
            chunk,
        } => cmd::long::run(rounds, instructions, chunk),
        Command::Aarch64 { after, chunk } => cmd::aarch64::run(after, chunk),
        Command::Read {
            megabytes,
            rounds,
            threads,
        } => cmd::read::run(megabytes, rounds, &threads),
    };
    match done {
        Ok(report) => {
            report.print(cli.json);
            ExitCode::from(report.exit_code())
        }
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    #[test]
    fn a_command_refuses_what_it_would_not_read() {
        let parse = |line: &str| Cli::try_parse_from(["peers"].into_iter().chain(line.split(' ')));
        let all = "--rounds 10 --threads 1,2 --isa avx2 --chunk 128 --json";
        for line in [
            &format!("decode {all}"),
            &format!("prompt {all}"),
            &format!("columns {all}"),
            &format!("xlora {all}"),
            "--json long --rounds 10 --isa avx2 --chunk 8",
            "aarch64 --after 4000 --chunk 8 --json",
            "read --megabytes 8 --rounds 1 --threads 1 --json",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in [
            "long --threads 1",
            "aarch64 --threads 1",
            "aarch64 --rounds 1",
            "aarch64 --isa avx2",
            "read --isa avx2",
            "read --chunk 8",
        ] {
            let refused = parse(line).err().map(|e| e.kind());
            assert_eq!(refused, Some(ErrorKind::UnknownArgument), "{line}");
        }
    }
}

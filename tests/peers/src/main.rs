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
    #[command(flatten)]
    how: How,
}

/// How a command measures and prints.
#[derive(clap::Args, Clone, Debug)]
struct How {
    /// Rounds; fewer than 10 give no verdict
    #[arg(long, global = true, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Numbers of threads
    #[arg(long, global = true, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// The instruction set that llama.cpp is built for and pleach may use
    #[arg(long, global = true, value_enum, default_value_t = IsaOption::Native)]
    isa: IsaOption,
    /// Tokens of a prompt that one sweep of pleach takes
    #[arg(long, global = true, default_value_t = 32)]
    chunk: usize,
    /// Print one JSON object, with every round
    #[arg(long, global = true)]
    json: bool,
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
    Decode,
    /// A prompt of 128 tokens, the last one's logits
    Prompt,
    /// A sweep of two columns beside one of one, both with logits
    Columns,
    /// What experts, classifier and guesses cost
    Xlora,
    /// Tokens after 4,000 others, at one thread
    Long,
    /// Instructions of a token and of a prompt on a Cortex-A76 and a Cortex-A72, under qemu
    Aarch64 {
        /// pleach's instructions of a token after so many others, too: takes long
        #[arg(long, value_name = "TOKENS")]
        after: Option<usize>,
    },
    /// What the machine reads, each way
    Read {
        /// Megabytes of the buffer
        #[arg(long, default_value_t = 140)]
        megabytes: usize,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let how = &cli.how;
    let done = match cli.command {
        Command::Decode => cmd::decode::run(how),
        Command::Prompt => cmd::prompt::run(how),
        Command::Columns => cmd::columns::run(how),
        Command::Xlora => cmd::xlora::run(how),
        Command::Long => cmd::long::run(how),
        Command::Aarch64 { after } => cmd::aarch64::run(how, after),
        Command::Read { megabytes } => cmd::read::run(how, megabytes),
    };
    match done {
        Ok(report) => {
            report.print(how.json);
            ExitCode::from(report.exit_code())
        }
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

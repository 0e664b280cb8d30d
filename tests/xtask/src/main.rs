//! `cargo xtask`: the project's own commands. `cargo xtask --help` lists them.

mod backends;
mod blobs;
mod context;
mod cross;
mod firmware;
mod fuzz;
mod install;
mod instructions;
mod kernel_peers;
mod kernels;
mod miri;
mod nopanic;
mod peers;
mod qemu;
mod replay;
mod scan;
mod smol;
mod steps;
mod summary;
mod unsafe_code;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use context::Context;
use std::path::PathBuf;
use std::process::ExitCode;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tests: all steps, or those named
    #[command(after_help = steps::help(), after_long_help = steps::help())]
    Test {
        /// Install what is missing (rustup; apt-get as root). Every command is shown before it runs
        #[arg(long)]
        install: bool,
        /// Also what takes long: a minute of fuzzing for each parser, a hundred more sentences through the firmware
        #[arg(long)]
        full: bool,
        /// Steps to run, in the order of the list below
        #[arg(value_name = "STEP", hide_possible_values = true, value_parser = steps::parser())]
        steps: Vec<String>,
    },
    /// Let libFuzzer look for inputs that a parser of files does not survive
    #[command(
        after_help = "A find is written to target/fuzz/finds/TARGET. Mend what it shows, and keep the input: \
        tests/fuzz/kept/TARGET/what-was-wrong"
    )]
    Fuzz {
        /// Parsers, all by default
        #[arg(value_name = "TARGET", value_parser = PossibleValuesParser::new(fuzz::TARGETS))]
        targets: Vec<String>,
        /// How long for each
        #[arg(long, value_name = "N", default_value_t = fuzz::SECONDS)]
        seconds: u64,
        /// Run one parser over this file instead
        #[arg(
            long,
            value_name = "FILE",
            requires = "targets",
            conflicts_with = "seconds"
        )]
        input: Option<PathBuf>,
    },
    /// Run Miri over the scalar core: its unit tests, and a small model from a file
    Miri,
    /// Print a table of ARCHITECTURE.md: what q8 costs in quality, or what each routing costs
    Table {
        /// Which one
        #[arg(value_name = "NAME", value_parser = ["q8", "routings"])]
        name: String,
    },
    /// Measure pleach beside llama.cpp and beside the memory's speed: `peers --help` lists what, and the exit codes
    #[command(disable_help_flag = true)]
    Peers {
        /// Install what is missing (apt-get as root, pip for the model). Every command is shown before it runs
        #[arg(long)]
        install: bool,
        /// Passed on
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGUMENTS"
        )]
        args: Vec<String>,
    },
    /// Pack the intent model again: the demo's blob and the firmware's
    DemoBlob,
    /// Run a firmware in QEMU and print its log, decoded (the runner of examples/intent)
    Qemu {
        /// The firmware
        elf: PathBuf,
        /// Sentences; without any, standard input is the firmware's
        sentences: Vec<String>,
    },
    /// Build the intent firmware, send it sentences and compare every bit with the native run
    Firmware {
        /// How many held-back sentences to send
        #[arg(long, default_value_t = firmware::COUNT)]
        count: usize,
        /// Which ones: the seed of the choice
        #[arg(long, default_value_t = firmware::SEED)]
        seed: u64,
        /// Write the output to examples/intent/expected.txt instead of comparing with it
        #[arg(long)]
        bless: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Test {
            install,
            full,
            steps,
        } => {
            return steps::test(&Context::new(full), install, &steps);
        }
        Command::Miri => miri::run(&Context::new(false)),
        Command::Table { name } => smol::table(&Context::new(false), &name),
        Command::Peers { install, args } => {
            match peers::run(&Context::new(false), install, &args) {
                Ok(code) => return code,
                Err(e) => Err(e),
            }
        }
        Command::DemoBlob => blobs::pack_all(&Context::new(false)),
        Command::Fuzz {
            targets,
            seconds,
            input,
        } => {
            let cx = Context::new(false);
            match (input, targets.as_slice()) {
                (Some(file), [target]) => fuzz::replay(&cx, target, &file),
                (Some(_), _) => Err("--input: name one target".into()),
                (None, all) => fuzz::run(&cx, all, seconds),
            }
        }
        Command::Qemu { elf, sentences } => return qemu_command(&elf, &sentences),
        Command::Firmware { count, seed, bless } => {
            firmware::run(&Context::new(false), count, seed, bless)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

fn qemu_command(elf: &std::path::Path, sentences: &[String]) -> ExitCode {
    let input = match sentences {
        [] => qemu::Input::Inherit,
        s => qemu::Input::Bytes(
            s.iter()
                .flat_map(|s| [s.as_bytes(), b"\n"].concat())
                .collect(),
        ),
    };
    match qemu::run(elf, input, &mut |line| println!("{line}")) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

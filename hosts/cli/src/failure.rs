//! What stops a command: the cause, the cure, the exit code.

use crate::output::one_line;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use pleach::Error;
use pleach_pack::{Kind, PackError};
use std::fmt::{self, Display};
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// What commands return.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not do what it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    cause: String,
    cure: String,
    code: u8,
}

impl Failure {
    /// Refused input or usage.
    pub(crate) fn refused(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            cure: cure.into(),
            code: 2,
        }
    }

    /// The machine: I/O, memory, our own mistakes.
    pub(crate) fn machine(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            code: 1,
            ..Self::refused(cause, cure)
        }
    }

    /// The user pressed Ctrl-C; `left` says what is left behind.
    pub(crate) fn interrupted(left: &str) -> Self {
        Self {
            code: 130,
            ..Self::refused("interrupted", left)
        }
    }

    /// Nobody reads our output any more: nothing to say, and nothing is wrong.
    fn closed() -> Self {
        Self {
            code: 0,
            ..Self::refused("", "")
        }
    }

    /// Standard output cannot be written.
    pub(crate) fn output(e: &io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::closed(),
            _ => Self::machine(
                format!("standard output: {e}"),
                "check where the output goes",
            ),
        }
    }

    /// A file that cannot be read.
    pub(crate) fn reading(path: &Path, e: &io::Error) -> Self {
        use io::ErrorKind as K;
        let cause = format!("{}: {e}", path.display());
        match e.kind() {
            K::NotFound => Self::refused(cause, "check the path"),
            K::IsADirectory | K::InvalidInput | K::NotADirectory => {
                Self::refused(cause, "pass a file")
            }
            K::InvalidData => Self::refused(cause, "pass a text file in UTF-8"),
            K::PermissionDenied => Self::machine(cause, "check the permissions of the file"),
            _ => Self::machine(cause, "try again; if it stays, check the disk"),
        }
    }

    pub(crate) fn cause(&self) -> &str {
        &self.cause
    }

    pub(crate) fn cure(&self) -> &str {
        &self.cure
    }

    /// An error of the core; `what` is the file or option that it came from.
    pub(crate) fn core(what: impl Display, e: Error) -> Self {
        let cause = format!("{what}: {e}");
        match e {
            Error::Magic => Self::refused(cause, "pass a model file that `pleach pack` wrote"),
            Error::Version { .. } => Self::refused(
                cause,
                "pack the checkpoint again with this version of pleach",
            ),
            Error::TokenOutOfRange { vocab, .. } => Self::refused(
                cause,
                format!("use tokens from 0 to {}", vocab.saturating_sub(1)),
            ),
            Error::ContextFull { .. } => {
                Self::refused(cause, "shorten the text, or raise --context")
            }
            Error::NonFinite { .. } => Self::refused(
                cause,
                "check the file with `pleach inspect`; if it is sound, its weights are too large for this text",
            ),
            Error::Option { .. } | Error::Refused { .. } => {
                Self::refused(cause, "see `pleach help run` for what options mean")
            }
            Error::Misaligned { .. } | Error::ArenaTooSmall { .. } | Error::Shape { .. } => {
                Self::machine(cause, "this is a mistake in pleach: please report it")
            }
            Error::Corrupt => Self::machine(cause, "leave the file alone while it is in use"),
            _ => Self::refused(
                cause,
                "the file is damaged: copy it again, or pack the checkpoint again",
            ),
        }
    }

    /// No memory for a session.
    pub(crate) fn memory(e: pleach_linux::arena::OutOfMemory) -> Self {
        Self::machine(
            e.to_string(),
            "lower --context or --chunk, or store keys and values as --kv f16",
        )
    }

    /// Writes cause and cure to standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.code != 0 {
            eprintln!("{self}");
        }
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names out of files may be in them.
        write!(f, "{}\n  {}", one_line(&self.cause), one_line(&self.cure))
    }
}

impl From<PackError> for Failure {
    fn from(e: PackError) -> Self {
        match e.kind {
            Kind::Refused => Self::refused(e.cause, e.cure),
            Kind::Machine => Self::machine(e.cause, e.cure),
        }
    }
}

/// An option's value that its parser refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    /// What is wrong with it.
    pub(crate) why: String,
    /// What to write instead.
    pub(crate) cure: String,
}

impl BadValue {
    pub(crate) fn new(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            cure: cure.into(),
        }
    }

    /// The failure of this value of an option.
    pub(crate) fn of(self, option: &str, value: impl Display) -> Failure {
        Failure::refused(format!("{option} {value}: {}", self.why), self.cure)
    }
}

impl Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for BadValue {}

impl From<clap::Error> for Failure {
    fn from(e: clap::Error) -> Self {
        let context = |kind| e.get(kind).map(text).unwrap_or_default();
        let option = first_word(&context(ContextKind::InvalidArg));
        let value = context(ContextKind::InvalidValue);
        let usage = joined(&context(ContextKind::Usage));
        let cure = if usage.is_empty() {
            "see `pleach --help`".to_owned()
        } else {
            usage
        };
        let bad = std::error::Error::source(&e).and_then(|s| s.downcast_ref::<BadValue>());
        match (e.kind(), bad) {
            (_, Some(bad)) => bad.clone().of(&option, value),
            (ErrorKind::InvalidValue, _) => {
                let valid = context(ContextKind::ValidValue);
                let cure = if valid.is_empty() {
                    cure
                } else {
                    format!("use one of: {valid}")
                };
                match value.is_empty() {
                    true => Self::refused(format!("{option}: its value is missing"), cure),
                    false => {
                        Self::refused(format!("{option} {value}: not a value that it takes"), cure)
                    }
                }
            }
            (ErrorKind::UnknownArgument, _) => {
                let near = first_word(&context(ContextKind::SuggestedArg));
                let cure = if near.is_empty() {
                    cure
                } else {
                    format!("did you mean {near}?")
                };
                Self::refused(format!("{option}: no such option or argument"), cure)
            }
            (ErrorKind::InvalidSubcommand, _) => {
                let near = context(ContextKind::SuggestedSubcommand);
                let cure = if near.is_empty() {
                    "the commands are pack, repack, inspect, run, chat, trace, plan and bench; without one the demo starts"
                        .into()
                } else {
                    format!("did you mean {near}?")
                };
                Self::refused(
                    format!(
                        "{}: no such command",
                        context(ContextKind::InvalidSubcommand)
                    ),
                    cure,
                )
            }
            (ErrorKind::MissingRequiredArgument, _) => Self::refused(
                format!("missing: {}", context(ContextKind::InvalidArg)),
                cure,
            ),
            (ErrorKind::ArgumentConflict, _) => {
                let other = first_word(&context(ContextKind::PriorArg));
                let why = match option == other {
                    true => format!("{option}: given twice"),
                    false => format!("{option} and {other} exclude each other"),
                };
                Self::refused(why, "pass one of them")
            }
            _ => {
                let all = e.to_string();
                let cause = all.lines().next().unwrap_or_default();
                Self::refused(cause.trim_start_matches("error: "), cure)
            }
        }
    }
}

fn text(value: &ContextValue) -> String {
    match value {
        ContextValue::Strings(all) => all.join(", "),
        ContextValue::StyledStr(s) => s.to_string(),
        other => other.to_string(),
    }
}

/// `--chunk` of `--chunk <N>`.
fn first_word(text: &str) -> String {
    text.split([' ', ',']).next().unwrap_or_default().to_owned()
}

/// A usage text of several lines as one.
fn joined(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join(", or ").replacen("Usage:", "usage:", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_the_second_indented() {
        let f = Failure::core("m.pleach", Error::Magic);
        let all = f.to_string();
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("m.pleach: ") && lines[1].starts_with("  "));
        assert_eq!(f.code, 2);
    }

    #[test]
    fn our_own_mistakes_are_the_machines() {
        assert_eq!(Failure::core("x", Error::Misaligned { needed: 64 }).code, 1);
        assert_eq!(
            Failure::core("x", Error::ContextFull { context: 3 }).code,
            2
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert_eq!(Failure::output(&io::ErrorKind::BrokenPipe.into()).code, 0);
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).code, 1);
    }
}

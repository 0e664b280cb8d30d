//! The one error of the packer: what is wrong, and what to do about it.

use std::fmt;
use std::path::Path;

/// Whose fault it is; commands turn it into the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input is refused: exit code 2.
    Refused,
    /// The machine failed (I/O, memory): exit code 1.
    Machine,
}

/// Why nothing was packed.
#[derive(Debug)]
pub struct PackError {
    /// One line that names the file and the tensor or key.
    pub cause: String,
    /// One line that says what to do.
    pub cure: String,
    /// Input or machine.
    pub kind: Kind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What the packer's functions return.
pub type Result<T> = std::result::Result<T, PackError>;

impl PackError {
    /// Input that is refused.
    pub fn refused(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            cause: one_line(cause.into()),
            cure: one_line(cure.into()),
            kind: Kind::Refused,
            source: None,
        }
    }

    /// A file that cannot be read or written. A missing or misplaced file is the user's to correct, the
    /// rest is the machine's.
    pub fn io(what: &str, path: &Path, error: std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let (kind, cure) = match error.kind() {
            E::NotFound | E::NotADirectory | E::IsADirectory => (Kind::Refused, "check the path"),
            E::PermissionDenied => (
                Kind::Machine,
                "check the permissions of the file and its folder",
            ),
            E::StorageFull => (Kind::Machine, "free some space, or write to another disk"),
            _ => (Kind::Machine, "try again; if it stays, check the disk"),
        };
        Self {
            cause: one_line(format!("{}: cannot {what}: {error}", path.display())),
            cure: cure.into(),
            kind,
            source: Some(Box::new(error)),
        }
    }

    /// The same error with the error that caused it.
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

/// Longest line of a message; what is longer loses its middle.
const LONGEST: usize = 2000;

/// Names and values from a file may hold anything: control characters are escaped, lengths are cut.
fn one_line(text: String) -> String {
    if text.len() <= LONGEST && !text.chars().any(char::is_control) {
        return text;
    }
    let mut line = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    if line.len() > LONGEST {
        let half = line.floor_char_boundary(LONGEST / 2);
        let end = line.ceil_char_boundary(line.len() - LONGEST / 2);
        line.replace_range(half..end, " ... ");
    }
    line
}

impl fmt::Display for PackError {
    /// Cause on the first line, cure on the second, indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.cause, self.cure)
    }
}

impl std::error::Error for PackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|e| e as &(dyn std::error::Error + 'static))
    }
}

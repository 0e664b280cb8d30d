//! What reaches the screen: standard output, numbers as people read them, lines that fit, progress.

use crate::failure::{Failure, Result};
use crate::interrupt;
use console::Term;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::borrow::Cow;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Writes to standard output; a reader that went away ends the command quietly.
pub(crate) fn write(text: fmt::Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_fmt(text)
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}

/// `println!` that can fail.
macro_rules! say {
    ($($arg:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($arg)*))) };
}
pub(crate) use say;

/// Something the user should know that is no failure: to standard error. What comes out of a file may be in it, so
/// it is one line of bounded length.
pub(crate) fn note(text: &str) {
    eprintln!("note: {}", one_line(text));
}

/// Without the control characters that a terminal would obey.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    match text.contains(obeyed) {
        true => Cow::Owned(text.replace(obeyed, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// The same without line ends and tabs, at most [`LONGEST_LINE`] characters.
pub(crate) fn one_line(text: &str) -> String {
    let line = |c: char| match c.is_control() {
        true => '\u{fffd}',
        false => c,
    };
    let mut out: String = text.chars().take(LONGEST_LINE).map(line).collect();
    if text.chars().nth(LONGEST_LINE).is_some() {
        out.push('…');
    }
    out
}

/// A path as a shell takes it for one word, and a command not for an option.
pub(crate) fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let path = match path.starts_with('-') {
        true => format!("./{path}"),
        false => path,
    };
    let plain = |c: char| c.is_alphanumeric() || "_-./,:+=@%".contains(c);
    match !path.is_empty() && path.chars().all(plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// Characters of a text out of a file that is told in a line.
const LONGEST_LINE: usize = 1000;

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Columns of the terminal; 80 where nobody says.
pub(crate) fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let found = Term::stdout()
        .size_checked()
        .map(|(_, columns)| usize::from(columns));
    match (found, asked) {
        (Some(f), Some(a)) => f.min(a),
        (f, a) => f.or(a).unwrap_or(80),
    }
    .max(20)
}

/// Bytes with a unit, three or four digits.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} bytes");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 100.0 { 1 } else { 0 };
    format!("{value:.digits$} {}", units[unit])
}

/// All digits, in groups of three: `100,924`.
pub(crate) fn exactly(n: u64) -> String {
    HumanCount(n).to_string()
}

/// A count with a unit: `0.25 M`.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.2} M", n as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} M", n as f64 / 1e6),
        _ => format!("{:.1} B", n as f64 / 1e9),
    }
}

/// Breaks a text into lines of at most `width` columns, at spaces where there are any.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        if !line.is_empty() {
            if console::measure_text_width(&line) + 1 + console::measure_text_width(&word) <= width
            {
                line.push(' ');
                line.push_str(&word);
                continue;
            }
            lines.push(std::mem::take(&mut line));
        }
        while console::measure_text_width(&word) > width {
            let mut head = String::new();
            let mut rest = word.chars().peekable();
            while let Some(c) = rest.next_if(|c| {
                let mut longer = head.clone();
                longer.push(*c);
                head.is_empty() || console::measure_text_width(&longer) <= width
            }) {
                head.push(c);
            }
            word = rest.collect();
            lines.push(head);
        }
        line = word;
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// A label and a text beside it that continues below itself.
pub(crate) fn labelled(label: &str, indent: usize, text: &str, width: usize) -> String {
    let lines = wrap(text, width.saturating_sub(indent));
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        let head = if i == 0 { label } else { "\n" };
        out.push_str(head);
        let used = if i == 0 {
            console::measure_text_width(label)
        } else {
            0
        };
        out.push_str(&" ".repeat(indent.saturating_sub(used)));
        out.push_str(line);
    }
    out
}

/// The progress bar of `pleach pack` and `pleach repack`, on standard error if that is a terminal. Notes wait until the end: the
/// first line of a failure must be its cause.
pub(crate) struct Bar {
    bar: ProgressBar,
    what: &'static str,
    pub(crate) notes: Vec<String>,
}

impl Bar {
    /// A bar that is not there yet; `what` is being done.
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            bar: ProgressBar::hidden(),
            what,
            notes: Vec::new(),
        }
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Nothing is written before all tensors are read, so that here is a clean place to stop.
    fn stop_if_asked(&self) {
        if interrupt::asked() {
            self.clear();
            Failure::interrupted("no file was written").report();
            std::process::exit(130);
        }
    }
}

impl pleach_pack::Progress for Bar {
    fn start(&mut self, total_bytes: u64) {
        let rest = "{wide_bar} {binary_bytes}/{binary_total_bytes} {eta}";
        self.bar = ProgressBar::new(total_bytes);
        if let Ok(style) = ProgressStyle::with_template(&format!("{} {rest}", self.what)) {
            self.bar.set_style(style.progress_chars("██░"));
        }
        self.stop_if_asked();
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        self.stop_if_asked();
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_path_for_one_word() {
        for (path, quote) in [
            ("a/b-1.pleach", "a/b-1.pleach"),
            ("größe.pleach", "größe.pleach"),
            ("my models/a b.pleach", "'my models/a b.pleach'"),
            ("it's.pleach", r"'it'\''s.pleach'"),
            ("a$HOME;rm", "'a$HOME;rm'"),
            ("~/a", "'~/a'"),
            ("-x.pleach", "./-x.pleach"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), quote);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(378_000), "369 KiB");
        assert_eq!(bytes(1 << 30), "1.0 GiB");
        assert_eq!(exactly(0), "0");
        assert_eq!(exactly(999), "999");
        assert_eq!(exactly(100_924), "100,924");
        assert_eq!(count(250_000), "0.25 M");
        assert_eq!(count(1_700_000_000), "1.7 B");
    }

    #[test]
    fn terminals_obey_nothing_of_a_text() {
        assert_eq!(
            harmless("a\x1b[31m\tb\n\u{9b}1m\r"),
            "a\u{fffd}[31m\tb\n\u{fffd}1m\u{fffd}"
        );
        assert_eq!(harmless("ä"), "ä");
        assert_eq!(one_line("ä\n\x1b7"), "ä\u{fffd}\u{fffd}7");
        assert_eq!(one_line(&"ä".repeat(2000)).chars().count(), 1001);
    }

    #[test]
    fn wrapping() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("abcdefg h", 3), ["abc", "def", "g h"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
    }

    #[test]
    fn labels() {
        assert_eq!(labelled("a", 3, "b c d", 6), "a  b c\n   d");
    }
}

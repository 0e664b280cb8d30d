//! Lines of standard input, bounded.

use crate::failure::{Failure, Result};
use std::io::{BufRead, Read};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// There are no more.
    End,
    /// Longer than allowed; it was skipped without being kept.
    TooLong,
    /// Not UTF-8 from this byte on, counted from 1.
    NotText(usize),
    /// Its text, without the line end.
    Text(String),
}

/// The next line of at most `longest` bytes. Errors: standard input cannot be read.
pub(crate) fn next(input: &mut impl BufRead, longest: usize) -> Result<Line> {
    let mut bytes = Vec::new();
    let failed = |e: std::io::Error| {
        Failure::machine(
            format!("standard input: {e}"),
            "check where the input comes from",
        )
    };
    let mut limited = input.by_ref().take(longest as u64 + 1);
    if limited.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
        return Ok(Line::End);
    }
    if bytes.last() != Some(&b'\n') && bytes.len() > longest {
        input.skip_until(b'\n').map_err(failed)?;
        return Ok(Line::TooLong);
    }
    let ending: &[u8] = match bytes.ends_with(b"\r\n") {
        true => b"\r\n",
        false => b"\n",
    };
    let body = bytes.strip_suffix(ending).unwrap_or(&bytes);
    Ok(match std::str::from_utf8(body) {
        Ok(text) => Line::Text(text.to_owned()),
        Err(e) => Line::NotText(e.valid_up_to() + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded() {
        let mut text = vec![b'a'; 30];
        text.extend(b"\n\n Hallo \r\nab\xff\nlast");
        let mut input = &text[..];
        let mut next = || next(&mut input, 10).unwrap();
        assert_eq!(next(), Line::TooLong);
        assert_eq!(next(), Line::Text(String::new()));
        assert_eq!(next(), Line::Text(" Hallo ".to_owned()));
        assert_eq!(next(), Line::NotText(3));
        assert_eq!(next(), Line::Text("last".to_owned()));
        assert_eq!(next(), Line::End);
    }
}

//! Commands as lines: `llama/peer.cpp` lists them.

use crate::Result;

/// A command with token ids, as one line.
pub fn command(name: &str, tokens: &[u32]) -> String {
    let ids = tokens.iter().map(|t| format!(" {t}"));
    name.to_owned() + &ids.collect::<String>()
}

/// A line as name and token ids.
pub fn command_of(line: &str) -> Result<(&str, Vec<u32>)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next().unwrap_or("");
    let ids = words.map(|w| w.parse().map_err(|e| format!("{w}: {e}")));
    Ok((name, ids.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let line = command("tokens", &[1, 2]);
        assert_eq!(line, "tokens 1 2");
        assert_eq!(command_of(&line), Ok(("tokens", vec![1, 2])));
        assert!(command_of("tokens x").is_err());
    }
}

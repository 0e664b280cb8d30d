//! What can be typed instead of a message.

use crate::failure::BadValue;
use crate::options::RoutingChoice;
use std::path::Path;
use std::str::FromStr;

/// What a command asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Next<'l> {
    Quit,
    Help,
    Reset,
    /// On, off, or the other.
    Experts(Option<bool>),
    ShowRouting,
    Routing(RoutingChoice),
    Save(&'l Path),
}

/// Reads a command, given without its slash. Errors: what is wrong with it, for a person.
pub(super) fn read(command: &str) -> Result<Next<'_>, BadValue> {
    let (word, argument) = command
        .trim()
        .split_once(char::is_whitespace)
        .unwrap_or((command.trim(), ""));
    let argument = argument.trim();
    Ok(match (word, argument) {
        ("quit" | "exit" | "q", _) => Next::Quit,
        ("help" | "h" | "?", _) => Next::Help,
        ("reset", _) => Next::Reset,
        ("experts", "") => Next::Experts(None),
        ("experts", "on") => Next::Experts(Some(true)),
        ("experts", "off") => Next::Experts(Some(false)),
        ("experts", other) => {
            return Err(BadValue::new(
                format!("/experts {other}: neither on nor off"),
                "use /experts, /experts on or /experts off",
            ));
        }
        ("routing", "") => Next::ShowRouting,
        ("routing", wanted) => Next::Routing(
            RoutingChoice::from_str(wanted)
                .map_err(|e| BadValue::new(format!("/routing {wanted}: {}", e.why), e.cure))?,
        ),
        ("save", "") => {
            return Err(BadValue::new(
                "/save: no file",
                "use /save FILE.md for Markdown, or any other name for JSON lines",
            ));
        }
        ("save", path) => Next::Save(Path::new(path)),
        _ => {
            return Err(BadValue::new(
                format!("/{word}: no such command"),
                "the commands are /reset, /experts, /routing, /save, /help and /quit; a message that begins with a \
                 slash gets a space before it",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(read("quit now"), Ok(Next::Quit));
        assert_eq!(read(" experts  off "), Ok(Next::Experts(Some(false))));
        assert_eq!(
            read("routing every:3"),
            Ok(Next::Routing(RoutingChoice::Every(3)))
        );
        assert_eq!(
            read("save my talk.md"),
            Ok(Next::Save(Path::new("my talk.md")))
        );
        for bad in ["", "nonsense", "save", "routing foo", "experts maybe"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

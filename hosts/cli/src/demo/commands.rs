//! What can be typed instead of a sentence.

use super::screen;
use crate::options::RoutingChoice;
use pleach::Model;
use std::str::FromStr;

/// What a command leads to.
pub(super) enum Next {
    Show(String),
    Quit,
}

/// Runs a command, given without its slash.
pub(super) fn run(
    command: &str,
    routing: &mut RoutingChoice,
    model: &Model<'_>,
    width: usize,
) -> Next {
    let (word, argument) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    match (word, argument.trim()) {
        ("quit" | "exit" | "q", _) => Next::Quit,
        ("help" | "h" | "?", _) => Next::Show(screen::help(width)),
        ("experts", _) => Next::Show(screen::experts(model, width)),
        ("routing", "") => Next::Show(screen::routings(routing, model, width)),
        ("routing", wanted) => Next::Show(set(wanted, routing, model, width)),
        _ => Next::Show(screen::problem(
            &format!("/{word}: no such command"),
            "the commands are /help, /experts, /routing and /quit",
            width,
        )),
    }
}

fn set(wanted: &str, routing: &mut RoutingChoice, model: &Model<'_>, width: usize) -> String {
    let choice = RoutingChoice::from_str(wanted)
        .and_then(|choice| choice.resolve(model).map(|_| ()).map(|()| choice.clone()));
    match choice {
        Ok(choice) => {
            *routing = choice;
            format!("routing is {routing}")
        }
        Err(bad) => screen::problem(&format!("/routing {wanted}: {}", bad.why), &bad.cure, width),
    }
}

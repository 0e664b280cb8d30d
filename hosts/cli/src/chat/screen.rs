//! What a person sees. Nothing is wider than the terminal.

use crate::cmd::Chat;
use crate::options::{self, SessionArgs, names};
use crate::output::{labelled, one_line, width, wrap};
use console::style;
use pleach::Model;

/// What stands before each message.
pub(super) const PROMPT: &str = "> ";

/// Columns of names and labels.
pub(super) const INDENT: usize = 9;

/// The first screen.
pub(super) fn welcome(model: &Model<'_>, options: &Chat, width: usize) -> String {
    let c = model.config();
    let name = options.file.file_name().unwrap_or(options.file.as_os_str());
    let mut lines = vec![labelled(
        "model",
        INDENT,
        &format!(
            "{}: {} layers, hidden {}, vocabulary {}",
            name.display(),
            c.layers,
            c.hidden,
            c.vocab
        ),
        width,
    )];
    if model.n_experts() > 0 {
        lines.push(labelled("experts", INDENT, &names(model), width));
    }
    if let Some(system) = &options.system {
        lines.push(labelled("system", INDENT, system, width));
    }
    lines.push(String::new());
    lines.extend(wrap(
        "Say something. /reset /experts /routing /save /help /quit",
        width,
    ));
    lines.push(String::new());
    lines.join("\n") + "\n"
}

/// Cause, then cure.
pub(super) fn problem(cause: &str, cure: &str) -> String {
    let cause = wrap(&one_line(cause), width()).join("\n");
    let cure = wrap(&one_line(cure), width().saturating_sub(2)).join("\n  ");
    format!("{}\n  {cure}", style(cause).red().for_stderr())
}

/// A short remark.
pub(super) fn hint(text: &str) -> String {
    style(wrap(text, width()).join("\n"))
        .dim()
        .for_stderr()
        .to_string()
}

/// `/routing` without a word.
pub(super) fn routings(args: &SessionArgs, model: &Model<'_>, width: usize) -> String {
    let now = match args.routing() {
        Some(choice) => choice.to_string(),
        None if model.has_classifier() => "exact".to_owned(),
        None if model.n_experts() == 0 => "base".to_owned(),
        None => "all-ones".to_owned(),
    };
    let usage = wrap(
        &format!(
            "routing is {now}; with /routing R the conversation goes on under R, all of it, where R is"
        ),
        width,
    );
    format!("{}\n{}", usage.join("\n"), options::routings(model, width))
}

//! A text as it is generated: whole characters as they come, perhaps with what the experts had to say.

use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::mix::{Mix, colour};
use crate::output::{self, harmless, one_line};
use pleach::{Model, Routing, Session};
use pleach_linux::{Setup, Watch};
use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

/// How a text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// As it is.
    Text,
    /// Each token in the colour of the expert that was strongest where it was chosen.
    Colours,
    /// A line per token: its number, its text as a JSON string, the strongest expert, each expert's mean
    /// scaling; separated by tabs.
    Lines,
}

impl Show {
    /// Colours where there are any, else lines; `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` decide.
    pub(crate) fn experts() -> Self {
        match console::colors_enabled() {
            true => Show::Colours,
            false => Show::Lines,
        }
    }
}

/// Prints a text as it comes, and listens to the experts.
pub(crate) struct Printer<'m, 'b> {
    model: &'m Model<'b>,
    show: Show,
    /// Control characters that a terminal would obey are left out.
    terminal: bool,
    pub(crate) mix: Mix,
    strongest: Option<usize>,
    /// A token whose line is not written yet, because its text may still come.
    line: Option<Line>,
    failure: Option<Failure>,
}

struct Line {
    token: u32,
    text: String,
    strongest: Option<usize>,
    scalings: Vec<f64>,
}

impl<'m, 'b> Printer<'m, 'b> {
    pub(crate) fn new(model: &'m Model<'b>, show: Show) -> Self {
        Self {
            model,
            show,
            terminal: output::is_terminal(),
            mix: Mix::of(model),
            strongest: None,
            line: None,
            failure: None,
        }
    }

    /// Ends the text. Errors: standard output cannot be written.
    pub(crate) fn finish(mut self) -> Result<Mix> {
        // The token that ended the text has a line only if it had a text.
        if let Some(line) = self.line.take().filter(|l| !l.text.is_empty()) {
            // A failure is kept, and told below.
            let _ = self.write(&self.written(&line));
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.mix),
        }
    }

    fn written(&self, line: &Line) -> String {
        let name = |class| one_line(self.model.expert(class).map_or("", |e| e.name()));
        let all = line.scalings.iter().enumerate();
        let all: Vec<String> = all.map(|(c, v)| format!("{}={v:.3}", name(c))).collect();
        format!(
            "{}\t{}\t{}\t{}\n",
            line.token,
            serde_json::Value::from(line.text.as_str()),
            line.strongest.map_or("-".to_owned(), name),
            all.join(" ")
        )
    }

    fn write(&mut self, text: &str) -> ControlFlow<()> {
        match output::write(format_args!("{text}")) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure.get_or_insert(failure);
                ControlFlow::Break(())
            }
        }
    }
}

impl Watch for Printer<'_, '_> {
    fn sweep(&mut self, session: &Session<'_, '_>, positions: Range<usize>) -> ControlFlow<()> {
        self.mix.sweep(session, &positions);
        match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn token(&mut self, token: u32) -> ControlFlow<()> {
        self.strongest = self.mix.token();
        if self.show != Show::Lines {
            return ControlFlow::Continue(());
        }
        let next = Line {
            token,
            text: String::new(),
            strongest: self.strongest,
            scalings: self.mix.latest().to_vec(),
        };
        match self.line.replace(next) {
            Some(line) => self.write(&self.written(&line)),
            None => ControlFlow::Continue(()),
        }
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        let text = match self.terminal {
            true => harmless(text),
            false => Cow::Borrowed(text),
        };
        match (self.show, self.strongest) {
            (Show::Lines, _) => {
                if let Some(line) = &mut self.line {
                    line.text.push_str(&text);
                }
                ControlFlow::Continue(())
            }
            (Show::Colours, Some(class)) => self.write(&painted(&text, class)),
            _ => self.write(&text),
        }
    }
}

/// Spaces and line ends stay as they are: a colour would only show in underlines, and would break lines of a pager.
fn painted(text: &str, class: usize) -> String {
    let body = text.trim();
    match body.is_empty() {
        true => text.to_owned(),
        false => {
            let (before, after) = text.split_once(body).unwrap_or_default();
            format!("{before}{}{after}", colour(class).apply_to(body))
        }
    }
}

/// Why the experts' colours say little under a routing, if so.
pub(crate) fn says_little(setup: &Setup<'_>, model: &Model<'_>, option: &str) -> Option<String> {
    let why = match setup.routing {
        _ if model.n_experts() == 0 => "the model has no experts",
        Some(Routing::Base) => "under routing base no expert takes part",
        Some(Routing::Static(_) | Routing::Only(_) | Routing::AllOnes) => {
            "under this routing every token gets the same scalings"
        }
        Some(Routing::Prompt) => "under routing prompt every token gets the prompt's scalings",
        None if !model.has_classifier() => {
            "without a classifier every token gets the same scalings"
        }
        _ => return None,
    };
    Some(format!("{option}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_spares_the_spaces_around_a_word() {
        console::set_colors_enabled(true);
        let text = painted(" word\n", 0);
        assert!(
            text.starts_with(" \x1b[") && text.ends_with("m\n"),
            "{text:?}"
        );
        assert_eq!(painted(" \n", 0), " \n");
    }
}

//! A conversation on a terminal or through a pipe.

mod commands;
mod save;
mod screen;
mod talk;

use crate::cmd::Chat;
use crate::failure::{Failure, Result};
use crate::interrupt::AtPrompt;
use crate::lines::{self, Line};
use crate::model::{self, Files};
use crate::options::{SessionArgs, make_room};
use crate::output::{self, say};
use pleach::Model;
use pleach::tokenizer::Tokenizer;
use pleach_linux::Arena;
use pleach_linux::chat::{AskError, Conversation, Encoder};
use pleach_linux::template::{ChatTemplate, Moment, TemplateError};
use std::io::{BufRead, IsTerminal};
use std::path::Path;
use talk::{Ended, Talk};

/// The longest message, in bytes; a terminal's own line editing ends at 4095.
const LONGEST: usize = 1 << 20;

/// What `pleach chat --help` says after the options.
pub(crate) const HELP: &str = "\
A line is a message. Lines that begin with a slash are commands; a message that should begin with one
gets a space before it:
  /reset          forget the conversation, but not --system
  /experts        colours and the experts' shares of each answer, on or off
  /routing [R]    show or change which scalings tokens get
  /save FILE      write the conversation: FILE.md as Markdown, any other name as JSON lines of role and content
  /help, /quit

Ctrl-C stops an answer; at the prompt, twice, it leaves (130), as Ctrl-D does (0). From a pipe each line is a
message too, and standard output is the answers, each ended by a line end.

Control tokens are the template's affair: <|im_end|> in a message is plain text. Where the conversation no
longer fits the context, its oldest exchanges are left out, never --system.";

/// Talks until there are no more lines.
pub(crate) fn run(options: &Chat) -> Result<()> {
    let files = Files::open(&options.file, &options.session.experts)?;
    let experts = files.experts()?;
    let model = files.model(&experts)?;
    let mut session = options.session.clone();
    let plan = session.plan(&options.file, &model)?;
    let mut drawing = options.sampling.drawing(&model)?;
    let layout = model::layout_note(&options.file, &model);
    let notes = layout.iter().chain(&plan.notes).chain(&drawing.notes);
    let notes: Vec<String> = notes.cloned().collect();
    let context = plan.session.context;
    let tokenizer = model::tokenizer(&options.file, &model)?;
    let encoder = encoder(options, &model, tokenizer)?;
    drawing.end_answers(encoder.ends());
    let conversation = Conversation::new(encoder, options.system.clone(), context);
    conversation
        .check("Hello")
        .map_err(|e| unfit(options, &e))?;
    notes.iter().for_each(|n| output::note(n));
    let mut talk = Talk::new(options, model, conversation, drawing);
    let input = std::io::stdin();
    let person = input.is_terminal() && output::is_terminal();
    let mut input = Input {
        lines: input.lock(),
        number: 0,
        person,
        refused: 0,
    };
    if person {
        let text = screen::welcome(&model, options, output::width());
        output::write(format_args!("{text}"))?;
    }
    // A session for each routing; the conversation goes on, under the one before if there is no memory for a new one.
    let mut before: Option<SessionArgs> = None;
    loop {
        let plan = session.plan(&options.file, &model)?;
        let mut arena = match (Arena::new(model.arena_bytes(&plan.session)), before.take()) {
            (Ok(arena), _) => arena,
            (Err(e), None) => return Err(Failure::memory(e)),
            (Err(e), Some(last)) => {
                input.refuse_failure(&Failure::memory(e));
                session = last;
                continue;
            }
        };
        match talk.with(plan, arena.bytes(), &session, &mut input)? {
            Ended::Routing(choice) => {
                let next = session.with_routing(choice);
                before = Some(std::mem::replace(&mut session, next));
            }
            Ended::Leave => return input.end(),
        }
    }
}

/// A system prompt, or a template, with which no conversation can begin.
fn unfit(options: &Chat, e: &AskError) -> Failure {
    match (e, &options.system) {
        (AskError::Core(e), _) => Failure::core(options.file.display(), *e),
        (AskError::Template(TemplateError::Machine(_)), _) => no_thread(e),
        (AskError::Template(TemplateError::Raised(_)), Some(_)) => Failure::refused(
            format!("--system: {e}"),
            "leave --system out, if it is the system role that it refuses; or pass another --template",
        ),
        (AskError::TooLong { tokens, .. }, Some(_)) => Failure::refused(
            format!("--system: {e}"),
            make_room(tokens.saturating_mul(2)),
        ),
        _ => Failure::refused(format!("{}: {e}", options.file.display()), cure_of(e)),
    }
}

fn no_thread(e: &AskError) -> Failure {
    Failure::machine(
        e.to_string(),
        "free some memory, or allow the process more threads and address space",
    )
}

/// What to do about a question that got no answer.
fn cure_of(e: &AskError) -> &'static str {
    match e {
        AskError::TooLong { .. } => "say it in fewer words, or start again with a larger --context",
        AskError::Template(TemplateError::Raised(_)) => {
            "say it so that the template takes it, or start again with another --template"
        }
        _ => "start again with another --template FILE, or --template chatml",
    }
}

/// The template, by what was asked and what the model has.
fn encoder<'b>(options: &Chat, model: &Model<'b>, tokenizer: Tokenizer<'b>) -> Result<Encoder<'b>> {
    let file = options.file.display();
    let own;
    let (name, source) = match &options.template {
        Some(path) if path == Path::new("chatml") => ("chatml".to_owned(), ChatTemplate::CHATML),
        Some(path) => {
            own = read_template(path)?;
            (format!("--template {}", path.display()), &own[..])
        }
        None => match model.chat_template() {
            Some(source) => (format!("{file}: chat template"), source),
            None => {
                return Err(Failure::refused(
                    format!("{file}: the model file has no chat template"),
                    "pass --template FILE with the base's own, or --template chatml; `pleach run` needs none",
                ));
            }
        },
    };
    let template = ChatTemplate::parse(source).map_err(|e| refused_template(&name, &e))?;
    Ok(Encoder::new(model, tokenizer, template, Moment::now()))
}

fn read_template(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).map_err(|e| Failure::reading(path, &e))?;
    // A byte more than is allowed, so that the template refuses it.
    let mut limited = std::io::Read::take(file, ChatTemplate::MAX_BYTES as u64 + 4);
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut limited, &mut bytes).map_err(|e| Failure::reading(path, &e))?;
    if bytes.len() > ChatTemplate::MAX_BYTES {
        return Err(Failure::refused(
            format!(
                "--template {}: more than {} bytes",
                path.display(),
                ChatTemplate::MAX_BYTES
            ),
            "pass the Jinja text alone",
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to() + 1;
        Failure::refused(
            format!(
                "--template {}: not UTF-8 text from byte {at} on",
                path.display()
            ),
            "pass a text file in UTF-8",
        )
    })
}

fn refused_template(name: &str, e: &TemplateError) -> Failure {
    Failure::refused(
        format!("{name}: {e}"),
        "pass another one with --template FILE, or --template chatml",
    )
}

/// Standard input, and how its lines were taken.
pub(super) struct Input<R> {
    lines: R,
    number: usize,
    /// Somebody types and reads.
    person: bool,
    refused: usize,
}

impl<R: BufRead> Input<R> {
    /// The next line that is a message or a command; `None` at the end.
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            let line = if self.person {
                output::write(format_args!("{}", screen::PROMPT))?;
                let _asking = AtPrompt::new();
                lines::next(&mut self.lines, LONGEST)?
            } else {
                lines::next(&mut self.lines, LONGEST)?
            };
            self.number += usize::from(line != Line::End);
            match line {
                Line::End if self.person => {
                    say!("")?;
                    return Ok(None);
                }
                Line::End => return Ok(None),
                Line::TooLong => {
                    self.refuse(&format!("longer than {LONGEST} bytes"), "send it in parts")
                }
                Line::NotText(at) => self.refuse(
                    &format!("not UTF-8 text from byte {at} on"),
                    "save the text as UTF-8, or set the terminal to it",
                ),
                Line::Text(text) if text.trim().is_empty() && self.person => {
                    let hint = "an empty line: type a message, or /help";
                    eprintln!("{}", screen::hint(hint));
                }
                Line::Text(text) if text.trim().is_empty() => {
                    output::note(&format!("line {}: empty", self.number));
                }
                Line::Text(text) => return Ok(Some(text)),
            }
        }
    }

    /// Tells that a line was refused: a script finds its number, and exit code 2 in the end.
    fn refuse(&mut self, why: &str, cure: &str) {
        self.refused += 1;
        match self.person {
            true => eprintln!("{}", screen::problem(why, cure)),
            false => eprintln!(
                "line {}: {}\n  {}",
                self.number,
                output::one_line(why),
                output::one_line(cure)
            ),
        }
    }

    fn refuse_failure(&mut self, failure: &Failure) {
        self.refuse(failure.cause(), failure.cure());
    }

    /// Tells somebody what a command did; scripts find it on standard error.
    fn tell(&self, text: &str) -> Result<()> {
        match self.person {
            true => say!("{text}"),
            false => {
                eprintln!("{text}");
                Ok(())
            }
        }
    }

    fn end(&self) -> Result<()> {
        match self.refused {
            n if n > 0 && !self.person => Err(Failure::refused(
                format!("{n} of {} lines were refused", self.number),
                "their numbers and reasons are above",
            )),
            _ => Ok(()),
        }
    }
}

//! The messages of a conversation, what of them fits the context, and what of that the session holds.

use super::encoder::Encoder;
use crate::generate::{End, Generation, Limits, Watch, generate};
use crate::template::{Message, Role, TemplateError};
use pleach::{Error, Executor, Kernels, Session};
use std::fmt;

/// A conversation over one session.
///
/// Each question is rendered with all that was said before; the session keeps the longest beginning that it already
/// holds and computes the rest, so that a template that rewrites what was said (as Qwen3's drops old thoughts)
/// works as well. The answers are those of a session that computes everything anew, but under the routings that
/// look at what is pushed together (`lag`, `prompt`).
#[derive(Debug)]
pub struct Conversation<'b> {
    encoder: Encoder<'b>,
    system: Option<String>,
    /// Tokens that the session has room for.
    context: usize,
    messages: Vec<Message>,
    /// The first message that the model still sees.
    first: usize,
    /// The tokens that the session holds.
    held: Vec<u32>,
}

/// What a question is to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Tokens of the whole prompt.
    pub prompt: usize,
    /// Of these, tokens that the session held already.
    pub reused: usize,
    /// Old exchanges that no longer fit the context and were left out.
    pub dropped: usize,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens, with the one that ended it.
    pub tokens: usize,
    /// Why there are no more.
    pub end: End,
    /// What the question was to the session.
    pub turn: Turn,
}

impl Answer {
    /// Whether question and answer are part of the conversation: not if it was interrupted before its first word.
    pub fn is_kept(&self) -> bool {
        !(self.text.is_empty() && self.end == End::Interrupted)
    }
}

/// Why a question got no answer. Nothing of the conversation is lost.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AskError {
    /// The template gave no text.
    Template(TemplateError),
    /// System prompt and question alone do not fit the context.
    TooLong {
        /// Tokens that they have.
        tokens: usize,
        /// The context.
        context: usize,
    },
    /// The session failed.
    Core(Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(e) => write!(f, "chat template: {e}"),
            Self::TooLong { tokens, context } => write!(
                f,
                "{tokens} tokens leave no room for an answer in the context of {context}"
            ),
            Self::Core(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for AskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Template(e) => Some(e),
            Self::TooLong { .. } => None,
            Self::Core(e) => Some(e),
        }
    }
}

impl From<TemplateError> for AskError {
    fn from(e: TemplateError) -> Self {
        Self::Template(e)
    }
}

impl From<Error> for AskError {
    fn from(e: Error) -> Self {
        Self::Core(e)
    }
}

impl<'b> Conversation<'b> {
    /// A conversation without a word, for sessions of `context` tokens; `system` is what the model is told before
    /// it.
    pub fn new(encoder: Encoder<'b>, system: Option<String>, context: u32) -> Self {
        Self {
            encoder,
            system,
            context: context as usize,
            messages: Vec::new(),
            first: 0,
            held: Vec::new(),
        }
    }

    /// What was said, also what the model no longer sees; the system prompt first, if there is one.
    pub fn transcript(&self) -> Vec<Message> {
        self.window(0, None)
    }

    /// Forgets what was said, but the system prompt.
    ///
    /// Errors: none that a session which holds this conversation gives.
    pub fn reset(&mut self, session: &mut Session<'_, '_>) -> Result<(), Error> {
        self.messages.clear();
        self.first = 0;
        self.restart();
        session.rewind(0)
    }

    /// The session is another one, at length 0: all of the conversation is computed anew with the next question.
    pub fn restart(&mut self) {
        self.held.clear();
    }

    /// Asks, and hears the answer through `watch`.
    ///
    /// Of the limits, `tokens` are those of the answer. Where prompt and answer do not fit the context, the oldest
    /// exchanges are left out. An answer that was interrupted before its first word leaves no trace.
    ///
    /// Errors: [`AskError`]; what was said before stays.
    pub fn ask(
        &mut self,
        question: &str,
        session: &mut Session<'_, '_>,
        kernels: Kernels,
        executor: &mut dyn Executor,
        limits: &Limits<'_>,
        watch: &mut dyn Watch,
    ) -> Result<Answer, AskError> {
        let (tokens, first, dropped) = self.fit(question, limits.tokens)?;
        // The last token is computed again if the session holds all: its logits are needed.
        let same = self
            .held
            .iter()
            .zip(&tokens)
            .take_while(|(a, b)| a == b)
            .count();
        let reused = same.min(tokens.len().saturating_sub(1)).min(session.len());
        session.rewind(reused)?;
        self.held = tokens;
        let turn = Turn {
            prompt: self.held.len(),
            reused,
            dropped,
        };

        let mut heard = Heard {
            text: String::new(),
            watch,
        };
        let rest = &self.held[reused..];
        let done = generate(session, kernels, executor, rest, limits, &mut heard);
        let text = heard.text;
        if let Ok(Generation { tokens, .. }) = &done {
            self.held.extend(tokens);
        }
        self.held.truncate(session.len());
        let Generation { tokens, end } = done?;
        let answer = Answer {
            text,
            tokens: tokens.len(),
            end,
            turn,
        };
        if answer.is_kept() {
            self.first = first;
            self.messages.push(Message::new(Role::User, question));
            self.messages
                .push(Message::new(Role::Assistant, &answer.text));
        }
        Ok(answer)
    }

    /// The system prompt and a question alone.
    ///
    /// Errors: as [`Conversation::ask`]; so a system prompt that is too long can be refused before a question
    /// comes.
    pub fn check(&self, question: &str) -> Result<(), AskError> {
        let mut alone = self.window(self.messages.len(), None);
        alone.push(Message::new(Role::User, question));
        let tokens = self.encoder.encode(&alone, true)?.len();
        let context = self.context;
        match tokens < context {
            true => Ok(()),
            false => Err(AskError::TooLong { tokens, context }),
        }
    }

    /// The tokens of as much of the conversation as leaves room for an answer (`wanted` tokens, or a quarter of
    /// the context), its first message, and how many exchanges that leaves out.
    fn fit(&self, question: &str, wanted: usize) -> Result<(Vec<u32>, usize, usize), AskError> {
        let context = self.context;
        let room = wanted.min(context / 4);
        let (mut first, mut dropped) = (self.first, 0);
        loop {
            let tokens = self
                .encoder
                .encode(&self.window(first, Some(question)), true)?;
            if tokens.len() + room <= context {
                return Ok((tokens, first, dropped));
            }
            let mut later = self.messages.iter().skip(first + 1);
            match later.position(|m| m.role == Role::User) {
                _ if first >= self.messages.len() => {
                    return match tokens.len() < context {
                        true => Ok((tokens, first, dropped)),
                        false => Err(AskError::TooLong {
                            tokens: tokens.len(),
                            context,
                        }),
                    };
                }
                Some(n) => first += 1 + n,
                None => first = self.messages.len(),
            }
            dropped += 1;
        }
    }

    /// The messages from `first` on, between the system prompt and a question.
    fn window(&self, first: usize, question: Option<&str>) -> Vec<Message> {
        let system = self.system.iter().map(|s| Message::new(Role::System, s));
        let kept = self.messages.iter().skip(first).cloned();
        let question = question.map(|q| Message::new(Role::User, q));
        system.chain(kept).chain(question).collect()
    }
}

/// Keeps the text that the watcher hears.
struct Heard<'w> {
    text: String,
    watch: &'w mut dyn Watch,
}

impl Watch for Heard<'_> {
    fn sweep(
        &mut self,
        session: &Session<'_, '_>,
        positions: std::ops::Range<usize>,
    ) -> std::ops::ControlFlow<()> {
        self.watch.sweep(session, positions)
    }

    fn token(&mut self, token: u32) -> std::ops::ControlFlow<()> {
        self.watch.token(token)
    }

    fn text(&mut self, text: &str) -> std::ops::ControlFlow<()> {
        self.text.push_str(text);
        self.watch.text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn what_failed_is_the_source() {
        let template = TemplateError::Endless;
        let core = Error::ContextFull { context: 8 };
        let source = |e: AskError| e.source().map(ToString::to_string);
        assert_eq!(source(template.clone().into()), Some(template.to_string()));
        assert_eq!(source(core.into()), Some(core.to_string()));
        let (tokens, context) = (9, 8);
        assert_eq!(source(AskError::TooLong { tokens, context }), None);
    }
}

//! A conversation with a model: messages through its template to tokens, and as few of them as possible through
//! the session.
//!
//! * [`template`](crate::template): messages to text. [`Encoder`]: text to tokens, where the words of a person
//!   cannot become control tokens.
//! * [`Conversation`]: the messages, what of them fits the context, and what the session already holds.

mod conversation;
mod encoder;

pub use conversation::{Answer, AskError, Conversation, Turn};
pub use encoder::{Encoder, Ends};

//! Messages to tokens.

use crate::template::{ChatTemplate, Message, Moment, Role, Surroundings, TemplateError};
use pleach::Model;
use pleach::blob::format::NO_TOKEN;
use pleach::tokenizer::{EncodeOptions, Tokenizer};
use std::collections::{BTreeMap, BTreeSet};

/// A template with the tokenizer behind it.
///
/// What the template itself writes may spell control tokens, and they become tokens. What a message says never
/// does: its `<|im_end|>` is encoded as the text that it is. For that, the first character of anything in a message
/// that could become (the beginning of) an added token stands in the template as a private-use character that
/// occurs in no message; afterwards it is put back, and the place is guarded
/// ([`Tokenizer::encode_guarded`]). A message without such texts, so nearly every one, meets the template as it is.
///
/// A template may edit what a message says, and so make a control token of what was none (`<//thinks>` without its
/// `/think`). Therefore the conversation is rendered again with every character of a message guarded that begins an
/// added token, and where that gives fewer of them, it counts.
///
/// Guarded are all added tokens, also those that the vocabulary does not flag as special, since role markers are
/// among them in some model files; in messages these are ordinary text, other than in transformers. Two exceptions:
/// added tokens of white space alone, which mark nothing, and in answers those that are not special: templates look
/// there for `</think>`.
#[derive(Debug)]
pub struct Encoder<'b> {
    tokenizer: Tokenizer<'b>,
    template: ChatTemplate,
    around: Surroundings,
    /// The contents of special tokens, ascending.
    special: Vec<&'b [u8]>,
    /// The contents of these and all other added tokens but white space, ascending.
    marks: Vec<&'b [u8]>,
    /// Their ids, ascending.
    ids: Vec<u32>,
}

/// What of a message is guarded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// What spells an added token, or its beginning.
    Spelled,
    /// Each character that an added token begins with.
    All,
}

/// What ends an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The token that the template puts after an answer.
    pub token: Option<u32>,
    /// Where that is no token: the text.
    pub string: Option<String>,
}

impl<'b> Encoder<'b> {
    /// An encoder for a model; `now` is what the template calls now.
    pub fn new(
        model: &Model<'b>,
        tokenizer: Tokenizer<'b>,
        template: ChatTemplate,
        now: Moment,
    ) -> Self {
        let mut special: Vec<&[u8]> = tokenizer
            .added_tokens()
            .filter(|(id, _)| tokenizer.is_special(*id))
            .map(|(_, content)| content)
            .collect();
        special.sort_unstable();
        let marking =
            |(id, content): &(u32, &[u8])| tokenizer.is_special(*id) || !is_blank(content);
        let (mut ids, mut marks): (Vec<u32>, Vec<&[u8]>) =
            tokenizer.added_tokens().filter(marking).unzip();
        ids.sort_unstable();
        marks.sort_unstable();
        let content = |id: u32| {
            let added = tokenizer.added_tokens().find(|(i, _)| *i == id);
            let bytes = added.map(|(_, c)| c).or_else(|| tokenizer.token_bytes(id));
            String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
        };
        let config = model.config();
        let named = |id: u32| match id {
            NO_TOKEN => String::new(),
            id => content(id),
        };
        Self {
            around: Surroundings {
                bos: named(tokenizer.bos().unwrap_or(config.bos)),
                eos: named(config.eos[0]),
                now,
            },
            tokenizer,
            template,
            special,
            marks,
            ids,
        }
    }

    /// The tokens of a conversation; `answer_next` adds what stands before an answer. BOS is the template's
    /// affair.
    ///
    /// Errors: as [`ChatTemplate::render`]; and [`TemplateError::Failed`], if the template writes nothing, or what
    /// it writes cannot be encoded.
    pub fn encode(
        &self,
        messages: &[Message],
        answer_next: bool,
    ) -> Result<Vec<u32>, TemplateError> {
        let stand_ins = self.stand_ins(messages)?;
        let shielded = |words: Guard, answers: Guard| -> Vec<Message> {
            let shield = |m: &Message| match m.role {
                Role::Assistant => shield(&m.content, &self.special, answers, &stand_ins),
                _ => shield(&m.content, &self.marks, words, &stand_ins),
            };
            let all = messages.iter();
            all.map(|m| Message::new(m.role, shield(m))).collect()
        };
        let encoded = |shielded: &[Message]| {
            let rendered = self.template.render(shielded, answer_next, &self.around)?;
            let (text, guarded) = restore(&rendered, &stand_ins);
            match self.tokens(&text, &guarded)? {
                none if none.is_empty() => Err(unusable("it writes nothing".to_owned())),
                tokens => Ok(tokens),
            }
        };
        let marks = |id: &&u32| self.ids.binary_search(id).is_ok();
        let special = |id: &&u32| self.tokenizer.is_special(**id);

        let plain = shielded(Guard::Spelled, Guard::Spelled);
        let mut tokens = encoded(&plain)?;
        let strict = shielded(Guard::All, Guard::Spelled);
        if strict != plain {
            let guarded = encoded(&strict)?;
            if guarded.iter().filter(marks).count() < tokens.iter().filter(marks).count() {
                tokens = guarded;
            }
        }
        // Answers: a template may cut thoughts out of them only as long as it sees their marks, which are text then.
        let strictest = shielded(Guard::All, Guard::All);
        if strictest != strict {
            let guarded = encoded(&strictest)?;
            if guarded.iter().filter(special).count() < tokens.iter().filter(special).count() {
                tokens = guarded;
            }
        }
        Ok(tokens)
    }

    fn tokens(&self, text: &str, guarded: &[usize]) -> Result<Vec<u32>, TemplateError> {
        // At most one token a byte, and one for the space that some tokenizers put before a text.
        let mut tokens = vec![0; text.len() + 1];
        let mut scratch = Vec::new();
        loop {
            let done = self.tokenizer.encode_guarded(
                text.as_bytes(),
                EncodeOptions::DEFAULT,
                guarded,
                &mut scratch,
                &mut tokens,
            );
            match done {
                Ok(n) => {
                    tokens.truncate(n);
                    return Ok(tokens);
                }
                Err(pleach::Error::Shape {
                    what,
                    expected,
                    found,
                }) if expected > found => {
                    let short = match what {
                        "tokens" => &mut tokens,
                        _ => &mut scratch,
                    };
                    short.resize(expected as usize, 0);
                }
                Err(e) => return Err(unusable(format!("what it writes has no tokens: {e}"))),
            }
        }
    }

    /// What the template puts after an answer.
    ///
    /// A model that learned the template ends its answers with it, whether or not its config says so.
    pub fn ends(&self) -> Ends {
        let answer = "answer";
        let messages = [
            Message::new(Role::User, "question"),
            Message::new(Role::Assistant, answer),
        ];
        let Ok(text) = self.template.render(&messages, false, &self.around) else {
            return Ends::default();
        };
        let after = text.rsplit_once(answer).map_or("", |(_, after)| after);
        let after = after.trim();
        let tokens = self.tokens(after, &[]).unwrap_or_default();
        match tokens.first() {
            Some(token) if self.tokenizer.is_special(*token) => Ends {
                token: Some(*token),
                string: None,
            },
            _ => Ends {
                token: None,
                string: after.lines().next().map(str::to_owned),
            },
        }
    }

    /// The characters that stand for others: for each first character of an added token one that no message has.
    fn stand_ins(&self, messages: &[Message]) -> Result<BTreeMap<char, char>, TemplateError> {
        let private = |c: &char| ('\u{f0000}'..='\u{10fffd}').contains(c);
        let all = messages.iter().flat_map(|m| m.content.chars());
        let taken: BTreeSet<char> = all.filter(private).collect();
        let mut free = ('\u{f0000}'..='\u{10fffd}').filter(|c| !taken.contains(c));
        let firsts = self.marks.iter().filter_map(|s| first_char(s));
        let firsts: BTreeSet<char> = firsts.collect();
        firsts
            .into_iter()
            .map(|first| Some((first, free.next()?)))
            .collect::<Option<_>>()
            .ok_or_else(|| TemplateError::Failed {
                line: None,
                why: "the messages use up all private-use characters".to_owned(),
            })
    }
}

fn unusable(why: String) -> TemplateError {
    TemplateError::Failed { line: None, why }
}

/// White space, or what stands for it in a SentencePiece vocabulary.
fn is_blank(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    text.chars().all(|c| c.is_whitespace() || c == '\u{2581}')
}

/// The text with stand-ins for first characters of `rows`, which are sorted.
fn shield(content: &str, rows: &[&[u8]], guard: Guard, stand_ins: &BTreeMap<char, char>) -> String {
    let mut shielded = String::with_capacity(content.len());
    for (at, c) in content.char_indices() {
        let rest = &content.as_bytes()[at..];
        // Of `All`, too, only first characters: their own bytes alone may become a token.
        let looked_at = match guard {
            Guard::Spelled => rest,
            Guard::All => &rest[..c.len_utf8()],
        };
        let stand_in = stand_ins.get(&c).filter(|_| may_become(looked_at, rows));
        shielded.push(*stand_in.unwrap_or(&c));
    }
    shielded
}

/// Whether one of `rows` (sorted) begins here, or would if the template wrote the rest of it.
fn may_become(text: &[u8], mut rows: &[&[u8]]) -> bool {
    for (depth, byte) in text.iter().enumerate() {
        // All rows share the `depth` bytes before; a row that ends here is the first of them.
        match rows.first() {
            None => return false,
            Some(row) if row.len() == depth => return true,
            Some(_) => {}
        }
        let low = rows.partition_point(|row| row[depth] < *byte);
        let high = rows.partition_point(|row| row[depth] <= *byte);
        rows = &rows[low..high];
    }
    !rows.is_empty()
}

fn first_char(bytes: &[u8]) -> Option<char> {
    String::from_utf8_lossy(bytes).chars().next()
}

/// The text with its own characters again, and where they are.
fn restore(rendered: &str, stand_ins: &BTreeMap<char, char>) -> (String, Vec<usize>) {
    let own: BTreeMap<char, char> = stand_ins.iter().map(|(own, s)| (*s, *own)).collect();
    let mut text = String::with_capacity(rendered.len());
    let mut guarded = Vec::new();
    for c in rendered.chars() {
        match own.get(&c) {
            Some(own) => {
                guarded.push(text.len());
                text.push(*own);
            }
            None => text.push(c),
        }
    }
    (text, guarded)
}

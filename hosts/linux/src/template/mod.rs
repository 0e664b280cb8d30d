//! Chat templates: the Jinja text that turns messages into the one text that a model reads.
//!
//! The engine is minijinja, made to answer as transformers' `apply_chat_template` does: its white space rules
//! (`trim_blocks`, `lstrip_blocks`), `loopcontrols`, Python's methods of strings and mappings, `tojson`,
//! `raise_exception`, `strftime_now`, and `{% generation %}` blocks, which only mark what a model wrote.
//!
//! A template comes out of a model file, so it is not trusted: its size, its work (instructions, and every
//! byte that it makes), its depth and its output are bounded, and it reads nothing but what
//! [`ChatTemplate::render`] is given.

mod clock;
mod json;

pub use clock::Moment;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error as Jinja, ErrorKind, context};
use std::fmt;
use std::io;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the model is told before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As templates know it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// What a template knows besides the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `bos_token`; empty if the tokenizer has none.
    pub bos: String,
    /// `eos_token`.
    pub eos: String,
    /// What `strftime_now` calls now.
    pub now: Moment,
}

/// Why a template gave no text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// More bytes than [`ChatTemplate::MAX_BYTES`].
    TooLong {
        /// The bytes that it has.
        bytes: usize,
    },
    /// Not Jinja.
    Syntax {
        /// The line, from 1.
        line: Option<usize>,
        /// What is wrong there.
        why: String,
    },
    /// It called `raise_exception`: a refusal of this conversation by the template's author.
    Raised(String),
    /// It did more work than any real template, or never ends.
    Endless,
    /// It wrote more than [`ChatTemplate::MAX_OUTPUT`].
    TooMuch,
    /// The machine cannot render it: no thread.
    Machine(String),
    /// It does something that cannot be done.
    Failed {
        /// The line, from 1.
        line: Option<usize>,
        /// What.
        why: String,
    },
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, line: &Option<usize>| match line {
            Some(line) => write!(f, "line {line}: "),
            None => Ok(()),
        };
        match self {
            Self::TooLong { bytes } => write!(
                f,
                "{bytes} bytes; a template has at most {}",
                ChatTemplate::MAX_BYTES
            ),
            Self::Syntax { line, why } => {
                place(f, line)?;
                write!(f, "not a Jinja template: {why}")
            }
            Self::Raised(why) => write!(f, "it refuses this conversation: {why}"),
            Self::Machine(why) => f.write_str(why),
            Self::Endless => {
                f.write_str("it does not end, or needs more work than any template should")
            }
            Self::TooMuch => write!(f, "it writes more than {} bytes", ChatTemplate::MAX_OUTPUT),
            Self::Failed { line, why } => {
                place(f, line)?;
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for TemplateError {}

/// What `raise_exception` leaves in the error's chain.
#[derive(Debug)]
struct RaisedByTemplate(String);

impl fmt::Display for RaisedByTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RaisedByTemplate {}

/// A template that parsed.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// The longest template, as the model file's section has it.
    pub const MAX_BYTES: usize = 64 << 10;
    /// The longest text that a template may write.
    pub const MAX_OUTPUT: usize = 4 << 20;
    /// minijinja's fuel of one rendering: an instruction costs 1, and so do 64 bytes that are made.
    const FUEL: u64 = 1_000_000;
    /// Values can be nested as deep as the fuel reaches (about 170,000 lists), and are compared, written and
    /// freed by recursion. The system provides only what of it is touched.
    const STACK: usize = 256 << 20;
    /// Macros within macros.
    const DEPTH: usize = 64;

    /// ChatML: a message is `<|im_start|>role`, a newline, the text, `<|im_end|>` and a newline.
    pub const CHATML: &'static str = "\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    /// Parses a template.
    ///
    /// Errors: [`TemplateError::TooLong`], [`TemplateError::Syntax`].
    ///
    /// ```
    /// use pleach_linux::template::{ChatTemplate, Message, Role, Surroundings};
    /// let template = ChatTemplate::parse(ChatTemplate::CHATML)?;
    /// let messages = [Message::new(Role::User, "Hello")];
    /// assert_eq!(
    ///     template.render(&messages, true, &Surroundings::default())?,
    ///     "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    /// );
    /// # Ok::<(), pleach_linux::template::TemplateError>(())
    /// ```
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        if source.len() > Self::MAX_BYTES {
            return Err(TemplateError::TooLong {
                bytes: source.len(),
            });
        }
        let mut environment = Environment::new();
        environment.set_syntax(syntax()?);
        environment.set_fuel(Some(Self::FUEL));
        environment.set_recursion_limit(Self::DEPTH);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|e| TemplateError::Syntax {
                line: e.line(),
                why: explain(&e),
            })?;
        Ok(Self { environment })
    }

    /// The text of a conversation; `answer_next` adds what stands before an answer
    /// (`add_generation_prompt`).
    ///
    /// Errors: all but those of [`ChatTemplate::parse`].
    pub fn render(
        &self,
        messages: &[Message],
        answer_next: bool,
        around: &Surroundings,
    ) -> Result<String, TemplateError> {
        std::thread::scope(|scope| {
            let work = || self.render_here(messages, answer_next, around);
            let thread = std::thread::Builder::new().stack_size(Self::STACK);
            let done = thread.spawn_scoped(scope, work).map(|t| t.join());
            match done {
                Ok(Ok(rendered)) => rendered,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(e) => Err(TemplateError::Machine(format!(
                    "no thread to render it: {e}"
                ))),
            }
        })
    }

    fn render_here(
        &self,
        messages: &[Message],
        answer_next: bool,
        around: &Surroundings,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let messages = messages.iter().map(|m| {
            context! { role => m.role.name(), content => m.content.as_str() }
        });
        let now = around.now;
        let known = context! {
            messages => messages.collect::<Value>(),
            tools => (),
            documents => (),
            add_generation_prompt => answer_next,
            bos_token => around.bos.as_str(),
            eos_token => around.eos.as_str(),
            strftime_now => Value::from_function(move |format: &str| now.strftime(format)),
        };
        let mut out = Bounded(Vec::new());
        let rendered = template.render_captured_to(known, &mut out);
        if let Err(e) = rendered {
            return Err(failed(e));
        }
        String::from_utf8(out.0).map_err(|e| TemplateError::Failed {
            line: None,
            why: e.to_string(),
        })
    }
}

/// Jinja's own delimiters, transformers' white space.
fn syntax() -> Result<SyntaxConfig, TemplateError> {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true);
    builder.build().map_err(failed)
}

fn raise_exception(why: &str) -> Result<Value, Jinja> {
    Err(Jinja::new(ErrorKind::InvalidOperation, "raised")
        .with_source(RaisedByTemplate(why.to_owned())))
}

/// The engine's error as ours.
fn failed(e: Jinja) -> TemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&e);
    while let Some(cause) = source {
        if let Some(RaisedByTemplate(why)) = cause.downcast_ref() {
            return TemplateError::Raised(one_line(why));
        }
        if let Some(e) = cause.downcast_ref::<Jinja>() {
            match e.kind() {
                ErrorKind::OutOfFuel => return TemplateError::Endless,
                ErrorKind::WriteFailure => return TemplateError::TooMuch,
                _ => {}
            }
        }
        source = cause.source();
    }
    TemplateError::Failed {
        line: e.line(),
        why: explain(&e),
    }
}

fn explain(e: &Jinja) -> String {
    one_line(&match e.detail() {
        Some(detail) => detail.to_owned(),
        None => e.kind().to_string(),
    })
}

/// A message of a template as one line of bounded length: it is shown in an error.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Transformers marks the model's own words with these tags; here they only group.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        // `{%}` opens a tag and does not close it.
        let Some(end) = tag[2..].find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(2 + end + 2);
        let inner = &tag[2..2 + end];
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&tag.replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen(word, "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A buffer that refuses to grow beyond [`ChatTemplate::MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > ChatTemplate::MAX_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, TemplateError> {
        let template = ChatTemplate::parse(source)?;
        let messages = [Message::new(Role::User, "Hi")];
        template.render(&messages, true, &Surroundings::default())
    }

    #[test]
    fn generation_tags_only_group() {
        let source = "{%- generation -%} a {%- endgeneration %}\n{% set generation = 1 %}b";
        assert_eq!(render(source).unwrap(), "ab");
        assert_eq!(without_generation_tags("{% generation"), "{% generation");
        assert_eq!(without_generation_tags("{%}"), "{%}");
        assert_eq!(without_generation_tags("{%%}{%}a%}"), "{%%}{%}a%}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let Err(TemplateError::Syntax { line, .. }) = render("a\n{% for %}") else {
            panic!("parsed");
        };
        assert_eq!(line, Some(2));
        let raised = render("{{ raise_exception('no system\n role') }}");
        assert_eq!(raised, Err(TemplateError::Raised("no system role".into())));
        let Err(TemplateError::Failed { line, why }) = render("\n\n{{ 1 + messages }}") else {
            panic!("rendered");
        };
        assert_eq!(line, Some(3));
        assert!(!why.is_empty());
        let long = " ".repeat(ChatTemplate::MAX_BYTES + 1);
        assert_eq!(render(&long), Err(TemplateError::TooLong { bytes: 65_537 }));
    }

    #[test]
    fn hostile_templates_end() {
        let nested = |depth| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        let deep = format!("{{{{ {} }}}}", nested(30_000));
        let deep_list = format!("{{{{ {}{} }}}}", "[".repeat(30_000), "]".repeat(30_000));
        let forever =
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let doubling = "{% set ns = namespace(x='0123456789abcdef') %}\
            {% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        let cases = [
            (forever, TemplateError::Endless),
            (doubling, TemplateError::Endless),
            ("{{ 'a' * 20000000 }}", TemplateError::TooMuch),
            (
                "{% set l = ['a' * 99999] * 99999 %}{{ l | tojson }}",
                TemplateError::Endless,
            ),
            (
                "{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}",
                TemplateError::TooMuch,
            ),
            (
                "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
                TemplateError::Endless,
            ),
        ];
        for (source, error) in cases {
            assert_eq!(render(source), Err(error), "{source}");
        }
        for source in [
            &deep[..],
            &deep_list,
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% include 'chat' %}",
            "{{ '%999999999d' | format(1) }}",
            "{{ 'a' | indent(9999999999) }}",
        ] {
            assert!(render(source).is_err(), "{:.60}", source);
        }
    }

    /// Lists within lists, nearly as deep as the fuel allows: written, compared and freed by recursion.
    #[test]
    fn deep_values_do_not_overflow_the_stack() {
        let nest = |n: usize| {
            format!(
                "{{% set ns = namespace(x=[], y=[]) %}}{{% for i in range({n}) %}}\
                 {{% set ns.x = [ns.x] %}}{{% endfor %}}"
            )
        };
        assert_eq!(render(&nest(99_999)).unwrap(), "");
        for use_of_it in ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == [ns.x] }}"] {
            let rendered = render(&format!("{}{use_of_it}", nest(99_999)));
            assert_eq!(
                rendered.is_err(),
                use_of_it.contains("tojson"),
                "{use_of_it}"
            );
        }
    }
}

//! Messages and answers over one session after another.

use super::commands::{self, Next};
use super::{Input, save, screen};
use crate::cmd::Chat;
use crate::failure::{Failure, Result};
use crate::interrupt::Busy;
use crate::mix;
use crate::options::{Plan, RoutingChoice, SessionArgs};
use crate::output::{self, say};
use crate::printer::{Printer, Show, says_little};
use crate::sampling::Drawing;
use pleach::{Kernels, Model, Session};
use pleach_linux::chat::{Answer, AskError, Conversation};
use pleach_linux::template::TemplateError;
use pleach_linux::{End, ThreadPool};
use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// Why a session ended.
pub(super) enum Ended {
    /// The next one routes like this.
    Routing(RoutingChoice),
    Leave,
}

/// What outlives a session.
pub(super) struct Talk<'o, 'b> {
    options: &'o Chat,
    model: Model<'b>,
    conversation: Conversation<'b>,
    drawing: Drawing,
    show: bool,
    /// Each answer's shares of the experts.
    shares: Vec<Vec<f32>>,
}

impl<'o, 'b> Talk<'o, 'b> {
    pub(super) fn new(
        options: &'o Chat,
        model: Model<'b>,
        conversation: Conversation<'b>,
        drawing: Drawing,
    ) -> Self {
        Self {
            options,
            model,
            conversation,
            drawing,
            show: options.show_experts,
            shares: Vec::new(),
        }
    }

    /// Talks over a session of `plan`, which `args` gave.
    pub(super) fn with(
        &mut self,
        plan: Plan<'_>,
        arena: &mut [u8],
        args: &SessionArgs,
        input: &mut Input<impl BufRead>,
    ) -> Result<Ended> {
        let refused = |e| Failure::core(self.options.file.display(), e);
        let mut session = Session::new(self.model, &plan.session, arena).map_err(refused)?;
        plan.setup.apply(&mut session).map_err(refused)?;
        let mut executor = plan.executor;
        let little = says_little(&plan.setup, &self.model, "/experts");
        self.conversation.restart();
        if self.show {
            little.iter().for_each(|n| output::note(n));
        }
        while let Some(line) = input.next()? {
            let Some(command) = line.strip_prefix('/') else {
                // A space is how a message begins with a slash.
                let message = match line.strip_prefix(' ') {
                    Some(rest) if rest.starts_with('/') => rest,
                    _ => &line,
                };
                self.ask(message, &mut session, &mut executor, input)?;
                continue;
            };
            match commands::read(command) {
                Ok(Next::Quit) => break,
                Ok(Next::Help) => input.tell(super::HELP)?,
                Ok(Next::Reset) => {
                    self.conversation.reset(&mut session).map_err(refused)?;
                    self.shares.clear();
                    input.tell("the conversation is forgotten")?;
                }
                Ok(Next::Experts(show)) => {
                    self.show = show.unwrap_or(!self.show);
                    self.tell_experts(little.as_deref(), input)?;
                }
                Ok(Next::ShowRouting) => {
                    input.tell(&screen::routings(args, &self.model, output::width()))?;
                }
                Ok(Next::Routing(choice)) => {
                    if let Some(notes) = self.plan(args, &choice, input) {
                        notes.iter().for_each(|n| output::note(n));
                        input.tell(&format!("routing is {choice}"))?;
                        return Ok(Ended::Routing(choice));
                    }
                }
                Ok(Next::Save(path)) => self.save(path, input)?,
                Err(bad) => input.refuse(&bad.why, &bad.cure),
            }
        }
        Ok(Ended::Leave)
    }

    /// The notes about a routing that can be; tells why another one cannot.
    fn plan(
        &self,
        args: &SessionArgs,
        choice: &RoutingChoice,
        input: &mut Input<impl BufRead>,
    ) -> Option<Vec<String>> {
        let planned = match choice.resolve(&self.model) {
            Err(bad) => Err(bad.of("/routing", choice)),
            Ok(_) => {
                let args = args.with_routing(choice.clone());
                args.plan(&self.options.file, &self.model).map(|p| p.notes)
            }
        };
        match planned {
            Ok(notes) => Some(notes),
            Err(failure) => {
                input.refuse_failure(&failure);
                None
            }
        }
    }

    fn ask(
        &mut self,
        message: &str,
        session: &mut Session<'b, '_>,
        executor: &mut ThreadPool,
        input: &mut Input<impl BufRead>,
    ) -> Result<()> {
        let show = match self.show && console::colors_enabled() {
            true => Show::Colours,
            false => Show::Text,
        };
        let mut printer = Printer::new(&self.model, show);
        let (start, before) = (Instant::now(), session.counters().sweeps);
        let busy = Busy::new();
        let asked = self.conversation.ask(
            message,
            session,
            Kernels::detect(),
            executor,
            &self
                .drawing
                .limits(self.options.tokens, &self.drawing.strings()),
            &mut printer,
        );
        drop(busy);
        let mix = printer.finish()?;
        let answer = match asked {
            Ok(answer) => answer,
            Err(AskError::Core(e)) => return Err(Failure::core(self.options.file.display(), e)),
            Err(e @ AskError::Template(TemplateError::Machine(_))) => {
                return Err(super::no_thread(&e));
            }
            Err(e) => {
                input.refuse(&e.to_string(), super::cure_of(&e));
                return Ok(());
            }
        };
        if answer.is_kept() {
            self.shares.push(mix.shares());
        }
        say!("")?;
        if self.show {
            let width = output::width();
            for line in mix::bars(&self.model, &mix.shares(), screen::INDENT, width) {
                say!("{line}")?;
            }
        }
        if input.person {
            let sweeps = session.counters().sweeps - before;
            summarise(&answer, sweeps, start.elapsed());
        }
        self.tell_end(&answer, input)
    }

    /// What is not seen in the answer itself.
    fn tell_end(&self, answer: &Answer, input: &Input<impl BufRead>) -> Result<()> {
        if answer.turn.dropped > 0 {
            output::note(&format!(
                "{} old exchange{} no longer fit{} the context and {} left out",
                answer.turn.dropped,
                if answer.turn.dropped == 1 { "" } else { "s" },
                if answer.turn.dropped == 1 { "s" } else { "" },
                if answer.turn.dropped == 1 {
                    "was"
                } else {
                    "were"
                },
            ));
        }
        match answer.end {
            End::Stop | End::StopString => {}
            End::Limit => output::note(&format!(
                "the answer was cut after {} tokens (-n)",
                answer.tokens
            )),
            End::Context => output::note("the answer was cut: the context is full (--context)"),
            End::Interrupted if input.person && answer.is_kept() => {}
            End::Interrupted if input.person => {
                output::note("stopped before the first word: the message is forgotten");
            }
            End::Interrupted => return Err(Failure::interrupted("the answer so far is above")),
        }
        Ok(())
    }

    fn tell_experts(&self, little: Option<&str>, input: &Input<impl BufRead>) -> Result<()> {
        let state = if self.show { "on" } else { "off" };
        input.tell(&format!("experts are {state}"))?;
        if !self.show {
            return Ok(());
        }
        little.into_iter().for_each(output::note);
        if let Some(shares) = self.shares.last() {
            let bars = mix::bars(&self.model, shares, screen::INDENT, output::width());
            input.tell(&format!("the last answer:\n{}", bars.join("\n")))?;
        }
        Ok(())
    }

    fn save(&self, path: &Path, input: &mut Input<impl BufRead>) -> Result<()> {
        let messages = self.conversation.transcript();
        let names = |class: usize| self.model.expert(class).map_or("", |e| e.name());
        let text = match path.extension().is_some_and(|e| e == "md") {
            true => save::markdown(&messages),
            false => save::json_lines(&messages, &self.shares, names),
        };
        match pleach_pack::write_atomically(path, text.as_bytes()) {
            Ok(()) => input.tell(&format!(
                "{} messages in {}",
                messages.len(),
                path.display()
            )),
            Err(e) => {
                input.refuse_failure(&e.into());
                Ok(())
            }
        }
    }
}

/// Where a person watches: what it took.
fn summarise(answer: &Answer, sweeps: u64, time: Duration) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let turn = answer.turn;
    let line = format!(
        "{} tokens, of them {} remembered, + {} tokens, {sweeps} sweeps, {:.2} s",
        turn.prompt,
        turn.reused,
        answer.tokens,
        time.as_secs_f64()
    );
    eprintln!("{}", console::style(line).dim().for_stderr());
}

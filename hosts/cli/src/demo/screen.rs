//! What the demo shows on a terminal. Nothing is wider than the terminal.

use super::engine::{Answer, OPTIONS, Refusal};
use crate::mix::bars;
use crate::options::{self, RoutingChoice};
use crate::output::{bytes, labelled, wrap};
use console::{Style, style};
use pleach::{Kernels, Model};

/// What stands before each sentence.
pub(super) const PROMPT: &str = "> ";

/// Sentences that people say and the model was not shown.
pub(super) const EXAMPLES: [&str; 7] = [
    "Dimme das Licht auf dem Dachboden auf 30 Prozent",
    "Licht in der Küche an bitte",
    "Reis auf die Einkaufsliste bitte",
    "Wie kalt ist es im Bad gerade?",
    "Please dim the office lights to 30 percent",
    "Mets du beurre sur la liste de courses",
    "Apaga la televisión por favor",
];

const INDENT: usize = 9;

/// The first screen.
pub(super) fn welcome(model: &Model<'_>, width: usize) -> String {
    let c = model.config();
    let mut lines = Vec::new();
    let title = concat!("pleach ", env!("CARGO_PKG_VERSION"));
    lines.push(style(title).bold().to_string());
    lines.extend(wrap(
        "LoRA experts (low-rank adapters), mixed token by token over one small base model.",
        width,
    ));
    lines.push(String::new());
    let mut fact = |label: &str, text: &str| {
        let text = labelled(label, INDENT, text, width);
        let (head, rest) = text.split_at(label.len());
        lines.push(format!("{}{rest}", style(head).bold()));
    };
    fact(
        "model",
        &format!(
            "intent: {} layers, hidden {}, vocabulary {}; smart-home calls from sentences",
            c.layers, c.hidden, c.vocab
        ),
    );
    fact(
        "experts",
        &format!("{} at {} sites", expert_list(model), model.n_sites()),
    );
    fact(
        "memory",
        &format!(
            "arena {}, model {} (read in place)",
            bytes(model.arena_bytes(&OPTIONS) as u64),
            bytes(model.file_len() as u64)
        ),
    );
    fact("kernels", Kernels::detect().name());
    lines.push(String::new());
    lines.extend(wrap(
        "Say what your home should do, in German, English, French or Spanish. Sentences are \
         lower-cased; . ! ? at the end are dropped.",
        width,
    ));
    lines.push(String::new());
    for example in EXAMPLES {
        let text = wrap(example, width.saturating_sub(4)).join("\n    ");
        lines.push(format!("    {}", style(text).cyan()));
    }
    lines.push(String::new());
    lines.extend(wrap("/help /experts /routing /quit", width));
    lines.push(String::new());
    lines.join("\n") + "\n"
}

fn expert_list(model: &Model<'_>) -> String {
    let all: Vec<String> = (0..model.n_experts())
        .filter_map(|class| model.expert(class))
        .map(|e| format!("{} (rank {})", e.name(), highest_rank(model, e)))
        .collect();
    all.join(", ")
}

fn highest_rank(model: &Model<'_>, expert: pleach::Expert<'_>) -> usize {
    (0..model.n_sites())
        .map(|s| expert.rank(s))
        .max()
        .unwrap_or(0)
}

/// An answer: the call beside the base's own, a bar per expert, what it took.
pub(super) fn answer(model: &Model<'_>, a: &Answer, width: usize) -> String {
    let mut lines = vec![call(
        "experts",
        &a.call,
        &a.base,
        width,
        &Style::new().green().bold(),
    )];
    lines.push(if a.call == a.base {
        labelled("base", INDENT, "the same", width)
    } else {
        call("base", &a.base, &a.call, width, &Style::new().red())
    });
    lines.extend(bars(model, &a.shares, INDENT, width));
    let seconds = a.time.as_secs_f64();
    let took = format!(
        "{} + {} tokens, {:.1} ms, {} sweeps",
        a.prompt,
        a.tokens,
        1000.0 * seconds,
        a.sweeps
    );
    lines.extend(
        wrap(&took, width)
            .iter()
            .map(|l| style(l).dim().to_string()),
    );
    lines.push(String::new());
    lines.join("\n")
}

/// A call; words that the other one does not have stand out.
fn call(label: &str, call: &str, other: &str, width: usize, differs: &Style) -> String {
    let shared: Vec<&str> = other.split(' ').collect();
    let lines = wrap(call, width.saturating_sub(INDENT));
    let painted: Vec<String> = lines
        .iter()
        .map(|line| {
            let words = line.split(' ').map(|w| match shared.contains(&w) {
                true => w.to_owned(),
                false => differs.apply_to(w).to_string(),
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let gap = " ".repeat(INDENT - label.len());
    format!(
        "{label}{gap}{}",
        painted.join(&format!("\n{}", " ".repeat(INDENT)))
    )
}

/// A sentence that got no answer.
pub(super) fn refusal(r: &Refusal, width: usize) -> String {
    problem(&r.why, &r.cure, width) + "\n"
}

/// Cause, then cure.
pub(super) fn problem(cause: &str, cure: &str, width: usize) -> String {
    let cause = wrap(cause, width).join("\n");
    let cure = wrap(cure, width.saturating_sub(2)).join("\n  ");
    format!("{}\n  {cure}", style(cause).red())
}

/// A short remark.
pub(super) fn hint(text: &str, width: usize) -> String {
    style(wrap(text, width).join("\n")).dim().to_string()
}

/// `/help`.
pub(super) fn help(width: usize) -> String {
    let rows = [
        ("SENTENCE", "what your home should do; the answer is a call"),
        ("/experts", "the experts of this model"),
        (
            "/routing",
            "which experts a token gets, and how to change it: /routing base",
        ),
        ("/quit", "leave; so does Ctrl-D"),
    ];
    let rows = rows.map(|(word, text)| labelled(word, INDENT + 1, text, width));
    let more = wrap(
        "Each answer shows the call with the experts and the base's own call (words that differ are \
         coloured), each expert's share of the scalings over all tokens and sites, the tokens of \
         sentence and call, the time, and the sweeps: how often the base's weights were read.",
        width,
    );
    format!("{}\n\n{}", rows.join("\n"), more.join("\n"))
}

/// `/experts`.
pub(super) fn experts(model: &Model<'_>, width: usize) -> String {
    let rows: Vec<String> = (0..model.n_experts())
        .filter_map(|class| model.expert(class))
        .map(|e| {
            let sites = (0..model.n_sites()).filter(|s| e.rank(*s) > 0).count();
            let text = format!(
                "rank {} at {sites} of {} sites, {}",
                highest_rank(model, e),
                model.n_sites(),
                bytes(e.bytes() as u64)
            );
            labelled(e.name(), INDENT, &text, width)
        })
        .collect();
    rows.join("\n")
}

/// `/routing` without a word.
pub(super) fn routings(now: &RoutingChoice, model: &Model<'_>, width: usize) -> String {
    let usage = wrap(
        &format!("routing is {now}; change it with /routing R, where R is"),
        width,
    );
    format!("{}\n{}", usage.join("\n"), options::routings(model, width))
}

#[cfg(test)]
mod tests {
    use super::super::INTENT;
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let a = Answer {
            call: "lightset area=dachboden brightness=30 domain=light".into(),
            base: "setposition device_class=door domain=cover position=30".into(),
            prompt: 26,
            tokens: 17,
            sweeps: 19,
            time: Duration::from_micros(12_345),
            shares: vec![0.0, 1.0, 0.5, 0.004],
        };
        let refused = Refusal::new(
            "82 tokens; the model reads at most 63",
            "say it in fewer words",
        );
        for width in [24, 40, 60, 80, 200] {
            for text in [
                welcome(&INTENT, width),
                answer(&INTENT, &a, width),
                refusal(&refused, width),
                hint("an empty line: type a sentence, or /help", width),
                help(width),
                experts(&INTENT, width),
                routings(&RoutingChoice::Exact, &INTENT, width),
            ] {
                for line in text.lines() {
                    assert!(
                        console::measure_text_width(line) <= width,
                        "{width}: {line:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_first_screen_says_what_there_is() {
        let text = welcome(&INTENT, 60);
        for word in [
            "intent",
            "de (rank 8)",
            "arena",
            "model",
            "kernels",
            "lower-cased",
            "/routing",
        ] {
            assert!(text.contains(word), "{word}");
        }
        let first = text.find(EXAMPLES[0]).unwrap();
        assert!(EXAMPLES[1..].iter().all(|e| text.find(e).unwrap() > first));
    }
}

//! What each routing costs in reads of the weights, and how far it strays from `exact`.

use crate::told;
use parity::answer::answer;
use parity::fixture::{intent, json, root};
use parity::quality::{Figures, Passage, Subject, compare};
use parity::text::{decode, encode, encode_from_start};
use parity::{Storage, smol};
use pleach::{Error, KvType, Model, Routing, Session, SessionOptions, Speculate};
use pleach_linux::{Arena, Limits, ThreadPool};

/// The token that ends an answer, in both models.
const END: u32 = 2;

pub(crate) fn tables() -> Result<(), Error> {
    let file = intent(Storage::Q8);
    table("xlora-intent", file.model(), &intent_tasks(&file.model()))?;
    let file = smol::pack(Storage::Q8);
    table("xlora-smol", file.model(), &smol_tasks())
}

/// A prompt and its answer.
struct Task {
    passage: Passage,
    /// The text that is right; `None` where perplexity is the measure.
    right: Option<String>,
}

fn intent_tasks(model: &Model<'_>) -> Vec<Task> {
    let path = root().join("xlora-intent/eval.jsonl");
    let lines = std::fs::read_to_string(path).expect("eval.jsonl");
    let task = |line: &str| {
        let item = json(line.as_bytes());
        let text = |key: &str| item[key].as_str().expect(key).to_owned();
        let mut tokens = encode_from_start(model, &(text("sentence") + "\n"));
        let scored = tokens.len();
        tokens.extend(encode(model, &text("intent")));
        tokens.push(END);
        Task {
            passage: Passage { tokens, scored },
            right: Some(text("intent")),
        }
    };
    lines.lines().map(task).collect()
}

fn smol_tasks() -> Vec<Task> {
    let task = |passage| Task {
        passage,
        right: None,
    };
    // Every other pair: six of each domain.
    smol::answers().into_iter().step_by(2).map(task).collect()
}

fn table(name: &str, model: Model<'_>, tasks: &[Task]) -> Result<(), Error> {
    let equal = vec![1.0 / model.n_experts() as f32; model.n_experts()];
    let mut rows = vec![
        ("exact".to_owned(), Routing::Exact),
        ("lag".into(), Routing::Lag),
        ("every:2".into(), Routing::Every(2)),
        ("every:4".into(), Routing::Every(4)),
        ("every:8".into(), Routing::Every(8)),
        ("prompt".into(), Routing::Prompt),
        ("static, equal".into(), Routing::Static(&equal)),
        ("all-ones".into(), Routing::AllOnes),
    ];
    for class in 0..model.n_experts() {
        let expert = model.expert(class).map_or("?", |e| e.name());
        rows.push((format!("only:{expert}"), Routing::Only(class as u16)));
    }
    rows.push(("base".into(), Routing::Base));
    let subject = |routing| Subject { model, routing };
    let subjects: Vec<Subject<'_, '_>> = rows.iter().map(|(_, r)| subject(*r)).collect();
    let passages: Vec<Passage> = tasks.iter().map(|t| t.passage.clone()).collect();
    let figures = compare(
        subject(Routing::Exact),
        &subjects,
        &passages,
        told(name, passages.len()),
    )?;
    println!(
        "\n**{name}**, {} answers, {} tokens\n",
        tasks.len(),
        figures[0].tokens
    );
    println!(
        "| routing | sweeps a token | perplexity | KL to exact, nats | top-1 as exact | answers right |"
    );
    println!("|---|---|---|---|---|---|");
    for ((name, routing), figures) in rows.iter().zip(&figures) {
        let written = write(model, *routing, Speculate::Off, tasks)?;
        line(name, &written, Some(figures));
        if *routing == Routing::Exact {
            for (name, speculate) in [
                ("exact, base guess", Speculate::Base),
                ("exact, held guess", Speculate::Held),
                ("exact, auto", Speculate::Auto),
            ] {
                line(name, &write(model, *routing, speculate, tasks)?, None);
            }
        }
    }
    Ok(())
}

fn line(name: &str, written: &Written, figures: Option<&Figures>) {
    let right = written.right.map_or("-".to_owned(), |n| n.to_string());
    let strays = match figures {
        Some(f) => format!(
            "{:.4} | {:.5} | {:.4}",
            f.perplexity(),
            f.mean_kl(),
            f.agreement()
        ),
        None => "as exact | 0 | 1".to_owned(),
    };
    println!("| {name} | {:.3} | {strays} | {right} |", written.rate());
}

/// What greedy answers cost.
#[derive(Default)]
struct Written {
    tokens: u64,
    sweeps: u64,
    right: Option<usize>,
}

impl Written {
    /// Sweeps per token after the first of each answer.
    fn rate(&self) -> f64 {
        self.sweeps as f64 / self.tokens.max(1) as f64
    }
}

/// Answers each prompt greedily, as long as the right answer is and a half more.
fn write(
    model: Model<'_>,
    routing: Routing<'_>,
    speculate: Speculate,
    tasks: &[Task],
) -> Result<Written, Error> {
    let longest = tasks.iter().map(|t| t.passage.tokens.len()).max();
    let options = SessionOptions {
        context: 2 * longest.unwrap_or(1) as u32,
        chunk: 32,
        kv: KvType::F32,
        speculate,
        ..SessionOptions::DEFAULT
    };
    let mut arena = Arena::new(model.arena_bytes(&options)).expect("memory");
    let mut session = Session::new(model, &options, arena.bytes())?;
    session.set_routing(routing)?;
    let mut threads = ThreadPool::available();
    let mut written = Written::default();
    for task in tasks {
        let (prompt, expected) = task.passage.tokens.split_at(task.passage.scored);
        session.rewind(0)?;
        let limits = Limits::new(expected.len() + expected.len() / 2, &[END]);
        let done = answer(&mut session, &mut threads, prompt, &limits)?;
        written.sweeps += done.sweeps;
        written.tokens += done.later_tokens();
        if let Some(right) = &task.right {
            let hit = usize::from(decode(&model, &done.tokens) == *right);
            *written.right.get_or_insert(0) += hit;
        }
    }
    Ok(written)
}

//! Where two runs part: the first operation, row and bits.
//!
//! The arena holds all that a session computes. A text runs twice in the smallest steps that there are; the
//! number of steps after which the arenas first differ is found by halving, since what differs once stays
//! so (keys, values and the residual stream carry it on). The runs may be of two backends, of two files of one shape, or of
//! two machines, one of which is asked through a program there ([`Elsewhere`]).

use pleach::session::{ARENA_PARTS, ArenaPart};
use pleach::{Budget, Error, Inline, Kernels, Model, Progress, Session, SessionOptions};
use pleach_linux::Arena;
use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

/// One of two runs.
pub trait Run {
    /// What it is called in the report.
    fn name(&self) -> String;

    /// What it has done after at most `limit` steps of one unit each.
    ///
    /// Errors: the session's, or what keeps the program from answering.
    fn after(&self, limit: u32) -> Result<State, String>;
}

/// What a run has done after some steps.
#[derive(Debug, PartialEq)]
pub struct State {
    /// The operation, unit and columns of the last step.
    last: Option<Step>,
    steps: u32,
    arena: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Step {
    op: String,
    unit: u32,
    columns: u16,
}

/// A run in this process.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// The model: of both runs the same, or two of the same shape.
    pub model: Model<'a>,
    /// The backend.
    pub kernels: Kernels,
    /// The session's.
    pub options: &'a SessionOptions,
    /// The text.
    pub tokens: &'a [u32],
}

impl Here<'_> {
    fn run(&self, limit: u32) -> Result<State, Error> {
        let bytes = self.model.arena_bytes(self.options);
        let mut arena = Arena::new(bytes).expect("memory");
        let mut session = Session::new(self.model, self.options, arena.bytes())?;
        session.push(self.tokens)?;
        let (mut last, mut steps) = (None, 0);
        while steps < limit {
            let (op, unit, columns) = session.under_way();
            let op = format!("{op:?}");
            match session.step(self.kernels, &mut Inline, Budget(1))? {
                // Only the first step of a sweep does not know its columns.
                Progress::More => last = Some(Step { op, unit, columns }),
                Progress::Ready => break,
            }
            steps += 1;
        }
        let arena = arena.bytes().to_vec();
        Ok(State { last, steps, arena })
    }
}

impl Run for Here<'_> {
    fn name(&self) -> String {
        self.kernels.name().to_owned()
    }

    fn after(&self, limit: u32) -> Result<State, String> {
        self.run(limit).map_err(|e| e.to_string())
    }
}

/// A run by a program, as under an emulator: it gets one argument more, the number of steps, and answers as
/// [`State::write`] does.
pub struct Elsewhere<'a>(pub &'a [String]);

impl Run for Elsewhere<'_> {
    fn name(&self) -> String {
        self.0.join(" ")
    }

    fn after(&self, limit: u32) -> Result<State, String> {
        let (program, args) = self.0.split_first().ok_or("no program is named")?;
        let mut command = Command::new(program);
        command.args(args).arg(limit.to_string());
        let out = command.stderr(Stdio::inherit()).output();
        let out = out.map_err(|e| format!("{program}: {e}"))?;
        match State::read(&out.stdout) {
            Some(state) if out.status.success() => Ok(state),
            _ => Err(format!("{}: no state ({})", self.name(), out.status)),
        }
    }
}

impl State {
    /// A line `steps unit columns operation`, then the arena.
    ///
    /// Errors: the writer's.
    pub fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        let Step { op, unit, columns } = self.last.clone().unwrap_or_default();
        writeln!(to, "{} {unit} {columns} {op}", self.steps)?;
        to.write_all(&self.arena)
    }

    fn read(mut from: &[u8]) -> Option<Self> {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let mut words = line.strip_suffix('\n')?.splitn(4, ' ');
        let steps = words.next()?.parse().ok()?;
        let unit = words.next()?.parse().ok()?;
        let columns = words.next()?.parse().ok()?;
        let op = words.next()?.to_owned();
        let last = (!op.is_empty()).then_some(Step { op, unit, columns });
        let arena = from.to_vec();
        Some(Self { last, steps, arena })
    }
}

/// Says where the bits of `b` first differ from those of `a`, whose arena is `map`'s; `None` if they never do.
///
/// Errors: the runs'.
pub fn first_difference(
    a: &dyn Run,
    b: &dyn Run,
    map: &[ArenaPart; ARENA_PARTS],
) -> Result<Option<String>, String> {
    let differ = |steps: u32| -> Result<Option<String>, String> {
        let (x, y) = (a.after(steps)?, b.after(steps)?);
        if x.arena.len() != y.arena.len() {
            let (x, y) = (x.arena.len(), y.arena.len());
            return Err(format!("arenas of {x} and {y} bytes: two shapes"));
        }
        let words = |p: &ArenaPart| Some((p.name, word(p, &x.arena, &y.arena)?));
        let Some((part, (at, one, other))) = map.iter().find_map(words) else {
            return Ok(None);
        };
        let Step { op, unit, columns } = x.last.unwrap_or_default();
        let place = place(part, &op, columns, at);
        let (a, b) = (a.name(), b.name());
        Ok(Some(format!(
            "{op}, unit {unit}, {columns} columns: {part} {place}: {one:08x} with {a}, {other:08x} with {b}"
        )))
    };
    let all = a.after(u32::MAX)?.steps;
    // After `same` steps nothing differs, after `other` something does.
    let (mut same, mut other) = (0, all);
    let Some(mut found) = differ(all)? else {
        return Ok(None);
    };
    while other - same > 1 {
        let middle = same + (other - same) / 2;
        match differ(middle)? {
            Some(f) => (other, found) = (middle, f),
            None => same = middle,
        }
    }
    Ok(Some(found))
}

/// What word `at` of a part is, after an operation.
fn place(part: &str, op: &str, columns: u16, at: usize) -> String {
    match part {
        // Outputs of matrices lie as [unit][column][16 rows].
        "output" | "residual" if op.starts_with("Linear") || op.starts_with("Head") => {
            let (n, vector, lane) = (usize::from(columns).max(1), at / 16, at % 16);
            format!("row {}, column {}", vector / n * 16 + lane, vector % n)
        }
        _ => format!("word {at}"),
    }
}

/// The first word of a part in which two arenas differ.
fn word(part: &ArenaPart, a: &[u8], b: &[u8]) -> Option<(usize, u32, u32)> {
    let words = |arena: &[u8]| -> Vec<u32> {
        let bytes = arena.get(part.offset..part.offset + part.bytes);
        let words = bytes.unwrap_or(&[]).as_chunks::<4>().0;
        words.iter().map(|w| u32::from_le_bytes(*w)).collect()
    };
    let (a, b) = (words(a), words(b));
    let at = a.iter().zip(&b).position(|(x, y)| x != y)?;
    Some((at, a[at], b[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_written() {
        let last = Some(Step {
            op: "Linear { layer: 0, group: GateUp }".into(),
            unit: 3,
            columns: 2,
        });
        for last in [last, None] {
            let state = State {
                last,
                steps: 70,
                arena: b"1\n2".to_vec(),
            };
            let mut bytes = Vec::new();
            state.write(&mut bytes).unwrap();
            assert_eq!(State::read(&bytes), Some(state));
        }
        assert_eq!(State::read(b"not a state"), None);
    }
}

//! Where two backends part: the first operation, row and bits.
//!
//! The arena holds all that a session computes. A text runs twice in the smallest steps that there are; the
//! number of steps after which the arenas first differ is found by halving, since what differs once stays
//! so (keys, values and the residual stream carry it on).

use pleach::session::ArenaPart;
use pleach::{Budget, Error, Inline, Kernels, Model, Progress, Session, SessionOptions};
use pleach_linux::Arena;

/// One of the two runs.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The model: twice the same, or two of the same shape.
    pub model: Model<'a>,
    /// The backend.
    pub kernels: Kernels,
}

/// What a run has done after some steps.
struct State {
    arena: Arena,
    /// The operation, unit and columns of the last step.
    last: Option<(String, u32, u16)>,
    steps: u32,
}

/// At most `limit` steps of one unit each.
fn run(
    side: &Side<'_>,
    options: &SessionOptions,
    tokens: &[u32],
    limit: u32,
) -> Result<State, Error> {
    let mut arena = Arena::new(side.model.arena_bytes(options)).expect("memory");
    let mut session = Session::new(side.model, options, arena.bytes())?;
    session.push(tokens)?;
    let (mut last, mut steps) = (None, 0);
    while steps < limit {
        let (op, unit, columns) = session.under_way();
        let op = format!("{op:?}");
        match session.step(side.kernels, &mut Inline, Budget(1))? {
            // Only the first step of a sweep does not know its columns.
            Progress::More => last = Some((op, unit, columns)),
            Progress::Ready => break,
        }
        steps += 1;
    }
    Ok(State { arena, last, steps })
}

/// Says where the bits of `b` first differ from those of `a`; `None` if they never do.
///
/// Errors: the sessions'.
pub fn first_difference(
    a: Side<'_>,
    b: Side<'_>,
    options: &SessionOptions,
    tokens: &[u32],
) -> Result<Option<String>, Error> {
    let parts = a.model.arena_map(options);
    let differ = |steps: u32| -> Result<Option<String>, Error> {
        let mut x = run(&a, options, tokens, steps)?;
        let mut y = run(&b, options, tokens, steps)?;
        let [one, other] = [&mut x.arena, &mut y.arena].map(|a| a.bytes().to_vec());
        let found = parts.iter().find_map(|p| Some((p, word(p, &one, &other)?)));
        let (op, unit, columns) = x.last.unwrap_or_default();
        Ok(found.map(|(part, (at, one, other))| {
            let n = usize::from(columns).max(1);
            let place = match part.name {
                // Outputs of matrices lie as [unit][column][16 rows].
                "output" | "residual" if op.starts_with("Linear") || op.starts_with("Head") => {
                    let (vector, lane) = (at / 16, at % 16);
                    format!("row {}, column {}", vector / n * 16 + lane, vector % n)
                }
                _ => format!("word {at}"),
            };
            format!(
                "{op}, unit {unit}, {columns} columns: {} {place}: {one:08x} with {}, {other:08x} with {}",
                part.name,
                a.kernels.name(),
                b.kernels.name()
            )
        }))
    };
    let all = run(&a, options, tokens, u32::MAX)?.steps;
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

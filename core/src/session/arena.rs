//! The arena: one slice of bytes holds all of a session's state, and one table says how large its parts are.

use crate::blob::Model;
use crate::carve::{Carver, part_bytes};
use crate::error::Error;
use crate::kernels::UNIT;
use crate::kernels::attention::{LANES, Shape};
use crate::kernels::layout::{groups, round_up};
use crate::kernels::lora::Choice;
use crate::kernels::panel::panel_stride;
use crate::session::column::Column;
use crate::session::options::{Caches, LogitsKind, MAX_CONTEXT, SessionOptions, Speculate};

/// Number of elements of each part of the arena, in the order in which they lie there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) columns: usize,
    pub(crate) picks: usize,
    pub(crate) residual: usize,
    pub(crate) input: usize,
    pub(crate) panel: usize,
    pub(crate) panel_groups: usize,
    pub(crate) output: usize,
    pub(crate) ranks: usize,
    pub(crate) choices: usize,
    pub(crate) gates: usize,
    pub(crate) scores: usize,
    pub(crate) rows: usize,
    pub(crate) row_positions: usize,
    pub(crate) logits: usize,
    pub(crate) tokens: usize,
    pub(crate) embeddings: usize,
    pub(crate) log: usize,
    pub(crate) log_marks: usize,
    pub(crate) kv: usize,
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

const fn product(a: usize, b: usize, c: usize) -> usize {
    a.saturating_mul(b).saturating_mul(c)
}

/// Rounds rows up to whole units.
const fn units(rows: usize) -> usize {
    round_up(rows, UNIT)
}

/// Columns of the largest sweep.
pub(crate) const fn max_columns(o: &SessionOptions) -> usize {
    let chunk = o.chunk as usize;
    max(
        chunk.saturating_mul(2),
        chunk.saturating_add(o.guess_columns()),
    )
}

/// Rows of scalings that move with the text; one more is held.
pub(crate) const fn ring_rows(model: &Model<'_>, o: &SessionOptions) -> usize {
    if !model.has_classifier() {
        return 0;
    }
    let guesses = match o.speculate {
        Speculate::Off => 0,
        _ => 2,
    };
    (o.chunk as usize).saturating_mul(2).saturating_add(guesses)
}

/// Positions that the cache has room for: a multiple of 16.
pub(crate) const fn cache_positions(o: &SessionOptions) -> usize {
    round_up(o.context as usize, LANES)
}

/// The widest input of a matrix.
pub(crate) const fn widest_input(model: &Model<'_>) -> usize {
    let c = &model.config;
    max(
        max(c.hidden as usize, c.intermediate as usize),
        (c.heads * c.head_dim) as usize,
    )
}

/// Bytes of one cache of one layer's keys, or values.
pub(crate) const fn cache_bytes(model: &Model<'_>, o: &SessionOptions) -> usize {
    let c = &model.config;
    product(
        (c.kv_heads * c.head_dim) as usize,
        cache_positions(o),
        o.kv.bytes(),
    )
}

/// Heads and context, as attention sees them.
pub(crate) const fn shape(model: &Model<'_>, o: &SessionOptions) -> Shape {
    let c = &model.config;
    let sharing = match c.heads.checked_div(c.kv_heads) {
        Some(sharing) => sharing as usize,
        None => 0,
    };
    Shape {
        head_dim: c.head_dim as usize,
        kv_heads: c.kv_heads as usize,
        sharing,
        context: cache_positions(o),
    }
}

impl Sizes {
    pub(crate) const fn of(model: &Model<'_>, o: &SessionOptions) -> Self {
        let c = &model.config;
        let n = max_columns(o);
        let k = widest_input(model);
        let q = units((c.heads * c.head_dim) as usize);
        let kv = units((c.kv_heads * c.head_dim) as usize);
        let head_columns = match o.logits {
            LogitsKind::Last => 1,
            LogitsKind::Sweep => o.chunk as usize,
        } + o.guess_heads();
        let widest = max(
            max(
                q.saturating_add(kv.saturating_mul(2)),
                units(c.intermediate as usize).saturating_mul(2),
            ),
            units(model.widest_classifier),
        );
        let shape = shape(model, o);
        let experts = model.n_experts();
        let width = model.scalings_width();
        let rows = ring_rows(model, o).saturating_add(1);
        let caches = match o.caches {
            Caches::One => 1,
            Caches::Two => 2,
        };
        Self {
            columns: n,
            picks: n,
            residual: product(units(c.hidden as usize), n, 1),
            input: product(k, n, 1),
            panel: product(panel_stride(k, model.has_m4), n, 1),
            panel_groups: product(groups(k, c.group as usize), n, 1),
            output: max(
                max(product(widest, n, 1), shape.sums(n)),
                product(units(c.vocab as usize), head_columns, 1),
            ),
            ranks: product(model.widest_ranks, n, 1),
            choices: product(experts, 3, 1),
            gates: product(experts, 3, n),
            scores: max(
                shape.scores(n).saturating_add(shape.stats(n)),
                product(model.widest_classifier, n, 1),
            ),
            rows: product(rows, 2, width),
            row_positions: rows,
            logits: product(
                c.vocab as usize,
                match o.logits {
                    LogitsKind::Last => 1,
                    LogitsKind::Sweep => o.chunk as usize,
                },
                1,
            ),
            tokens: o.context as usize,
            embeddings: product(o.embedding_rows as usize, c.hidden as usize, 1),
            log: product(o.log_tokens as usize, width, 1),
            log_marks: o.log_tokens as usize,
            kv: product(caches, c.layers as usize, 2).saturating_mul(cache_bytes(model, o)),
        }
    }

    /// Name, what it holds, number of elements and bytes of one, in the order in which they lie in the arena.
    const fn parts(&self) -> [(&'static str, &'static str, usize, usize); ARENA_PARTS] {
        [
            (
                "columns",
                "the sweep's tokens, by pass",
                self.columns,
                size_of::<Column>(),
            ),
            (
                "picks",
                "columns that the classifier or the head works on",
                self.picks,
                2,
            ),
            ("residual", "the residual stream", self.residual, 4),
            ("input", "input of the next matrices", self.input, 4),
            ("panel", "the same, in int8", self.panel, 1),
            ("panel_scales", "its scales", self.panel_groups, 4),
            ("panel_sums", "its sums", self.panel_groups, 4),
            (
                "output",
                "outputs of matrices, classifier and head",
                self.output,
                4,
            ),
            ("ranks", "r-vectors of the selected experts", self.ranks, 4),
            (
                "choices",
                "the selected experts",
                self.choices,
                size_of::<Choice>(),
            ),
            ("gates", "their gates", self.gates, 4),
            (
                "scores",
                "attention scores, or the classifier's layers",
                self.scores,
                4,
            ),
            ("rows", "scalings, as given and effective", self.rows, 4),
            (
                "row_positions",
                "whose scalings they are",
                self.row_positions,
                4,
            ),
            ("logits", "logits that the caller reads", self.logits, 4),
            ("tokens", "the text", self.tokens, 4),
            ("embeddings", "embedding rows that wait", self.embeddings, 4),
            ("log", "the scalings log", self.log, 4),
            ("log_marks", "its forwards", self.log_marks, 4),
            ("kv", "keys and values", self.kv, 1),
        ]
    }

    /// Where each part lies.
    const fn map(&self) -> [ArenaPart; ARENA_PARTS] {
        let mut map = [ArenaPart::EMPTY; ARENA_PARTS];
        let parts = self.parts();
        let (mut slots, mut rest): (&mut [ArenaPart], &[_]) = (&mut map, &parts);
        let mut offset = 0usize;
        while let (Some((slot, more)), Some(((name, holds, count, size), tail))) =
            (slots.split_first_mut(), rest.split_first())
        {
            let bytes = part_bytes(*count, *size);
            *slot = ArenaPart {
                name,
                holds,
                offset,
                bytes,
            };
            offset = offset.saturating_add(bytes);
            (slots, rest) = (more, tail);
        }
        map
    }

    /// Bytes of the whole arena.
    pub(crate) const fn bytes(&self) -> usize {
        let map = self.map();
        match map.last() {
            Some(last) => last.offset.saturating_add(last.bytes),
            None => 0,
        }
    }
}

/// Number of parts of an arena.
pub const ARENA_PARTS: usize = 20;

/// One part of a session's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaPart {
    /// Its name: a word, the same in every version that has the part.
    pub name: &'static str,
    /// What it holds, for people.
    pub holds: &'static str,
    /// Where it begins, in bytes from the arena's start: a multiple of 16.
    pub offset: usize,
    /// Bytes that it takes, rounded up to 16; 0 where the options need none.
    pub bytes: usize,
}

impl ArenaPart {
    const EMPTY: Self = Self {
        name: "",
        holds: "",
        offset: 0,
        bytes: 0,
    };
}

impl Model<'_> {
    /// Bytes of the arena that a session with these options needs: exact, and known before flashing.
    ///
    /// A blob with an absurd shape gives `usize::MAX`.
    pub const fn arena_bytes(&self, options: &SessionOptions) -> usize {
        Sizes::of(self, options).bytes()
    }

    /// The parts of that arena in the order in which they lie in it: without gaps, and their bytes sum to
    /// [`Model::arena_bytes`].
    ///
    /// ```
    /// use pleach::session::ArenaPart;
    /// use pleach::{Model, SessionOptions};
    /// const fn kv_bytes(model: &Model<'_>, options: &SessionOptions) -> usize {
    ///     match model.arena_map(options).last() {
    ///         Some(ArenaPart { bytes, .. }) => *bytes,
    ///         None => 0,
    ///     }
    /// }
    /// ```
    pub const fn arena_map(&self, options: &SessionOptions) -> [ArenaPart; ARENA_PARTS] {
        Sizes::of(self, options).map()
    }

    /// The largest context, up to 131072 and the base's attention window, with which a session with otherwise these options needs no more
    /// than `bytes`; `None` if not even one token fits.
    pub const fn largest_context(&self, options: &SessionOptions, bytes: usize) -> Option<u32> {
        let limit = match self.window() {
            Some(window) if window < MAX_CONTEXT => window,
            _ => MAX_CONTEXT,
        };
        let (mut fits, mut fails) = (0, limit + 1);
        while fails - fits > 1 {
            let context = fits + (fails - fits) / 2;
            let tried = SessionOptions {
                context,
                ..*options
            };
            if self.arena_bytes(&tried) <= bytes {
                fits = context;
            } else {
                fails = context;
            }
        }
        if fits == 0 { None } else { Some(fits) }
    }
}

/// The parts of an arena. Shapes in brackets; `n` is the number of columns of the present sweep.
pub(crate) struct State<'a> {
    /// `[max_columns]`
    pub(crate) columns: &'a mut [Column],
    /// Columns that the classifier or the head works on.
    pub(crate) picks: &'a mut [u16],
    /// The residual stream `[hidden / 16][n][16]`.
    pub(crate) residual: &'a mut [f32],
    /// Input of the next matrices `[n][k]`.
    pub(crate) input: &'a mut [f32],
    /// The same, quantised `[n][k_pad]`, with scales and sums `[n][groups]`.
    pub(crate) panel: &'a mut [i8],
    pub(crate) panel_scales: &'a mut [f32],
    pub(crate) panel_sums: &'a mut [i32],
    /// Outputs of matrices `[row / 16][n][16]`; q, k, v; attention output; gate, up; classifier; logits.
    pub(crate) output: &'a mut [f32],
    /// r-vectors `[rank / 4][n][4]`.
    pub(crate) ranks: &'a mut [f32],
    /// Experts selected for the present matrices.
    pub(crate) choices: &'a mut [Choice],
    /// Their h `[choice][n]`.
    pub(crate) gates: &'a mut [f32],
    /// `[segment][head][n][slots]`, then `[head][n]` maxima, then 1 / denominators; later, between layers of the classifier, `[picked][width]`.
    pub(crate) scores: &'a mut [f32],
    /// Rows of scalings, each `[2][width]`: as the classifier gave them, and effective. Row 0 is held.
    pub(crate) rows: &'a mut [f32],
    /// The position of each row, or [`NO_POSITION`].
    pub(crate) row_positions: &'a mut [u32],
    /// `[rows][vocab]`
    pub(crate) logits: &'a mut [f32],
    /// All tokens of the text, or slots of embedding rows.
    pub(crate) tokens: &'a mut [u32],
    /// `[embedding_rows][hidden]`
    pub(crate) embeddings: &'a mut [f32],
    /// `[log_tokens][width]`
    pub(crate) log: &'a mut [f32],
    /// The forward (push) that each row of the log belongs to.
    pub(crate) log_marks: &'a mut [u32],
    /// `[cache][layer][K, V]`, see [`attention`](crate::kernels::attention).
    pub(crate) kv: &'a mut [u8],
}

/// "No position" in [`State::row_positions`].
pub(crate) const NO_POSITION: u32 = u32::MAX;

impl<'a> State<'a> {
    /// Zeroes and carves an arena.
    pub(crate) fn carve(
        model: &Model<'_>,
        options: &SessionOptions,
        arena: &'a mut [u8],
    ) -> Result<Self, Error> {
        Self::carve_parts(&Sizes::of(model, options), arena)
    }

    fn carve_parts(s: &Sizes, arena: &'a mut [u8]) -> Result<Self, Error> {
        let found = arena.len();
        let arena = arena.get_mut(..s.bytes()).ok_or(Error::ArenaTooSmall {
            needed: s.bytes() as u64,
            found: found as u64,
        })?;
        arena.fill(0);
        let mut c = Carver::new(arena)?;
        let state = Self {
            columns: c.take(s.columns)?,
            picks: c.take(s.picks)?,
            residual: c.take(s.residual)?,
            input: c.take(s.input)?,
            panel: c.take(s.panel)?,
            panel_scales: c.take(s.panel_groups)?,
            panel_sums: c.take(s.panel_groups)?,
            output: c.take(s.output)?,
            ranks: c.take(s.ranks)?,
            choices: c.take(s.choices)?,
            gates: c.take(s.gates)?,
            scores: c.take(s.scores)?,
            rows: c.take(s.rows)?,
            row_positions: c.take(s.row_positions)?,
            logits: c.take(s.logits)?,
            tokens: c.take(s.tokens)?,
            embeddings: c.take(s.embeddings)?,
            log: c.take(s.log)?,
            log_marks: c.take(s.log_marks)?,
            kv: c.take(s.kv)?,
        };
        state.row_positions.fill(NO_POSITION);
        Ok(state)
    }
}

/// One row of scalings: as the classifier gave them, or effective.
pub(crate) fn scalings_row(
    rows: &[f32],
    width: usize,
    row: usize,
    effective: bool,
) -> Option<&[f32]> {
    let at = row
        .saturating_mul(2)
        .saturating_add(effective as usize)
        .saturating_mul(width);
    rows.get(at..at.saturating_add(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Aligned;

    /// The map and the carver read the parts in the same order, at the same places.
    #[test]
    fn the_map_says_where_parts_are_carved() {
        let sizes = Sizes {
            columns: 1,
            picks: 3,
            residual: 2,
            input: 5,
            panel: 17,
            panel_groups: 6,
            output: 9,
            ranks: 13,
            choices: 3,
            gates: 18,
            scores: 21,
            rows: 26,
            row_positions: 30,
            logits: 33,
            tokens: 38,
            embeddings: 42,
            log: 45,
            log_marks: 50,
            kv: 211,
        };
        let map = sizes.map();
        let mut arena = Aligned([0u8; 4096]);
        let start = arena.0.as_ptr() as usize;
        let s = State::carve_parts(&sizes, &mut arena.0).unwrap();
        let at = |name: &str| map.iter().find(|p| p.name == name).unwrap();
        macro_rules! check {
            ($($part:ident),*) => {
                assert_eq!([$(stringify!($part)),*], map.map(|p| p.name));
                $(
                    let (part, bytes) = (at(stringify!($part)), size_of_val(&*s.$part));
                    assert_eq!(s.$part.as_ptr() as usize - start, part.offset, "{}", part.name);
                    assert_eq!(round_up(bytes, 16), part.bytes, "{}", part.name);
                )*
            };
        }
        check!(
            columns,
            picks,
            residual,
            input,
            panel,
            panel_scales,
            panel_sums,
            output,
            ranks,
            choices,
            gates,
            scores,
            rows,
            row_positions,
            logits,
            tokens,
            embeddings,
            log,
            log_marks,
            kv
        );
        assert_eq!(map.iter().map(|p| p.bytes).sum::<usize>(), sizes.bytes());
    }
}

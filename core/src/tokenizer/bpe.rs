//! The merges of one word: a list of symbols and a heap of pairs, both in the caller's scratch.

use super::section::Tokenizer;
use super::span::{LOW_LINE, Span};
use super::unicode::first_char;

/// `u32`s of scratch for each byte of a word: a symbol (token, previous, next) and two heap entries
/// (rank, position).
pub(super) const SCRATCH_PER_BYTE: usize = 7;

/// No symbol; also the token of a symbol that was merged into the one before it.
const NONE: u32 = u32::MAX;

/// A symbol: token, position of the previous and of the next one.
type Symbol = [u32; 3];

/// Applies the merges to a word: lowest rank first, then leftmost.
///
/// n symbols, at most one for each byte: at most n - 1 pairs enter the heap at the start and two with each of
/// at most n - 1 merges, so it never holds more than 2 n entries and gives up at most 3 n, with at most 6 n
/// look-ups. Errors: the `u32`s of scratch needed.
pub(super) fn merge<'s>(
    tokenizer: &Tokenizer<'_>,
    word: Span<'_>,
    scratch: &'s mut [u32],
) -> Result<Merged<'s>, usize> {
    let bytes = word.text.len().saturating_add(usize::from(word.space));
    let needed = Tokenizer::scratch_len(bytes);
    let symbols = bytes.saturating_mul(3);
    if bytes >= NONE as usize || scratch.len() < needed {
        return Err(needed);
    }
    let Some((symbols, heap)) = scratch.split_at_mut_checked(symbols) else {
        return Err(needed);
    };
    let (symbols, _) = symbols.as_chunks_mut::<3>();
    let (heap, _) = heap.as_chunks_mut::<2>();
    let mut n: u32 = 0;
    let put = |id: Option<u32>| {
        if let Some(id) = id
            && let Some(symbol) = symbols.get_mut(n as usize)
        {
            *symbol = [id, n.wrapping_sub(1), n.wrapping_add(1)];
            n = n.wrapping_add(1);
        }
    };
    if tokenizer.model_is_chars() {
        characters(tokenizer, word, put);
    } else {
        word.map(|b| tokenizer.byte_id(b)).for_each(put);
    }
    if let Some(last) = symbols.get_mut((n as usize).wrapping_sub(1)) {
        last[2] = NONE;
    }
    let mut list = List {
        tokenizer,
        symbols,
        heap: Heap {
            items: heap,
            len: 0,
        },
        work: 0,
    };
    for at in 0..n {
        list.offer(at);
    }
    while let Some([rank, at]) = list.heap.pop() {
        list.work += 1;
        list.apply(rank, at);
    }
    let work = list.work;
    let symbols = symbols.get(..n as usize).unwrap_or(&[]);
    Ok(Merged {
        symbols,
        at: if n == 0 { NONE } else { 0 },
        work,
    })
}

/// The tokens of a word's characters, or of their bytes where they have none.
fn characters(tokenizer: &Tokenizer<'_>, word: Span<'_>, mut put: impl FnMut(Option<u32>)) {
    let space = || tokenizer.find(core::iter::once(b' '));
    if word.space {
        put(space());
    }
    let mut rest = word.text;
    while let Some((_, len)) = first_char(rest) {
        let (text, tail) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        match tokenizer.find(text.iter().copied()) {
            _ if text == b" " || text == LOW_LINE => put(space()),
            None => text.iter().for_each(|b| put(tokenizer.byte_id(*b))),
            id => put(id),
        }
        rest = tail;
    }
}

struct List<'s, 't, 'b> {
    tokenizer: &'t Tokenizer<'b>,
    symbols: &'s mut [Symbol],
    heap: Heap<'s>,
    /// Heap entries taken and pairs looked up.
    work: u64,
}

impl List<'_, '_, '_> {
    fn symbol(&self, at: u32) -> Symbol {
        match self.symbols.get(at as usize) {
            Some(s) => *s,
            None => [NONE; 3],
        }
    }

    fn rank(&mut self, left: u32, right: u32) -> Option<u32> {
        self.work += 1;
        self.tokenizer.rank(left, right)
    }

    /// Puts the pair that begins at `at` on the heap, if there is one and it merges.
    fn offer(&mut self, at: u32) {
        let [left, _, next] = self.symbol(at);
        let [right, ..] = self.symbol(next);
        if left != NONE
            && right != NONE
            && let Some(rank) = self.rank(left, right)
        {
            self.heap.push([rank, at]);
        }
    }

    /// Merges the pair at `at`, unless the entry is stale: another pair, a longer one, is there now.
    fn apply(&mut self, rank: u32, at: u32) {
        let [left, previous, next] = self.symbol(at);
        let [right, _, after] = self.symbol(next);
        if left == NONE || right == NONE || self.rank(left, right) != Some(rank) {
            return;
        }
        let token = self.tokenizer.merged(rank);
        if let Some(symbol) = self.symbols.get_mut(at as usize) {
            *symbol = [token, previous, after];
        }
        if let Some(symbol) = self.symbols.get_mut(next as usize) {
            symbol[0] = NONE;
        }
        if let Some(symbol) = self.symbols.get_mut(after as usize) {
            symbol[1] = at;
        }
        self.offer(previous);
        self.offer(at);
    }
}

/// The tokens of a word.
pub(super) struct Merged<'s> {
    symbols: &'s [Symbol],
    at: u32,
    /// Heap entries taken and pairs looked up: the measure of the bound.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the bound"))]
    pub(super) work: u64,
}

impl Iterator for Merged<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let [id, _, next] = *self.symbols.get(self.at as usize)?;
        self.at = next;
        Some(id)
    }
}

/// A binary min-heap of (rank, position).
struct Heap<'s> {
    items: &'s mut [[u32; 2]],
    len: usize,
}

impl Heap<'_> {
    fn get(&self, at: usize) -> [u32; 2] {
        match self.items.get(at) {
            Some(v) => *v,
            None => [u32::MAX; 2],
        }
    }

    fn set(&mut self, at: usize, v: [u32; 2]) {
        if let Some(slot) = self.items.get_mut(at) {
            *slot = v;
        }
    }

    fn push(&mut self, v: [u32; 2]) {
        if self.len >= self.items.len() {
            return; // cannot happen: `merge` bounds the entries
        }
        let mut at = self.len;
        self.len += 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            let p = self.get(parent);
            if p <= v {
                break;
            }
            self.set(at, p);
            at = parent;
        }
        self.set(at, v);
    }

    fn pop(&mut self) -> Option<[u32; 2]> {
        self.len = self.len.checked_sub(1)?;
        let top = self.get(0);
        let v = self.get(self.len);
        let mut at = 0;
        loop {
            let mut child = 2 * at + 1;
            if child >= self.len {
                break;
            }
            if child + 1 < self.len && self.get(child + 1) < self.get(child) {
                child += 1;
            }
            let c = self.get(child);
            if v <= c {
                break;
            }
            self.set(at, c);
            at = child;
        }
        self.set(at, v);
        Some(top)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Heap, merge};
    use crate::tokenizer::span::Span;
    use crate::tokenizer::{Tokenizer, example};
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn heap_sorts() {
        let mut items = [[0; 2]; 200];
        let mut heap = Heap {
            items: &mut items,
            len: 0,
        };
        let mut values: Vec<[u32; 2]> = (0..200u32).map(|i| [i * 7919 % 50, i]).collect();
        for v in &values {
            heap.push(*v);
        }
        values.sort();
        let popped: Vec<_> = core::iter::from_fn(|| heap.pop()).collect();
        assert_eq!(popped, values);
    }

    /// The bound of the module's documentation, counted: a word of 100,000 letters in which every pair
    /// merges again and again.
    #[test]
    fn work_is_linear_in_heap_entries() {
        let tokenizer = Tokenizer::parse(&example::SECTION).unwrap();
        for text in ["hello", "l", "lh", "hel", "helloll"] {
            for n in [1_000u64, 100_000] {
                let text: Vec<u8> = text.bytes().cycle().take(n as usize).collect();
                let mut scratch = vec![0; Tokenizer::scratch_len(text.len())];
                let merged =
                    merge(&tokenizer, Span::new(&text), &mut scratch).unwrap_or_else(|_| panic!());
                assert!(merged.work <= 9 * n, "{} > 9 * {n}", merged.work);
                let back: Vec<u8> = merged
                    .flat_map(|id| tokenizer.token_bytes(id).unwrap())
                    .copied()
                    .collect();
                assert!(back == text);
            }
        }
    }
}

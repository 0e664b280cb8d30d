//! `zip` without a division.

/// The items of `a` and `b` side by side, to the end of the shorter.
///
/// [`Iterator::zip`] over two kinds of chunks computes both lengths first, out of line, where the compiler no
/// longer knows that the sizes are not 0: the division keeps a panic that `tests/cross/nopanic` finds.
pub(crate) fn pairs<A: Iterator, B: Iterator>(
    mut a: A,
    mut b: B,
) -> impl Iterator<Item = (A::Item, B::Item)> {
    core::iter::from_fn(move || Some((a.next()?, b.next()?)))
}

//! The kept lines: `BASE OUTCOME at=hex ...`.

/// Overwrites `blob` where the words `at=hex` say. `None` if a word is none or lies outside.
pub(crate) fn apply<'l>(words: impl Iterator<Item = &'l str>, blob: &mut [u8]) -> Option<()> {
    for word in words {
        let (at, hex) = word.split_once('=')?;
        let at: usize = at.parse().ok()?;
        let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
            return None;
        };
        let place = blob.get_mut(at..at.checked_add(pairs.len())?)?;
        for (byte, pair) in place.iter_mut().zip(pairs) {
            *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
        }
    }
    Some(())
}

//! What the pre-tokeniser's expression asks of a character.

use super::tables;

/// The Unicode version of [`Class`]'s tables: that of the regex-syntax crate, which `tokenizers` uses.
pub const UNICODE_VERSION: &str = tables::UNICODE_VERSION;

/// The four kinds of character that GPT-2's expression tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`: the property White_Space
    Space,
    /// Anything else, U+FFFD for bytes that are not UTF-8 among it.
    Other,
}

impl Class {
    /// The class of a character, in O(log n) of two tables.
    ///
    /// ```
    /// use pleach::tokenizer::Class;
    /// assert_eq!(Class::of('ß'), Class::Letter);
    /// assert_eq!(Class::of('٣'), Class::Number);
    /// assert_eq!(Class::of('\u{a0}'), Class::Space);
    /// assert_eq!(Class::of('\u{301}'), Class::Other); // a combining accent is \p{M}
    /// ```
    pub fn of(c: char) -> Self {
        match c {
            'a'..='z' | 'A'..='Z' => Class::Letter,
            '0'..='9' => Class::Number,
            '\t'..='\r' | ' ' => Class::Space,
            '\0'..='\x7f' => Class::Other,
            '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' => Class::Space,
            '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => Class::Space,
            _ if within(&tables::LETTER, c) => Class::Letter,
            _ if within(&tables::NUMBER, c) => Class::Number,
            _ => Class::Other,
        }
    }
}

/// Whether `c` lies in the set whose boundaries are listed plane by plane: in after an odd number of them.
pub(super) fn within(planes: &[&[u16]], c: char) -> bool {
    let c = c as u32;
    let Some(boundaries) = planes.get((c >> 16) as usize) else {
        return false;
    };
    let low = (c & 0xffff) as u16;
    boundaries.partition_point(|&b| b <= low) & 1 == 1
}

/// The first character of `text` and its length in bytes, U+FFFD for the longest start of one that is not
/// UTF-8 (as `String::from_utf8_lossy` replaces them). `None`: the text is empty.
pub(super) fn first_char(text: &[u8]) -> Option<(char, usize)> {
    #[cfg(test)]
    counted::READ.with(|n| n.set(n.get() + 1));
    let lead = *text.first()?;
    if lead < 0x80 {
        return Some((lead as char, 1));
    }
    let window = text.get(..4).unwrap_or(text);
    let (valid, bad) = match core::str::from_utf8(window) {
        Ok(s) => (s, 0),
        Err(e) => match window.get(..e.valid_up_to()) {
            Some([]) | None => ("", e.error_len().unwrap_or(window.len())),
            Some(v) => (core::str::from_utf8(v).unwrap_or(""), 0),
        },
    };
    match valid.chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, bad.max(1))),
    }
}

/// Characters read, for tests of what the work is bounded by.
#[cfg(test)]
pub(super) mod counted {
    use core::cell::Cell;

    std::thread_local! {
        pub(super) static READ: Cell<u64> = const { Cell::new(0) };
    }

    /// How many characters `run` reads.
    pub(in super::super) fn read(run: impl FnOnce()) -> u64 {
        let before = READ.get();
        run();
        READ.get() - before
    }
}

//! GPT-2's printable alphabet of bytes.

use std::collections::HashMap;

/// The character for each byte: itself where it is printable Latin-1, else the next from U+0100 on.
pub(super) fn letters() -> [char; 256] {
    let mut next = 0x100..;
    std::array::from_fn(|byte| {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable {
            Some(byte as u32)
        } else {
            next.next()
        };
        code.and_then(char::from_u32).unwrap_or_default()
    })
}

/// The byte of each of these characters.
pub(super) fn bytes_of() -> HashMap<char, u8> {
    letters().into_iter().zip(0..=255).collect()
}

#[cfg(test)]
mod tests {
    use super::letters;

    // The published table: https://github.com/openai/gpt-2/blob/master/src/encoder.py
    #[test]
    fn gpt2_alphabet() {
        let a = letters();
        assert_eq!(a[0], 'Ā');
        assert_eq!(a[b'\n' as usize], 'Ċ');
        assert_eq!(a[b' ' as usize], 'Ġ');
        assert_eq!(a[b'a' as usize], 'a');
        assert_eq!(a[0x7f], 'ġ');
        assert_eq!(a[0xa0], 'ł');
        assert_eq!(a[0xad], 'Ń');
        assert_eq!(a[0xff], 'ÿ');
    }
}

//! Fields of records, and slices that may not be there.

/// `b[at..at + N]`, if it is there.
pub(crate) const fn array<const N: usize>(b: &[u8], at: usize) -> Option<&[u8; N]> {
    match b.split_at_checked(at) {
        Some((_, tail)) => tail.first_chunk::<N>(),
        None => None,
    }
}

/// `b[at..at + len]`, if it is there.
pub(crate) const fn slice(b: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    match b.split_at_checked(at) {
        Some((_, tail)) => match tail.split_at_checked(len) {
            Some((head, _)) => Some(head),
            None => None,
        },
        None => None,
    }
}

/// Whether `b[at..at + len]` is there and all 0: reserved bytes, in which a later version may put a meaning
/// that this one does not know.
pub(crate) const fn is_zero(b: &[u8], at: usize, len: usize) -> bool {
    let Some(mut rest) = slice(b, at, len) else {
        return false;
    };
    while let Some((v, tail)) = rest.split_first() {
        if *v != 0 {
            return false;
        }
        rest = tail;
    }
    true
}

pub(crate) const fn u16_at<const N: usize>(b: &[u8; N], at: usize) -> u16 {
    match array::<2>(b, at) {
        Some(a) => u16::from_le_bytes(*a),
        None => 0,
    }
}

pub(crate) const fn u32_at<const N: usize>(b: &[u8; N], at: usize) -> u32 {
    match array::<4>(b, at) {
        Some(a) => u32::from_le_bytes(*a),
        None => 0,
    }
}

pub(super) const fn u64_at<const N: usize>(b: &[u8; N], at: usize) -> u64 {
    match array::<8>(b, at) {
        Some(a) => u64::from_le_bytes(*a),
        None => 0,
    }
}

pub(super) const fn f32_at<const N: usize>(b: &[u8; N], at: usize) -> f32 {
    f32::from_bits(u32_at(b, at))
}

pub(crate) const fn u8_at<const N: usize>(b: &[u8; N], at: usize) -> u8 {
    match array::<1>(b, at) {
        Some([v]) => *v,
        None => 0,
    }
}

/// Writes `v` at `at`; a field that would not fit is a mistake of this module, caught by its test.
pub(super) fn put<const N: usize>(b: &mut [u8; N], at: usize, v: &[u8]) {
    if let Some(field) = b.get_mut(at..at + v.len()) {
        field.copy_from_slice(v);
    }
}

//! The two checksums of the format, and the hash that stands for an answer's bits.

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// CRC-32 (ISO-HDLC, as in zip and Ethernet) of `bytes`; const, about 6 µs a byte at compile time.
pub const fn crc32(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// A CRC-32 over bytes that come in pieces.
pub(crate) struct Crc32(crc::Digest<'static, u32>);

static CRC_TABLE: crc::Crc<u32> = CRC;

impl Crc32 {
    pub(crate) fn new() -> Self {
        Self(CRC_TABLE.digest())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// FNV-1a, 64 bits, over a stream of values as little-endian bytes.
///
/// `pleach trace --hash` and every firmware print it over, position by position, the scalings and then
/// the logits.
///
/// ```
/// let mut h = pleach::hash::Fnv1a::new();
/// h.bytes(b"a");
/// assert_eq!(h.value(), 0xaf63dc4c8601ec8c); // the published test vector
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv1a(u64);

impl Fnv1a {
    /// The hash of nothing.
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub const fn bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((b, tail)) = rest.split_first() {
            self.0 = (self.0 ^ *b as u64).wrapping_mul(0x0000_0100_0000_01b3);
            rest = tail;
        }
    }

    /// Adds the bits of f32 values.
    pub fn floats(&mut self, values: &[f32]) {
        for v in values {
            self.bytes(&v.to_bits().to_le_bytes());
        }
    }

    /// The hash so far.
    pub const fn value(&self) -> u64 {
        self.0
    }
}

impl Default for Fnv1a {
    fn default() -> Self {
        Self::new()
    }
}

/// FNV-1a 64 of `bytes`: the binding hashes of the format.
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut h = Fnv1a::new();
    h.bytes(bytes);
    h.value()
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_check_value() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf43926);
        let mut c = super::Crc32::new();
        c.update(b"1234");
        c.update(b"56789");
        assert_eq!(c.finish(), 0xcbf43926);
    }
}

//! Bytes at the alignment of blobs and arenas.

/// Bytes that start at a multiple of 64.
pub struct Bytes {
    all: Vec<u8>,
    at: usize,
    len: usize,
}

impl Bytes {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let all = vec![0; len + 63];
        let at = all.as_ptr().align_offset(64);
        Self { all, at, len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut b = Self::zeros(bytes.len());
        b.get_mut().copy_from_slice(bytes);
        b
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        &self.all[self.at..self.at + self.len]
    }

    /// The bytes.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.all[self.at..self.at + self.len]
    }
}

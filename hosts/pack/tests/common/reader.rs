//! Reads a model file by the letter of blob format 1, with numbers copied from its documentation and none of
//! the crate's code: tables, tiles and checksums are worked out here a second time.

use half::f16;

/// A tensor as it lies in a file.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub rows: usize,
    pub cols: usize,
    pub role: u16,
    pub layer: u16,
    pub dtype: u8,
    pub layout: u8,
    pub scale_exp: i8,
    pub bytes: Vec<u8>,
}

/// What an expert has at one site.
#[derive(Clone, Debug)]
pub struct Site {
    pub rank: usize,
    pub scale: f32,
    pub a: Tensor,
    pub b: Tensor,
}

/// An expert section.
#[derive(Clone, Debug)]
pub struct Expert {
    pub name: String,
    pub key: String,
    pub sites: Vec<Option<Site>>,
}

/// A section: kind, class index, bytes.
pub type Section = (u16, u16, Vec<u8>);

/// A model file.
#[derive(Clone, Debug)]
pub struct File {
    pub sections: Vec<Section>,
    pub group: usize,
}

pub fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().unwrap())
}
pub fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}
pub fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}
pub fn f32_at(b: &[u8], at: usize) -> f32 {
    f32::from_bits(u32_at(b, at))
}
fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_bits(u16_at(b, at)).to_f32()
}

/// CRC-32 of zip and Ethernet, a bit at a time.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut c = !0u32;
    for b in bytes {
        c ^= u32::from(*b);
        for _ in 0..8 {
            c = if c & 1 == 1 {
                (c >> 1) ^ 0xedb8_8320
            } else {
                c >> 1
            };
        }
    }
    !c
}

/// FNV-1a, 64 bits.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    })
}

fn up(n: usize, to: usize) -> usize {
    n.div_ceil(to) * to
}

impl File {
    /// Checks header, section table, padding and checksums on the way.
    pub fn read(file: &[u8]) -> Self {
        assert_eq!(&file[..8], b"PLEACH\x1a\n");
        assert_eq!(u16_at(file, 8), 1);
        assert_eq!(u64_at(file, 16), file.len() as u64);
        assert_eq!(u32_at(file, 60), crc32(&file[..60]));
        assert!(file[12..16].iter().chain(&file[52..60]).all(|b| *b == 0));
        let n = u16_at(file, 10) as usize;
        let table = &file[64..64 + 32 * n];
        assert_eq!(u32_at(file, 48), crc32(table));
        let mut sections: Vec<Section> = Vec::new();
        let mut end = 64 + 32 * n;
        for e in table.chunks(32) {
            let (kind, index) = (u16_at(e, 0), u16_at(e, 2));
            let (offset, length) = (u64_at(e, 8) as usize, u64_at(e, 16) as usize);
            assert_eq!(offset, up(end, 64));
            assert!(file[end..offset].iter().all(|b| *b == 0));
            end = offset + length;
            let bytes = file[offset..end].to_vec();
            assert_eq!(u32_at(e, 4), crc32(&bytes));
            if let Some((last, i, _)) = sections.last() {
                assert!((kind, index) > (*last, *i));
            }
            sections.push((kind, index, bytes));
        }
        assert_eq!(end, file.len());
        let group = u32_at(&sections[0].2, 32) as usize;
        let read = Self { sections, group };
        assert_eq!(u64_at(file, 24), fnv(read.section(2)));
        assert_eq!(u64_at(file, 32), fnv(read.section(3)));
        let classifier = if read.has(5) { fnv(read.section(5)) } else { 0 };
        assert_eq!(u64_at(file, 40), classifier);
        for (_, class, e) in read.sections.iter().filter(|s| s.0 == 6) {
            assert_eq!(&e[..8], b"PLEXPERT");
            assert_eq!((u16_at(e, 8), u16_at(e, 10)), (1, *class));
            assert_eq!(u64_at(e, 16), e.len() as u64);
            assert_eq!(e[24..48], file[24..48]);
            assert_eq!(
                (u32_at(e, 56), u32_at(e, 60)),
                (crc32(&e[..56]), crc32(&e[64..]))
            );
        }
        read
    }

    pub fn has(&self, kind: u16) -> bool {
        self.sections.iter().any(|s| s.0 == kind)
    }

    /// The first section of a kind.
    pub fn section(&self, kind: u16) -> &[u8] {
        &self
            .sections
            .iter()
            .find(|s| s.0 == kind)
            .expect("section")
            .2
    }

    /// The tensors of the base (2) or the classifier (5).
    pub fn tensors(&self, kind: u16) -> Vec<Tensor> {
        let s = self.section(kind);
        let n = u32_at(s, 0) as usize;
        let mut end = 16 + 32 * n;
        let tensors = (0..n)
            .map(|i| {
                let e = &s[16 + 32 * i..][..32];
                let (offset, length) = (u64_at(e, 0) as usize, u64_at(e, 8) as usize);
                assert_eq!(offset, up(end, 16));
                end = offset + length;
                assert_eq!(e[31], 0);
                Tensor {
                    rows: u32_at(e, 16) as usize,
                    cols: u32_at(e, 20) as usize,
                    role: u16_at(e, 24),
                    layer: u16_at(e, 26),
                    dtype: e[28],
                    layout: e[29],
                    scale_exp: e[30] as i8,
                    bytes: s[offset..end].to_vec(),
                }
            })
            .collect();
        assert_eq!(end, s.len());
        tensors
    }

    /// Module, layer, inputs, outputs, kind of each site.
    pub fn sites(&self) -> Vec<(u16, u16, usize, usize, u32)> {
        let s = self.section(3);
        let n = u32_at(s, 0) as usize;
        assert_eq!(s.len(), 16 + 16 * n);
        s[16..]
            .chunks(16)
            .map(|r| {
                (
                    u16_at(r, 0),
                    u16_at(r, 2),
                    u32_at(r, 4) as usize,
                    u32_at(r, 8) as usize,
                    u32_at(r, 12),
                )
            })
            .collect()
    }

    /// The sites' names.
    pub fn names(&self) -> Vec<String> {
        let s = self.section(7);
        let n = u32_at(s, 0) as usize;
        let text = &s[4 + 4 * (n + 1)..];
        let at = |i: usize| u32_at(s, 4 + 4 * i) as usize;
        assert_eq!((at(0), at(n)), (0, text.len()));
        (0..n)
            .map(|i| String::from_utf8(text[at(i)..at(i + 1)].to_vec()).unwrap())
            .collect()
    }

    /// The experts in class order.
    pub fn experts(&self) -> Vec<Expert> {
        self.sections
            .iter()
            .filter(|s| s.0 == 6)
            .map(|s| self.expert(&s.2))
            .collect()
    }

    fn expert(&self, e: &[u8]) -> Expert {
        let n = u32_at(e, 12) as usize;
        let sites = self.sites();
        assert_eq!(n, sites.len());
        assert_eq!(u16_at(e, 48) as usize, self.group);
        let text = 64 + 32 * n;
        let (name, key) = (e[50] as usize, e[51] as usize);
        let word = |at: usize, len: usize| String::from_utf8(e[at..at + len].to_vec()).unwrap();
        let mut end = text + name + key;
        let parts = (0..n)
            .map(|i| {
                let r = &e[64 + 32 * i..][..32];
                let rank = u16_at(r, 20) as usize;
                if rank == 0 {
                    assert!(r.iter().all(|b| *b == 0));
                    return None;
                }
                let (module, _, inputs, outputs, _) = sites[i];
                let mut panel = |at: usize, len: usize| {
                    assert_eq!(at, up(end, 16));
                    end = at + len;
                    e[at..end].to_vec()
                };
                let a = panel(16 * u32_at(r, 0) as usize, u32_at(r, 8) as usize);
                let b = panel(16 * u32_at(r, 4) as usize, u32_at(r, 12) as usize);
                let (rows, cols) = if module == 7 {
                    (inputs, rank)
                } else {
                    (rank, inputs)
                };
                let tensor = |rows, cols, dtype, layout, scale_exp: u8, bytes| Tensor {
                    rows,
                    cols,
                    role: 0,
                    layer: 0,
                    dtype,
                    layout,
                    scale_exp: scale_exp as i8,
                    bytes,
                };
                Some(Site {
                    rank,
                    scale: f32_at(r, 16),
                    a: tensor(rows, cols, r[22], r[23], r[24], a),
                    b: tensor(outputs, rank, r[25], 0, r[26], b),
                })
            })
            .collect();
        assert_eq!(end, e.len());
        Expert {
            name: word(text, name),
            key: word(text + name, key),
            sites: parts,
        }
    }
}

impl Tensor {
    /// Effective scale of an element of a `q8` matrix.
    pub fn scale(&self, row: usize, col: usize, group: usize) -> f32 {
        let lanes = self.lanes();
        let at = (row / lanes) * self.tile(group) + ((col / group) * lanes + row % lanes) * 2;
        half_at(&self.bytes, at) * f32::powi(2.0, i32::from(self.scale_exp))
    }

    fn lanes(&self) -> usize {
        match self.layout {
            1 => 1,
            2 => 16,
            3..=5 => 4,
            n => panic!("layout {n}"),
        }
    }

    /// Columns of a vector of a `q8` tile.
    fn step(&self) -> usize {
        if self.layout == 5 { 16 } else { 4 }
    }

    fn scale_bytes(&self, group: usize) -> usize {
        up(
            self.cols.div_ceil(group) * self.lanes() * 2,
            4 * self.lanes(),
        )
    }

    fn tile(&self, group: usize) -> usize {
        let lanes = self.lanes();
        match self.dtype {
            1 => self.scale_bytes(group) + up(self.cols, self.step()) * lanes,
            2 => self.cols * lanes * 2,
            3 => self.cols * lanes * 4,
            n => panic!("dtype {n}"),
        }
    }

    /// The stored integer of an element of a `q8` matrix.
    pub fn q(&self, row: usize, col: usize, group: usize) -> i8 {
        let (lanes, step) = (self.lanes(), self.step());
        let at = (row / lanes) * self.tile(group)
            + self.scale_bytes(group)
            + (col / step) * step * lanes
            + (row % lanes) * step
            + col % step;
        if self.layout != 4 {
            return self.bytes[at] as i8;
        }
        // h = 256 * odd + even, even the signed low byte.
        let at = at & !1;
        let h = i32::from(u16_at(&self.bytes, at) as i16);
        let even = i32::from(self.bytes[at] as i8);
        let q = if col.is_multiple_of(2) {
            even
        } else {
            (h - even) / 256
        };
        i8::try_from(q).expect("the packer writes no 128")
    }

    /// `[rows][cols]` values.
    pub fn values(&self, group: usize) -> Vec<f32> {
        let (lanes, tile) = (self.lanes(), self.tile(group));
        assert_eq!(self.bytes.len(), self.rows.div_ceil(lanes) * tile);
        let at = |r: usize, c: usize| {
            (r / lanes) * tile + (c * lanes + r % lanes) * if self.dtype == 2 { 2 } else { 4 }
        };
        let value = |r: usize, c: usize| match self.dtype {
            1 => f32::from(self.q(r, c, group)) * self.scale(r, c, group),
            2 => half_at(&self.bytes, at(r, c)),
            _ => f32_at(&self.bytes, at(r, c)),
        };
        (0..self.rows)
            .flat_map(|r| (0..self.cols).map(move |c| (r, c)))
            .map(|(r, c)| value(r, c))
            .collect()
    }

    /// Effective scale of column `j` of a `q8` B panel.
    pub fn b_scale(&self, j: usize) -> f32 {
        half_at(&self.bytes, 2 * j) * f32::powi(2.0, i32::from(self.scale_exp))
    }

    /// `[outputs][rank]` values of a B panel.
    pub fn b_values(&self) -> Vec<f32> {
        let (rows, rank) = (self.rows, self.cols);
        let size = match self.dtype {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let head = if self.dtype == 1 { up(2 * rank, 16) } else { 0 };
        assert_eq!(self.bytes.len(), head + up(rows, 16) * rank * size);
        let value = |r: usize, j: usize| {
            let at = head + ((r / 16 * rank + j) * 16 + r % 16) * size;
            match self.dtype {
                1 => f32::from(self.bytes[at] as i8) * self.b_scale(j),
                2 => half_at(&self.bytes, at),
                _ => f32_at(&self.bytes, at),
            }
        };
        (0..rows)
            .flat_map(|r| (0..rank).map(move |j| (r, j)))
            .map(|(r, j)| value(r, j))
            .collect()
    }
}

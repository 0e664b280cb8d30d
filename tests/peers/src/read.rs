//! The best that this machine reads: what a token's weights cannot come faster than.
//!
//! A buffer is read once by some threads, each its own part, in one stream or in four side by side, with prefetch and
//! without, in the widest loads of the processor. The best of these counts.
//!
//! `pleach bench` calls another figure the machine's rate: one plain stream a thread, in loads that the compiler chose
//! ([`pleach_linux::bandwidth`]). It can be less, so shares of the two are not to be compared.

use crate::Result;
use pleach_linux::bandwidth::together;
use std::hint::black_box;
use std::ops::Range;

/// What one load of the widest kind takes in.
const LINE: usize = 64;
/// How far ahead a prefetch is.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4096;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A buffer to read.
pub struct Reader {
    lines: Vec<Line>,
    loads: Loads,
}

/// One way to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Streams side by side in a thread: 1 or 4.
    pub streams: usize,
    /// Whether it prefetches.
    pub prefetch: bool,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 4] = [
        Way::new(1, false),
        Way::new(1, true),
        Way::new(4, false),
        Way::new(4, true),
    ];

    const fn new(streams: usize, prefetch: bool) -> Self {
        Self { streams, prefetch }
    }
}

/// The widest loads that the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loads {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Compiler,
}

impl Loads {
    fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Loads::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Loads::Avx2;
            }
        }
        Loads::Compiler
    }
}

impl Reader {
    /// A buffer of `bytes` bytes, every page of it written.
    pub fn new(bytes: usize) -> Result<Self> {
        let len = bytes.div_ceil(LINE).max(1);
        let mut lines = Vec::new();
        lines
            .try_reserve_exact(len)
            .map_err(|e| format!("no memory for {bytes} bytes to read: {e}"))?;
        lines.extend((0..len).map(|i| Line([i as u8 | 1; LINE])));
        Ok(Self {
            lines,
            loads: Loads::widest(),
        })
    }

    /// Bytes of the buffer.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// The loads' name.
    pub fn loads(&self) -> String {
        format!("{:?}", self.loads).to_lowercase()
    }

    /// Bytes per second with so many threads, each way measured once; the best way and all.
    pub fn rate(&self, threads: usize) -> (f64, Vec<(Way, f64)>) {
        let all: Vec<(Way, f64)> = Way::ALL.map(|w| (w, self.one(threads, w))).into();
        let best = all.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        (best, all)
    }

    fn one(&self, threads: usize, way: Way) -> f64 {
        self.part(0..self.lines.len(), threads, way)
    }

    /// Some lines of the buffer; the whole of it if it does not have these.
    fn part(&self, lines: Range<usize>, threads: usize, way: Way) -> f64 {
        let lines = self.lines.get(lines).unwrap_or(&self.lines);
        let parts = lines.chunks(lines.len().div_ceil(threads.max(1)).max(1));
        let took = together(parts, |lines| {
            black_box(self.read(black_box(lines), way));
        });
        size_of_val(lines) as f64 / took.as_secs_f64().max(1e-9)
    }

    /// The exclusive or of all 8-byte words; what does not divide into four streams is read at the end.
    fn read(&self, lines: &[Line], way: Way) -> u64 {
        let quarter = lines.len() / way.streams.max(1);
        let streams: Vec<&[Line]> = lines.chunks(quarter.max(1)).collect();
        let (even, rest) = streams.split_at(way.streams.min(streams.len()));
        let sum = match (even, way.prefetch) {
            ([a], false) => self.walk::<1, false>([a]),
            ([a], true) => self.walk::<1, true>([a]),
            ([a, b, c, d], false) => self.walk::<4, false>([a, b, c, d]),
            ([a, b, c, d], true) => self.walk::<4, true>([a, b, c, d]),
            (few, _) => few.iter().fold(0, |s, p| s ^ self.walk::<1, false>([p])),
        };
        rest.iter().fold(sum, |s, p| s ^ self.walk::<1, false>([p]))
    }

    /// Streams of one length.
    #[allow(unsafe_code)]
    fn walk<const S: usize, const P: bool>(&self, streams: [&[Line]; S]) -> u64 {
        match self.loads {
            // SAFETY: cpu: `Loads::widest`, the only maker of this value, found AVX-512F.
            #[cfg(target_arch = "x86_64")]
            Loads::Avx512 => unsafe { x86::walk_avx512::<S, P>(streams) },
            // SAFETY: cpu: as above, AVX2.
            #[cfg(target_arch = "x86_64")]
            Loads::Avx2 => unsafe { x86::walk_avx2::<S, P>(streams) },
            Loads::Compiler => {
                let words = streams
                    .iter()
                    .flat_map(|s| s.iter())
                    .flat_map(|l| l.0.as_chunks::<8>().0);
                words.fold(0, |sum, w| sum ^ u64::from_ne_bytes(*w))
            }
        }
    }
}

/// Reads of few bytes that other reads have driven out of the caches, as a token's own bytes are: each is of the next part of
/// a buffer that is larger.
pub struct Windows {
    reader: Reader,
    /// Lines of a part.
    lines: usize,
    next: usize,
}

impl Windows {
    /// Parts of `bytes` in a buffer of at least `between` bytes, and of at least one part for each way to read.
    pub fn new(bytes: usize, between: usize) -> Result<Self> {
        let lines = bytes.div_ceil(LINE).max(1);
        let parts = between.div_ceil(lines * LINE).max(Way::ALL.len());
        Ok(Self {
            reader: Reader::new(parts * lines * LINE)?,
            lines,
            next: 0,
        })
    }

    /// Bytes per second of the best way, with one thread; each way reads a part of its own.
    pub fn rate(&mut self) -> f64 {
        let rates = Way::ALL.map(|way| {
            let lines = self.advance();
            self.reader.part(lines, 1, way)
        });
        rates.into_iter().fold(0.0, f64::max)
    }

    /// The next part.
    fn advance(&mut self) -> Range<usize> {
        let start = self.next * self.lines;
        let parts = self.reader.lines.len() / self.lines;
        self.next = (self.next + 1) % parts.max(1);
        start..start + self.lines
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{AHEAD, LINE, Line};
    use std::arch::x86_64::*;

    /// Accumulators, so that none waits for the one before.
    const LANES: usize = 8;

    /// Asks for the line that is `AHEAD` bytes further.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn prefetch(line: &Line) {
        let ahead = std::ptr::from_ref(line).wrapping_byte_add(AHEAD);
        // SAFETY: bounds: a prefetch reads nothing and never faults, wherever it points. cpu: SSE is in x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) }
    }

    /// The lines of one step, the streams in turn. They have one length.
    #[inline(always)]
    fn step<'l, const S: usize, const P: bool>(
        streams: &[&'l [Line]; S],
        at: usize,
    ) -> [&'l Line; LANES] {
        std::array::from_fn(|i| {
            let line = &streams[i % S][at + i / S];
            if P {
                prefetch(line);
            }
            line
        })
    }

    /// Where the steps end, and the lines after that.
    #[inline(always)]
    fn whole<const S: usize>(streams: &[&[Line]; S]) -> usize {
        let len = streams[0].len();
        len - len % (LANES / S)
    }

    #[target_feature(enable = "avx512f")]
    #[allow(unsafe_code)]
    pub(super) fn walk_avx512<const S: usize, const P: bool>(streams: [&[Line]; S]) -> u64 {
        // SAFETY: bounds and init: a line is 64 bytes. align: `Line` is aligned to 64.
        let load = |line: &Line| unsafe { _mm512_load_si512(line.0.as_ptr().cast()) };
        let whole = whole(&streams);
        let mut sums = [_mm512_setzero_si512(); LANES];
        for at in (0..whole).step_by(LANES / S) {
            let lines = step::<S, P>(&streams, at);
            sums = std::array::from_fn(|i| _mm512_xor_si512(sums[i], load(lines[i])));
        }
        let [a, b, c, d, e, f, g, h] = sums;
        let (a, b) = (_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
        let (c, d) = (_mm512_xor_si512(e, f), _mm512_xor_si512(g, h));
        let (a, b) = (_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
        let mut all = _mm512_xor_si512(a, b);
        for line in streams.iter().flat_map(|s| &s[whole..]) {
            all = _mm512_xor_si512(all, load(line));
        }
        let mut words = [0u64; 8];
        // SAFETY: bounds: 64 bytes. align: unaligned store. alias: `words` is ours.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), all) };
        words.iter().fold(0, |a, b| a ^ b)
    }

    /// The same in halves of lines.
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code)]
    pub(super) fn walk_avx2<const S: usize, const P: bool>(streams: [&[Line]; S]) -> u64 {
        let load = |line: &Line| {
            let [a, b] = [0, LINE / 2].map(|at| line.0.as_ptr().wrapping_add(at));
            // SAFETY: bounds and init: both halves of a line of 64 bytes. align: unaligned loads.
            unsafe { _mm256_xor_si256(_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(b.cast())) }
        };
        let whole = whole(&streams);
        let mut sums = [_mm256_setzero_si256(); LANES];
        for at in (0..whole).step_by(LANES / S) {
            let lines = step::<S, P>(&streams, at);
            sums = std::array::from_fn(|i| _mm256_xor_si256(sums[i], load(lines[i])));
        }
        let [a, b, c, d, e, f, g, h] = sums;
        let (a, b) = (_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
        let (c, d) = (_mm256_xor_si256(e, f), _mm256_xor_si256(g, h));
        let (a, b) = (_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
        let mut all = _mm256_xor_si256(a, b);
        for line in streams.iter().flat_map(|s| &s[whole..]) {
            all = _mm256_xor_si256(all, load(line));
        }
        let mut words = [0u64; 4];
        // SAFETY: bounds: 32 bytes. align: unaligned store. alias: `words` is ours.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), all) };
        words.iter().fold(0, |a, b| a ^ b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line of the buffer, whatever the way and the loads, is read exactly once.
    #[test]
    fn every_line_is_read_once() {
        let mut ways = vec![Loads::Compiler];
        ways.push(Loads::widest());
        for len in [1usize, 2, 3, 4, 5, 7, 8, 9, 31, 64, 100] {
            for loads in &ways {
                let lines = (0..len).map(|i| Line([1 << (i % 8); LINE]));
                let mut reader = Reader {
                    lines: lines.collect(),
                    loads: *loads,
                };
                let expected = |reader: &Reader| {
                    let words = reader.lines.iter().flat_map(|l| l.0.as_chunks::<8>().0);
                    words.fold(0, |s, w| s ^ u64::from_ne_bytes(*w))
                };
                reader.lines[len / 2].0[LINE - 1] = 0x5a;
                for way in Way::ALL {
                    let read = reader.read(&reader.lines, way);
                    assert_eq!(read, expected(&reader), "{len} {loads:?} {way:?}");
                }
            }
        }
    }

    #[test]
    fn a_part_is_read_again_only_after_all_others() {
        // 3 lines; 10 lines between hold them 4 times.
        let mut windows = Windows::new(2 * LINE + 1, 10 * LINE).unwrap();
        assert_eq!(windows.reader.lines.len(), 12);
        let starts: Vec<usize> = (0..5).map(|_| windows.advance().start).collect();
        assert_eq!(starts, [0, 3, 6, 9, 0]);
        assert_eq!(windows.advance().len(), 3);
        // Never less than one part for each way.
        let mut few = Windows::new(LINE, 0).unwrap();
        assert_eq!(few.reader.lines.len(), Way::ALL.len());
        assert!(few.rate() > 0.0);
    }

    #[test]
    fn rates_are_positive() {
        let reader = Reader::new(1 << 16).unwrap();
        for threads in [1, 2, 3] {
            let (best, all) = reader.rate(threads);
            assert!(best > 0.0 && all.len() == 4);
        }
    }
}

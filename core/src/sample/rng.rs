//! Philox 4x32-10: random bits as a function of a counter and a key.
//!
//! Source: Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011. Only integers,
//! so every target has the same bits.

/// Multipliers of the two halves.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the key grows by each round.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Four words for a counter under a key.
///
/// ```
/// let [first, ..] = pleach::sample::rng::philox([0; 4], [0; 2]);
/// assert_eq!(first, 0x6627_e8d5);
/// ```
pub const fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [m0, m1] = MULTIPLIERS;
    let [w0, w1] = WEYL;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    let mut round = 0;
    while round < 10 {
        let a = m0 as u64 * c0 as u64;
        let b = m1 as u64 * c2 as u64;
        (c0, c1, c2, c3) = (
            (b >> 32) as u32 ^ c1 ^ k0,
            b as u32,
            (a >> 32) as u32 ^ c3 ^ k1,
            a as u32,
        );
        k0 = k0.wrapping_add(w0);
        k1 = k1.wrapping_add(w1);
        round += 1;
    }
    [c0, c1, c2, c3]
}

/// The 64 random bits of the draw for `position`: words 0 (low) and 1 of the counter (position, 0, 0, 0) under
/// the key (low word of `seed`, high word of `seed`).
pub const fn draw_bits(seed: u64, position: u32) -> u64 {
    let [low, high, _, _] = philox([position, 0, 0, 0], [seed as u32, (seed >> 32) as u32]);
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of the authors' Random123.
    #[test]
    fn known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        // The digits of pi.
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn seed_and_position_both_count() {
        assert_eq!(draw_bits(0, 0), 0xe169_c58d_6627_e8d5);
        assert_ne!(draw_bits(1, 0), draw_bits(0, 1));
        assert_ne!(draw_bits(1 << 32, 0), draw_bits(1, 0));
    }
}

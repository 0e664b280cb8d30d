//! Text that is hard on a tokenizer, from a seed.

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Blocks of other scripts, assigned code points or not.
const SCRIPTS: [(u32, u32); 22] = [
    (0x0400, 0x04ff),   // Cyrillic
    (0x0370, 0x03ff),   // Greek
    (0x0600, 0x06ff),   // Arabic
    (0x0590, 0x05ff),   // Hebrew
    (0x0900, 0x097f),   // Devanagari
    (0x0980, 0x09ff),   // Bengali
    (0x0e00, 0x0e7f),   // Thai
    (0x10a0, 0x10ff),   // Georgian
    (0x1100, 0x11ff),   // Hangul Jamo
    (0x1200, 0x12ff),   // Ethiopic
    (0x1780, 0x17ff),   // Khmer
    (0x2000, 0x20cf),   // punctuation, superscripts, currency
    (0x2150, 0x218f),   // number forms
    (0x2460, 0x24ff),   // enclosed alphanumerics
    (0x3000, 0x30ff),   // CJK punctuation, kana
    (0x4e00, 0x9fff),   // CJK
    (0x20000, 0x2a6df), // CJK extension B
    (0xac00, 0xd7a3),   // Hangul
    (0xff00, 0xffef),   // full width
    (0x1d400, 0x1d7ff), // mathematical letters and digits
    (0x1f300, 0x1faff), // emoji
    (0x0080, 0x024f),   // Latin
];

const SPACES: [&str; 27] = [
    " ", " ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\u{b}", "\u{c}", "\u{85}", "\u{a0}",
    "\u{1680}", "\u{2000}", "\u{2003}", "\u{2009}", "\u{200a}", "\u{2028}", "\u{2029}", "\u{202f}",
    "\u{205f}", "\u{3000}", "\u{200b}", "\u{feff}", "\u{2060}", "\u{180e}",
];

const PIECES: [&str; 66] = [
    "the",
    "The",
    "light",
    "turn",
    "IT",
    "Größe",
    "naïve",
    "don't",
    "DON'T",
    "I'm",
    "we've",
    "they're",
    "he'll",
    "she'd",
    "it's",
    "isn’t",
    "'s",
    "'S",
    "'",
    "''",
    "'re'",
    "'lle",
    "l'été",
    "rock'n'roll",
    "\"",
    "e\u{301}\u{323}",
    "\u{301}",
    "क्षि",
    "กำ",
    "한\u{11a8}",
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "🇩🇪🇫",
    "❤\u{fe0f}",
    "1\u{fe0f}\u{20e3}",
    "1,234.5",
    "42°",
    "٣٤٥",
    "४२",
    "๑๒",
    "Ⅷ",
    "½²",
    "１２",
    "𝟙𝟚",
    "x_1+=y[2];",
    "http://a.b/?c=d#e",
    "...",
    "—",
    "\u{0}\u{1}\u{7f}",
    "\u{fffd}",
    "fn main() {\n    let x: u32 = 0x1F;\n\t// done\n}\r\n",
    "if (a[i] != b->c) { return \"%d\\n\"; }",
    "'ſ'LL'Ve",
    "▁",
    "▁▁x",
    "<0x41>",
    "<0x0A",
    "\u{1100}\u{1161}\u{11a8}",
    "o\u{302}\u{301}\u{323}",
    "\u{1d15e}\u{958}\u{fb2c}",
    "\u{f900}\u{2126}\u{212b}",
    "ạ\u{302}\u{315}\u{300}",
    "\u{9c7}\u{9be}\u{bc6}\u{bbe}",
    "\u{5d0}\u{5bc}\u{5b7}",
    "🏴\u{e0067}\u{e0062}\u{e007f}",
    "🧑🏿\u{200d}🚀",
];

const SPECIALS: [&str; 18] = [
    "<s>",
    "</s>",
    "<pad>",
    "<s",
    "s>",
    "<",
    "<s></s>",
    "<|im|>",
    "<|im_start|>",
    "<|im_start|>user",
    "<|im",
    "abc",
    "abcd",
    "abcde",
    "<|l|>",
    " <|r|> ",
    "\n<|lr|>\u{3000}\t",
    "▁<|r|>",
];

fn piece(random: &mut Random, line: &mut String) {
    match random.below(12) {
        0..=2 => {
            let (from, to) = SCRIPTS[random.below(SCRIPTS.len())];
            let chars = (0..1 + random.below(8)).filter_map(|_| {
                char::from_u32(from + random.below((to - from + 1) as usize) as u32)
            });
            line.extend(chars);
        }
        3 => line.extend(
            (0..1 + random.below(3)).filter_map(|_| char::from_u32(random.below(0x110000) as u32)),
        ),
        4..=6 => line.push_str(random.pick(&SPACES)),
        7 => line.push_str(random.pick(&SPECIALS)),
        8 if random.below(4) == 0 => line.extend(
            (0..1 + random.below(5))
                .filter_map(|_| char::from_u32(0x300 + random.below(0x70) as u32)),
        ),
        9 if random.below(400) == 0 => {
            let word = random.pick(&[
                "lalala",
                "qwertzu",
                "é",
                "\u{301}\u{323}",
                "漢字",
                "\u{a0}",
                "👍",
            ]);
            line.extend([word].into_iter().cycle().take(100 + random.below(300)));
        }
        _ => line.push_str(random.pick(&PIECES)),
    }
}

/// One line.
pub(crate) fn line(random: &mut Random) -> String {
    let mut line = String::new();
    for _ in 0..1 + random.below(14) {
        piece(random, &mut line);
        if random.below(3) == 0 {
            line.push_str(random.pick(&SPACES));
        }
    }
    line
}

/// `count` lines of other scripts, emoji, combining sequences, odd white space, digits, contractions,
/// code and fragments of added tokens.
pub(crate) fn lines(seed: u64, count: usize) -> Vec<String> {
    let mut random = Random(seed);
    (0..count).map(|_| line(&mut random)).collect()
}

//! Which experts had how much to say: per token a colour, per text a bar an expert.

use crate::output::{labelled, one_line};
use console::{Style, style};
use pleach::{Model, Session};
use std::ops::Range;

/// Entries of the 256-colour palette between black and white: each has a contrast of at least 3:1 to both
/// (a test computes it), so that they are readable on dark and light terminals.
const COLOURS: [u8; 8] = [33, 166, 135, 28, 198, 30, 136, 103];

/// How an expert's words look. After eight the colours come again, underlined.
pub(crate) fn colour(class: usize) -> Style {
    let plain = Style::new().color256(COLOURS[class % COLOURS.len()]);
    match class / COLOURS.len() % 2 {
        0 => plain,
        _ => plain.underlined(),
    }
}

/// The effective scalings of the tokens of a text, averaged over the sites that the expert has a LoRA for (its
/// scaling does nothing elsewhere): magnitudes, because a scaling may be negative.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mix {
    sum: Vec<f64>,
    latest: Vec<f64>,
    /// Which expert changes which site: `[sites, experts]`.
    targets: Vec<bool>,
}

impl Mix {
    pub(crate) fn of(model: &Model<'_>) -> Self {
        let experts = model.n_experts();
        let rank = |site, class| model.expert(class).map_or(0, |e| e.rank(site));
        let targets = |site| (0..experts).map(move |class| rank(site, class) > 0);
        Self {
            sum: vec![0.0; experts],
            latest: vec![0.0; experts],
            targets: (0..model.n_sites()).flat_map(targets).collect(),
        }
    }

    /// Looks at what a sweep has committed: the last position's scalings choose the next token.
    pub(crate) fn sweep(&mut self, session: &Session<'_, '_>, positions: &Range<usize>) {
        let Some(effective) = positions
            .clone()
            .last()
            .and_then(|p| session.effective_at(p))
        else {
            return;
        };
        let [_, sites, _] = effective.shape();
        self.average((0..sites).map(|site| effective.row(0, site)));
    }

    fn average<'r>(&mut self, rows: impl Iterator<Item = &'r [f32]>) {
        let experts = self.latest.len();
        let mut sites = vec![0u32; experts];
        self.latest.fill(0.0);
        for (row, targets) in rows.zip(self.targets.chunks_exact(experts.max(1))) {
            let all = self.latest.iter_mut().zip(&mut sites).zip(row).zip(targets);
            for (((sum, sites), v), _) in all.filter(|(_, target)| **target) {
                *sum += f64::from(v.abs());
                *sites += 1;
            }
        }
        for (sum, sites) in self.latest.iter_mut().zip(sites) {
            *sum /= f64::from(sites.max(1));
        }
    }

    /// A token was chosen by what the latest position computed. Gives the strongest expert.
    pub(crate) fn token(&mut self) -> Option<usize> {
        for (sum, v) in self.sum.iter_mut().zip(&self.latest) {
            *sum += v;
        }
        self.strongest()
    }

    /// The expert of the largest mean scaling of the latest position; none where two are equal.
    fn strongest(&self) -> Option<usize> {
        let top = self.latest.iter().copied().fold(0.0, f64::max);
        let mut at_top = self.latest.iter().enumerate().filter(|(_, v)| **v == top);
        let first = at_top.next()?;
        (top > 0.0 && at_top.next().is_none()).then_some(first.0)
    }

    /// Each expert's mean scaling where the latest token was chosen.
    pub(crate) fn latest(&self) -> &[f64] {
        &self.latest
    }

    /// Each expert's share of all tokens' scalings; empty if no expert took part.
    pub(crate) fn shares(&self) -> Vec<f32> {
        let total: f64 = self.sum.iter().sum();
        if total == 0.0 {
            return Vec::new();
        }
        self.sum.iter().map(|v| (v / total) as f32).collect()
    }
}

/// A bar per expert: its share of the effective scalings.
pub(crate) fn bars(model: &Model<'_>, shares: &[f32], indent: usize, width: usize) -> Vec<String> {
    if shares.is_empty() {
        return vec![labelled("", indent, "no expert took part", width)];
    }
    // Name, bar, a space, a percentage such as "100 %".
    let room = width.min(80).saturating_sub(indent + 6).max(1);
    let mut lines = Vec::new();
    for (class, share) in shares.iter().enumerate() {
        let name = one_line(model.expert(class).map_or("", |e| e.name()));
        let name = console::truncate_str(&name, indent - 1, "");
        let gap = " ".repeat(indent.saturating_sub(console::measure_text_width(&name)));
        let full = (share * room as f32).round() as usize;
        let bar = colour(class).apply_to("█".repeat(full));
        let rest = style("·".repeat(room.saturating_sub(full))).dim();
        lines.push(format!("{name}{gap}{bar}{rest} {:>3.0} %", 100.0 * share));
    }
    lines
}

/// One line of names and shares, each name in its colour on standard error.
pub(crate) fn legend(model: &Model<'_>, shares: &[f32]) -> String {
    if shares.is_empty() {
        return "experts: none took part".to_owned();
    }
    let names = shares.iter().enumerate().map(|(class, share)| {
        let name = one_line(model.expert(class).map_or("", |e| e.name()));
        let name = colour(class).for_stderr().apply_to(name);
        format!("{name} {:.0} %", 100.0 * share)
    });
    format!("experts: {}", names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WCAG 2's relative luminance of an entry of xterm's 6 x 6 x 6 cube.
    fn luminance(entry: u8) -> f64 {
        let level = |n: u8| match n {
            0 => 0.0,
            n => f64::from(55 + 40 * u32::from(n)) / 255.0,
        };
        let linear = |c: f64| match c {
            c if c <= 0.04045 => c / 12.92,
            c => ((c + 0.055) / 1.055).powf(2.4),
        };
        let n = entry - 16;
        let [r, g, b] = [n / 36, n / 6 % 6, n % 6].map(|n| linear(level(n)));
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    #[test]
    fn colours_are_readable_on_black_and_on_white() {
        for entry in COLOURS {
            let l = luminance(entry);
            let (on_white, on_black) = (1.05 / (l + 0.05), (l + 0.05) / 0.05);
            assert!(
                on_white >= 3.0 && on_black >= 3.0,
                "{entry}: {on_white:.2} {on_black:.2}"
            );
        }
    }

    #[test]
    fn the_strongest_is_none_where_two_are_equal() {
        let mix = |latest: &[f64]| Mix {
            latest: latest.to_vec(),
            ..Mix::default()
        };
        assert_eq!(mix(&[0.1, 0.5, 0.4]).strongest(), Some(1));
        assert_eq!(mix(&[0.5, 0.5]).strongest(), None);
        assert_eq!(mix(&[0.0, 0.0]).strongest(), None);
        assert_eq!(mix(&[]).strongest(), None);
    }

    #[test]
    fn a_site_without_its_lora_does_not_count_for_an_expert() {
        let mut mix = Mix {
            latest: vec![0.0; 2],
            targets: vec![true, false, true, true],
            ..Mix::default()
        };
        mix.average([&[0.5, 1.0][..], &[0.5, -0.5]].into_iter());
        assert_eq!(mix.latest(), [0.5, 0.5]);
    }

    #[test]
    fn shares_are_of_all_tokens() {
        let mut mix = Mix {
            sum: vec![0.0; 2],
            ..Mix::default()
        };
        assert!(mix.shares().is_empty());
        for latest in [[1.0, 0.0], [0.5, 0.5]] {
            mix.latest = latest.to_vec();
            mix.token();
        }
        assert_eq!(mix.shares(), [0.75, 0.25]);
    }
}

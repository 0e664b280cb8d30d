//! Our kernels beside the fully connected layers of `embedded-nn` and `microflow`: what one board executes.
//!
//! The peers' program is built twice. In a model of several layers the compiler leaves `embedded-nn`'s layer a function
//! that learns shapes at run time and checks each index; where it stands for one layer only, or the compiler is told to
//! inline more, shapes are constants and most checks go. `microflow` is generic over shapes in both.

use std::collections::HashMap;
use std::fmt::Write;

const PEERS: [&str; 2] = ["embedded-nn", "microflow"];

/// What builds are called, and what they add to the compiler's arguments for the peers' program.
pub(crate) const BUILDS: [(&str, &[&str]); 2] = [
    ("", &[]),
    (", inlined", &["-Cllvm-args=-inline-threshold=5000"]),
];

/// What is compared: what our counts are called, and what the peers' names end in.
struct Kind {
    heading: &'static str,
    ours: &'static str,
    end: &'static str,
    /// The same of a LoRA pair.
    pair: Option<(&'static str, &'static str)>,
}

const KINDS: [Kind; 2] = [
    Kind {
        heading: "int8 in",
        ours: "q8",
        end: "",
        pair: Some(("lora-pair", "-pair")),
    },
    Kind {
        heading: "f32 in and out",
        ours: "linear",
        end: "-float",
        pair: None,
    },
];

/// A table of instructions per multiply-accumulate, from our log and the peers', one for each of [`BUILDS`].
/// Errors: which count is missing.
pub(crate) fn table(ours: &str, peers: &[String; 2], sides: &[u64]) -> Result<String, String> {
    let heads = sides.iter().map(|side| format!("{side}x{side}"));
    let mut text = row("instructions per MAC", heads.chain(["64->8->64".into()]));
    let ours = counts(ours);
    let peers = [counts(&peers[0]), counts(&peers[1])];
    for kind in KINDS {
        text += &row(kind.heading, []);
        let (our_pair, pair_end) = kind.pair.unzip();
        text += &line("  pleach", &ours, kind.ours, our_pair, sides)?;
        for peer in PEERS {
            let pair = pair_end.map(|end| format!("{peer}{end}"));
            let name = format!("{peer}{}", kind.end);
            for ((build, _), counts) in BUILDS.iter().zip(&peers) {
                let label = format!("  {peer}{build}");
                text += &line(&label, counts, &name, pair.as_deref(), sides)?;
            }
        }
    }
    Ok(text)
}

/// `NAME SHAPE` and instructions per multiply-accumulate, of lines `count NAME SHAPE: 4640 instructions, 1.132 per MAC`.
fn counts(log: &str) -> HashMap<&str, &str> {
    let lines = log.lines().filter_map(|l| l.strip_prefix("count "));
    lines
        .filter_map(|l| {
            let (what, found) = l.split_once(": ")?;
            let (_, per_mac) = found.strip_suffix(" per MAC")?.split_once(", ")?;
            Some((what, per_mac))
        })
        .collect()
}

fn line(
    label: &str,
    counts: &HashMap<&str, &str>,
    name: &str,
    pair: Option<&str>,
    sides: &[u64],
) -> Result<String, String> {
    let shapes = sides.iter().map(|side| format!("{name} {side}x{side}"));
    let cells: Vec<String> = shapes
        .chain(pair.map(|pair| format!("{pair} 128x8")))
        .map(|what| match counts.get(what.as_str()) {
            Some(per_mac) => Ok((*per_mac).to_owned()),
            None => Err(format!("{}: no count of {what}", label.trim())),
        })
        .collect::<Result<_, _>>()?;
    Ok(row(label, cells))
}

fn row(label: &str, cells: impl IntoIterator<Item = String>) -> String {
    let mut text = format!("{label:<23}");
    for cell in cells {
        // Writing to a string does not fail.
        let _ = write!(text, "{cell:>10}");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "\
count q8 64x64: 4527 instructions, 1.105 per MAC
count linear 64x64: 8082 instructions, 1.973 per MAC
count lora-pair 128x8: 9512 instructions, 9.289 per MAC
";

    fn peers(log: &str) -> [String; 2] {
        let log: String = PEERS.iter().map(|p| log.replace("PEER", p)).collect();
        [log.clone(), log.replace("15.", "4.")]
    }

    const PEER: &str = "\
count PEER 64x64: 63500 instructions, 15.502 per MAC
count PEER-float 64x64: 65480 instructions, 15.986 per MAC
count PEER-pair 128x8: 21340 instructions, 20.839 per MAC
";

    #[test]
    fn every_peer_has_a_line_for_each_build() {
        let text = table(OURS, &peers(PEER), &[64]).unwrap();
        let expected = "\
instructions per MAC        64x64 64->8->64
int8 in
  pleach                    1.105     9.289
  embedded-nn              15.502    20.839
  embedded-nn, inlined      4.502    20.839
  microflow                15.502    20.839
  microflow, inlined        4.502    20.839
f32 in and out
  pleach                    1.973
  embedded-nn              15.986
  embedded-nn, inlined      4.986
  microflow                15.986
  microflow, inlined        4.986
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_missing_count_is_an_error() {
        let e = table(OURS, &peers(PEER), &[64, 128]).unwrap_err();
        assert_eq!(e, "pleach: no count of q8 128x128");
        let without: String = PEER.lines().take(2).map(|l| format!("{l}\n")).collect();
        let e = table(OURS, &peers(&without), &[64]).unwrap_err();
        assert_eq!(e, "embedded-nn: no count of embedded-nn-pair 128x8");
    }
}

//! A measurement for people and for scripts.

use super::{Counted, Measurement, Rates};
use crate::output::{bytes, count, labelled};
use serde_json::{Value, json};
use std::fmt::Write;

const INDENT: usize = 12;

/// The measurement as lines of at most `width` columns, where words allow. `about` says what ran.
pub(crate) fn text(m: &Measurement, about: &[(&str, String)], width: usize) -> String {
    let mut out = String::new();
    let line = |out: &mut String, label: &str, text: &str| {
        let _ = writeln!(out, "{}", labelled(label, INDENT, text, width));
    };
    for (label, text) in about {
        line(&mut out, label, text);
    }
    line(&mut out, "kernels", m.kernels);
    let _ = writeln!(
        out,
        "{:<INDENT$}{:>16}  {:>8}  {:>16}  {:>8}  {:>9}",
        "threads", "prompt tok/s", "spread", "decode tok/s", "spread", "bandwidth"
    );
    for s in &m.speeds {
        let _ = writeln!(
            out,
            "{:<INDENT$}{:>16}  {:>8}  {:>16}  {:>8}  {:>9}",
            s.threads,
            rate(s.prompt.median()),
            percent(s.prompt.spread()),
            rate(s.decode.median()),
            percent(s.decode.spread()),
            percent(m.share(s))
        );
    }
    let streams: Vec<String> = m
        .bandwidth
        .iter()
        .enumerate()
        .map(|(n, b)| format!("{:.1} GB/s with {}", b / 1e9, n + 1))
        .collect();
    line(
        &mut out,
        "machine",
        &format!(
            "reads {}, as many as a token does, at {} threads",
            bytes(m.buffer as u64),
            streams.join(", ")
        ),
    );
    let hand_overs: Vec<String> = m
        .speeds
        .iter()
        .filter_map(|s| Some(format!("{} ns with {}", s.hand_over?.as_nanos(), s.threads)))
        .collect();
    if !hand_overs.is_empty() {
        line(
            &mut out,
            "hand-over",
            &format!(
                "of an operation to all threads and back, without its rows: {}",
                hand_overs.join(", ")
            ),
        );
    }
    line(&mut out, "a token", &taken(&m.decode));
    line(&mut out, "of prompt", &taken(&m.prompt));
    if m.noisy() {
        line(
            &mut out,
            "noise",
            "rounds differ by more than 20 %: something else uses this machine. Stop it, or raise --rounds, before \
             you trust these figures",
        );
    }
    out
}

/// What a token took.
fn taken(c: &Counted) -> String {
    let n = &c.counters;
    let mut text = format!(
        "{:.3} sweeps, {:.2} columns, {} of weights, {} of keys and values, {} multiply-accumulates",
        c.each(n.sweeps),
        c.each(n.columns),
        bytes(c.each(n.weight_bytes) as u64),
        bytes(c.each(n.kv_bytes) as u64),
        count(c.each(n.macs) as u64)
    );
    if n.guesses > 0 {
        let _ = write!(text, "; {} of {} guesses right", n.hits, n.guesses);
    }
    text
}

/// Three digits.
fn rate(n: f64) -> String {
    match n {
        0.0..10.0 => format!("{n:.2}"),
        10.0..100.0 => format!("{n:.1}"),
        _ => format!("{n:.0}"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// The measurement as one JSON object; what ran is the caller's to add.
pub(crate) fn json(m: &Measurement) -> Value {
    let speeds: Vec<Value> = m
        .speeds
        .iter()
        .map(|s| {
            json!({
                "threads": s.threads,
                "prompt_tokens_per_second": rates(&s.prompt),
                "decode_tokens_per_second": rates(&s.decode),
                "bandwidth_share": m.share(s),
                "hand_over_ns": s.hand_over.map(|t| t.as_nanos() as u64),
            })
        })
        .collect();
    let bandwidth: Vec<Value> = m
        .bandwidth
        .iter()
        .enumerate()
        .map(|(n, b)| json!({ "streams": n + 1, "bytes_per_second": b }))
        .collect();
    json!({
        "kernels": m.kernels,
        "speeds": speeds,
        "bandwidth": { "buffer_bytes": m.buffer, "reads": bandwidth },
        "prompt": counted(&m.prompt),
        "decode": counted(&m.decode),
        "noisy": m.noisy(),
    })
}

fn rates(r: &Rates) -> Value {
    json!({
        "median": r.median(),
        "lowest": r.lowest(),
        "highest": r.highest(),
        "spread": r.spread(),
    })
}

fn counted(c: &Counted) -> Value {
    let n = &c.counters;
    json!({
        "tokens": c.tokens,
        "sweeps": n.sweeps,
        "columns": n.columns,
        "weight_bytes": n.weight_bytes,
        "kv_bytes": n.kv_bytes,
        "macs": n.macs,
        "guesses": n.guesses,
        "hits": n.hits,
        "held_guesses": n.held_guesses,
        "held_hits": n.held_hits,
        "sweeps_per_token": c.each(n.sweeps),
        "bytes_per_token": c.bytes_per_token(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        assert_eq!(
            [rate(1.234), rate(12.34), rate(1234.0)],
            ["1.23", "12.3", "1234"]
        );
        assert_eq!(percent(0.876), "88 %");
    }
}

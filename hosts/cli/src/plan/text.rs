//! A plan for people.

use super::Figures;
use super::json::speculation;
use crate::output::{bytes, count, exactly, labelled};
use pleach::{Caches, KvType};
use std::fmt::Write;

const INDENT: usize = 12;

/// The plan as lines of at most `width` columns, where words allow.
pub(crate) fn text(x: &Figures<'_>, name: &str, width: usize) -> String {
    let mut out = String::new();
    sections(x, name, width, &mut out);
    arena(x, width, &mut out);
    ram(x, width, &mut out);
    costs(x, width, &mut out);
    out
}

fn line(out: &mut String, label: &str, text: &str, width: usize) {
    let _ = writeln!(out, "{}", labelled(label, INDENT, text, width));
}

fn sections(x: &Figures<'_>, name: &str, width: usize, out: &mut String) {
    let file = format!("{name}, {} bytes", exactly(x.model.file_len() as u64));
    line(out, "file", &file, width);
    for (n, s) in x.sections.iter().enumerate() {
        let what = match s.expert {
            Some((class, name)) => format!("expert {class}, {name}"),
            None => s.kind.to_owned(),
        };
        let label = if n == 0 { "sections" } else { "" };
        row(out, label, s.bytes, &what);
    }
    row(out, "", x.table_bytes, "header, section table, alignment");
}

/// A figure before what it is of.
fn row(out: &mut String, label: &str, n: u64, what: &str) {
    let _ = writeln!(out, "{label:<INDENT$}{:>13}  {what}", exactly(n));
}

fn arena(x: &Figures<'_>, width: usize, out: &mut String) {
    let o = &x.options;
    let session = format!(
        "context {}, chunk {}, keys and values {}, {}, routing {}, speculation {}",
        o.context,
        o.chunk,
        match o.kv {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
        },
        match o.caches {
            Caches::One => "one cache",
            Caches::Two => "two caches",
        },
        x.routing,
        speculation(o.speculate)
    );
    line(out, "session", &session, width);
    let all = format!(
        "{} bytes ({}), one slice at a multiple of 16",
        exactly(x.arena_bytes as u64),
        bytes(x.arena_bytes as u64)
    );
    line(out, "RAM", &all, width);
    let _ = writeln!(out, "{:INDENT$}{:>13}  {:>13}  part", "", "offset", "bytes");
    for p in x.parts.iter().filter(|p| p.bytes > 0) {
        let _ = writeln!(
            out,
            "{:INDENT$}{:>13}  {:>13}  {}: {}",
            "",
            exactly(p.offset as u64),
            exactly(p.bytes as u64),
            p.name,
            p.holds
        );
    }
    let kv = format!(
        "{} bytes of keys and values per token of context",
        exactly(x.model.kv_bytes_per_token(o))
    );
    line(out, "", &kv, width);
    let base = x.speculation.first().map_or(0, |(_, bytes)| *bytes);
    for (n, (name, bytes)) in x.speculation.iter().enumerate() {
        let text = match n {
            0 => format!("{name}: {} bytes", exactly(*bytes as u64)),
            _ => format!(
                "{name}: {} bytes, {} more",
                exactly(*bytes as u64),
                exactly(bytes.saturating_sub(base) as u64)
            ),
        };
        let label = if n == 0 { "speculation" } else { "" };
        line(out, label, &text, width);
    }
}

fn ram(x: &Figures<'_>, width: usize, out: &mut String) {
    let Some(ram) = &x.ram else { return };
    let text = match ram.fits {
        Some((context, bytes)) => format!(
            "{} bytes hold a context of {context}, whose arena takes {}{}",
            exactly(ram.bytes),
            exactly(bytes as u64),
            match x.model.config().max_position {
                made if made < context => format!("; the base was made for {made} positions"),
                _ => String::new(),
            }
        ),
        None => format!(
            "{} bytes do not hold one token, which takes {}: lower --chunk, or use --kv f16 or --speculate off",
            exactly(ram.bytes),
            exactly(ram.least as u64)
        ),
    };
    line(out, "--ram", &text, width);
}

fn costs(x: &Figures<'_>, width: usize, out: &mut String) {
    let _ = writeln!(
        out,
        "{:INDENT$}{:>21}  {:>21}",
        "a column", "bytes of weights", "multiply-accumulates"
    );
    for (name, range) in &x.column {
        let _ = write!(
            out,
            "  {name:<10}{:>21}  {:>21}",
            between(range.least.bytes(), range.most.bytes(), bytes),
            between(range.least.macs, range.most.macs, count)
        );
        let note = match *name {
            "experts" => format!("  {}", x.selection),
            _ => String::new(),
        };
        let _ = writeln!(out, "{note}");
    }
    let _ = writeln!(
        out,
        "{:<22}{:>7}  {:>7}  {:>21}  {:>21}",
        "a token", "sweeps", "columns", "bytes of weights", "multiply-accumulates"
    );
    for t in &x.tokens {
        let _ = writeln!(
            out,
            "  {:<20}{:>7}  {:>7}  {:>21}  {:>21}",
            t.when,
            t.sweeps,
            t.columns,
            between(t.weight_bytes.0, t.weight_bytes.1, bytes),
            between(t.macs.0, t.macs.1, count)
        );
    }
    let (m, kv) = (&x.model, x.options.kv);
    let last = x.options.context.saturating_sub(1);
    let text = format!(
        "for each column and position of the text before it {} of keys and values and {} multiply-accumulates: at the \
         context's end {} and {}",
        bytes(m.attention_bytes(0, kv)),
        count(m.attention_macs(0)),
        bytes(m.attention_bytes(last, kv)),
        count(m.attention_macs(last))
    );
    line(out, "attention", &text, width);
}

/// One figure, or two.
fn between(least: u64, most: u64, unit: fn(u64) -> String) -> String {
    match (unit(least), unit(most)) {
        (a, b) if a == b => a,
        (a, b) => format!("{a} to {b}"),
    }
}

//! `tojson` as transformers has it: Python's `json.dumps`, not Jinja's HTML-safe form.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Values within values.
const DEPTH: usize = 128;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    options: Kwargs,
) -> Result<String, Error> {
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Value> = options.get("separators")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let between = if indent.is_some() { "," } else { ", " };
    let (between, colon) = match separators.filter(|s| !s.is_none()) {
        None => (between.to_owned(), ": ".to_owned()),
        Some(pair) => (
            pair.get_item_by_index(0)?.to_string(),
            pair.get_item_by_index(1)?.to_string(),
        ),
    };
    let mut writer = Writer {
        state,
        out: String::new(),
        paid: 0,
        ascii: ascii.unwrap_or(false),
        indent,
        between,
        colon,
        sorted: sorted.unwrap_or(false),
    };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    out: String,
    /// Bytes of `out` that fuel was paid for.
    paid: usize,
    ascii: bool,
    indent: Option<usize>,
    between: String,
    colon: String,
    sorted: bool,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.pay()?;
        let refused = |why| Err(Error::new(ErrorKind::InvalidOperation, why));
        if depth > DEPTH {
            return refused("tojson: nested too deeply");
        }
        match value.kind() {
            ValueKind::Undefined => return refused("tojson: a value is undefined"),
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                let pairs = keys.into_iter().map(|k| {
                    let v = value.get_item(&k)?;
                    Ok((Some(k), v))
                });
                self.list(['{', '}'], pairs, depth)?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|v| Ok((None, v)));
                self.list(['[', ']'], items, depth)?;
            }
            _ => return refused("tojson: not a value that JSON has"),
        }
        Ok(())
    }

    fn list(
        &mut self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = Result<(Option<Value>, Value), Error>>,
        depth: usize,
    ) -> Result<(), Error> {
        self.out.push(open);
        let mut any = false;
        for item in items {
            let (key, value) = item?;
            if any {
                let between = self.between.clone();
                self.out.push_str(&between);
            }
            any = true;
            self.line(depth + 1);
            if let Some(key) = key {
                self.text(&key.to_string());
                let colon = self.colon.clone();
                self.out.push_str(&colon);
            }
            self.value(&value, depth + 1)?;
        }
        if any {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(width) = self.indent {
            self.out.push('\n');
            self.out
                .extend(std::iter::repeat_n(' ', width.min(16) * depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    /// Pays for what was written since the last time, as the engine charges for strings.
    fn pay(&mut self) -> Result<(), Error> {
        let bytes = self.out.len() - self.paid;
        if bytes >= 64 {
            self.paid = self.out.len();
            self.state.consume_fuel(bytes as u64 / 64)?;
        }
        self.state.consume_fuel(1)
    }
}

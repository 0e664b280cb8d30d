//! Writes GGUF files field by field, also such as nobody should write.
#![allow(dead_code, unreachable_pub)]

/// A key's or an item's type in the file.
pub const U32: u32 = 4;
pub const F32: u32 = 6;
pub const TEXT: u32 = 8;
pub const ARRAY: u32 = 9;

/// A file in the making; fields may be set to anything before [`bytes`](Self::bytes).
#[derive(Clone)]
pub struct Writer {
    pub magic: [u8; 4],
    pub version: u32,
    /// Instead of the true number of tensors and keys.
    pub counts: [Option<u64>; 2],
    pub keys: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

pub fn text(t: &str) -> Vec<u8> {
    let mut b = (t.len() as u64).to_le_bytes().to_vec();
    b.extend_from_slice(t.as_bytes());
    b
}

/// A value with its type before it.
pub fn value(kind: u32, bytes: &[u8]) -> Vec<u8> {
    let mut b = kind.to_le_bytes().to_vec();
    b.extend_from_slice(bytes);
    b
}

/// The head of an array, with `count` items announced.
pub fn array(kind: u32, count: u64, items: &[u8]) -> Vec<u8> {
    let mut b = value(ARRAY, &kind.to_le_bytes());
    b.extend_from_slice(&count.to_le_bytes());
    b.extend_from_slice(items);
    b
}

impl Writer {
    pub fn key(&mut self, key: &str, value: Vec<u8>) -> &mut Self {
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some((_, v)) => *v = value,
            None => self.keys.push((key.into(), value)),
        }
        self
    }

    pub fn u32(&mut self, key: &str, n: u32) -> &mut Self {
        self.key(key, value(U32, &n.to_le_bytes()))
    }

    pub fn text(&mut self, key: &str, t: &str) -> &mut Self {
        self.key(key, value(TEXT, &text(t)))
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let t = self.tensors.iter_mut().find(|t| t.name == name);
        t.expect("tensor")
    }

    /// Adds a tensor of F16 zeros.
    pub fn zeros(&mut self, name: &str, shape: &[u64]) -> &mut Self {
        self.tensors.push(Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            kind: 1,
            offset: self.data.len() as u64,
        });
        let bytes = 2 * shape.iter().product::<u64>() as usize;
        let end = (self.data.len() + bytes).next_multiple_of(self.alignment);
        self.data.resize(end, 0);
        self
    }

    /// The header, up to the tensors' data.
    pub fn header(&self) -> Vec<u8> {
        let mut b = self.magic.to_vec();
        b.extend_from_slice(&self.version.to_le_bytes());
        let counts = [self.tensors.len(), self.keys.len()];
        for (stated, count) in self.counts.iter().zip(counts) {
            b.extend_from_slice(&stated.unwrap_or(count as u64).to_le_bytes());
        }
        for (key, value) in &self.keys {
            b.extend_from_slice(&text(key));
            b.extend_from_slice(value);
        }
        for t in &self.tensors {
            b.extend_from_slice(&text(&t.name));
            b.extend_from_slice(&(t.shape.len() as u32).to_le_bytes());
            for d in &t.shape {
                b.extend_from_slice(&d.to_le_bytes());
            }
            b.extend_from_slice(&t.kind.to_le_bytes());
            b.extend_from_slice(&t.offset.to_le_bytes());
        }
        b.resize(b.len().next_multiple_of(self.alignment), 0);
        b
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut b = self.header();
        b.extend_from_slice(&self.data);
        b
    }
}

/// A llama of zeros: `[layers, hidden, inner, heads, vocab]`.
pub fn llama([layers, hidden, inner, heads, vocab]: [u64; 5]) -> Writer {
    let mut w = Writer {
        magic: *b"GGUF",
        version: 3,
        counts: [None, None],
        keys: Vec::new(),
        tensors: Vec::new(),
        alignment: 32,
        data: Vec::new(),
    };
    w.text("general.architecture", "llama");
    for (key, n) in [
        ("block_count", layers),
        ("context_length", 64),
        ("embedding_length", hidden),
        ("feed_forward_length", inner),
        ("attention.head_count", heads),
    ] {
        w.u32(&format!("llama.{key}"), n as u32);
    }
    let eps = value(F32, &1e-5f32.to_le_bytes());
    w.key("llama.attention.layer_norm_rms_epsilon", eps);
    w.key("tokenizer.ggml.scores", array(F32, 2, &[0; 8]));
    w.key(
        "tokenizer.ggml.tokens",
        array(TEXT, 2, &[text("a"), text("b")].concat()),
    );
    w.zeros("token_embd.weight", &[hidden, vocab]);
    w.zeros("output_norm.weight", &[hidden]);
    for n in 0..layers {
        for (name, shape) in [
            ("attn_norm", vec![hidden]),
            ("attn_q", vec![hidden, hidden]),
            ("attn_k", vec![hidden, hidden]),
            ("attn_v", vec![hidden, hidden]),
            ("attn_output", vec![hidden, hidden]),
            ("ffn_norm", vec![hidden]),
            ("ffn_gate", vec![hidden, inner]),
            ("ffn_up", vec![hidden, inner]),
            ("ffn_down", vec![inner, hidden]),
        ] {
            w.zeros(&format!("blk.{n}.{name}.weight"), &shape);
        }
    }
    w
}

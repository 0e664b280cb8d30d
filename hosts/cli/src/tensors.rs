//! A trace as a safetensors file. Written here because the same trace must give the same bytes, metadata
//! included.

use pleach::Model;
use pleach::blob::format::NO_LAYER;
use pleach_linux::Trace;
use serde_json::{Map, Value, json};

/// The names of the sites in their order.
pub(crate) fn sites(model: &Model<'_>) -> Vec<String> {
    (0..model.n_sites()).map(|n| site(model, n)).collect()
}

/// The name of a site: the model file's, or, where names were stripped, what its module is called in the
/// families that are read.
pub(crate) fn site(model: &Model<'_>, n: usize) -> String {
    if let Some(name) = model.site_name(n) {
        return name.to_owned();
    }
    let Some(site) = model.site(n) else {
        return n.to_string();
    };
    let module = site.module.path();
    match site.layer {
        NO_LAYER => format!("model.{module}"),
        layer => format!("model.layers.{layer}.{module}"),
    }
}

/// The names of the experts in class order.
pub(crate) fn experts<'b>(model: &Model<'b>) -> Vec<&'b str> {
    let experts = (0..model.n_experts()).filter_map(|c| model.expert(c));
    experts.map(|e| e.name()).collect()
}

/// The file: `scalings` (where a scaling pass ran) and `effective` `[S, sites, experts]` f32, `logits`
/// `[S, vocab]` f32, `generated` `[N]` i64; metadata `sites` and `experts`, JSON arrays.
pub(crate) fn file(model: &Model<'_>, trace: &Trace) -> Vec<u8> {
    let [positions, sites_, experts_] = trace.shape;
    let mut header = Map::new();
    header.insert(
        "__metadata__".into(),
        json!({
            "sites": json!(sites(model)).to_string(),
            "experts": json!(experts(model)).to_string(),
        }),
    );
    let mut data = Vec::new();
    let generated = trace
        .generated
        .iter()
        .flat_map(|t| i64::from(*t).to_le_bytes());
    let n = [trace.generated.len()];
    // Wider numbers first, as safetensors' own writer orders them.
    add(&mut header, &mut data, "generated", "I64", &n, generated);
    let shape = [positions, sites_, experts_];
    add(
        &mut header,
        &mut data,
        "effective",
        "F32",
        &shape,
        floats(&trace.effective),
    );
    let vocab = [positions, trace.vocab];
    add(
        &mut header,
        &mut data,
        "logits",
        "F32",
        &vocab,
        floats(&trace.logits),
    );
    if let Some(scalings) = &trace.scalings {
        add(
            &mut header,
            &mut data,
            "scalings",
            "F32",
            &shape,
            floats(scalings),
        );
    }
    let mut text = Value::Object(header).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text.as_bytes());
    out.append(&mut data);
    out
}

fn floats(values: &[f32]) -> impl Iterator<Item = u8> {
    values.iter().flat_map(|v| v.to_le_bytes())
}

fn add(
    header: &mut Map<String, Value>,
    data: &mut Vec<u8>,
    name: &str,
    dtype: &str,
    shape: &[usize],
    bytes: impl Iterator<Item = u8>,
) {
    let start = data.len();
    data.extend(bytes);
    header.insert(
        name.into(),
        json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}),
    );
}

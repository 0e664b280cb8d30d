//! Config, site table and options.

use crate::import::base::BaseConfig;
use crate::import::modules::Place;
use crate::write::Section;
use pleach::blob::format::{CacheKind, ConfigRecord, LayerRecord, Module, NORM_QK, SiteRecord};

/// Output and input features of a place; of the embedding: hidden and vocabulary.
pub(crate) fn features(c: &ConfigRecord, place: Place) -> (usize, usize) {
    let (hidden, inner) = (c.hidden as usize, c.intermediate as usize);
    let q = c.heads as usize * c.head_dim as usize;
    let kv = c.kv_heads as usize * c.head_dim as usize;
    match place.module {
        Module::Q => (q, hidden),
        Module::K | Module::V => (kv, hidden),
        Module::O => (hidden, q),
        Module::Gate | Module::Up => (inner, hidden),
        Module::Down => (hidden, inner),
        Module::Embed => (hidden, c.vocab as usize),
    }
}

/// Tensors that the base has before those of the first layer.
pub(crate) fn tensors_before_layers(c: &ConfigRecord) -> usize {
    if c.tied { 2 } else { 3 }
}

/// The config section: record, inverse frequencies, layer table.
pub(crate) fn write(out: &mut Section<'_>, base: &BaseConfig, sites: &[Place]) {
    out.push(&base.record.encode());
    for f in &base.inv_freq {
        out.push(&f.to_le_bytes());
    }
    let mut first_tensor = tensors_before_layers(&base.record);
    for (n, kind) in (0..).zip(&base.layers) {
        let first_site = sites
            .iter()
            .position(|s| s.module != Module::Embed && s.layer >= n)
            .unwrap_or(sites.len());
        let layer = LayerRecord {
            norm: 1,
            norm_flags: if base.qk_norm { NORM_QK } else { 0 },
            act: 1,
            cache: CacheKind::Full as u8,
            bias_mask: base.bias_mask,
            site_mask: sites
                .iter()
                .filter(|s| s.layer == n)
                .fold(0, |m, s| m | s.module.bit()),
            rope: u8::from(kind.rope),
            causal: 1,
            window: kind.window,
            first_tensor: first_tensor as u16,
            first_site: first_site as u16,
        };
        first_tensor += layer.tensors();
        out.push(&layer.encode());
    }
}

/// The site table.
pub(crate) fn write_sites(out: &mut Section<'_>, base: &BaseConfig, sites: &[Place]) {
    out.push(&(sites.len() as u32).to_le_bytes());
    out.push(&[0; 12]);
    for place in sites {
        let (outputs, inputs) = features(&base.record, *place);
        let site = SiteRecord {
            module: place.module as u16,
            layer: place.layer,
            inputs: inputs as u32,
            outputs: outputs as u32,
            kind: u32::from(place.module == Module::Embed),
        };
        out.push(&site.encode());
    }
}

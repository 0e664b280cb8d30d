//! [`Model`]: the proof that a blob is sound, and the views that it gives.

use crate::blob::expert::{Expert, ExpertFile};
use crate::blob::format::{
    self, ConfigRecord, Header, LayerRecord, Module, OptionsRecord, SectionEntry, SectionKind,
    SiteRecord, TensorEntry,
};
use crate::blob::tensor::Tensor;
use crate::xlora::XLoraConfig;

/// A parsed model: views only, `Copy`, and no way to have one but [`Model::parse`].
///
/// ```
/// # let file = pleach::Aligned([0u8; 0]);
/// # let read = |_: &str| pleach::Blob::aligned(&file);
/// match pleach::Model::parse(read("intent.pleach")) {
///     Ok(model) => assert!(model.config().layers > 0),
///     Err(e) => assert_eq!(e, pleach::Error::Truncated { needed: 64, found: 0 }),
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Model<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) header: Header,
    pub(crate) config: ConfigRecord,
    pub(crate) options: OptionsRecord,
    pub(crate) config_bytes: &'b [u8],
    pub(crate) base: &'b [u8],
    pub(crate) sites: &'b [u8],
    pub(crate) classifier: Option<&'b [u8]>,
    pub(crate) names: Option<&'b [u8]>,
    pub(crate) tokenizer: Option<&'b [u8]>,
    pub(crate) provenance: Option<&'b str>,
    pub(crate) template: Option<&'b str>,
    /// Row of expert 0 in the section table.
    pub(crate) first_expert: usize,
    pub(crate) replaced: &'b [ExpertFile<'b>],
    /// Sum of all experts' ranks at the widest group of sites, each rank rounded up to a tile.
    pub(crate) widest_ranks: usize,
    /// Widest layer of the classifier.
    pub(crate) widest_classifier: usize,
    /// Whether a tensor lies in `m4`, whose kernels want panels of twice the bytes.
    pub(crate) has_m4: bool,
}

/// A module that at least one expert targets; PEFT's "X-LoRA layer".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Site {
    /// Its number in module order.
    pub number: usize,
    /// Its module.
    pub module: Module,
    /// Its layer, or [`format::NO_LAYER`].
    pub layer: u16,
    /// Input features (embedding: the vocabulary).
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

impl<'b> Model<'b> {
    /// Dimensions and constants of the base.
    pub const fn config(&self) -> ConfigRecord {
        self.config
    }

    /// The X-LoRA options as stored.
    pub const fn options(&self) -> OptionsRecord {
        self.options
    }

    /// The X-LoRA options under PEFT's names.
    pub const fn xlora_config(&self) -> XLoraConfig {
        XLoraConfig {
            top_k_lora: if self.options.top_k_lora == 0 {
                None
            } else {
                Some(self.options.top_k_lora)
            },
            enable_softmax: self.options.enable_softmax,
            enable_softmax_topk: self.options.enable_softmax_topk,
            softmax_temperature: self.options.softmax_temperature,
            layerwise_scalings: self.options.layerwise_scalings,
            scaling_pass_value: self.options.scaling_pass_value,
            global_scaling_weight: self.options.global_scaling_weight,
        }
    }

    /// Number of sites.
    pub const fn n_sites(&self) -> usize {
        self.sites.len().saturating_sub(format::TABLE_HEAD_BYTES) / format::SITE_BYTES
    }

    /// Number of experts.
    pub const fn n_experts(&self) -> usize {
        self.options.experts as usize
    }

    /// Whether the blob has a classifier, without which scalings must be given.
    pub const fn has_classifier(&self) -> bool {
        self.classifier.is_some()
    }

    /// The `n`th site.
    pub const fn site(&self, n: usize) -> Option<Site> {
        let at = format::TABLE_HEAD_BYTES.saturating_add(n.saturating_mul(format::SITE_BYTES));
        match format::array(self.sites, at) {
            Some(b) => {
                let r = SiteRecord::decode(b);
                match Module::from_number(r.module) {
                    Some(module) => Some(Site {
                        number: n,
                        module,
                        layer: r.layer,
                        inputs: r.inputs as usize,
                        outputs: r.outputs as usize,
                    }),
                    None => None,
                }
            }
            None => None,
        }
    }

    /// The module name of site `n`, as `model.layers.0.self_attn.q_proj`; `None` if names were stripped.
    pub const fn site_name(&self, n: usize) -> Option<&'b str> {
        let Some(names) = self.names else {
            return None;
        };
        let at = 4usize.saturating_add(n.saturating_mul(4));
        let text = 4usize
            .saturating_add(self.n_sites().saturating_mul(4))
            .saturating_add(4);
        match format::array::<8>(names, at) {
            Some(b) => {
                let (start, end) = (format::u32_at(b, 0) as usize, format::u32_at(b, 4) as usize);
                if n >= self.n_sites() || end < start {
                    return None;
                }
                match format::slice(names, text.saturating_add(start), end - start) {
                    Some(s) => match core::str::from_utf8(s) {
                        Ok(s) => Some(s),
                        Err(_) => None,
                    },
                    None => None,
                }
            }
            None => None,
        }
    }

    /// The site with this module name.
    pub fn find_site(&self, name: &str) -> Option<Site> {
        (0..self.n_sites())
            .find(|&n| self.site_name(n) == Some(name))
            .and_then(|n| self.site(n))
    }

    /// The expert with this class index: the replacement of [`Model::with_experts`], or the blob's own.
    pub const fn expert(&self, class: usize) -> Option<Expert<'b>> {
        let mut rest = self.replaced;
        while let Some((file, tail)) = rest.split_first() {
            if file.class() == class {
                return Some(file.expert());
            }
            rest = tail;
        }
        if class >= self.n_experts() {
            return None;
        }
        let Some(entry) = self.section_entry(self.first_expert + class) else {
            return None;
        };
        match format::slice(self.bytes, entry.offset as usize, entry.length as usize) {
            Some(bytes) => Expert::view(bytes),
            None => None,
        }
    }

    /// The class of the expert with this key, or else with this name: keys are unique in a file, names need not
    /// be, and may be another expert's key.
    pub fn find_expert(&self, name: &str) -> Option<usize> {
        let experts = || (0..self.n_experts()).filter_map(|c| Some((c, self.expert(c)?)));
        experts()
            .find(|(_, e)| e.key() == name)
            .or_else(|| experts().find(|(_, e)| e.name() == name))
            .map(|(class, _)| class)
    }

    /// Whether the blob has a tokenizer.
    pub const fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The tokenizer; `None` if the blob has none.
    #[cfg(feature = "tokenizer")]
    pub fn tokenizer(&self) -> Option<crate::tokenizer::Tokenizer<'b>> {
        crate::tokenizer::Tokenizer::view(self.tokenizer?).ok()
    }

    /// Where the weights came from: JSON for people.
    pub const fn provenance(&self) -> Option<&'b str> {
        self.provenance
    }

    /// The chat template: Jinja, for hosts that can run it.
    pub const fn chat_template(&self) -> Option<&'b str> {
        self.template
    }

    /// The files whose experts stand in the place of the blob's own, see [`Model::with_experts`].
    pub const fn replaced(&self) -> &'b [ExpertFile<'b>] {
        self.replaced
    }

    /// The file, as it lies.
    pub const fn data(&self) -> &'b [u8] {
        self.bytes
    }

    /// Bytes of the file.
    pub const fn file_len(&self) -> usize {
        self.bytes.len()
    }

    /// The binding hashes of base, site table and classifier.
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The rows of the section table.
    pub const fn sections(&self) -> Sections<'b> {
        Sections {
            model: *self,
            next: 0,
        }
    }

    pub(crate) const fn section_entry(&self, n: usize) -> Option<SectionEntry> {
        if n >= self.header.sections as usize {
            return None;
        }
        let at = format::HEADER_BYTES + n * format::SECTION_ENTRY_BYTES;
        match format::array(self.bytes, at) {
            Some(b) => Some(SectionEntry::decode(b)),
            None => None,
        }
    }

    /// The layer table's row `n`.
    pub const fn layer(&self, n: usize) -> Option<LayerRecord> {
        if n >= self.config.layers as usize {
            return None;
        }
        let freqs = (self.config.rope_dim as usize / 2) * 4;
        let at = format::CONFIG_BYTES
            .saturating_add(freqs)
            .saturating_add(n.saturating_mul(format::LAYER_BYTES));
        match format::array(self.config_bytes, at) {
            Some(b) => Some(LayerRecord::decode(b)),
            None => None,
        }
    }

    /// The inverse frequencies of the rotary embedding, f32 little-endian.
    pub(crate) const fn inv_freq(&self) -> Option<&'b [u8]> {
        format::slice(
            self.config_bytes,
            format::CONFIG_BYTES,
            (self.config.rope_dim as usize / 2) * 4,
        )
    }

    /// Tensor `n` of the base's table.
    pub const fn base_tensor(&self, n: usize) -> Option<Tensor<'b>> {
        table_tensor(self.base, n, self.config.group as usize)
    }

    /// The embedding table `[vocab][hidden]`.
    pub(crate) const fn embed(&self) -> Option<Tensor<'b>> {
        self.base_tensor(0)
    }

    /// The head `[vocab][hidden]`.
    pub(crate) const fn head(&self) -> Option<Tensor<'b>> {
        self.base_tensor(if self.config.tied { 0 } else { 1 })
    }

    /// The weight of the final norm.
    pub(crate) const fn final_norm(&self) -> Option<Tensor<'b>> {
        self.base_tensor(if self.config.tied { 1 } else { 2 })
    }

    /// The weight of a layer's module.
    pub(crate) const fn weight(&self, layer: &LayerRecord, module: Module) -> Option<Tensor<'b>> {
        let n = match module {
            Module::Q => 1,
            Module::K => 2,
            Module::V => 3,
            Module::O => 4,
            Module::Gate => 6,
            Module::Up => 7,
            Module::Down => 8,
            Module::Embed => return None,
        };
        self.base_tensor(layer.first_tensor as usize + n)
    }

    /// The bias of a layer's module, if it has one.
    pub(crate) const fn bias(&self, layer: &LayerRecord, module: Module) -> Option<Tensor<'b>> {
        if layer.bias_mask & module.bit() == 0 {
            return None;
        }
        let before = (layer.bias_mask & (module.bit() - 1)).count_ones() as usize;
        self.base_tensor(layer.first_tensor as usize + layer.before_biases() + before)
    }

    /// The weight of a layer's norm: before attention, or before the MLP.
    pub(crate) const fn norm(&self, layer: &LayerRecord, mlp: bool) -> Option<Tensor<'b>> {
        self.base_tensor(layer.first_tensor as usize + if mlp { 5 } else { 0 })
    }

    /// The weight of the norm of a layer's query heads, or key heads, if it has them.
    pub(crate) const fn head_norm(&self, layer: &LayerRecord, key: bool) -> Option<Tensor<'b>> {
        if !layer.qk_norm() {
            return None;
        }
        let n = format::LAYER_TENSORS.len() + key as usize;
        self.base_tensor(layer.first_tensor as usize + n)
    }

    /// The smallest attention window of any layer: no session may be longer. `None` if attention always sees
    /// all positions.
    pub const fn window(&self) -> Option<u32> {
        let mut smallest = 0;
        let mut n = 0;
        while n < self.config.layers as usize {
            if let Some(l) = self.layer(n)
                && l.window != 0
                && (smallest == 0 || l.window < smallest)
            {
                smallest = l.window;
            }
            n += 1;
        }
        if smallest == 0 { None } else { Some(smallest) }
    }

    /// The site of a layer's module, if it is one.
    pub(crate) const fn layer_site(&self, layer: &LayerRecord, module: Module) -> Option<usize> {
        if layer.site_mask & module.bit() == 0 {
            return None;
        }
        let before = (layer.site_mask & (module.bit() - 1)).count_ones() as usize;
        Some(layer.first_site as usize + before)
    }

    /// The site of the embedding, if it is one: the first.
    pub(crate) const fn embed_site(&self) -> Option<usize> {
        match self.site(0) {
            Some(Site {
                module: Module::Embed,
                ..
            }) => Some(0),
            _ => None,
        }
    }

    /// The classifier, to run by itself; `None` without one.
    pub fn classifier(&self) -> Option<crate::xlora::XLoraClassifier<'_>> {
        crate::xlora::XLoraClassifier::of_model(self)
    }

    /// Layers of the classifier.
    pub(crate) const fn classifier_depth(&self) -> usize {
        match self.classifier {
            Some(c) => match format::array::<4>(c, 0) {
                Some(n) => u32::from_le_bytes(*n) as usize / 2,
                None => 0,
            },
            None => 0,
        }
    }

    /// Weight and bias of classifier layer `n`.
    pub(crate) const fn classifier_layer(&self, n: usize) -> Option<(Tensor<'b>, Tensor<'b>)> {
        let Some(c) = self.classifier else {
            return None;
        };
        let group = self.config.group as usize;
        match (
            table_tensor(c, n.saturating_mul(2), group),
            table_tensor(c, n.saturating_mul(2).saturating_add(1), group),
        ) {
            (Some(w), Some(b)) => Some((w, b)),
            _ => None,
        }
    }

    /// Whether a ReLU stands between the classifier's layers.
    pub(crate) const fn classifier_relu(&self) -> bool {
        match self.classifier {
            Some(c) => match format::array::<8>(c, 0) {
                Some(head) => format::u32_at(head, 4) & 1 != 0,
                None => false,
            },
            None => false,
        }
    }

    /// Floats in one row of scalings: experts, times sites when layerwise.
    pub(crate) const fn scalings_width(&self) -> usize {
        if self.options.layerwise_scalings {
            self.n_experts().saturating_mul(self.n_sites())
        } else {
            self.n_experts()
        }
    }
}

/// Tensor `n` of the table at the head of `section`.
pub(crate) const fn table_tensor(section: &[u8], n: usize, group: usize) -> Option<Tensor<'_>> {
    let at = format::TABLE_HEAD_BYTES.saturating_add(n.saturating_mul(format::TENSOR_ENTRY_BYTES));
    match format::array(section, at) {
        Some(b) => Tensor::from_entry(section, &TensorEntry::decode(b), group),
        None => None,
    }
}

/// Iterates over a model's sections.
#[derive(Clone, Debug)]
pub struct Sections<'b> {
    model: Model<'b>,
    next: usize,
}

impl Iterator for Sections<'_> {
    /// Kind, class index of an expert (else 0), length in bytes.
    type Item = (SectionKind, u16, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let e = self.model.section_entry(self.next)?;
        self.next += 1;
        Some((SectionKind::from_number(e.kind)?, e.index, e.length))
    }
}

//! Whose kernels a file is laid out for, and what that means for each tensor.

use pleach::blob::Tensor;
use pleach::kernels::layout::Layout;
use pleach::{Expert, Model};

/// Whose kernels the rows are interleaved for. Every file runs everywhere, with the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// x86-64 and every aarch64: the same file for both.
    #[default]
    Linux,
    /// Cortex-M with DSP (M4, M7, M33): `q8` in [`Layout::M4`], the rest in plain rows.
    CortexM,
    /// Cortex-M with Helium (M55, M85): `q8` in [`Layout::R4K16`], the rest in plain rows.
    Mve,
    /// Plain rows: any processor, scalar code.
    Portable,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 4] = [
        Target::Linux,
        Target::CortexM,
        Target::Mve,
        Target::Portable,
    ];

    /// The word that commands use.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Linux => "linux",
            Target::CortexM => "cortex-m",
            Target::Mve => "mve",
            Target::Portable => "portable",
        }
    }

    /// The one whose kernels this build has.
    pub const fn of_build() -> Self {
        match cfg!(any(
            target_arch = "x86",
            target_arch = "x86_64",
            target_arch = "aarch64"
        )) {
            true => Target::Linux,
            false => Target::Portable,
        }
    }

    /// The one that a model is laid out for, by its weights and its experts' A panels; `None` if they are mixed.
    ///
    /// Of a file without `q8` that is laid out for `cortex-m` or `mve` this is [`Target::Portable`]: they are the
    /// same bytes.
    pub fn of(model: &Model<'_>) -> Option<Self> {
        let base = (0..).map_while(|n| model.base_tensor(n));
        let classes = (0..model.n_experts()).filter_map(|c| model.expert(c));
        let panels = classes.flat_map(|e| a_panels(e, model));
        Self::of_tensors(base.chain(panels))
    }

    /// The same of an expert for the sites of a model, by its own A panels.
    pub(crate) fn of_expert(expert: &Expert<'_>, model: &Model<'_>) -> Option<Self> {
        Self::of_tensors(a_panels(*expert, model))
    }

    fn of_tensors<'b>(tensors: impl Iterator<Item = Tensor<'b>>) -> Option<Self> {
        Self::of_layouts(tensors.map(|t| t.layout()))
    }

    /// The one for which weights and A panels lie so; `None` if they are mixed. Plain rows are a part of every target's
    /// files.
    pub fn of_layouts(layouts: impl Iterator<Item = Layout>) -> Option<Self> {
        let mut found = None;
        for layout in layouts {
            let target = match layout {
                Layout::Rows => continue,
                Layout::R16K4 | Layout::R4K4 => Target::Linux,
                Layout::M4 => Target::CortexM,
                Layout::R4K16 => Target::Mve,
            };
            if found.is_some_and(|f| f != target) {
                return None;
            }
            found = Some(target);
        }
        Some(found.unwrap_or(Target::Portable))
    }

    /// The layout of weights; where it does not hold a tensor's dtype, that lies in rows.
    pub(crate) const fn weights(self) -> Layout {
        match self {
            Target::Linux => Layout::R16K4,
            Target::CortexM => Layout::M4,
            Target::Mve => Layout::R4K16,
            Target::Portable => Layout::Rows,
        }
    }

    /// The layout of A panels, likewise.
    pub(crate) const fn a_panels(self) -> Layout {
        match self {
            Target::Linux => Layout::R4K4,
            other => other.weights(),
        }
    }
}

/// An expert's A panels at the sites of a model.
fn a_panels<'b>(expert: Expert<'b>, model: &Model<'_>) -> impl Iterator<Item = Tensor<'b>> {
    let sites = (0..model.n_sites()).filter_map(|n| model.site(n));
    sites.filter_map(move |s| Some(expert.lora(&s)?.a))
}

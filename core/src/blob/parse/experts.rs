//! Experts against the model's sites.

use super::*;

/// Checks an expert against the model's sites.
pub(super) const fn check_expert(model: &Model<'_>, bytes: &[u8], class: u16) -> Result<(), Error> {
    let header = tri!(expert_header(bytes));
    let n_sites = model.n_sites();
    let why = if header.class != class {
        "its header names another class"
    } else if header.base_hash != model.header.base_hash {
        "it is bound to another base"
    } else if header.site_hash != model.header.site_hash || header.sites as usize != n_sites {
        "it is bound to another site table"
    } else if header.group as u32 != model.config.group {
        "its group is not the model's"
    } else {
        ""
    };
    if !why.is_empty() {
        return Err(Error::Expert {
            class,
            site: None,
            why,
        });
    }
    let text_at = record_offset(n_sites);
    let text_len = header.name_len as usize + header.key_len as usize;
    let named = match format::slice(bytes, text_at, text_len) {
        Some(t) => core::str::from_utf8(t).is_ok(),
        None => false,
    };
    if !named {
        return Err(Error::Expert {
            class,
            site: None,
            why: "name or key is missing or not UTF-8",
        });
    }
    let mut end = (text_at + text_len) as u64;
    let mut n = 0;
    while n < n_sites {
        let (Some(r), Some(site)) = (site_record(bytes, n_sites, n), model.site(n)) else {
            return Err(Error::Expert {
                class,
                site: Some(n as u16),
                why: "the table of sites ends early",
            });
        };
        if !reserved_is_zero(bytes, n, r.rank != 0) {
            return Err(Error::Expert {
                class,
                site: Some(n as u16),
                why: "reserved bytes of its record are not 0",
            });
        }
        if r.rank != 0 {
            let embed = matches!(site.module, Module::Embed);
            let why = match (r.a_kind(), Dtype::from_tag(r.b_dtype)) {
                (Some((a, layout)), Some(b)) => {
                    let rank = r.rank as usize;
                    let (rows, cols) = if embed {
                        (site.inputs, rank)
                    } else {
                        (rank, site.inputs)
                    };
                    let group = model.config.group as usize;
                    let a_size = packed_size(a, layout, rows, cols, group) as u64;
                    let b_size = packed_b_size(b, site.outputs, rank) as u64;
                    let a_at = r.a_offset as u64 * DATA_ALIGN as u64;
                    let b_at = r.b_offset as u64 * DATA_ALIGN as u64;
                    let a_end = a_at.saturating_add(a_size);
                    let why =
                        if embed && (!matches!(layout, Layout::Rows) || matches!(a, Dtype::Q8)) {
                            "A of an embedding site must be f16 or f32 in plain rows"
                        } else if matches!(layout, Layout::R16K4) || !layout.holds(a) {
                            "the layout of A must be rows or r4k4, or m4 or r4k16 for q8"
                        } else if !scale_exp_is_legal(a, r.a_scale_exp)
                            || !scale_exp_is_legal(b, r.b_scale_exp)
                        {
                            "scale_exp is outside its range"
                        } else if !is_factor(r.scale) {
                            "the LoRA scale is outside 2^-24..=65504"
                        } else if r.a_length as u64 != a_size || r.b_length as u64 != b_size {
                            "a panel's length does not fit its shape"
                        } else if a_at != align_up(end, DATA_ALIGN)
                            || b_at != align_up(a_end, DATA_ALIGN)
                        {
                            "a panel does not begin where the one before it ends"
                        } else if b_at.saturating_add(b_size) > bytes.len() as u64 {
                            "a panel ends outside the expert"
                        } else {
                            ""
                        };
                    end = b_at.saturating_add(b_size);
                    why
                }
                _ => "a dtype or layout that this build does not know",
            };
            if !why.is_empty() {
                return Err(Error::Expert {
                    class,
                    site: Some(n as u16),
                    why,
                });
            }
        }
        n += 1;
    }
    if end != bytes.len() as u64 {
        return Err(Error::Expert {
            class,
            site: None,
            why: "bytes after the last panel",
        });
    }
    Ok(())
}

/// Whether the reserved bytes of a site's record are 0; all of them where the expert has nothing.
const fn reserved_is_zero(bytes: &[u8], n: usize, targeted: bool) -> bool {
    let from = if targeted { 27 } else { 0 };
    format::is_zero(
        bytes,
        record_offset(n) + from,
        format::EXPERT_SITE_BYTES - from,
    )
}

/// Rows of the r-vector of the widest group of sites that share an input (q/k/v, o, gate/up, down,
/// embedding): each expert's rank rounded up to a tile of 4.
pub(super) const fn widest_ranks(model: &Model<'_>) -> usize {
    let mut widest = 0;
    let mut sum = 0usize;
    let mut group = (NO_LAYER, 0);
    let mut n = 0;
    while n < model.n_sites() {
        if let Some(site) = model.site(n) {
            let this = (
                site.layer,
                match site.module {
                    Module::Q | Module::K | Module::V => 1,
                    Module::O => 2,
                    Module::Gate | Module::Up => 3,
                    Module::Down => 4,
                    Module::Embed => 5,
                },
            );
            if this.0 != group.0 || this.1 != group.1 {
                group = this;
                sum = 0;
            }
            let mut class = 0;
            while class < model.n_experts() {
                sum = sum.saturating_add(layout::round_up(rank(model, class, n), 4));
                class += 1;
            }
            if sum > widest {
                widest = sum;
            }
        }
        n += 1;
    }
    widest
}

/// Whether a tensor of the base or an A panel lies in `m4`. Tables only: the tensors were checked.
pub(super) const fn has_m4(model: &Model<'_>) -> bool {
    let tensors = match format::array::<4>(model.base, 0) {
        Some(n) => u32::from_le_bytes(*n) as usize,
        None => 0,
    };
    let mut n = 0;
    while n < tensors {
        if let Some(t) = model.base_tensor(n)
            && matches!(t.layout, Layout::M4)
        {
            return true;
        }
        n += 1;
    }
    let mut class = 0;
    while class < model.n_experts() {
        if let Some(expert) = model.expert(class) {
            let mut n = 0;
            while n < model.n_sites() {
                if let Some(r) = expert.record(n)
                    && let Some((_, Layout::M4)) = r.a_kind()
                {
                    return true;
                }
                n += 1;
            }
        }
        class += 1;
    }
    false
}

/// Rank of an expert at a site, the replaced one's if there is one.
pub(super) const fn rank(model: &Model<'_>, class: usize, site: usize) -> usize {
    let mut rest = model.replaced;
    while let Some((file, tail)) = rest.split_first() {
        if file.class() == class {
            return file.expert().rank(site);
        }
        rest = tail;
    }
    match section_bytes(model, model.first_expert + class) {
        Some(b) => match site_record(b, model.n_sites(), site) {
            Some(r) => r.rank as usize,
            None => 0,
        },
        None => 0,
    }
}

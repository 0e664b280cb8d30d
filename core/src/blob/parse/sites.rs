//! The site table and the sites' names.

use super::*;

pub(super) const fn site_table(model: &Model<'_>) -> Result<(), Error> {
    let n = match format::array::<4>(model.sites, 0) {
        Some(n) => u32::from_le_bytes(*n) as usize,
        None => {
            return Err(Error::Config {
                why: "the site table is too short",
            });
        }
    };
    if n > u16::MAX as usize
        || model.sites.len() != format::TABLE_HEAD_BYTES + n * format::SITE_BYTES
    {
        return Err(Error::Config {
            why: "the site table's length does not fit its count",
        });
    }
    if !format::is_zero(model.sites, 4, format::TABLE_HEAD_BYTES - 4) {
        return Err(Error::Config {
            why: "reserved bytes of the site table are not 0",
        });
    }
    let mut site = 0;
    if model.embed_site().is_some() {
        tri!(expect_site(model, 0, Module::Embed, NO_LAYER));
        site = 1;
    }
    let mut i = 0;
    while i < model.config.layers as usize {
        let Some(l) = model.layer(i) else {
            return Err(Error::Corrupt);
        };
        let mut m = 0;
        while m < 7 {
            if let Some(module) = Module::from_number(m)
                && l.site_mask & module.bit() != 0
            {
                tri!(expect_site(model, site, module, i as u16));
                site += 1;
            }
            m += 1;
        }
        i += 1;
    }
    if site != n {
        return Err(Error::Config {
            why: "the site table has more rows than the layer table names",
        });
    }
    if (n == 0) != (model.options.experts == 0) {
        return Err(Error::Config {
            why: "experts without sites, or sites without experts",
        });
    }
    Ok(())
}

pub(super) const fn expect_site(
    model: &Model<'_>,
    n: usize,
    module: Module,
    layer: u16,
) -> Result<(), Error> {
    let Some(b) = format::array(
        model.sites,
        format::TABLE_HEAD_BYTES + n * format::SITE_BYTES,
    ) else {
        return Err(Error::Site {
            site: n as u16,
            why: "the site table ends early",
        });
    };
    let s = SiteRecord::decode(b);
    let (outputs, inputs) = module_shape(&model.config, module);
    let kind = if matches!(module, Module::Embed) {
        1
    } else {
        0
    };
    if s.module != module as u16 || s.layer != layer {
        return Err(Error::Site {
            site: n as u16,
            why: "another module is expected here",
        });
    }
    if s.inputs != inputs || s.outputs != outputs || s.kind != kind {
        return Err(Error::Site {
            site: n as u16,
            why: "features or kind do not fit the config",
        });
    }
    Ok(())
}

pub(super) const fn names(model: &Model<'_>) -> Result<(), Error> {
    let Some(names) = model.names else {
        return Ok(());
    };
    let error = Error::Config {
        why: "the table of names is broken",
    };
    let n = model.n_sites();
    match format::array::<4>(names, 0) {
        Some(count) if u32::from_le_bytes(*count) as usize == n => {}
        _ => return Err(error),
    }
    let text = 4 + (n + 1) * 4;
    let mut last = 0;
    let mut i = 0;
    while i <= n {
        let at = match format::array::<4>(names, 4 + i * 4) {
            Some(b) => u32::from_le_bytes(*b) as usize,
            None => return Err(error),
        };
        if (i == 0 && at != 0) || at < last || at > names.len() {
            return Err(error);
        }
        if i > 0 && model.site_name(i - 1).is_none() {
            return Err(error);
        }
        last = at;
        i += 1;
    }
    if names.len() != text.saturating_add(last) {
        return Err(error);
    }
    Ok(())
}

//! The classifier: weight and bias of each layer. Routing is sensitive, so that nothing is quantised.

use super::{Job, Table, net_bytes};
use crate::error::Result;
use crate::import::classifier::Classifier;
use crate::layout::pack;
use crate::quant::F16;
use crate::write::Section;
use pleach::blob::format::Role;
use pleach::kernels::layout::{Dtype, Layout};

/// Flag of the tensor table: a ReLU stands between the layers.
const RELU: u32 = 1;

/// Writes the section: weights in f16 where that is exact, else in f32.
pub(crate) fn write(
    out: &mut Section<'_>,
    classifier: &mut Classifier,
    job: &mut Job<'_>,
) -> Result<()> {
    let storage = job.storage;
    let flags = if classifier.relu() { RELU } else { 0 };
    let mut table = Table::begin(out, 2 * classifier.depth(), flags);
    for n in 0..classifier.depth() {
        let Some((weight, bias)) = classifier.read(n)? else {
            break;
        };
        let dtype = if F16::is_exact(&weight.data) {
            Dtype::F16
        } else {
            Dtype::F32
        };
        let weight = pack(&weight, dtype, storage.weights, storage.group);
        let bias = pack(&bias, Dtype::F32, Layout::Rows, storage.group);
        for (t, role, part) in [
            (&weight, Role::ClassifierWeight, "weight"),
            (&bias, Role::ClassifierBias, "bias"),
        ] {
            job.report.tensor(
                "classifier",
                None,
                format!("classifier.{n}.{part}"),
                t,
                net_bytes(t, storage.group),
            );
            table.push(out, role as u16, n as u16, t);
        }
    }
    job.progress.advance(classifier.bytes());
    Ok(())
}

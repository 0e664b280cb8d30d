//! The adversarial blobs are what they claim to be: sound, finite, and hard.

use parity::adversarial::{RECIPES, blobs};
use parity::{File, Mode, Setup, Storage, Text, run};
use pleach::blob::format::SectionKind;
use pleach::kernels::layout::{Layout, m4_pair, scale_bytes};
use pleach::{KvType, math};
use pleach_pack::Target;

#[test]
fn all_pass_verify_and_give_finite_answers() {
    for (name, bytes) in blobs() {
        let file = File::new(&bytes);
        let model = file.model();
        model.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        let recipe = RECIPES.iter().find(|r| name.starts_with(r.name)).unwrap();
        let prompt = recipe.prompt(40);
        for kv in [KvType::F32, KvType::F16] {
            let t = run(
                model,
                &Mode::NAIVE,
                &Setup::exact(kv),
                &Text::new(&prompt, 4),
            )
            .unwrap_or_else(|e| panic!("{name}: {e}"));
            let all = t.scalings.iter().chain(&t.effective).chain(&t.logits);
            assert!(all.copied().all(math::is_finite), "{name}");
            assert_eq!(t.len(), 43, "{name}");
        }
    }
}

/// -128 is in the q8 files, in `m4` as well: as the low byte of a halfword, and as its odd weight.
#[test]
fn q8_has_minus_128() {
    for recipe in RECIPES {
        let bytes = |target| recipe.bytes(Storage::Q8.group(recipe.group).target(target));
        let base = parity::reseal::sections(&bytes(Target::Portable))
            .into_iter()
            .find(|s| s.kind == SectionKind::Base);
        assert!(base.unwrap().bytes.contains(&0x80), "{}", recipe.name);
        let file = File::new(&bytes(Target::CortexM));
        let model = file.model();
        let tensors = (0..).map_while(|n| model.base_tensor(n));
        let m4: Vec<_> = tensors.filter(|t| t.layout() == Layout::M4).collect();
        let halfwords = m4.iter().flat_map(|t| {
            let scales = scale_bytes(4, t.cols(), recipe.group as usize);
            let tile = t.bytes() / t.rows().div_ceil(4);
            let tiles = t.data().chunks_exact(tile);
            tiles.flat_map(move |tile| tile[scales..].as_chunks::<2>().0)
        });
        let pairs: Vec<[i32; 2]> = halfwords.map(|h| m4_pair(*h)).collect();
        let count = |i: usize| pairs.iter().filter(|p| p[i] == -128).count();
        assert!(count(0) > 0 && count(1) > 0, "{}", recipe.name);
        assert!(pairs.iter().all(|p| p[1] < 128), "{}", recipe.name);
    }
}

/// The cold layerwise softmax meets all three kinds of scalings: quotients, placeholders below 2^-110, zeros;
/// and rows of the tied head that are the same give logits that are the same.
#[test]
fn odd_has_placeholders_zeros_and_ties() {
    let [odd, ..] = RECIPES;
    let file = odd.file(Storage::F16.group(odd.group));
    let prompt = odd.prompt(40);
    let setup = Setup::exact(KvType::F32);
    let trace = run(file.model(), &Mode::NAIVE, &setup, &Text::new(&prompt, 1)).unwrap();
    let count = |f: &dyn Fn(f32) -> bool| trace.scalings.iter().filter(|s| f(**s)).count();
    let unit = 2f32.powi(-110);
    let (zeros, held) = (count(&|s| s == 0.0), count(&|s| s > 0.0 && s <= unit));
    let quotients = count(&|s| s > unit && s < 1.0);
    assert!(
        zeros > 20 && held > 20 && quotients > 20,
        "{zeros} {held} {quotients}"
    );
    for p in 0..trace.len() {
        let logits = trace.logits_at(p);
        assert!((0..18).all(|i| logits[i].to_bits() == logits[i + 18].to_bits()));
    }
}

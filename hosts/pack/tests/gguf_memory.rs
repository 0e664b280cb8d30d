//! What packing a GGUF file takes: announced sizes cost nothing, and a base is held once, as it is written.
//! A process of its own, so that the peak is theirs.
#![cfg(target_os = "linux")]

mod common;
#[path = "gguf/write.rs"]
mod write;

use common::edit::refusal;
use common::peak;
use pleach_pack::{BaseQuant, PackOptions, Silent, pack};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use write::{TEXT, array, llama};

#[test]
fn the_peak() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("m.gguf");
    let options = PackOptions::new(&path);
    let small = || llama([1, 16, 24, 2, 8]);
    fs::write(&path, &small().bytes()[..100]).expect("write");
    refusal(&options);

    // Counts that the file does not hold.
    let before = peak();
    for n in [u64::MAX, 1 << 60, 1 << 32] {
        for place in 0..2 {
            let mut w = small();
            w.counts[place] = Some(n);
            fs::write(&path, w.bytes()).expect("write");
            refusal(&options);
        }
        let mut w = small();
        w.key("x", array(TEXT, n, &[]));
        fs::write(&path, w.bytes()).expect("write");
        refusal(&options);
    }
    let more = peak() - before;
    assert!(more < 2048, "{more} KiB more for counts");

    // Seven million empty texts under a key that nobody asks for: 56 MB in the file, passed over.
    let mut w = small();
    w.key("x", array(TEXT, 7_000_000, &vec![0; 56_000_000]));
    fs::write(&path, w.bytes()).expect("write");
    drop(w);
    let before = peak();
    pack(&options, &mut Silent).expect("packs");
    let more = peak() - before;
    assert!(more < 2048, "{more} KiB more for texts");

    // A base of 84 MB of zeros, a hole in the file.
    let mut w = llama([4, 1024, 2048, 8, 64]);
    let data = w.data.len() as u64;
    w.data = Vec::new();
    let header = w.header();
    let mut file = BufWriter::new(File::create(&path).expect("create"));
    file.write_all(&header).expect("write");
    let file = file.into_inner().expect("flush");
    file.set_len(header.len() as u64 + data).expect("length");
    let before = peak();
    for quant in [BaseQuant::Q8, BaseQuant::F16] {
        let mut o = options.clone();
        o.quant = quant;
        let bytes = pack(&o, &mut Silent).expect("packs").bytes.len() as u64;
        let more = peak() - before;
        // The result, and the largest tensor (2 M numbers) as f32, quantised and interleaved: 8 + 4 + 4 MB.
        let most = bytes / 1024 + 20 * 1024;
        assert!(
            more < most,
            "{quant:?}: {more} KiB more for a file of {} KiB",
            bytes / 1024
        );
    }
}

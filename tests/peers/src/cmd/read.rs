//! What the machine reads, each way.

use super::{three, told};
use crate::report::Report;
use crate::{Rounds, Threads};
use peers::Result;
use peers::machine::Others;
use peers::read::{Reader, Way};
use peers::series::Series;
use serde_json::json;

pub(crate) fn run(megabytes: usize, rounds: Rounds, threads: &Threads) -> Result<Report> {
    let reader = Reader::new(megabytes * 1_000_000)?;
    let mut report = Report::timed(rounds, None);
    report.about(format!(
        "a buffer of {megabytes} MB, read by {}, {} rounds; GB/s",
        reader.loads(),
        rounds.count
    ));
    report.columns(&[
        "threads",
        "1 stream",
        "prefetched",
        "4 streams",
        "prefetched",
        "best of a round",
    ]);
    let others = Others::since_now(&[]);
    for threads in &threads.counts {
        let mut ways = Way::ALL.map(|_| Series::default());
        let mut best = Series::default();
        for round in 0..rounds.count {
            told(round, rounds.count);
            let (most, all) = reader.rate(*threads);
            best.0.push(most);
            for (series, (_, rate)) in ways.iter_mut().zip(all) {
                series.0.push(rate);
            }
        }
        let cells = ways.iter().chain([&best]).map(|s| three(s.median() / 1e9));
        let cells: Vec<String> = [threads.to_string()].into_iter().chain(cells).collect();
        report.row(&cells);
        let ways: Vec<_> = ways.iter().map(Series::json).collect();
        report.data(
            format!("threads_{threads}"),
            json!({ "ways": ways, "best": best.json() }),
        );
    }
    report.others(others.share(&[]));
    Ok(report)
}

//! How many threads are best where nobody said: one for each big core.
//!
//! A small core of a big.LITTLE pair does a tile in two to four times the time, and memory is read no faster for
//! it. Linux tells cores apart in two ways; where it does not, all count.

use std::fs;
use std::path::Path;
use std::thread;

/// Cores at least this share of the fastest one's measure are big. Cores of one kind differ by a few percent (an
/// RK3588's two pairs, a PC's favoured cores); the small ones have less than 4/5.
const BIG: (u64, u64) = (4, 5);

/// Files that say how fast a CPU is, the better measure first. Units are their own: a share of the fastest, and kHz.
const MEASURES: [&str; 2] = ["cpu_capacity", "cpufreq/cpuinfo_max_freq"];

/// Big cores that this thread may run on, at most as many as a quota of time grants; at least 1.
pub(super) fn big() -> usize {
    let granted = granted();
    let allowed = fs::read_to_string("/proc/thread-self/status").ok();
    let allowed = allowed.as_deref().and_then(allowed_list);
    let root = Path::new("/sys/devices/system/cpu");
    match allowed.map_or(0, |allowed| count(root, &allowed)) {
        0 => granted,
        big => big.min(granted),
    }
}

/// CPUs that the system grants to this process: by affinity, and by quota of time.
pub(super) fn granted() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// The numbers in the list of CPUs that a thread's status allows.
fn allowed_list(status: &str) -> Option<Vec<usize>> {
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
    list(line)
}

/// The big ones among the CPUs `allowed` that are online, by the files under `root`.
fn count(root: &Path, allowed: &[usize]) -> usize {
    let online = fs::read_to_string(root.join("online")).ok();
    let online = online.as_deref().and_then(list);
    let is_online = |cpu: &&usize| online.as_ref().is_none_or(|online| online.contains(cpu));
    let cpus: Vec<usize> = allowed.iter().filter(is_online).copied().collect();
    MEASURES
        .iter()
        .find_map(|file| count_by(root, file, &cpus))
        .unwrap_or(cpus.len())
}

/// By one measure, which must be there for all: half a picture says nothing.
fn count_by(root: &Path, file: &str, cpus: &[usize]) -> Option<usize> {
    let speeds: Vec<u64> = cpus
        .iter()
        .map(|cpu| {
            let text = fs::read_to_string(root.join(format!("cpu{cpu}")).join(file)).ok()?;
            text.trim().parse().ok().filter(|speed| *speed > 0)
        })
        .collect::<Option<_>>()?;
    let fastest = *speeds.iter().max()?;
    let is_big = |speed: &&u64| {
        u128::from(**speed) * u128::from(BIG.1) >= u128::from(fastest) * u128::from(BIG.0)
    };
    Some(speeds.iter().filter(is_big).count())
}

/// Numbers in the kernel's notation of sets, as `0-3,8`. `None` if it is not one, or names more CPUs than
/// Linux can have.
fn list(text: &str) -> Option<Vec<usize>> {
    /// NR_CPUS at its largest.
    const MOST: usize = 8192;
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to >= MOST {
            return None;
        }
        cpus.extend(from..=to);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A tree with one file per CPU that has a value, and the list of CPUs online.
    fn tree(online: &str, file: &str, values: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("online"), online).unwrap();
        add(&root, file, values);
        root
    }

    fn add(root: &TempDir, file: &str, values: &[&str]) {
        for (cpu, value) in values.iter().enumerate() {
            let path = root.path().join(format!("cpu{cpu}")).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
    }

    fn all(n: usize) -> Vec<usize> {
        (0..n).collect()
    }

    #[test]
    fn a_pi_5_has_four_of_a_kind() {
        let root = tree("0-3\n", "cpu_capacity", &["1024\n"; 4]);
        add(&root, "cpufreq/cpuinfo_max_freq", &["2400000\n"; 4]);
        assert_eq!(count(root.path(), &all(4)), 4);
        assert_eq!(count(root.path(), &[1, 3]), 2, "by affinity");
    }

    /// Four A55, and two pairs of A76 that the factory bins differently.
    #[test]
    fn an_rk3588_has_four_big_cores() {
        let capacity = [
            "530\n", "530\n", "530\n", "530\n", "1000\n", "1000\n", "1024\n", "1024\n",
        ];
        let root = tree("0-7\n", "cpu_capacity", &capacity);
        assert_eq!(count(root.path(), &all(8)), 4);
        assert_eq!(count(root.path(), &[0, 1, 2, 3]), 4, "only small ones");
        assert_eq!(count(root.path(), &[2, 3, 4]), 1);
        fs::write(root.path().join("online"), "0-5\n").unwrap();
        assert_eq!(count(root.path(), &all(8)), 2, "a pair is offline");
    }

    /// Two favoured cores, six more of their kind, eight small ones.
    #[test]
    fn a_hybrid_pc_is_told_by_its_clocks() {
        let mut clocks = vec!["5800000\n"; 2];
        clocks.extend(["5500000\n"; 6]);
        clocks.extend(["4300000\n"; 8]);
        let root = tree("0-15\n", "cpufreq/cpuinfo_max_freq", &clocks);
        assert_eq!(count(root.path(), &all(16)), 8);
    }

    #[test]
    fn without_the_files_all_count() {
        let root = tree("0-5\n", "cpu_capacity", &[]);
        assert_eq!(count(root.path(), &all(6)), 6);
        assert_eq!(count(root.path(), &[0, 7]), 1, "7 is offline");
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(count(nothing.path(), &all(3)), 3);
        assert_eq!(count(&nothing.path().join("no"), &all(3)), 3);
    }

    #[test]
    fn a_measure_that_is_not_there_for_all_is_not_used() {
        for bad in ["", "\n", "fast\n", "-1\n", "0\n", "99999999999999999999\n"] {
            let root = tree("0-1\n", "cpu_capacity", &["1024\n", bad]);
            assert_eq!(count(root.path(), &all(2)), 2, "{bad:?}");
            add(
                &root,
                "cpufreq/cpuinfo_max_freq",
                &["1800000\n", "2400000\n"],
            );
            assert_eq!(count(root.path(), &all(2)), 1, "{bad:?}");
        }
        let root = tree(
            "0-1\n",
            "cpu_capacity",
            &["18446744073709551615\n", "18446744073709551614\n"],
        );
        assert_eq!(count(root.path(), &all(2)), 2);
    }

    #[test]
    fn a_list_of_cpus_that_is_none_is_passed_over() {
        let root = tree("0-1-\n", "cpu_capacity", &["1024\n"; 4]);
        assert_eq!(count(root.path(), &all(4)), 4);
        for bad in ["", "a", "0-", "3-1", "0,,1", "0-99999999999"] {
            assert_eq!(list(bad), None, "{bad:?}");
        }
        assert_eq!(list("0-2,5,1\n"), Some(vec![0, 1, 2, 5]));
    }

    #[test]
    fn a_status_says_what_is_allowed() {
        let status =
            "Name:\tcat\nCpus_allowed:\t29\nCpus_allowed_list:\t0,3-5\nMems_allowed_list:\t0\n";
        assert_eq!(allowed_list(status), Some(vec![0, 3, 4, 5]));
        assert_eq!(allowed_list("Name:\tcat\n"), None);
    }

    #[test]
    fn there_is_always_one() {
        assert!((1..=granted()).contains(&big()));
    }
}

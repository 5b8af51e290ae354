//! The bounds that follow from the machine: memory from the cgroup, journals from the volume.

use std::path::Path;

use walstorage_crds::config::Config;

const MIB: u64 = 1 << 20;

/// Bound of one directory's journal, bytes: as configured, else the lesser of 1.25 x the global threshold and a quarter
/// of the volume, and never below 64 MiB.
pub(crate) fn journal_max(config: &Config, capacity: u64) -> u64 {
    match config.wal.journal_max {
        Some(explicit) => explicit.0,
        None => {
            let threshold = config.wal.global_flush_threshold.0;
            // What has no size, a bucket, sets no bound.
            let volume = if capacity == 0 { u64::MAX } else { capacity / 4 };
            (threshold.saturating_add(threshold / 4)).min(volume).max(64 * MIB)
        }
    }
}

/// Bound of the memory that entries hold, bytes, and a warning where the cgroup lowers it.
pub(crate) fn memory_limit(config: &Config, cgroup: Option<u64>) -> (u64, Option<String>) {
    let threshold = config.wal.global_flush_threshold.0;
    let Some(limit) = cgroup else { return (threshold, None) };
    let fits = (limit.saturating_sub(192 * MIB) / 5 * 4).max(limit / 4);
    if threshold <= fits {
        return (threshold, None);
    }
    let warning = format!(
        "global_flush_threshold is {threshold} bytes, but the container's memory limit of {limit} allows {fits}: that is \
         the bound now; raise the limit or lower the threshold"
    );
    (fits, Some(warning))
}

/// The memory limit of this process's cgroup, bytes; `None` without one.
pub(crate) fn cgroup_memory_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path_of = |controller: &str| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let path = parts.next()?;
            controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let files = [("", "/sys/fs/cgroup", "memory.max"), ("memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
    let mut lowest: Option<u64> = None;
    for (controller, mount, file) in files {
        let own = path_of(controller).unwrap_or_default();
        // Inside a container the own group is the root of the mount; elsewhere every ancestor counts.
        for ancestor in Path::new(mount).join(&own).ancestors().take_while(|path| path.starts_with(mount)) {
            let limit = std::fs::read_to_string(ancestor.join(file)).ok().and_then(|text| text.trim().parse().ok());
            // Version 1 says "no limit" by a number near the largest.
            lowest = lowest.into_iter().chain(limit.filter(|limit| *limit < 1 << 60)).min();
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, true).unwrap().config
    }

    #[test]
    fn a_journal_is_bounded_by_threshold_volume_and_64_mib() {
        let default = config("");
        assert_eq!(journal_max(&default, 1 << 40), 640 * MIB);
        assert_eq!(journal_max(&default, 1000 * MIB), 250 * MIB);
        assert_eq!(journal_max(&default, 100 * MIB), 64 * MIB);
        let explicit = config("[storage.wal_config]\njournal_max_bytes = 1048576\n");
        assert_eq!(journal_max(&explicit, 100 * MIB), MIB);
    }

    #[test]
    fn memory_is_lowered_to_what_the_container_has() {
        let default = config("");
        assert_eq!(memory_limit(&default, None), (512 * MIB, None));
        assert_eq!(memory_limit(&default, Some(832 * MIB)), (512 * MIB, None));
        let (limit, warning) = memory_limit(&default, Some(512 * MIB));
        assert_eq!(limit, 256 * MIB);
        assert!(warning.unwrap().contains("global_flush_threshold is 536870912"));
        assert_eq!(memory_limit(&default, Some(200 * MIB)).0, 50 * MIB);
    }
}

//! The memory of the machine.

use std::fs;

/// A part of the memory there is, in bytes.
pub(super) fn percent_of_memory(percent: u8) -> u64 {
    memory_bytes() / 100 * u64::from(percent)
}

/// The memory of the machine, or the smaller limit of its control group. Where neither is known, RabbitMQ's assumption.
fn memory_bytes() -> u64 {
    let read = |path: &str| fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").as_deref().and_then(mem_total);
    // Without a limit, version 2 has "max" here, and version 1 more than the machine has.
    let limits = CONTROL_GROUP_LIMITS.iter().filter_map(|path| read(path)?.trim().parse().ok());
    total.into_iter().chain(limits).min().unwrap_or(UNKNOWN_BYTES)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// Of version 2 and version 1, as a container sees them.
const CONTROL_GROUP_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
const UNKNOWN_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_meminfo() {
        assert_eq!(mem_total("MemTotal:       16384256 kB\nMemFree: 1 kB\n"), Some(16_384_256 << 10));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        assert!(memory_bytes() > 100 << 20);
    }
}

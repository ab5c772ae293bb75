//! What the system says about this process.
//!
//! What a system does not tell is left out: `/proc` is there on Linux only.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// What the process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Processor time, user and system.
    pub(super) cpu: Duration,
    /// Memory that is in use now, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub(super) virtual_bytes: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Open descriptors.
    pub(super) descriptors: Option<u64>,
    /// Descriptors that it may open.
    pub(super) descriptors_max: Option<u64>,
    /// When it was started, since 1970.
    pub(super) started: Duration,
}

impl Usage {
    /// Asks the system.
    pub(super) fn now(started: SystemTime) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(cpu.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(cpu.tv_nsec).unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |key| field(&status, key).map(|kib| kib.saturating_mul(1024));
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        Self {
            cpu: Duration::new(seconds, nanoseconds),
            resident_bytes: bytes("VmRSS:"),
            virtual_bytes: bytes("VmSize:"),
            threads: field(&status, "Threads:"),
            descriptors: descriptors.and_then(|count| u64::try_from(count).ok()),
            descriptors_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            started: started.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

/// The number behind a key of `/proc/self/status`.
fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_behind_their_keys() {
        let status = "Name:\tx\nVmSize:\t  9000 kB\nVmRSS:\t   512 kB\nThreads:\t3\nVmSwap:\n";
        assert_eq!(field(status, "VmRSS:"), Some(512));
        assert_eq!(field(status, "Threads:"), Some(3));
        assert_eq!(field(status, "VmSwap:"), None);
        assert_eq!(field("", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now(UNIX_EPOCH + Duration::from_secs(7));
        assert!(usage.cpu > Duration::ZERO);
        assert!(usage.resident_bytes > Some(100_000) && usage.descriptors > Some(2));
        assert!(usage.threads >= Some(1));
        assert_eq!(usage.started.as_secs(), 7);
    }
}

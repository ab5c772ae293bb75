//! What the system says of a process.

use std::fs;

/// Clock ticks a second in `/proc`, the same on every Linux of today.
const TICKS: f64 = 100.0;

/// Seconds of processor time in the program, and in the system on its behalf; `None` once it is gone.
pub(crate) fn cpu_times(id: u32) -> Option<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut seconds = fields.map(|ticks| Some(ticks.parse::<f64>().ok()? / TICKS));
    Some((seconds.next()??, seconds.next()??))
}

/// A line of `/proc/PID/status` in KiB; 0 when it is not there.
pub(crate) fn kibibytes(id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

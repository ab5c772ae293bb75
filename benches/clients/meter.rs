//! What a process costs, as the system counts it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks at a process; what it does after the last look is not counted.
const INTERVAL: Duration = Duration::from_millis(10);

/// Clock ticks a second in `/proc`, the same on every Linux of today.
const TICKS: f64 = 100.0;

/// What a process used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds of processor time since the meter started.
    pub(crate) cpu: f64,
    /// Largest resident memory, with mapped files, in KiB.
    pub(crate) resident: u64,
    /// Largest memory that belongs to no file, in KiB.
    pub(crate) anonymous: u64,
}

/// Watches one process until it ends or the meter is stopped.
pub(crate) struct Meter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Cost>,
}

impl Meter {
    /// Starts to watch.
    pub(crate) fn start(id: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let before = cpu_seconds(id).unwrap_or(0.0);
        let thread = std::thread::spawn(move || {
            let mut cost = Cost::default();
            loop {
                let Some(cpu) = cpu_seconds(id) else {
                    return cost;
                };
                cost.cpu = cpu - before;
                let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
                cost.resident = cost.resident.max(kibibytes(&status, "VmHWM:"));
                cost.anonymous = cost.anonymous.max(kibibytes(&status, "RssAnon:"));
                if told.load(Ordering::Relaxed) {
                    return cost;
                }
                std::thread::sleep(INTERVAL);
            }
        });
        Self { stop, thread }
    }

    /// What it cost so far.
    pub(crate) fn stop(self) -> Cost {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// User and system time of a process; `None` once it is gone.
fn cpu_seconds(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

/// A line of `/proc/PID/status`; 0 when it is not there.
fn kibibytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

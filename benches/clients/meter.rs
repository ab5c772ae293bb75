//! What a process costs, as the system counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::{cpu_times, kibibytes};

/// Time between two looks at a process; what it does after the last look is not counted.
const INTERVAL: Duration = Duration::from_millis(10);

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
        let cpu_seconds = move || cpu_times(id).map(|(user, system)| user + system);
        let before = cpu_seconds().unwrap_or(0.0);
        let thread = std::thread::spawn(move || {
            let mut cost = Cost::default();
            loop {
                let Some(cpu) = cpu_seconds() else {
                    return cost;
                };
                cost.cpu = cpu - before;
                cost.resident = cost.resident.max(kibibytes(id, "VmHWM:"));
                cost.anonymous = cost.anonymous.max(kibibytes(id, "RssAnon:"));
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

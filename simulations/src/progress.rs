//! The progress line on standard error, and the story of a traced host.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::Duration;

use trackless::time::Instant;
use trackless_sim::host::HostId;
use trackless_sim::report::elapsed_time;
use trackless_sim::watch::{Progress, Watch};

/// Between two lines on a terminal, which replace each other.
const TERMINAL_SPACING: Duration = Duration::from_millis(500);

/// Between two lines elsewhere, which stay.
const LOG_SPACING: Duration = Duration::from_secs(15);

/// Prints how far one run has come.
#[derive(Debug)]
pub(crate) struct Printer {
    /// Scenario, variant and seed.
    title: String,
    started: Option<Duration>,
    last: Cell<Duration>,
    is_terminal: bool,
    is_quiet: bool,
}

impl Printer {
    /// A printer of the run with this title; a quiet one tells stories only.
    pub(crate) fn new(title: String, is_quiet: bool) -> Self {
        let started = elapsed_time();
        Self {
            title,
            started,
            last: Cell::new(started.unwrap_or_default()),
            is_terminal: io::stderr().is_terminal(),
            is_quiet,
        }
    }

    fn line(&self, progress: Progress, spent: Duration) -> String {
        let seconds = spent.as_secs_f64().max(1e-3);
        let done = progress.now.saturating_since(Instant::ZERO).as_secs_f64();
        let all = progress.end.saturating_since(Instant::ZERO).as_secs_f64();
        let share = (done / all.max(1e-6)).min(1.0);
        // Events, not virtual time, take processor time: a run starts slowly and ends busy, so the
        // time left is a guess that gets better.
        let left = seconds * (1.0 - share) / share.max(1e-6);
        format!(
            "{}: {} of {}, {:.2} M events/s, {} left",
            self.title,
            length(done),
            length(all),
            progress_rate(progress.events, seconds),
            length(left),
        )
    }
}

/// Millions of events in each second.
fn progress_rate(events: u64, seconds: f64) -> f64 {
    trackless_sim::statistics::float(events) / seconds / 1e6
}

/// A duration for people: `1h 2m`, `3m 20s`, `12.5s`.
fn length(seconds: f64) -> String {
    let hours = (seconds / 3600.0).floor();
    let minutes = (seconds / 60.0 - hours * 60.0).floor();
    if hours >= 1.0 {
        format!("{hours:.0}h {minutes:.0}m")
    } else if minutes >= 1.0 {
        format!("{minutes:.0}m {:.0}s", seconds % 60.0)
    } else {
        format!("{seconds:.1}s")
    }
}

impl Watch for Printer {
    fn on_progress(&self, progress: Progress) {
        let (Some(now), Some(started), false) = (elapsed_time(), self.started, self.is_quiet)
        else {
            return;
        };
        let spacing = if self.is_terminal {
            TERMINAL_SPACING
        } else {
            LOG_SPACING
        };
        if now.saturating_sub(self.last.get()) < spacing {
            return;
        }
        self.last.set(now);
        let line = self.line(progress, now.saturating_sub(started));
        if self.is_terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    fn on_story(&self, now: Instant, host: HostId, what: &str) {
        let seconds = now.saturating_since(Instant::ZERO).as_secs_f64();
        eprintln!("{seconds:>12.6}s  node {}  {what}", host.0);
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        if self.is_terminal && !self.is_quiet {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_at_a_glance() {
        let texts = [3.25, 200.0, 3_720.0].map(length);
        assert_eq!(texts, ["3.2s", "3m 20s", "1h 2m"]);
    }

    #[test]
    fn the_line_tells_virtual_time_pace_and_what_is_left() {
        let printer = Printer::new("d1, seed 1".to_owned(), true);
        let progress = Progress {
            now: Instant::from_micros(60_000_000),
            end: Instant::from_micros(240_000_000),
            events: 5_000_000,
        };
        let line = printer.line(progress, Duration::from_secs(10));
        assert_eq!(
            line,
            "d1, seed 1: 1m 0s of 4m 0s, 0.50 M events/s, 30.0s left"
        );
    }
}

//! What a process has used, as the system counts it.

use std::fs;

use crate::load::Outcome;
use crate::table::float;

/// Clock ticks a second in `/proc`, the same on every Linux of today.
const TICKS: f64 = 100.0;

/// Used so far, or between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of processor time in the program.
    pub(crate) user: f64,
    /// Seconds of processor time in the system on its behalf.
    pub(crate) system: f64,
    /// Bytes of resident memory at the end.
    pub(crate) resident: u64,
}

impl Usage {
    /// What a process has used so far.
    pub(crate) fn of(id: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        // The name in parentheses may hold anything; fields are counted from behind it.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut next = || fields.next().unwrap().parse::<f64>().unwrap() / TICKS;
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.unwrap().split_ascii_whitespace().next().unwrap();
        Self {
            user: next(),
            system: next(),
            resident: kibibytes.parse::<u64>().unwrap() << 10,
        }
    }

    /// What was used since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user - earlier.user,
            system: self.system - earlier.system,
            ..self
        }
    }

    /// Seconds of processor time for a million answers.
    pub(crate) fn per_million(&self, outcome: &Outcome) -> f64 {
        (self.user + self.system) * 1e6 / float(outcome.answered.max(1))
    }
}

//! What a process has used, as the system counts it.

use crate::load::Outcome;
use crate::process::{cpu_times, kibibytes};
use crate::table::float;

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
        let (user, system) = cpu_times(id).unwrap();
        Self {
            user,
            system,
            resident: kibibytes(id, "VmRSS:") << 10,
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

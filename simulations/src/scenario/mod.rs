//! The scenarios: each builds a world, gives it work and measures.
//!
//! Invariant: what [`ALL`] lists can be run, has a default for each setting, and declares the
//! figures that decide between success and failure.

pub mod dht_join;
pub mod flash_crowd;
pub mod settings;

pub use settings::{Setting, SettingError, Settings, Unit};

use crate::report::{Acceptance, Check, Outcome, Report};
use crate::seeds::Seeds;

/// A scenario that can be run.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// The name by which it is run.
    pub name: &'static str,
    /// One line for the list.
    pub about: &'static str,
    /// What can be set.
    pub settings: &'static [Setting],
    /// What must come out.
    pub acceptance: &'static [Acceptance],
    /// Builds the world and lets it run.
    simulate: fn(&Settings, Seeds) -> Result<Outcome, SettingError>,
}

/// All scenarios.
pub const ALL: [Scenario; 2] = [dht_join::SCENARIO, flash_crowd::SCENARIO];

impl Scenario {
    /// The scenario of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }

    /// Runs it with a root seed and overridden settings.
    ///
    /// # Errors
    ///
    /// Settings that it does not have or that it cannot run with.
    pub fn run(&self, seed: u64, overrides: &[(String, String)]) -> Result<Report, SettingError> {
        let settings = Settings::resolve(self.settings, overrides)?;
        let outcome = (self.simulate)(&settings, Seeds::new(seed))?;
        let checks = self.acceptance.iter().map(|acceptance| Check {
            acceptance: *acceptance,
            measured: outcome.metrics.value(acceptance.metric),
        });
        Ok(Report {
            scenario: self.name,
            seed,
            settings: settings.texts(),
            checks: checks.collect(),
            outcome,
        })
    }
}

//! Runs a resolved scenario: each variant with each seed, then the checks.
//!
//! Invariant: variants of one seed meet the same draws of topology, losses and workload, so that
//! what differs between them is what their settings change.

use super::{Context, Resolved, ScenarioError};
use crate::report::{Check, Report, SeedResult};
use crate::trace;

/// Told before each single run: `(variant, seed)`.
pub type OnStart<'a> = dyn FnMut(&str, u64) -> Context + 'a;

/// Runs a scenario with each of these seeds; `context` says who watches each run.
///
/// # Errors
///
/// [`ScenarioError::Setting`] when settings do not fit each other.
pub fn run(
    resolved: &Resolved,
    seeds: &[u64],
    context: &mut OnStart<'_>,
) -> Result<Report, ScenarioError> {
    let mut results = Vec::new();
    for &seed in seeds {
        let mut outcomes = Vec::new();
        for (variant, settings) in &resolved.runs {
            let Some(settings) = settings else {
                continue;
            };
            let outcome = (resolved.kind.simulate)(settings, &context(variant, seed))
                .map_err(|error| ScenarioError::of(variant, error))?;
            outcomes.push((variant.clone(), outcome));
        }
        let hashes: Vec<u64> = outcomes.iter().map(|(_, o)| o.trace_hash).collect();
        results.push(SeedResult {
            seed,
            events: outcomes.iter().map(|(_, outcome)| outcome.events).sum(),
            trace_hash: trace::combined(&hashes),
            outcomes,
        });
    }
    let scenario = &resolved.scenario;
    let checks = scenario.checks.iter();
    let checks = checks.flat_map(|demand| Check::of(demand, &scenario.variants, &results));
    Ok(Report {
        checks: checks.collect(),
        scenario: scenario.clone(),
        results,
    })
}

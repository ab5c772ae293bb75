//! `dht`: a DHT grows from one node, then its lookups are graded.
//!
//! Node 0 starts alone. The others start at random moments and know node 0's address, nothing else
//! (where nodes leave, those of four that do not). After a time of upkeep random nodes look for
//! random targets, and what they find is compared with the truth; then some announce a torrent, and
//! others look for its peers.

use trackless::time::Instant;

use super::dht::{self, LOOKUP_SPACING, LOOKUP_TIME, Policy, SETTLE, Study};
use super::{Context, Kind, Outcome, Setting, SettingError, Settings};
use crate::oracle::hops_law;
use crate::report::Metrics;

/// The experiment.
pub(super) const KIND: Kind = Kind {
    name: "dht",
    about: "a DHT grows from one node, with churn and gateways if set; its lookups are graded",
    settings: &SETTINGS,
    simulate,
};

static SETTINGS: [Setting; 19] = [
    dht::NODES,
    dht::JOIN,
    dht::DURATION,
    dht::LATENCY,
    dht::LOSS,
    dht::LOOKUPS,
    dht::PACE,
    dht::ANNOUNCES,
    dht::BUCKET,
    dht::PARALLELISM,
    dht::POLICY,
    dht::SESSION,
    dht::SHAPE,
    dht::AVAILABILITY,
    dht::SAME_ID,
    dht::GRACEFUL,
    dht::NAT,
    dht::READ_ONLY,
    dht::DEAD,
];

fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
    let (join, duration) = (settings.duration("join"), settings.duration("duration"));
    if join + SETTLE > duration {
        return Err(SettingError::Contradiction(
            "duration must be at least a minute longer than join",
        ));
    }
    let (lookups, announces) = (settings.count("lookups"), settings.count("announces"));
    let pace = settings.duration("pace");
    let end = duration + pace * lookups + LOOKUP_SPACING * announces + LOOKUP_TIME * 2;
    let mut study = Study::new(settings, context, end);
    let mut metrics = Metrics::default();
    study.grow(settings.count("nodes"), join);
    study.run_until(Instant::ZERO + join + SETTLE);
    study.measure_join(&mut metrics);
    let population = study.watch_population(Instant::ZERO + duration);
    study.measure_upkeep(&mut metrics);
    study.measure_tables(&mut metrics);
    study.measure_load(&mut metrics);
    let broken = study.broken_tables();
    study.silence(settings.share("dead"));
    study.grade_lookups(lookups, pace);
    study.grades.measure(&mut metrics);
    let law = hops_law(settings.value("nodes"), settings.value("k"));
    metrics.add("hops_law", law);
    if study.population.policy == Policy::Shipping {
        study.announce_and_search(announces);
    }
    study.announces.measure(&mut metrics);
    let mut outcome = Outcome::of(&study.world, metrics);
    // The control has no such rules.
    if study.population.policy == Policy::Shipping {
        outcome.violations.extend(broken);
    }
    outcome.charts = study.grades.charts();
    outcome.charts.extend(study.announces.chart());
    outcome.charts.push(population);
    Ok(outcome)
}

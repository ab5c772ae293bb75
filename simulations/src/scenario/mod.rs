//! Scenarios: what is simulated, and what must come out.
//!
//! A [`Scenario`] is a [file](mod@file): it names a [`Kind`] of experiment, its settings, variants and
//! checks. A kind is Rust: it declares [`Setting`]s, builds a world, gives it work and measures.
//! [`run()`] runs a resolved scenario with one or many seeds and grades it.
//!
//! # Writing a kind
//!
//! ```ignore
//! pub(super) const KIND: Kind = Kind {
//!     name: "echo",
//!     about: "two nodes and one ping",
//!     settings: &SETTINGS,
//!     simulate,
//! };
//!
//! fn simulate(settings: &Settings, context: &Context) -> Result<Outcome, SettingError> {
//!     let mut world = context.world(settings.share("loss"), END);   // END: for the progress line
//!     ...                                                           // hosts, commands, world.next(..)
//!     let mut metrics = Metrics::default();
//!     metrics.add("answered", share(answered, asked));
//!     let mut outcome = Outcome::of(&world, metrics);
//!     outcome.charts.push(Chart::new("latency", "Round trips", "seconds", "share")
//!         .with_line("ping", latencies.distribution()));
//!     Ok(outcome)
//! }
//! ```
//!
//! List it in [`KINDS`], put a file into `simulations/scenarios/` and into `file::BUILT_IN`, give
//! it a `small` version of a second or less, and bless its table. Charts of the same name from
//! several variants are drawn into one picture, each line labelled with its variant.
//!
//! Invariant: an outcome is a function of settings and seed. What a kind draws comes from named
//! streams of [`Context::seeds`].

pub mod announcing;
mod bootstrap;
mod dht;
pub mod eclipse;
pub mod file;
pub mod grown_dht;
mod magnet;
mod one_club;
pub mod persistence;
pub mod run;
pub mod settings;
mod size_estimate;
pub mod split_dht;
mod swarm;

pub use file::{Resolved, Scenario, ScenarioError, Size};
pub use run::run;
pub use settings::{Setting, SettingError, Settings, Unit};

use std::rc::Rc;

use trackless::time::Instant;

use crate::host::HostId;
use crate::link::PartsPerMillion;
use crate::plot::Chart;
use crate::report::Metrics;
use crate::seeds::Seeds;
use crate::time::QueueKind;
use crate::watch::Watch;
use crate::world::World;

/// An experiment that scenario files can ask for.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The name by which files ask for it.
    pub name: &'static str,
    /// One line for the list.
    pub about: &'static str,
    /// What can be set.
    pub settings: &'static [Setting],
    /// Builds a world, lets it run and measures.
    pub simulate: fn(&Settings, &Context) -> Result<Outcome, SettingError>,
}

/// All experiments.
pub const KINDS: &[Kind] = &[
    grown_dht::KIND,
    split_dht::KIND,
    persistence::KIND,
    announcing::KIND,
    eclipse::KIND,
    bootstrap::KIND,
    size_estimate::KIND,
    swarm::KIND,
    magnet::KIND,
    one_club::KIND,
];

/// What an experiment is given beside its settings.
#[derive(Debug, Clone)]
pub struct Context {
    /// The root of all random choices.
    pub seeds: Seeds,
    /// Who is told how far the run has come.
    pub watch: Option<Rc<dyn Watch>>,
    /// The host whose story is told.
    pub traced: Option<HostId>,
    /// What keeps the happenings in order; it changes the speed and nothing else.
    pub queue: QueueKind,
}

impl Context {
    /// The context of a run that nobody watches.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seeds: Seeds::new(seed),
            watch: None,
            traced: None,
            queue: QueueKind::Wheel,
        }
    }

    /// A world without hosts that loses this share of the datagrams and is expected to end at
    /// `end`.
    #[must_use]
    pub fn world(&self, loss: PartsPerMillion, end: Instant) -> World {
        let mut world = World::with_queue(self.seeds, loss, self.queue.build());
        if let Some(watch) = &self.watch {
            world.watch(Rc::clone(watch), end, self.traced);
        }
        world
    }
}

/// What an experiment hands back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// What was measured, in the order in which it is printed.
    pub metrics: Metrics,
    /// What can be drawn.
    pub charts: Vec<Chart>,
    /// Rules that must hold in every run and did not, in words; they fail the run.
    pub violations: Vec<String>,
    /// Happenings simulated.
    pub events: u64,
    /// Hash of everything sent.
    pub trace_hash: u64,
}

impl Outcome {
    /// What a world has come to, with what was measured in it.
    #[must_use]
    pub fn of(world: &World, metrics: Metrics) -> Self {
        Self {
            metrics,
            charts: Vec::new(),
            violations: world.violations().to_vec(),
            events: world.network().agenda.taken(),
            trace_hash: world.network().trace_hash(),
        }
    }
}

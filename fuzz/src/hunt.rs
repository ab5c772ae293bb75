//! The hunt: scripts are changed and played without end, and those that reach something new are kept to be
//! changed again.
//!
//! Invariant: the same seed, corpus and number of scripts give the same hunt.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use trackless::random::Random;

use crate::mutate;
use crate::run::{Feature, Finding, Outcome, Watch, run};
use crate::script::Script;
use crate::seeds;

/// Scripts that are kept while a hunt runs; later ones replace any of them.
const KEPT_MAX: usize = 4_000;

/// Scripts between two that are played twice, and watched until everything has expired.
const THOROUGH_EVERY: u64 = 32;

/// Plays a script; a panic of the node is a finding.
///
/// # Errors
///
/// The promise that was broken first.
pub fn play(script: &Script, watch: Watch) -> Result<Outcome, Finding> {
    let played = catch_unwind(AssertUnwindSafe(|| run(script, watch)));
    played.unwrap_or_else(|panic| {
        Err(Finding {
            rule: "nothing panics",
            detail: words_of(&*panic),
        })
    })
}

/// Plays a script twice, to the very end; both must go the same way.
///
/// # Errors
///
/// The promise that was broken first.
pub fn play_thoroughly(script: &Script) -> Result<Outcome, Finding> {
    let first = play(script, Watch::Expiry)?;
    let second = play(script, Watch::Expiry)?;
    if first.fingerprint != second.fingerprint {
        return Err(Finding {
            rule: "the same inputs give the same outputs",
            detail: String::new(),
        });
    }
    Ok(first)
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    words.unwrap_or("a panic without words").to_owned()
}

/// A bit for each counter that one of these steps has raised.
fn counters_of(features: &BTreeSet<Feature>) -> u128 {
    features.iter().fold(0, |all, (_, mask, _)| all | mask)
}

/// Whether a script breaks this rule.
fn breaks(script: &Script, rule: &str) -> bool {
    play_thoroughly(script).is_err_and(|finding| finding.rule == rule)
}

/// Takes away steps that a finding does not need.
#[must_use]
pub fn shorten(script: &Script, finding: &Finding) -> Script {
    without_needless(script, |shorter| breaks(shorter, finding.rule))
}

/// Takes away steps as long as `is_kept` holds for what is left.
fn without_needless(script: &Script, is_kept: impl Fn(&Script) -> bool) -> Script {
    let mut short = script.clone();
    let mut at = short.steps.len();
    while at > 0 {
        at -= 1;
        let mut shorter = short.clone();
        shorter.steps.remove(at);
        if is_kept(&shorter) {
            short = shorter;
        }
    }
    short
}

/// What a hunt has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Scripts played.
    pub scripts: u64,
    /// Datagrams that went into nodes.
    pub received: u64,
    /// Datagrams that came out of them.
    pub sent: u64,
    /// A bit for each counter that was reached.
    pub reached: u128,
    /// The most bytes that a node took, by the order of profiles.
    pub memory: [usize; 5],
}

/// A hunt.
#[derive(Debug)]
pub struct Hunt {
    random: Random,
    templates: Vec<Vec<u8>>,
    /// Scripts that reached something new, each with what it reached.
    kept: Vec<(Script, BTreeSet<Feature>)>,
    features: BTreeSet<Feature>,
    totals: Totals,
}

impl Hunt {
    /// A hunt that begins with these scripts beside the built-in ones.
    ///
    /// # Errors
    ///
    /// A script among them that breaks a promise, and which.
    pub fn new(seed: u64, corpus: Vec<Script>) -> Result<Self, (Script, Finding)> {
        let mut hunt = Self {
            random: Random::from_seed(seed),
            templates: seeds::templates(),
            kept: Vec::new(),
            features: BTreeSet::new(),
            totals: Totals::default(),
        };
        for script in corpus.into_iter().chain(seeds::scripts()) {
            hunt.try_script(script, Watch::Lookups)?;
        }
        Ok(hunt)
    }

    /// What was done so far.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Different things that steps have reached.
    #[must_use]
    pub fn feature_count(&self) -> usize {
        self.features.len()
    }

    /// Changes a script and plays it.
    ///
    /// # Errors
    ///
    /// The script, if it breaks a promise, and which.
    pub fn step(&mut self) -> Result<(), (Script, Finding)> {
        let pick = |random: &mut Random, kept: &[(Script, BTreeSet<Feature>)]| {
            let index = random.index(kept.len()).unwrap_or(0);
            kept[index].0.clone()
        };
        let mut script = pick(&mut self.random, &self.kept);
        let other = pick(&mut self.random, &self.kept);
        mutate::change(&mut script, &other, &self.templates, &mut self.random);
        if self.totals.scripts.is_multiple_of(THOROUGH_EVERY) {
            play_thoroughly(&script).map_err(|finding| (script.clone(), finding))?;
        }
        self.try_script(script, Watch::Lookups)
    }

    fn try_script(&mut self, script: Script, watch: Watch) -> Result<(), (Script, Finding)> {
        let outcome = match play(&script, watch) {
            Ok(outcome) => outcome,
            Err(finding) => return Err((script, finding)),
        };
        let totals = &mut self.totals;
        totals.scripts += 1;
        totals.received += outcome.received;
        totals.sent += outcome.sent;
        totals.reached |= outcome.reached;
        let profile = crate::profile::Profile::ALL
            .iter()
            .position(|profile| *profile == script.profile);
        if let Some(memory) = profile.and_then(|index| totals.memory.get_mut(index)) {
            *memory = outcome.memory.max(*memory);
        }
        if outcome.features.is_subset(&self.features) {
            return Ok(());
        }
        self.features.extend(&outcome.features);
        if self.kept.len() < KEPT_MAX {
            self.kept.push((script, outcome.features));
        } else if let Some(index) = self.random.index(KEPT_MAX) {
            self.kept[index] = (script, outcome.features);
        }
        Ok(())
    }

    /// The scripts that together reach most, without needless steps: at most `scripts_max`, and about
    /// `bytes_max` of text.
    #[must_use]
    pub fn best(&self, scripts_max: usize, bytes_max: usize) -> Vec<Script> {
        let mut reached: BTreeSet<Feature> = BTreeSet::new();
        let mut best = Vec::new();
        let mut bytes = 0;
        let mut left: Vec<_> = self.kept.iter().collect();
        while best.len() < scripts_max && bytes < bytes_max {
            // A counter that nothing else reaches counts for more than any number of steps.
            let known = counters_of(&reached);
            let gain = |(_, features): &(Script, BTreeSet<Feature>)| {
                let counters = counters_of(features) & !known;
                (counters.count_ones(), features.difference(&reached).count())
            };
            let Some(index) = (0..left.len()).max_by_key(|index| gain(left[*index])) else {
                break;
            };
            let (script, features) = left.swap_remove(index);
            let fresh: BTreeSet<_> = features.difference(&reached).copied().collect();
            if fresh.is_empty() {
                break;
            }
            let short = without_needless(script, |shorter| {
                play(shorter, Watch::Lookups)
                    .is_ok_and(|outcome| fresh.is_subset(&outcome.features))
            });
            bytes += short.to_string().len() + 1;
            best.push(short);
            reached.extend(fresh);
        }
        best
    }
}

//! Scenario files: which experiment runs, with which settings, in which variants, and what must
//! come out.
//!
//! A file is TOML. `kind` names the experiment, `settings` overrides its defaults, each `variant`
//! is one more run of the same seed with other settings (a control, another size), and each `check`
//! declares a figure. The built-in files lie in `simulations/scenarios/`.
//!
//! Invariant: a key that is not known, in the file or among the settings of its kind, is an error,
//! never ignored; and the resolved scenario that a result records is itself a file that gives the
//! same run.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::settings::{SettingError, Settings};
use super::{KINDS, Kind};

/// The built-in files.
const BUILT_IN: &[&str] = &[
    include_str!("../../scenarios/d1-dht-join.toml"),
    include_str!("../../scenarios/d2-sweep.toml"),
    include_str!("../../scenarios/d3-churn.toml"),
    include_str!("../../scenarios/d4-split.toml"),
    include_str!("../../scenarios/d5-nat.toml"),
    include_str!("../../scenarios/d6-persistence.toml"),
    include_str!("../../scenarios/d7-eclipse.toml"),
    include_str!("../../scenarios/d8-bootstrap.toml"),
    include_str!("../../scenarios/d9-size.toml"),
    include_str!("../../scenarios/d10-announcing.toml"),
    include_str!("../../scenarios/s1-flash-crowd.toml"),
    include_str!("../../scenarios/s2-asymmetric.toml"),
    include_str!("../../scenarios/s3-seed-leaves.toml"),
    include_str!("../../scenarios/s4-missing-piece.toml"),
    include_str!("../../scenarios/s5-free-riders.toml"),
    include_str!("../../scenarios/s6-corruption.toml"),
    include_str!("../../scenarios/s7-magnet.toml"),
    include_str!("../../scenarios/s8-discovery.toml"),
];

/// Why a scenario cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The text is not TOML, lacks a key or has one that nobody knows.
    #[error("not a scenario: {0}")]
    Unreadable(String),
    /// No experiment has this name.
    #[error("there is no kind {kind:?}; there are: {known}")]
    Kind {
        /// What the file asks for.
        kind: String,
        /// What it could ask for.
        known: String,
    },
    /// Two variants have one name, or a name cannot be told from a metric or setting.
    #[error("variant {0:?} needs a name of its own, without a dot")]
    Variant(String),
    /// A setting is for a variant that is not there.
    #[error("there is no variant {name:?}; there are: {known}")]
    NoVariant {
        /// What was asked for.
        name: String,
        /// What could have been.
        known: String,
    },
    /// A check demands nothing, or something of a variant that is not there.
    #[error("check of {metric:?}: {reason}")]
    Check {
        /// The metric as written.
        metric: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Settings that the kind does not have or cannot run with.
    #[error("{context}{error}")]
    Setting {
        /// `variant NAME: `, or empty.
        context: String,
        /// What is wrong.
        error: SettingError,
    },
}

/// A scalar of TOML, as the text a person would write on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            toml::Value::Integer(number) => Ok(Self(number.to_string())),
            toml::Value::Float(number) => Ok(Self(number.to_string())),
            toml::Value::Boolean(is_on) => Ok(Self(if is_on { "on" } else { "off" }.to_owned())),
            _ => Err(serde::de::Error::custom(
                "a setting is a number, a string or a boolean",
            )),
        }
    }
}

/// Settings by key.
pub type Overrides = BTreeMap<String, Text>;

/// One more run of the same seed with other settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Prefix of its metrics: `naive.mean_hops`.
    pub name: String,
    /// What it is for, in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What the cores lack to run it; it is not run then, and its checks are `unavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// Settings that differ from those of the scenario.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub set: Overrides,
    /// Those that differ further in the small version.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub small: Overrides,
}

/// In which version of a scenario a check counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// In both.
    #[default]
    Both,
    /// At the size of the file.
    Full,
    /// With the overrides of `small`.
    Small,
}

/// A figure that must come out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// `metric` of the scenario itself, or `variant.metric`.
    pub metric: String,
    /// A metric that is subtracted first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minus: Option<String>,
    /// A metric by which the rest is divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// The least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Must hold for each seed by itself, not for the mean: bounds that no luck excuses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_seed: bool,
    /// In which version of the scenario it counts.
    #[serde(default)]
    pub version: Version,
    /// What the cores lack; the check is `unavailable` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// Where the figure comes from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// A scenario as a file declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short name: `d1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// Speaking name: `dht-join`.
    pub name: String,
    /// One line for the list.
    pub about: String,
    /// The experiment, one of [`KINDS`].
    pub kind: String,
    /// Name of the run without variant, where its column needs one.
    #[serde(default = "base_name")]
    pub base: String,
    /// Settings that differ from the defaults of the kind.
    #[serde(default)]
    pub settings: Overrides,
    /// Those that make a version of a few seconds.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub small: Overrides,
    /// Further runs, in order.
    #[serde(default, rename = "variant", skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// What must come out, in order.
    #[serde(default, rename = "check", skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Demand>,
}

/// Heading of the run without variant.
fn base_name() -> String {
    "value".to_owned()
}

/// Full or small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Size {
    /// As the file says.
    #[default]
    Full,
    /// With the overrides of its `small` tables.
    Small,
}

/// A scenario with every setting of every run: nothing is left to defaults.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What runs.
    pub kind: &'static Kind,
    /// The file that gives the same runs: all settings are written out.
    pub scenario: Scenario,
    /// The runs in order; the first is the scenario itself, with an empty name. `None` for a
    /// variant that cannot be run.
    pub runs: Vec<(String, Option<Settings>)>,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Unreadable`], `Kind`, `Variant` and `Check`; settings are looked at by
    /// [`Self::resolve`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| ScenarioError::Unreadable(error.to_string()))?;
        scenario.kind()?;
        let mut names: Vec<&str> = Vec::new();
        for Variant { name, .. } in &scenario.variants {
            if name.is_empty() || name.contains('.') || names.contains(&name.as_str()) {
                return Err(ScenarioError::Variant(name.clone()));
            }
            names.push(name);
        }
        for demand in &scenario.checks {
            let operands = [&demand.minus, &demand.over];
            let mut metrics = operands.into_iter().flatten().chain([&demand.metric]);
            let is_known = |metric: &String| match metric.split_once('.') {
                Some((variant, _)) => names.contains(&variant),
                None => true,
            };
            let reason = if !metrics.all(is_known) {
                "there is no variant of this name"
            } else if demand.at_least.is_none() && demand.at_most.is_none() {
                "at_least or at_most is missing"
            } else {
                continue;
            };
            let metric = demand.metric.clone();
            return Err(ScenarioError::Check { metric, reason });
        }
        Ok(scenario)
    }

    /// All built-in scenarios.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let parse = |text: &&str| Self::parse(text).expect("a test reads each built-in file");
        BUILT_IN.iter().map(parse).collect()
    }

    /// The built-in scenario with this code or name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let is_meant = |scenario: &Self| scenario.name == name || scenario.code == name;
        Self::built_in().into_iter().find(is_meant)
    }

    /// The experiment.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Kind`].
    pub fn kind(&self) -> Result<&'static Kind, ScenarioError> {
        let found = KINDS.iter().find(|kind| kind.name == self.kind);
        found.ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            ScenarioError::Kind {
                kind: self.kind.clone(),
                known: known.join(", "),
            }
        })
    }

    /// Fixes every setting. What counts, weakest first: the default of the kind, `settings`,
    /// `small`, the command line's `key=value`, a variant's `set`, its `small`, the command line's
    /// `variant.key=value`.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Setting`] and `Variant`.
    pub fn resolve(
        &self,
        size: Size,
        overrides: &[(String, String)],
    ) -> Result<Resolved, ScenarioError> {
        let kind = self.kind()?;
        let (mut plain, mut of_variant) = (Vec::new(), Vec::new());
        for (key, value) in overrides {
            match key.split_once('.') {
                None => plain.push((key.clone(), value.clone())),
                Some((variant, key)) => of_variant.push((variant, (key.to_owned(), value.clone()))),
            }
        }
        let is_known = |name: &str| self.variants.iter().any(|variant| variant.name == name);
        if let Some((unknown, _)) = of_variant.iter().find(|(name, _)| !is_known(name)) {
            let known = self.variants.iter().map(|variant| variant.name.as_str());
            return Err(ScenarioError::NoVariant {
                name: (*unknown).to_owned(),
                known: known.collect::<Vec<_>>().join(", "),
            });
        }
        let small = |small: &Overrides| match size {
            Size::Full => Vec::new(),
            Size::Small => pairs(small),
        };
        let base = [pairs(&self.settings), small(&self.small), plain].concat();
        let settings = resolve_run(kind, "", &base)?;
        let mut scenario = self.clone();
        scenario.settings = written_out(&settings);
        scenario.small = Overrides::new();
        let counts = |demand: &Demand| match demand.version {
            Version::Both => true,
            Version::Full => size == Size::Full,
            Version::Small => size == Size::Small,
        };
        scenario.checks.retain(counts);
        for demand in &mut scenario.checks {
            demand.version = Version::Both;
        }
        let mut runs = vec![(String::new(), Some(settings))];
        for variant in &mut scenario.variants {
            let named = of_variant.iter().filter(|(name, _)| *name == variant.name);
            let mut own = [pairs(&variant.set), small(&variant.small)].concat();
            own.extend(named.map(|(_, pair)| pair.clone()));
            let settings = match variant.needs {
                Some(_) => None,
                None => {
                    let all = [&base[..], &own[..]].concat();
                    Some(resolve_run(kind, &variant.name, &all)?)
                }
            };
            variant.set = own
                .into_iter()
                .map(|(key, text)| (key, Text(text)))
                .collect();
            variant.small = Overrides::new();
            runs.push((variant.name.clone(), settings));
        }
        Ok(Resolved {
            kind,
            scenario,
            runs,
        })
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario has string keys only")
    }
}

fn pairs(overrides: &Overrides) -> Vec<(String, String)> {
    let pair = |(key, text): (&String, &Text)| (key.clone(), text.0.clone());
    overrides.iter().map(pair).collect()
}

fn written_out(settings: &Settings) -> Overrides {
    let texts = settings.texts().into_iter();
    texts
        .map(|(key, text)| (key.to_owned(), Text(text)))
        .collect()
}

fn resolve_run(
    kind: &Kind,
    variant: &str,
    overrides: &[(String, String)],
) -> Result<Settings, ScenarioError> {
    Settings::resolve(kind.settings, overrides).map_err(|error| ScenarioError::of(variant, error))
}

impl ScenarioError {
    /// What is wrong with the settings of a variant; an empty name stands for the scenario itself.
    #[must_use]
    pub fn of(variant: &str, error: SettingError) -> Self {
        let context = match variant {
            "" => String::new(),
            name => format!("variant {name}: "),
        };
        Self::Setting { context, error }
    }
}

#[cfg(test)]
mod tests;

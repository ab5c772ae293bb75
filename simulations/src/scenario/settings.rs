//! Settings of a scenario: declared with a default and bounds, overridden by text.
//!
//! Invariant: a value handed to a scenario lies inside the declared bounds, and a key that the
//! scenario does not declare is an error, never ignored.

use std::time::Duration;

use crate::link::PartsPerMillion;
use crate::statistics::float;

/// How the text of a setting is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number.
    Count,
    /// `90s`, `15m`, `2h`, `500ms`; held in microseconds.
    Duration,
    /// `0.02` or `2%`; held in millionths.
    Share,
    /// `512KiB`, `32MiB`, or bytes without a suffix.
    Bytes,
    /// `1MiB/s`; held in bytes per second.
    Rate,
    /// A decimal number such as `0.5`; held in millionths.
    Decimal,
    /// One of these words; held as its index.
    Choice(&'static [&'static str]),
}

/// The words of a setting that is on or off.
pub const SWITCH: Unit = Unit::Choice(&["off", "on"]);

/// A setting that a scenario declares.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// Its value unless it is set, as text.
    pub default: &'static str,
    /// How it is read.
    pub unit: Unit,
    /// The smallest value, in the unit it is held in.
    pub min: u64,
    /// The greatest.
    pub max: u64,
    /// What it is, in a few words.
    pub about: &'static str,
}

/// Why settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The scenario has no such setting.
    #[error("this scenario has no setting {key:?}; it has: {known}")]
    Unknown {
        /// What was set.
        key: String,
        /// What could be.
        known: String,
    },
    /// The text cannot be read.
    #[error("{key}={text}: expected {expected}")]
    Unreadable {
        /// The setting.
        key: &'static str,
        /// Its text.
        text: String,
        /// Examples.
        expected: String,
    },
    /// The value is outside its bounds.
    #[error("{key}={text} is out of range")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Its text.
        text: String,
    },
    /// Two settings do not fit each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// The settings of one run.
#[derive(Debug, Clone)]
pub struct Settings(Vec<Chosen>);

/// A setting with its value.
#[derive(Debug, Clone)]
struct Chosen {
    key: &'static str,
    text: String,
    value: u64,
}

impl Settings {
    /// The declared settings with these overrides; the last override of a key counts.
    ///
    /// # Errors
    ///
    /// An override of an undeclared key, an unreadable text, or a value out of bounds.
    pub fn resolve(
        declared: &'static [Setting],
        overrides: &[(String, String)],
    ) -> Result<Self, SettingError> {
        for (key, _) in overrides {
            if !declared.iter().any(|setting| setting.key == key) {
                let known: Vec<&str> = declared.iter().map(|setting| setting.key).collect();
                return Err(SettingError::Unknown {
                    key: key.clone(),
                    known: known.join(", "),
                });
            }
        }
        let chosen = declared.iter().map(|setting| {
            let given = overrides.iter().rev().find(|(key, _)| setting.key == key);
            let text = given.map_or(setting.default, |(_, text)| text);
            Ok(Chosen {
                key: setting.key,
                text: text.to_owned(),
                value: read(setting, text)?,
            })
        });
        Ok(Self(chosen.collect::<Result<_, _>>()?))
    }

    /// The value of a declared setting, in the unit it is held in.
    ///
    /// # Panics
    ///
    /// If the scenario did not declare it.
    #[must_use]
    pub fn value(&self, key: &str) -> u64 {
        let chosen = self.0.iter().find(|chosen| chosen.key == key);
        chosen.expect("scenarios ask for declared settings").value
    }

    /// The value of a setting that the scenario may have or not.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<u64> {
        let chosen = self.0.iter().find(|chosen| chosen.key == key);
        chosen.map(|chosen| chosen.value)
    }

    /// A count that fits 32 bits by its declared bounds.
    #[must_use]
    pub fn count(&self, key: &str) -> u32 {
        u32::try_from(self.value(key)).expect("the declared bound of a count fits 32 bits")
    }

    /// A duration.
    #[must_use]
    pub fn duration(&self, key: &str) -> Duration {
        Duration::from_micros(self.value(key))
    }

    /// A share.
    #[must_use]
    pub fn share(&self, key: &str) -> PartsPerMillion {
        PartsPerMillion(self.count(key))
    }

    /// A decimal number.
    #[must_use]
    pub fn decimal(&self, key: &str) -> f64 {
        float(self.value(key)) / 1e6
    }

    /// Whether a [`SWITCH`] is on.
    #[must_use]
    pub fn is_on(&self, key: &str) -> bool {
        self.value(key) != 0
    }

    /// All settings as text, in the declared order.
    #[must_use]
    pub fn texts(&self) -> Vec<(&'static str, String)> {
        self.0
            .iter()
            .map(|chosen| (chosen.key, chosen.text.clone()))
            .collect()
    }
}

fn read(setting: &Setting, text: &str) -> Result<u64, SettingError> {
    let (value, expected) = match setting.unit {
        Unit::Count => (text.parse().ok(), "a number"),
        Unit::Duration => (duration(text), "a duration like 500ms, 90s, 15m or 2h"),
        Unit::Share => (share(text), "a share like 0.02 or 2%"),
        Unit::Bytes => (bytes(text), "a size like 512KiB or 32MiB"),
        Unit::Rate => (
            text.strip_suffix("/s").and_then(bytes),
            "a rate like 512KiB/s or 10MiB/s",
        ),
        Unit::Decimal => (millionths(text), "a decimal number like 0.5"),
        Unit::Choice(words) => return choose(setting.key, words, text),
    };
    let key = setting.key;
    let text = text.to_owned();
    match value {
        None => Err(SettingError::Unreadable {
            key,
            text,
            expected: expected.to_owned(),
        }),
        Some(value) if !(setting.min..=setting.max).contains(&value) => {
            Err(SettingError::OutOfRange { key, text })
        }
        Some(value) => Ok(value),
    }
}

/// The index of a word.
fn choose(key: &'static str, words: &[&str], text: &str) -> Result<u64, SettingError> {
    let index = words.iter().position(|word| *word == text);
    let index = index.and_then(|index| u64::try_from(index).ok());
    index.ok_or_else(|| SettingError::Unreadable {
        key,
        text: text.to_owned(),
        expected: words.join(" or "),
    })
}

/// A decimal number in millionths: `1.5` is 1,500,000. At most six decimals.
fn millionths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(decimals) || decimals.len() > 6 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let decimals: u64 = format!("{decimals:0<6}").parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(decimals)
}

/// A decimal number with one of these suffixes, times what the suffix stands for.
fn scaled(text: &str, suffixes: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = suffixes
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))?;
    let product = u128::from(millionths(number)?) * u128::from(factor);
    u64::try_from(product / 1_000_000).ok()
}

fn duration(text: &str) -> Option<u64> {
    let second = 1_000_000;
    let suffixes = [
        ("ms", 1_000),
        ("s", second),
        ("m", 60 * second),
        ("h", 3_600 * second),
    ];
    scaled(text, &suffixes)
}

fn bytes(text: &str) -> Option<u64> {
    let suffixes = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("B", 1),
        ("", 1),
    ];
    scaled(text, &suffixes)
}

fn share(text: &str) -> Option<u64> {
    match text.strip_suffix('%') {
        Some(percent) => millionths(percent).map(|value| value / 100),
        None => millionths(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static DECLARED: [Setting; 3] = [
        Setting {
            key: "nodes",
            default: "200",
            unit: Unit::Count,
            min: 2,
            max: 1_000,
            about: "nodes",
        },
        Setting {
            key: "loss",
            default: "0",
            unit: Unit::Share,
            min: 0,
            max: 1_000_000,
            about: "share of datagrams lost",
        },
        Setting {
            key: "policy",
            default: "shipping",
            unit: Unit::Choice(&["shipping", "naive"]),
            min: 0,
            max: 1,
            about: "which node runs",
        },
    ];

    fn resolve(overrides: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let owned: Vec<(String, String)> = overrides
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect();
        Settings::resolve(&DECLARED, &owned)
    }

    #[test]
    fn defaults_hold_until_they_are_overridden() {
        let settings = resolve(&[("nodes", "9"), ("nodes", "50")]).unwrap();
        assert_eq!(settings.count("nodes"), 50);
        assert_eq!(settings.share("loss"), PartsPerMillion(0));
        let texts = [("nodes", "50"), ("loss", "0"), ("policy", "shipping")];
        assert_eq!(
            settings.texts(),
            texts.map(|(key, text)| (key, text.to_owned()))
        );
        assert_eq!(resolve(&[("policy", "naive")]).unwrap().value("policy"), 1);
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_known_ones_are_named() {
        let error = resolve(&[("peers", "1")]).unwrap_err().to_string();
        assert!(error.contains("peers") && error.contains("nodes, loss, policy"));
    }

    #[test]
    fn values_out_of_bounds_and_unreadable_texts_are_refused() {
        for (key, text) in [("nodes", "1"), ("nodes", "1001"), ("loss", "1.1")] {
            let error = resolve(&[(key, text)]).unwrap_err();
            assert!(matches!(error, SettingError::OutOfRange { .. }), "{text}");
        }
        for (key, text) in [
            ("nodes", "-1"),
            ("nodes", ""),
            ("loss", "x"),
            ("loss", "."),
            ("policy", ""),
        ] {
            let error = resolve(&[(key, text)]).unwrap_err();
            assert!(matches!(error, SettingError::Unreadable { .. }), "{text}");
        }
    }

    #[test]
    fn units_are_read_as_written_in_the_command_line_contract() {
        let durations = ["500ms", "90s", "15m", "2h", "1.5m", "5"].map(duration);
        let seconds = |s: u64| Some(s * 1_000_000);
        let expected = [
            Some(500_000),
            seconds(90),
            seconds(900),
            seconds(7_200),
            seconds(90),
            None,
        ];
        assert_eq!(durations, expected);
        let sizes = ["512KiB", "32MiB", "1GiB", "100", "100B", "MiB", "1MB"].map(bytes);
        let expected = [1 << 19, 1 << 25, 1 << 30, 100, 100].map(Some);
        assert_eq!(sizes[..5], expected);
        assert_eq!(sizes[5..], [None, None]);
        let shares = ["0.02", "2%", "100%", "1", "0.0000001"].map(share);
        let expected = [
            Some(20_000),
            Some(20_000),
            Some(1_000_000),
            Some(1_000_000),
            None,
        ];
        assert_eq!(shares, expected);
    }
}

//! Scenario files: what is read, what is refused, which setting counts.

use super::*;

const FILE: &str = r#"
code = "x1"
name = "example"
about = "a DHT"
kind = "dht"

[settings]
nodes = 100
join = "2m"

[small]
nodes = 10

[[variant]]
name = "lossy"
set = { loss = 0.05 }
small = { loss = "10%" }

[[variant]]
name = "hardened"
needs = "BEP 42"

[[check]]
metric = "lossy.mean_hops"
minus = "mean_hops"
at_most = 0.5
version = "full"

[[check]]
metric = "joins"
at_least = 1.0
"#;

#[track_caller]
fn check_resolved(size: Size, overrides: &[(&str, &str)], expected: &[(&str, &str, &str)]) {
    let owned: Vec<(String, String)> = overrides
        .iter()
        .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
        .collect();
    let resolved = Scenario::parse(FILE)
        .unwrap()
        .resolve(size, &owned)
        .unwrap();
    for (variant, key, text) in expected {
        let run = resolved.runs.iter().find(|(name, _)| name == variant);
        let settings = run.unwrap().1.as_ref().unwrap();
        let found = settings.texts().into_iter().find(|(name, _)| name == key);
        assert_eq!(found.unwrap().1, *text, "{variant} {key}");
    }
}

#[test]
fn every_built_in_file_is_read_and_resolved_in_both_sizes() {
    let mut names = Vec::new();
    for scenario in Scenario::built_in() {
        for size in [Size::Full, Size::Small] {
            scenario.resolve(size, &[]).unwrap();
        }
        assert!(!scenario.small.is_empty(), "{}", scenario.name);
        assert!(!scenario.checks.is_empty(), "{}", scenario.name);
        names.extend([scenario.name.clone(), scenario.code.clone()]);
        assert_eq!(Scenario::find(&scenario.code), Some(scenario.clone()));
        assert_eq!(Scenario::find(&scenario.name), Some(scenario));
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "names and codes are unique");
}

#[test]
fn the_nearer_setting_counts() {
    check_resolved(
        Size::Full,
        &[],
        &[
            ("", "nodes", "100"),
            ("", "loss", "0"),
            ("lossy", "nodes", "100"),
            ("lossy", "loss", "0.05"),
        ],
    );
    check_resolved(
        Size::Small,
        &[],
        &[("", "nodes", "10"), ("lossy", "loss", "10%")],
    );
    check_resolved(
        Size::Small,
        &[("nodes", "30"), ("loss", "1%")],
        &[
            ("", "nodes", "30"),
            ("", "loss", "1%"),
            ("lossy", "loss", "10%"),
        ],
    );
    check_resolved(
        Size::Full,
        &[("lossy.loss", "2%")],
        &[("", "loss", "0"), ("lossy", "loss", "2%")],
    );
}

#[test]
fn a_variant_that_needs_something_is_not_run() {
    let resolved = Scenario::parse(FILE)
        .unwrap()
        .resolve(Size::Full, &[])
        .unwrap();
    let is_run: Vec<bool> = resolved.runs.iter().map(|(_, run)| run.is_some()).collect();
    assert_eq!(is_run, [true, true, false]);
}

#[test]
fn the_resolved_scenario_is_a_file_that_resolves_to_itself() {
    for size in [Size::Full, Size::Small] {
        let resolved = Scenario::parse(FILE).unwrap().resolve(size, &[]).unwrap();
        let read = Scenario::parse(&resolved.scenario.to_toml()).unwrap();
        assert_eq!(read, resolved.scenario);
        let again = read.resolve(Size::Full, &[]).unwrap();
        assert_eq!(again.scenario, resolved.scenario);
        let checks = if size == Size::Full { 2 } else { 1 };
        assert_eq!(read.checks.len(), checks);
    }
}

#[test]
fn what_nobody_knows_is_refused() {
    let refused = |from: &str, to: &str| {
        let text = FILE.replacen(from, to, 1);
        assert_ne!(text, FILE);
        let parsed = Scenario::parse(&text);
        parsed
            .and_then(|scenario| scenario.resolve(Size::Full, &[]))
            .unwrap_err()
    };
    let unknown_key = refused("about =", "remark =");
    assert!(matches!(unknown_key, ScenarioError::Unreadable(_)));
    let unknown_setting = refused("nodes = 100", "peers = 100");
    assert!(matches!(unknown_setting, ScenarioError::Setting { .. }));
    let of_variant = refused("loss = 0.05", "lost = 1").to_string();
    assert!(of_variant.starts_with("variant lossy: "), "{of_variant}");
    assert!(matches!(
        refused("\"dht\"", "\"x\""),
        ScenarioError::Kind { .. }
    ));
    assert!(matches!(
        refused("\"hardened\"", "\"lossy\""),
        ScenarioError::Variant(_)
    ));
    assert!(matches!(
        refused("\"hardened\"", "\"a.b\""),
        ScenarioError::Variant(_)
    ));
    let no_variant = refused("lossy.mean_hops", "lousy.mean_hops");
    assert!(matches!(no_variant, ScenarioError::Check { .. }));
    assert!(matches!(
        refused("at_most = 0.5", ""),
        ScenarioError::Check { .. }
    ));
    let overridden = Scenario::parse(FILE).unwrap();
    let error = overridden.resolve(Size::Full, &[("none.loss".to_owned(), "0".to_owned())]);
    assert_eq!(
        error.unwrap_err(),
        ScenarioError::NoVariant {
            name: "none".to_owned(),
            known: "lossy, hardened".to_owned(),
        }
    );
}

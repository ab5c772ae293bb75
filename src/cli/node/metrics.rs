//! What a node tells Prometheus: its text format, version 0.0.4.
//!
//! Every counter of the node is there. Those of a kind share a name and differ by a label; a counter
//! that is the sum of such ones is left out, so that sums come out right.

use std::fmt::{Display, Write as _};

use super::process::Usage;
use crate::dht::Counters;
use crate::net::dht::DhtStatus;

/// Counters that share a name: how their own names begin, the shared name, the label that tells
/// them apart, and what they count.
const FAMILIES: [(&str, &str, &str, &str); 4] = [
    (
        "answered_",
        "queries_answered",
        "method",
        "Queries answered, by method.",
    ),
    (
        "refused_",
        "queries_refused",
        "reason",
        "Queries answered with an error, by reason.",
    ),
    (
        "malformed_",
        "datagrams_malformed",
        "reason",
        "Datagrams dropped because they are no message or break a rule, by reason.",
    ),
    (
        "evicted_",
        "evicted",
        "kind",
        "What gave way in the store to something else, by kind.",
    ),
];

/// Counters that are the sum of others.
const SUMS: [&str; 2] = ["errors_sent", "malformed"];

/// Counters whose names say too little beside other programs' ones.
const NAMES: [(&str, &str); 6] = [
    ("received", "datagrams_received"),
    ("bytes_in", "received_bytes"),
    ("bytes_out", "sent_bytes"),
    ("throttled", "datagrams_throttled"),
    ("responses", "responses_received"),
    ("timeouts", "queries_timed_out"),
];

/// The page.
pub(super) fn page(status: &DhtStatus, usage: &Usage) -> String {
    let mut page = Page(String::new());
    page.gauge("trackless_build_info", "The version, as a label.");
    page.sample(
        "trackless_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    add_nodes(&mut page, status);
    add_store(&mut page, status);
    add_counters(&mut page, status);
    add_process(&mut page, usage);
    page.0
}

/// A page that is being written.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, meaning: &str) {
        // Writing into a text never fails.
        let _ = writeln!(self.0, "# HELP {name} {meaning}");
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, meaning: &str) {
        self.head(name, "gauge", meaning);
    }

    fn counter(&mut self, name: &str, meaning: &str) {
        self.head(name, "counter", meaning);
    }

    /// One line; values of labels have neither quotes nor backslashes nor line breaks.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A gauge without labels.
    fn single(&mut self, name: &str, meaning: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.gauge(name, meaning);
            self.sample(name, &[], value);
        }
    }
}

/// Where the node is, and whom it knows.
fn add_nodes(page: &mut Page, status: &DhtStatus) {
    page.gauge(
        "trackless_dht_node_info",
        "The address of each socket and the node id there.",
    );
    for (address, id) in &status.ids {
        let (address, id) = (address.to_string(), id.to_string());
        let labels = [("address", address.as_str()), ("node_id", id.as_str())];
        page.sample("trackless_dht_node_info", &labels, 1);
    }
    let name = "trackless_dht_contacts";
    page.gauge(
        name,
        "Contacts in the routing tables: good ones, and those in doubt.",
    );
    for family in &status.families {
        let doubtful = family.all.saturating_sub(family.good);
        for (state, number) in [("good", family.good), ("doubtful", doubtful)] {
            page.sample(name, &[("family", family.name), ("state", state)], number);
        }
    }
    let name = "trackless_dht_network_nodes";
    page.gauge(name, "Nodes in the whole network, estimated from lookups.");
    for family in &status.families {
        if let Some(nodes) = family.estimate {
            page.sample(name, &[("family", family.name)], nodes);
        }
    }
}

/// What the node keeps for others.
fn add_store(page: &mut Page, status: &DhtStatus) {
    let name = "trackless_dht_stored";
    page.gauge(
        name,
        "What is kept for others: torrents, peers of all of them, items (BEP 44).",
    );
    let (torrents, peers) = status.stored;
    for (kind, number) in [
        ("items", status.stored_items),
        ("peers", peers),
        ("torrents", torrents),
    ] {
        page.sample(name, &[("kind", kind)], number);
    }
}

/// Every counter.
fn add_counters(page: &mut Page, status: &DhtStatus) {
    for (prefix, name, label, meaning) in FAMILIES {
        let name = format!("trackless_dht_{name}_total");
        page.counter(&name, meaning);
        for (counter, number) in status.counters() {
            if let Some(value) = counter.strip_prefix(prefix) {
                page.sample(&name, &[(label, label_value(value))], number);
            }
        }
    }
    for (counter, number) in status.counters() {
        let is_labelled = FAMILIES
            .iter()
            .any(|(prefix, ..)| counter.starts_with(prefix));
        if is_labelled || SUMS.contains(&counter) {
            continue;
        }
        let name = NAMES.iter().find(|(known, _)| *known == counter);
        let name = name.map_or(counter, |(_, name)| name);
        let name = format!("trackless_dht_{name}_total");
        let meaning = Counters::meaning(counter).unwrap_or("What never got through a socket.");
        page.counter(&name, meaning);
        page.sample(&name, &[], number);
    }
}

/// Methods under the names that they have on the wire.
fn label_value(counter: &str) -> &str {
    match counter {
        "announce" => "announce_peer",
        "sample" => "sample_infohashes",
        other => other,
    }
}

/// What Prometheus' own libraries tell of a process, under the same names.
fn add_process(page: &mut Page, usage: &Usage) {
    let name = "process_cpu_seconds_total";
    page.counter(name, "Processor time, user and system.");
    page.sample(name, &[], usage.cpu.as_secs_f64());
    page.single(
        "process_resident_memory_bytes",
        "Memory in use.",
        usage.resident_bytes,
    );
    page.single(
        "process_virtual_memory_bytes",
        "Address space.",
        usage.virtual_bytes,
    );
    page.single("process_threads", "Threads.", usage.threads);
    page.single("process_open_fds", "Open descriptors.", usage.descriptors);
    page.single(
        "process_max_fds",
        "Descriptors that may be open.",
        usage.descriptors_max,
    );
    page.single(
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970.",
        Some(usage.started.as_secs_f64()),
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::NodeId;
    use crate::net::dht::FamilyStatus;

    fn status() -> DhtStatus {
        let family = |name, good, all, estimate| FamilyStatus {
            name,
            good,
            all,
            estimate,
        };
        DhtStatus {
            ids: vec![("[::1]:6881".parse().unwrap(), NodeId::new([0xab; 20]))],
            families: vec![
                family("ipv4", 3, 5, Some(1_000)),
                family("ipv6", 0, 0, None),
            ],
            stored: (1, 2),
            stored_items: 4,
            stats: Counters {
                answered_announce: 6,
                refused_tokens: 7,
                errors_sent: 7,
                bytes_in: 8,
                ..Counters::default()
            },
            ..DhtStatus::default()
        }
    }

    #[test]
    fn numbers_stand_under_their_names_and_labels() {
        let page = page(&status(), &Usage::default());
        for line in [
            "trackless_dht_contacts{family=\"ipv4\",state=\"good\"} 3",
            "trackless_dht_contacts{family=\"ipv4\",state=\"doubtful\"} 2",
            "trackless_dht_network_nodes{family=\"ipv4\"} 1000",
            "trackless_dht_stored{kind=\"peers\"} 2",
            "trackless_dht_queries_answered_total{method=\"announce_peer\"} 6",
            "trackless_dht_queries_refused_total{reason=\"tokens\"} 7",
            "trackless_dht_received_bytes_total 8",
            "trackless_dht_datagrams_throttled_total 0",
            "trackless_dht_dropped_unsent_total 0",
            "process_cpu_seconds_total 0",
            "# TYPE trackless_dht_queries_answered_total counter",
        ] {
            assert!(page.lines().any(|known| known == line), "{line} in\n{page}");
        }
        assert!(page.contains("address=\"[::1]:6881\",node_id=\"abab"));
        assert!(!page.contains("network_nodes{family=\"ipv6\"}"));
        assert!(!page.contains("errors_sent") && !page.contains("dht_malformed_total"));
    }

    #[test]
    fn the_text_keeps_the_rules_of_its_format() {
        let page = page(&status(), &Usage::now(std::time::UNIX_EPOCH));
        let (mut typed, mut samples) = (BTreeSet::new(), BTreeSet::new());
        let mut last = String::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(typed.insert(name.to_owned()), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                name.clone_into(&mut last);
            } else if !line.starts_with("# HELP ") {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(sample.to_owned()), "{sample} twice");
                let name = sample.split('{').next().unwrap();
                assert_eq!(name, last, "a sample stands below its type");
                assert!(
                    name.chars()
                        .all(|c| c.is_ascii_lowercase() || "_".contains(c))
                );
            }
        }
        let counters = status().counters().count();
        assert!(
            samples.len() >= counters - SUMS.len() + 10,
            "{}",
            samples.len()
        );
        assert!(page.ends_with('\n'));
    }
}

//! `trackless node`: a DHT node for itself, which is also what a bootstrap node is.

mod metrics;
mod process;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use etcetera::BaseStrategy;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::args::{Global, NodeArgs, NodeFlags, WayIn};
use super::print::{Exit, Failure, count, escape, note, number, print_json, print_line, size};
use super::start::start_session;
use super::{bootstrap_list, interrupted};
use crate::dht::Config as DhtConfig;
use crate::net::clock::wall_time;
use crate::net::dht::{DhtHandle, DhtStatus};
use crate::net::page;
use crate::session::Config;
use process::Usage;

/// Memory for one item at most: its value, key, salt, signature and its place in the store.
const ITEM_BYTES_MAX: usize = 1_500;

/// Time after the start when a node that nobody answered says so: each bootstrap node was asked twice by then.
const FIRST_LOOK: Duration = Duration::from_secs(20);

/// The settings that the flags of a node mean.
///
/// # Errors
///
/// The bootstrap list makes no sense, or there is no home folder to keep the state in.
pub(super) fn session_config(flags: &NodeFlags) -> Result<Config, Failure> {
    let mut config = Config {
        bootstrap: bootstrap_list(&flags.way_in.bootstrap)?,
        state_dir: Some(state_dir(&flags.way_in)?),
        download_limit: flags.download_limit,
        upload_limit: flags.upload_limit,
        ..Config::default()
    };
    if !flags.way_in.listen.is_empty() {
        config.listen.clone_from(&flags.way_in.listen);
        config.listen_explicit = true;
    }
    Ok(config)
}

/// Where state is kept: where the user said, or `$XDG_STATE_HOME/trackless`.
fn state_dir(flags: &WayIn) -> Result<PathBuf, Failure> {
    if let Some(path) = &flags.state_dir {
        return Ok(path.clone());
    }
    let base = etcetera::base_strategy::Xdg::new().map_err(|error| {
        Failure::because("there is no home folder to keep state in", &error)
            .hint("name a folder with --state-dir")
    })?;
    let state = base.state_dir().unwrap_or_else(|| base.data_dir());
    Ok(state.join("trackless"))
}

/// Runs the command.
pub(super) async fn run(args: NodeArgs, global: Global) -> Result<Exit, Failure> {
    // Listened for before anybody is told that the node is up: a signal right after that must
    // count.
    let mut stop = pin!(interrupted());
    let defaults = DhtConfig::for_many();
    let config = Config {
        tcp: false,
        node: DhtConfig {
            read_only: args.read_only,
            throttle: defaults.throttle.filter(|_| !args.no_throttle),
            item_verifications_per_second: if args.no_throttle {
                u32::MAX
            } else {
                defaults.item_verifications_per_second
            },
            store_torrents_max: args.store_torrents,
            store_peers_max: args.store_peers,
            store_items_max: args.store_items,
            store_item_bytes_max: args.store_items.saturating_mul(ITEM_BYTES_MAX),
            ..defaults
        },
        ..session_config(&args.node)?
    };
    let listener = match args.metrics {
        Some(address) => Some(listen_for_metrics(address).await?),
        None => None,
    };
    let has_way_in = !config.bootstrap.is_empty();
    let session = start_session(config).await?;
    let Some(node) = session.dht().cloned() else {
        return Err(Failure::new("the node has no DHT"));
    };
    let metrics = listener
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    announce_start(&node.status().await, metrics, &global);
    let mut helpers = JoinSet::new();
    if let Some(listener) = listener {
        let (node, started) = (node.clone(), wall_time());
        helpers.spawn(page::serve(listener, "/metrics", move || {
            let node = node.clone();
            async move { metrics::page(&node.status().await, &Usage::now(started)) }
        }));
    }

    // An interval of 0 would never let go of the processor.
    let period = args.stats_interval.max(Duration::from_millis(10));
    let started = Instant::now();
    let mut ticks = interval_at(started + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first_look = pin!(tokio::time::sleep(FIRST_LOOK));
    let mut was_looked_at = !has_way_in;
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = &mut first_look, if !was_looked_at => {
                was_looked_at = true;
                if let Some(warning) = loneliness(&node.status().await) {
                    note(&warning);
                }
            }
            _ = ticks.tick() => report(&node, started.elapsed(), &global).await,
        }
    }
    helpers.shutdown().await;
    // Whoever interrupts twice does not want to wait for the state file.
    tokio::select! {
        () = session.stop() => {}
        () = interrupted() => {}
    }
    Ok(Exit::Interrupted)
}

/// A warning for whoever set up a node that nobody answers.
fn loneliness(status: &DhtStatus) -> Option<String> {
    (status.contacts == 0).then(|| {
        let why = status.bootstrap_failed.as_ref().map_or_else(
            || "no bootstrap node has answered".to_owned(),
            |reason| escape(reason).to_string(),
        );
        format!(
            "warning: no contacts yet: {why}; are the names of --bootstrap right, and is UDP let through? It \
             goes on trying"
        )
    })
}

/// Binds the listener of the metrics.
async fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, Failure> {
    page::bind(address).await.map_err(|error| {
        Failure::because(format!("cannot serve metrics at {address}"), &error)
            .hint("choose another address with --metrics IP:PORT; port 0 takes a free one")
    })
}

/// Prints where the node is reached and under which id.
fn announce_start(status: &DhtStatus, metrics: Option<SocketAddr>, global: &Global) {
    if global.json {
        print_json(&listening_json(status, metrics));
    } else {
        for (address, id) in &status.ids {
            print_line(&format!("{address} {id}"));
        }
        if let Some(address) = metrics {
            note(&format!("metrics at http://{address}/metrics"));
        }
    }
}

fn listening_json(status: &DhtStatus, metrics: Option<SocketAddr>) -> Value {
    let addresses: Vec<_> = status
        .ids
        .iter()
        .map(|(address, _)| address.to_string())
        .collect();
    let ids: Vec<_> = status.ids.iter().map(|(_, id)| id.to_string()).collect();
    json!({
        "event": "listening",
        "addresses": addresses,
        "node_id": ids.first(),
        "node_ids": ids,
        "metrics": metrics.map(|address| address.to_string()),
    })
}

/// Prints one line of statistics.
async fn report(node: &DhtHandle, running: Duration, global: &Global) {
    let status = node.status().await;
    if global.json {
        print_json(&stats_json(&status, running));
    } else if global.quiet == 0 {
        note(&stats_text(&status));
    }
}

fn stats_json(status: &DhtStatus, running: Duration) -> Value {
    let mut line = json!({
        "event": "stats",
        "seconds": running.as_secs_f64(),
        "contacts": status.contacts,
        "families": families_json(status),
        "stored_torrents": status.stored.0,
        "stored_peers": status.stored.1,
        "stored_items": status.stored_items,
        "bootstrap_failed": status.bootstrap_failed,
    });
    for (name, number) in status.counters() {
        line[name] = number.into();
    }
    line
}

/// For each family, whom the node knows and how many nodes it thinks there are.
fn families_json(status: &DhtStatus) -> Value {
    let families = status.families.iter().map(|family| {
        let value = json!({
            "good": family.good,
            "all": family.all,
            "network_nodes": family.estimate,
        });
        (family.name.to_owned(), value)
    });
    Value::Object(families.collect())
}

/// How many nodes there are, as far as that is known.
fn network_text(status: &DhtStatus) -> String {
    let known = status.families.iter().filter_map(|family| {
        let nodes = family.estimate?;
        Some(format!(", {} network of about {nodes} nodes", family.name))
    });
    known.collect()
}

/// Counters that the line of statistics tells in words.
const TOLD: [&str; 9] = [
    "answered_announce",
    "answered_find_node",
    "answered_get",
    "answered_get_peers",
    "answered_ping",
    "answered_put",
    "answered_sample",
    "bytes_in",
    "bytes_out",
];

fn stats_text(status: &DhtStatus) -> String {
    let stats = &status.stats;
    let answered = stats.answered_ping
        + stats.answered_find_node
        + stats.answered_get_peers
        + stats.answered_announce
        + stats.answered_get
        + stats.answered_put
        + stats.answered_sample;
    let mut line = format!(
        "{}{}, {} with {} and {} stored, {} answered, {} in, {} out",
        count(number(status.contacts), "contact"),
        network_text(status),
        count(number(status.stored.0), "torrent"),
        count(number(status.stored.1), "peer"),
        count(number(status.stored_items), "item"),
        count(answered, "query"),
        size(stats.bytes_in),
        size(stats.bytes_out),
    );
    if let Some(reason) = status
        .bootstrap_failed
        .as_ref()
        .filter(|_| status.contacts == 0)
    {
        line.push_str(&format!("; no way into the DHT: {}", escape(reason)));
    }
    let others: Vec<String> = status
        .counters()
        .filter(|(name, number)| *number > 0 && !TOLD.contains(name))
        .map(|(name, number)| format!("{name} {number}"))
        .collect();
    if !others.is_empty() {
        line.push_str(&format!("; {}", others.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::Counters;
    use crate::net::dht::FamilyStatus;

    #[test]
    fn a_node_that_nobody_answered_says_why() {
        let mut status = status();
        let warning = loneliness(&status).unwrap();
        assert!(
            warning.contains("a.example:1: no\\u{a}such host"),
            "{warning}"
        );
        status.bootstrap_failed = None;
        let warning = loneliness(&status).unwrap();
        assert!(
            warning.contains("no bootstrap node has answered"),
            "{warning}"
        );
        status.contacts = 1;
        assert_eq!(loneliness(&status), None);
    }

    fn status() -> DhtStatus {
        DhtStatus {
            ids: vec![(
                "127.0.0.1:6881".parse().unwrap(),
                crate::id::NodeId::new([0xab; 20]),
            )],
            contacts: 0,
            families: vec![FamilyStatus {
                name: "ipv4",
                good: 0,
                all: 2,
                estimate: None,
            }],
            stats: Counters {
                answered_ping: 3,
                bytes_in: 2048,
                throttled: 9,
                ..Counters::default()
            },
            stored: (1, 2),
            stored_items: 4,
            bootstrap_failed: Some("a.example:1: no\nsuch host".to_owned()),
            ..DhtStatus::default()
        }
    }

    #[test]
    fn the_first_object_has_the_keys_that_programs_rely_on() {
        let value = listening_json(&status(), Some("127.0.0.1:9".parse().unwrap()));
        assert_eq!(value["metrics"], "127.0.0.1:9");
        assert_eq!(value["event"], "listening");
        assert_eq!(value["addresses"], json!(["127.0.0.1:6881"]));
        assert_eq!(value["node_id"], "ab".repeat(20));
    }

    #[test]
    fn statistics_say_what_is_stored_and_why_nobody_is_known() {
        let text = stats_text(&status());
        assert!(text.starts_with(
            "0 contacts, 1 torrent with 2 peers and 4 items stored, 3 queries answered"
        ));
        assert!(text.contains("no way into the DHT: a.example:1: no\\u{a}such host"));
        assert!(text.ends_with("; throttled 9"), "{text}");
        let value = stats_json(&status(), Duration::from_secs(5));
        assert_eq!(
            (&value["event"], &value["bytes_in"]),
            (&json!("stats"), &json!(2048))
        );
        let family = json!({"good": 0, "all": 2, "network_nodes": null});
        assert_eq!(value["families"], json!({"ipv4": family}));
        for (name, _) in status().counters() {
            assert!(value[name].is_u64(), "{name}");
        }
    }

    #[test]
    fn statistics_say_how_large_the_network_is_once_that_is_known() {
        let mut status = status();
        status.families[0].estimate = Some(4_321);
        let text = stats_text(&status);
        assert!(
            text.starts_with("0 contacts, ipv4 network of about 4321 nodes, 1 torrent"),
            "{text}"
        );
        let value = stats_json(&status, Duration::ZERO);
        assert_eq!(value["families"]["ipv4"]["network_nodes"], 4_321);
    }

    #[test]
    fn addresses_that_the_user_named_are_taken_or_it_is_an_error() {
        let mut flags = NodeFlags {
            way_in: WayIn {
                listen: Vec::new(),
                bootstrap: vec!["none".to_owned()],
                state_dir: Some("/nowhere".into()),
            },
            download_limit: None,
            upload_limit: Some(7),
        };
        let config = session_config(&flags).unwrap();
        assert!(!config.listen_explicit && config.bootstrap.is_empty());
        assert_eq!(
            (config.download_limit, config.upload_limit),
            (None, Some(7))
        );
        flags.way_in.listen = vec!["127.0.0.1:0".parse().unwrap()];
        let config = session_config(&flags).unwrap();
        assert!(config.listen_explicit && config.listen == flags.way_in.listen);
        assert_eq!(config.state_dir, Some("/nowhere".into()));
    }
}

//! `trackless dht …`: one operation in the DHT, by hand.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{DhtCommand, Global, WayIn};
use super::print::{Exit, Failure, count, duration, escape, note, number, print_json, print_line};
use super::{bootstrap_list, interrupted};
use crate::dht::{Config, Event, Local, LookupReport, PeerPort, Snapshot, Step};
use crate::krpc::ContactInfo;
use crate::net::clock::{Clock, entropy};
use crate::net::dht::{DhtConfig, DhtHandle, DhtStatus, Lookup, spawn};
use crate::net::udp::bind_udp;
use crate::session::StateDir;

/// What to do when no bootstrap node answers.
const DEAD_BOOTSTRAP: &str =
    "is the bootstrap node up, and is UDP let through? try `trackless dht ping` on it";

/// Which operation a command means; decides what its result shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Ping,
    FindNode,
    GetPeers,
    Announce,
}

/// Runs the command.
pub(super) async fn run(command: DhtCommand, global: Global) -> Result<Exit, Failure> {
    let (operation, flags) = match &command {
        DhtCommand::Ping { flags, .. } => (Operation::Ping, flags),
        DhtCommand::FindNode { flags, .. } => (Operation::FindNode, flags),
        DhtCommand::GetPeers { flags, .. } => (Operation::GetPeers, flags),
        DhtCommand::Announce { flags, .. } => (Operation::Announce, flags),
    };
    let (bootstrap, snapshot) = match operation {
        // The one node to ask is known.
        Operation::Ping => (Vec::new(), None),
        Operation::FindNode | Operation::GetPeers | Operation::Announce => way_in(&flags.way_in)?,
    };
    let node = start(&flags.way_in, bootstrap, snapshot)?;
    let lookup = match &command {
        DhtCommand::Ping { address, .. } => node.ping(*address).await,
        DhtCommand::FindNode { target, .. } => node.find_node(*target).await,
        DhtCommand::GetPeers { info_hash, .. } => node.find_peers(*info_hash).await,
        DhtCommand::Announce {
            info_hash, port, ..
        } => node.announce(*info_hash, PeerPort::Explicit(*port)).await,
    };
    let mut outcome = Outcome::default();
    let timeout = flags.timeout;
    let exit = tokio::select! {
        () = follow(lookup, &global, &mut outcome) => Exit::Done,
        () = tokio::time::sleep(timeout) => Exit::TimedOut,
        () = interrupted() => Exit::Interrupted,
    };
    outcome.status = node.status().await;
    node.stop().await;
    if exit == Exit::Done {
        return outcome.conclude(operation, &global);
    }
    outcome.print_peers_so_far(&global);
    Err(if exit == Exit::TimedOut {
        outcome.timed_out(timeout)
    } else {
        Failure::interrupted(&outcome.so_far())
    })
}

/// The nodes to start from: those that the flags name, and the contacts in the state directory.
fn way_in(flags: &WayIn) -> Result<(Vec<String>, Option<Snapshot>), Failure> {
    let bootstrap = bootstrap_list(&flags.bootstrap)?;
    let mut snapshot = None;
    if let Some(path) = flags.state_dir.as_ref().filter(|path| path.is_dir()) {
        match StateDir::open(path) {
            Ok(state) => snapshot = state.load_snapshot(),
            Err(error) => note(&format!("saved contacts are not used: {error}")),
        }
    }
    // The ids in there belong to another node, which may be running.
    let contacts = snapshot.map(|saved| saved.contacts).unwrap_or_default();
    if bootstrap.is_empty() && contacts.is_empty() {
        return Err(
            Failure::new("there is no way into the DHT: no node to start from")
                .hint("name one with --bootstrap HOST:PORT"),
        );
    }
    Ok((
        bootstrap,
        Some(Snapshot {
            ids: Vec::new(),
            contacts,
        }),
    ))
}

/// Starts a read-only node (BEP 43): one that lives for seconds is of no use in others' tables.
fn start(
    flags: &WayIn,
    bootstrap: Vec<String>,
    snapshot: Option<Snapshot>,
) -> Result<DhtHandle, Failure> {
    let mut wanted = flags.listen.clone();
    if wanted.is_empty() {
        wanted = vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        ];
    }
    let mut sockets = Vec::new();
    let mut locals = Vec::new();
    for address in wanted {
        match bind_udp(address) {
            Ok(socket) => {
                let address = socket.local_addr().unwrap_or(address);
                locals.push(Local { address, id: None });
                sockets.push(socket);
            }
            // A machine without IPv6 is no reason to stop, unless the user asked for it.
            Err(error) if flags.listen.is_empty() && address.is_ipv6() => {
                tracing::info!(%error, "no IPv6 here");
            }
            Err(error) => {
                return Err(Failure::because(
                    format!("cannot listen at {address}"),
                    &error,
                ));
            }
        }
    }
    let node = Config {
        locals,
        read_only: true,
        report_steps: true,
        ..Config::default()
    };
    let config = DhtConfig {
        node,
        bootstrap,
        snapshot,
    };
    spawn(sockets, config, Clock::start(), entropy())
        .map_err(|error| Failure::because("cannot start the DHT node", &error))
}

/// What is known of an operation so far.
#[derive(Default)]
struct Outcome {
    peers: Vec<SocketAddr>,
    steps: u32,
    answered: u32,
    last_error: Option<(i64, String)>,
    /// What the node said about itself at the end.
    status: DhtStatus,
    rtt: Option<Duration>,
    report: Option<LookupReport>,
}

/// Prints the steps of a lookup and gathers its result, to its end.
async fn follow(mut lookup: Lookup, global: &Global, outcome: &mut Outcome) {
    while let Some(event) = lookup.next().await {
        match event {
            Event::Step { step, .. } => {
                outcome.steps += 1;
                if step.rtt.is_some() {
                    outcome.answered += 1;
                    outcome.rtt = step.rtt;
                }
                if step.error.is_some() {
                    outcome.last_error.clone_from(&step.error);
                }
                if global.json {
                    print_json(&step_json(&step));
                } else if global.verbose > 0 {
                    note(&step_text(&step));
                }
            }
            Event::PeersFound { peers, .. } => outcome.peers.extend(peers),
            Event::LookupDone { report, .. } => outcome.report = Some(report),
            Event::ItemFound { .. }
            | Event::SamplesFound { .. }
            | Event::AddressChanged { .. }
            | Event::TableChanged { .. } => {}
        }
    }
}

impl Outcome {
    /// Prints the result; an operation that nobody answered has failed.
    fn conclude(mut self, operation: Operation, global: &Global) -> Result<Exit, Failure> {
        let report = self.report.take().unwrap_or_default();
        if report.answered == 0 {
            return Err(self.nobody_answered(operation, &report));
        }
        self.sort_peers();
        if global.json {
            print_json(&self.result_json(operation, &report));
        } else {
            self.result_text(operation, &report);
        }
        if operation == Operation::Announce && report.stored == 0 {
            return Err(Failure::new("no node stored the announce").hint(
                "each refused it or did not answer in time; try again, or watch each step with -v",
            ));
        }
        Ok(Exit::Done)
    }

    fn nobody_answered(&self, operation: Operation, report: &LookupReport) -> Failure {
        if let Some((code, text)) = &self.last_error {
            return Failure::new(format!("the node answered with error {code}: {text}"));
        }
        let hint = match operation {
            Operation::Ping => "is a DHT node listening there, and is UDP let through?",
            _ => DEAD_BOOTSTRAP,
        };
        let why = self.bootstrap_text().unwrap_or_else(|| {
            let queries = report.queries.max(self.steps);
            format!("{} sent", count(u64::from(queries), "query"))
        });
        Failure::new(format!("no node answered: {why}")).hint(hint)
    }

    /// What became of the bootstrap nodes, if none of them answered.
    fn bootstrap_text(&self) -> Option<String> {
        let stats = &self.status.stats;
        let mut parts = Vec::new();
        if stats.bootstrap_responses == 0 && stats.bootstrap_queries > 0 {
            let queries = count(stats.bootstrap_queries, "query");
            parts.push(format!(
                "{queries} to bootstrap nodes sent, none was answered"
            ));
        }
        parts.extend(self.status.bootstrap_failed.clone());
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Peers that a lookup named before its time was up are worth having.
    fn print_peers_so_far(&mut self, global: &Global) {
        self.sort_peers();
        if !self.peers.is_empty() && !global.json {
            self.peers
                .iter()
                .for_each(|peer| print_line(&peer.to_string()));
        } else if global.json {
            let peers: Vec<_> = self.peers.iter().map(ToString::to_string).collect();
            print_json(&json!({
                "event": "result",
                "complete": false,
                "queries": self.steps,
                "answered": self.answered,
                "peers": peers,
            }));
        }
    }

    /// Puts the peers in order and leaves one of each: both families may name the same ones.
    fn sort_peers(&mut self) {
        self.peers.sort_unstable();
        self.peers.dedup();
    }

    /// How far it came.
    fn so_far(&self) -> String {
        let mut text = format!(
            "{} answered, {} found",
            count(u64::from(self.answered), "node"),
            count(number(self.peers.len()), "peer"),
        );
        if let Some(why) = self.bootstrap_text().filter(|_| self.answered == 0) {
            text.push_str(&format!(" ({why})"));
        }
        text
    }

    fn timed_out(&self, timeout: Duration) -> Failure {
        let message = format!("gave up after {}: {}", duration(timeout), self.so_far());
        Failure::new(message)
            .hint(if self.answered == 0 {
                DEAD_BOOTSTRAP
            } else {
                "give it more time with --timeout"
            })
            .exit(Exit::TimedOut)
    }

    fn result_json(&self, operation: Operation, report: &LookupReport) -> Value {
        let nodes: Vec<Value> = report.closest.iter().map(contact_json).collect();
        let mut result = json!({
            "event": "result",
            "complete": true,
            "queries": report.queries,
            "answered": report.answered,
            "timed_out": report.timed_out,
            "hops": report.hops,
            "seconds": report.duration.as_secs_f64(),
            "nodes": nodes,
        });
        if operation == Operation::Ping {
            result["rtt"] = json!(self.rtt.map(|rtt| rtt.as_secs_f64()));
        }
        if matches!(operation, Operation::GetPeers | Operation::Announce) {
            let peers: Vec<String> = self.peers.iter().map(ToString::to_string).collect();
            result["peers"] = json!(peers);
        }
        if operation == Operation::Announce {
            result["stored"] = json!(report.stored);
        }
        result
    }

    fn result_text(&self, operation: Operation, report: &LookupReport) {
        match operation {
            Operation::Ping | Operation::FindNode => {
                for contact in &report.closest {
                    print_line(&format!("{} {}", contact.id, contact.address));
                }
            }
            Operation::GetPeers => {
                for peer in &self.peers {
                    print_line(&peer.to_string());
                }
            }
            Operation::Announce => {
                print_line(&format!(
                    "stored by {}",
                    count(u64::from(report.stored), "node")
                ));
            }
        }
        if operation == Operation::Ping {
            note(&format!(
                "answered in {}",
                milliseconds(self.rtt.unwrap_or_default())
            ));
        } else {
            note(&self.lookup_text(operation, report));
        }
    }

    /// How a lookup went, in one line.
    fn lookup_text(&self, operation: Operation, report: &LookupReport) -> String {
        let mut text = format!("{} answered", count(u64::from(report.answered), "node"));
        if report.timed_out > 0 {
            text.push_str(&format!(", {} did not in time", report.timed_out));
        }
        text.push_str(&format!(
            "; the closest is {} away; {}",
            count(u64::from(report.hops), "hop"),
            duration(report.duration),
        ));
        if matches!(operation, Operation::GetPeers | Operation::Announce) {
            let peers = count(number(self.peers.len()), "peer");
            text.push_str(&format!(", {peers} found"));
        }
        text
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn contact_json(contact: &ContactInfo) -> Value {
    json!({"id": contact.id.to_string(), "address": contact.address.to_string()})
}

fn step_json(step: &Step) -> Value {
    json!({
        "event": "query",
        "to": step.address.to_string(),
        "id": step.id.map(|id| id.to_string()),
        "method": step.method,
        "hop": step.hop,
        "rtt": step.rtt.map(|rtt| rtt.as_secs_f64()),
        "nodes": step.nodes,
        "peers": step.peers,
        "error": step.error.as_ref().map(|(code, text)| json!([code, text])),
    })
}

fn step_text(step: &Step) -> String {
    let outcome = match (step.rtt, &step.error) {
        (_, Some((code, text))) => format!("error {code}: {}", escape(text)),
        (Some(rtt), None) => {
            format!(
                "{}, {} in {}",
                count(number(step.nodes), "node"),
                count(number(step.peers), "peer"),
                milliseconds(rtt)
            )
        }
        (None, None) => "no answer".to_owned(),
    };
    format!(
        "hop {} {} {}: {outcome}",
        step.hop, step.method, step.address
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn outcome() -> Outcome {
        let mut outcome = Outcome {
            peers: ["10.0.0.2:1", "10.0.0.1:1", "10.0.0.2:1"]
                .map(|p| p.parse().unwrap())
                .into(),
            rtt: Some(Duration::from_millis(250)),
            ..Outcome::default()
        };
        outcome.sort_peers();
        outcome
    }

    fn report() -> LookupReport {
        LookupReport {
            queries: 9,
            answered: 7,
            timed_out: 2,
            hops: 3,
            closest: vec![ContactInfo {
                id: NodeId::new([0xab; 20]),
                address: "[2a00::1]:6881".parse().unwrap(),
            }],
            stored: 5,
            duration: Duration::from_millis(1_500),
            ..LookupReport::default()
        }
    }

    #[test]
    fn a_result_has_the_keys_that_programs_rely_on() {
        let value = outcome().result_json(Operation::Announce, &report());
        assert_eq!(value["event"], "result");
        assert_eq!(value["queries"], 9);
        assert_eq!(value["hops"], 3);
        assert_eq!(value["seconds"], 1.5);
        assert_eq!(value["peers"], json!(["10.0.0.1:1", "10.0.0.2:1"]));
        assert_eq!(value["stored"], 5);
        let nodes = json!([{"id": "ab".repeat(20), "address": "[2a00::1]:6881"}]);
        assert_eq!(value["nodes"], nodes);
        assert_eq!(
            outcome().result_json(Operation::Ping, &report())["rtt"],
            0.25
        );
    }

    #[test]
    fn a_summary_tells_who_answered_and_how_far_the_closest_is() {
        assert_eq!(
            outcome().lookup_text(Operation::GetPeers, &report()),
            "7 nodes answered, 2 did not in time; the closest is 3 hops away; 1.5s, 2 peers found"
        );
        let all_answered = LookupReport {
            timed_out: 0,
            hops: 1,
            ..report()
        };
        assert_eq!(
            outcome().lookup_text(Operation::FindNode, &all_answered),
            "7 nodes answered; the closest is 1 hop away; 1.5s"
        );
    }

    #[test]
    fn a_step_has_the_node_its_round_trip_and_the_hop() {
        let mut step = Step {
            id: None,
            address: "10.0.0.1:1".parse().unwrap(),
            method: "get_peers",
            hop: 2,
            rtt: Some(Duration::from_millis(20)),
            nodes: 8,
            peers: 1,
            error: None,
        };
        let value = step_json(&step);
        assert_eq!(value["event"], "query");
        assert_eq!(
            (&value["to"], &value["hop"]),
            (&json!("10.0.0.1:1"), &json!(2))
        );
        assert_eq!(value["rtt"], 0.02);
        assert_eq!(
            step_text(&step),
            "hop 2 get_peers 10.0.0.1:1: 8 nodes, 1 peer in 20.0 ms"
        );
        step.rtt = None;
        assert!(step_json(&step)["rtt"].is_null());
        assert!(step_text(&step).ends_with("no answer"));
        step.error = Some((203, "bad\ntoken".to_owned()));
        assert!(step_text(&step).ends_with("error 203: bad\\u{a}token"));
    }

    #[test]
    fn nobody_answering_and_no_time_left_are_different_ends() {
        let nobody = outcome().nobody_answered(Operation::GetPeers, &report());
        assert_eq!(
            (nobody.exit, nobody.message.as_str()),
            (Exit::Failed, "no node answered: 9 queries sent")
        );
        assert!(nobody.hint.is_some());
        let mut dead = outcome();
        dead.status.stats.bootstrap_queries = 2;
        dead.status.bootstrap_failed = Some("a.example:1: no such host".to_owned());
        assert_eq!(
            dead.nobody_answered(Operation::FindNode, &report()).message,
            "no node answered: 2 queries to bootstrap nodes sent, none was answered; a.example:1: \
             no such host"
        );
        let late = outcome().timed_out(Duration::from_secs(30));
        assert_eq!(late.exit, Exit::TimedOut);
        assert_eq!(
            late.message,
            "gave up after 30.0s: 0 nodes answered, 2 peers found"
        );
    }

    #[test]
    fn without_any_node_to_start_from_there_is_no_way_in() {
        let flags = WayIn {
            listen: Vec::new(),
            bootstrap: vec!["none".to_owned()],
            state_dir: None,
        };
        let failure = way_in(&flags).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(
            failure
                .hint
                .is_some_and(|hint| hint.contains("--bootstrap"))
        );
    }
}

//! What came of an operation: gathered while it runs, told when it ends.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::operation::{Operation, Put};
use super::value;
use crate::cli::args::Global;
use crate::cli::print::{
    Exit, Failure, count, duration, escape, note, number, print_json, print_line,
};
use crate::dht::{Event, Item, LookupReport, Step};
use crate::id::InfoHash;
use crate::krpc::ContactInfo;
use crate::metainfo::mutable_link::named_torrent;
use crate::net::dht::{DhtStatus, Lookup};

/// What is known of an operation so far.
#[derive(Default)]
pub(super) struct Outcome {
    peers: Vec<SocketAddr>,
    /// The newest version of the item that is or was there.
    pub(super) item: Option<Arc<Item>>,
    /// The number under which a mutable item is put.
    pub(super) seq: Option<i64>,
    /// Torrents that nodes told, in their order, each once.
    samples: Vec<InfoHash>,
    sampled: BTreeSet<InfoHash>,
    samplers: Vec<Sampler>,
    steps: u32,
    answered: u32,
    last_error: Option<(i64, String)>,
    /// What the node said about itself at the end.
    pub(super) status: DhtStatus,
    rtt: Option<Duration>,
    report: Option<LookupReport>,
    /// The same was done before.
    pub(super) is_again: bool,
}

/// A node that told torrents it knows peers of.
struct Sampler {
    node: ContactInfo,
    told: usize,
    /// How many it knows, as it says.
    num: u64,
    interval: Duration,
}

impl Outcome {
    /// Prints the steps of a lookup and gathers its result, to its end.
    pub(super) async fn follow(&mut self, mut lookup: Lookup, global: &Global) {
        while let Some(event) = lookup.next().await {
            match event {
                Event::Step { step, .. } => self.on_step(&step, global),
                Event::PeersFound { peers, .. } => self.peers.extend(peers),
                Event::ItemFound { item, .. } => {
                    if self
                        .item
                        .as_ref()
                        .is_none_or(|known| item.seq() > known.seq())
                    {
                        self.item = Some(item);
                    }
                }
                Event::SamplesFound {
                    from,
                    info_hashes,
                    num,
                    interval,
                    ..
                } => {
                    self.samplers.push(Sampler {
                        node: from,
                        told: info_hashes.len(),
                        num,
                        interval,
                    });
                    let new = |info_hash: &InfoHash| self.sampled.insert(*info_hash);
                    self.samples.extend(info_hashes.into_iter().filter(new));
                }
                Event::LookupDone { report, .. } => self.on_done(report),
                Event::Announced { .. }
                | Event::AddressChanged { .. }
                | Event::TableChanged { .. } => {}
            }
        }
    }

    fn on_step(&mut self, step: &Step, global: &Global) {
        self.steps += 1;
        if step.rtt.is_some() {
            self.answered += 1;
            self.rtt = step.rtt;
        }
        if step.error.is_some() {
            self.last_error.clone_from(&step.error);
        }
        if global.json {
            print_json(&step_json(step));
        } else if global.verbose > 0 {
            note(&step_text(step));
        }
    }

    /// A lookup ended. What an earlier one of the same operation cost is added to what it cost.
    fn on_done(&mut self, mut report: LookupReport) {
        if let Some(earlier) = self.report.take() {
            report.queries += earlier.queries;
            report.answered += earlier.answered;
            report.timed_out += earlier.timed_out;
            report.duration += earlier.duration;
        }
        self.report = Some(report);
    }

    /// Whether a lookup has ended without an answer.
    pub(super) fn has_no_answer(&self) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.answered == 0)
    }

    /// Prints the result, programs get one in any case; an operation that nobody answered, or that found or stored nothing, has
    /// failed.
    pub(super) fn conclude(
        mut self,
        operation: &Operation,
        global: &Global,
    ) -> Result<Exit, Failure> {
        let report = self.report.take().unwrap_or_default();
        self.sort_peers();
        let is_answered = report.answered > 0;
        if global.json {
            print_json(&self.result_json(operation, &report));
        } else if is_answered {
            self.result_text(operation, &report);
        }
        if !is_answered {
            return Err(self.nobody_answered(operation, &report));
        }
        match self.emptiness(operation, &report) {
            Some(failure) => Err(failure),
            None => Ok(Exit::Done),
        }
    }

    /// Why nothing came of it, although nodes answered.
    fn emptiness(&self, operation: &Operation, report: &LookupReport) -> Option<Failure> {
        match operation {
            Operation::Ping(_) | Operation::FindNode(_) | Operation::GetPeers(_) => None,
            Operation::Announce(..) => (report.stored == 0).then(|| {
                Failure::new("no node stored the announce").hint(
                    "each refused it or did not answer in time; try again, or watch each step \
                     with -v",
                )
            }),
            Operation::Scrape(_) => {
                let scrape = report.scrape.unwrap_or_default();
                (scrape.seeds == 0 && scrape.peers == 0).then(|| {
                    Failure::new("no node knows a peer of this torrent")
                        .hint("announces end after half an hour; is anybody seeding it?")
                })
            }
            Operation::Sample(_) => self.samples.is_empty().then(|| {
                Failure::new("no node told a torrent").hint(
                    "those that were asked know none, or do not answer such queries (BEP 51); \
                     another ID leads to other nodes",
                )
            }),
            Operation::Get(sought) => self.item.is_none().then(|| {
                let hint = if sought.key.is_some() {
                    "items are gone two hours after they were put last; are key and salt right?"
                } else {
                    "items are gone two hours after they were put last; one that was put with a \
                     salt is found with --salt"
                };
                Failure::new(format!("no node has an item at {}", sought.target)).hint(hint)
            }),
            Operation::Put(put) => (report.stored == 0).then(|| self.not_stored(put, report)),
        }
    }

    /// Why nobody stored an item.
    fn not_stored(&self, put: &Put, report: &LookupReport) -> Failure {
        let codes: Vec<i64> = report.errors.iter().map(|(code, _)| *code).collect();
        let signing = put.signing.as_ref();
        let stored = self.item.as_ref().and_then(|item| item.seq());
        if let Some(cas) = signing.and_then(|signing| signing.cas)
            && codes.contains(&301)
        {
            return outdated(cas, stored);
        }
        let stored = stored_version(stored);
        if codes.contains(&302) {
            let wanted = self.seq.unwrap_or_default();
            return Failure::new(format!(
                "no node stored the item: {stored}, this one {wanted}"
            ))
            .hint("leave --seq away, and it gets the next number");
        }
        let why = self.last_error.as_ref().filter(|_| !codes.is_empty());
        let why = why.map_or_else(String::new, |(code, text)| {
            format!(": error {code}: {}", escape(text))
        });
        Failure::new(format!("no node stored the item{why}")).hint(
            "each refused it or did not answer in time; not all nodes store items (BEP 44); \
             watch each step with -v",
        )
    }

    fn nobody_answered(&self, operation: &Operation, report: &LookupReport) -> Failure {
        if let Some((code, text)) = &self.last_error {
            return Failure::new(format!("the node answered with error {code}: {text}"));
        }
        let hint = operation.hint_on_silence();
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

    /// What a lookup found before its time was up is worth having.
    pub(super) fn print_so_far(&mut self, operation: &Operation, global: &Global) {
        self.sort_peers();
        if !global.json {
            self.found_text(operation);
            return;
        }
        let mut result = json!({
            "event": "result",
            "complete": false,
            "queries": self.steps,
            "answered": self.answered,
            "peers": self.peers_json(),
        });
        self.add_found(&mut result, operation);
        print_json(&result);
    }

    /// Puts the peers in order and leaves one of each: both families may name the same ones.
    fn sort_peers(&mut self) {
        self.peers.sort_unstable();
        self.peers.dedup();
    }

    /// How far it came.
    pub(super) fn so_far(&self, operation: &Operation) -> String {
        let found = match operation {
            Operation::Ping(_) if self.answered == 0 => return "no answer".to_owned(),
            Operation::Sample(_) => format!("{} told", torrents(self.samples.len())),
            Operation::Get(_) if self.item.is_some() => "the item was found".to_owned(),
            Operation::Get(_) => "the item was not found yet".to_owned(),
            Operation::Put(_) => "nobody said yet that it is stored".to_owned(),
            _ => format!("{} found", count(number(self.peers.len()), "peer")),
        };
        let mut text = format!(
            "{} answered, {found}",
            count(u64::from(self.answered), "node")
        );
        if let Some(why) = self.bootstrap_text().filter(|_| self.answered == 0) {
            text.push_str(&format!(" ({why})"));
        }
        text
    }

    pub(super) fn timed_out(&self, operation: &Operation, timeout: Duration) -> Failure {
        let so_far = self.so_far(operation);
        let message = format!("gave up after {}: {so_far}", duration(timeout));
        Failure::new(message)
            .hint(if self.answered == 0 {
                operation.hint_on_silence()
            } else {
                "give it more time with --timeout"
            })
            .exit(Exit::TimedOut)
    }

    fn peers_json(&self) -> Value {
        self.peers.iter().map(ToString::to_string).collect()
    }

    /// Adds what was found to a result.
    fn add_found(&self, result: &mut Value, operation: &Operation) {
        match operation {
            Operation::Ping(_) | Operation::FindNode(_) => {}
            Operation::GetPeers(_) | Operation::Announce(..) | Operation::Scrape(_) => {
                result["peers"] = self.peers_json();
            }
            Operation::Sample(target) => {
                result["target"] = json!(target.to_string());
                result["samples"] = self.samples.iter().map(ToString::to_string).collect();
                result["sampled"] = self.samplers.iter().map(sampler_json).collect();
            }
            Operation::Get(sought) => {
                let item = self.item.as_deref();
                let version = item.and_then(Item::version);
                let key = version.map(|version| version.key).or(sought.key);
                result["target"] = json!(sought.target.to_string());
                result["key"] = json!(key.map(|key| HEXLOWER.encode(&key)));
                result["salt"] = json!(sought.salt);
                result["seq"] = json!(item.and_then(Item::seq));
                add_value(result, item.map(Item::value));
            }
            Operation::Put(put) => {
                let signing = put.signing.as_ref();
                let key = signing.map(|signing| HEXLOWER.encode(&signing.public()));
                result["target"] = json!(put.target().to_string());
                result["key"] = json!(key);
                result["salt"] = json!(signing.map(|signing| &signing.salt));
                result["seq"] = json!(self.seq);
                result["magnet"] = json!(put.magnet().map(|magnet| magnet.to_string()));
                add_value(result, Some(&put.value));
            }
        }
    }

    fn result_json(&self, operation: &Operation, report: &LookupReport) -> Value {
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
        self.add_found(&mut result, operation);
        match operation {
            Operation::Ping(_) => result["rtt"] = json!(self.rtt.map(|rtt| rtt.as_secs_f64())),
            Operation::FindNode(_) | Operation::GetPeers(_) | Operation::Sample(_) => {}
            Operation::Announce(..) => result["stored"] = json!(report.stored),
            Operation::Scrape(_) => {
                let scrape = report.scrape.unwrap_or_default();
                result["scrape"] = json!({
                    "seeds": scrape.seeds,
                    "peers": scrape.peers,
                    "filters": scrape.filters,
                });
            }
            Operation::Get(_) => result["copies"] = json!(report.copies),
            Operation::Put(_) => {
                result["stored"] = json!(report.stored);
                result["errors"] = json!(report.errors);
            }
        }
        result
    }

    /// Prints what was found.
    fn found_text(&self, operation: &Operation) {
        for peer in self
            .peers
            .iter()
            .filter(|_| !matches!(operation, Operation::Scrape(_)))
        {
            print_line(&peer.to_string());
        }
        for info_hash in &self.samples {
            print_line(&info_hash.to_string());
        }
        if let (Operation::Get(_), Some(item)) = (operation, &self.item) {
            print_line(&value::to_text(item.value()));
        }
    }

    fn result_text(&self, operation: &Operation, report: &LookupReport) {
        match operation {
            Operation::Ping(_) | Operation::FindNode(_) => {
                for contact in &report.closest {
                    print_line(&format!("{} {}", contact.id, contact.address));
                }
            }
            Operation::GetPeers(_) | Operation::Sample(_) | Operation::Get(_) => {
                self.found_text(operation);
            }
            Operation::Announce(..) => {
                print_line(&format!(
                    "stored by {}",
                    count(u64::from(report.stored), "node")
                ));
            }
            Operation::Scrape(_) => {
                let scrape = report.scrape.unwrap_or_default();
                let seeds = count(u64::from(scrape.seeds), "seed");
                print_line(&format!(
                    "{seeds}, {}",
                    count(u64::from(scrape.peers), "peer")
                ));
            }
            Operation::Put(put) => self.stored_text(put, report),
        }
        if let Operation::Ping(_) = operation {
            let rtt = self.rtt.unwrap_or_default();
            note(&format!("answered in {}", milliseconds(rtt)));
        } else {
            note(&self.lookup_text(operation, report));
        }
    }

    /// Prints under what an item is found, and how many have it.
    fn stored_text(&self, put: &Put, report: &LookupReport) {
        if report.stored == 0 {
            return;
        }
        let stored = count(u64::from(report.stored), "node");
        if self.is_again {
            note(&format!("put again, stored by {stored}"));
            return;
        }
        let Some(signing) = &put.signing else {
            print_line(&put.target().to_string());
            note(&format!("stored by {stored}; `trackless dht get` finds it"));
            return;
        };
        if let Some(magnet) = put.magnet() {
            print_line(&magnet.to_string());
            let seq = self.seq.unwrap_or_default();
            note(&format!(
                "version {seq} stored by {stored}; `trackless get` finds the torrent"
            ));
            return;
        }
        print_line(&HEXLOWER.encode(&signing.public()));
        if put.is_withdrawal {
            let seq = self.seq.unwrap_or_default();
            note(&format!(
                "withdrawn: version {seq} is empty, stored by {stored}"
            ));
            return;
        }
        let salt = match signing.salt.as_str() {
            "" => "",
            _ => " and the same --salt",
        };
        note(&format!(
            "version {} stored by {stored}; `trackless dht get --key`{salt} finds it",
            self.seq.unwrap_or_default(),
        ));
    }

    /// How a lookup went, in one line.
    fn lookup_text(&self, operation: &Operation, report: &LookupReport) -> String {
        // Those of an announce are not among them.
        let mut text = format!("{} answered", count(u64::from(report.answered), "query"));
        if report.timed_out > 0 {
            text.push_str(&format!(", {} not in time", report.timed_out));
        }
        text.push_str(&format!(
            "; the closest is {} away; {}",
            count(u64::from(report.hops), "hop"),
            duration(report.duration),
        ));
        match operation {
            Operation::GetPeers(_) | Operation::Announce(..) => {
                let peers = count(number(self.peers.len()), "peer");
                text.push_str(&format!(", {peers} found"));
            }
            Operation::Scrape(_) => {
                let filters = report.scrape.unwrap_or_default().filters;
                text.push_str(&format!(", {} counted", count(u64::from(filters), "node")));
            }
            Operation::Sample(_) => {
                let told = torrents(self.samples.len());
                let samplers = count(number(self.samplers.len()), "node");
                text.push_str(&format!(", {told} told by {samplers}"));
            }
            Operation::Get(_) => {
                if let Some(item) = &self.item
                    && let Some(seq) = item.seq()
                {
                    text.push_str(&format!(", version {seq}"));
                    if item.value() == value::NOTHING {
                        text.push_str(" (empty: withdrawn)");
                    }
                }
                let copies = count(u64::from(report.copies), "copy");
                text.push_str(&format!(", {copies} found"));
            }
            Operation::Ping(_) | Operation::FindNode(_) | Operation::Put(_) => {}
        }
        text
    }
}

/// Which version is stored, as far as is known.
fn stored_version(seq: Option<i64>) -> String {
    seq.map_or_else(
        || "another version is stored".to_owned(),
        |seq| format!("the stored version has number {seq}"),
    )
}

/// Why an item was not replaced that should have been another version, given by `--cas`.
pub(super) fn outdated(cas: i64, stored: Option<i64>) -> Failure {
    let stored = stored_version(stored);
    Failure::new(format!(
        "no node replaced the item: {stored}, and --cas is {cas}"
    ))
    .hint("somebody was faster; look with `trackless dht get` before you replace it")
}

fn torrents(length: usize) -> String {
    count(number(length), "torrent")
}

/// Adds a bencoded value to a result: to read, and byte for byte.
fn add_value(result: &mut Value, bencoded: Option<&[u8]>) {
    result["value"] = bencoded.map_or(Value::Null, value::to_json);
    let info_hash = bencoded.and_then(named_torrent);
    result["info_hash"] = json!(info_hash.map(|info_hash| info_hash.to_string()));
    result["bencoded"] = json!(bencoded.map(|value| HEXLOWER.encode(value)));
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn contact_json(contact: &ContactInfo) -> Value {
    json!({"id": contact.id.to_string(), "address": contact.address.to_string()})
}

fn sampler_json(sampler: &Sampler) -> Value {
    json!({
        "id": sampler.node.id.to_string(),
        "address": sampler.node.address.to_string(),
        "samples": sampler.told,
        "num": sampler.num,
        "interval": sampler.interval.as_secs(),
    })
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
mod tests;

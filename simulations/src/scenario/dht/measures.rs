//! What a study measures of its population: cost, tables, load.

use std::time::Duration;

use trackless::id::NodeId;
use trackless::krpc::ContactInfo;
use trackless::time::Instant;

use super::{CLOSEST, Policy, Study};
use crate::host::HostId;
use crate::nat::NatKind;
use crate::plot::{Chart, Shape};
use crate::report::Metrics;
use crate::statistics::{Series, count, float, share};

impl Study {
    /// What the nodes have sent so far, each host on average: packets and bytes.
    fn sent_per_node(&self) -> (Option<f64>, Option<f64>) {
        let (nodes, packets, bytes) = self.sent();
        (share(packets, nodes), share(bytes, nodes))
    }

    /// Hosts, and what they have sent so far: packets and bytes.
    fn sent(&self) -> (u64, u64, u64) {
        let (mut nodes, mut packets, mut bytes) = (0, 0, 0);
        for host in self.world.hosts() {
            let traffic = self.world.network().traffic(host);
            nodes += 1;
            packets += traffic.datagrams;
            bytes += traffic.datagram_bytes;
        }
        (nodes, packets, bytes)
    }

    /// How the join went: share of the nodes that know others, and its cost.
    pub(crate) fn measure_join(&self, metrics: &mut Metrics) {
        let nodes = self.world.hosts().count();
        // A bucket full; in a small network half of all others, because those that join later are
        // only met by and by.
        let bucket = CLOSEST.min(self.config.bucket_size);
        let enough = bucket.min(nodes.div_ceil(2));
        let hosts = self.population.iter();
        let joined = hosts.filter(|host| self.contact_count(*host) >= enough);
        metrics.add("joins", count(joined.count()) / count(nodes));
        metrics.add("packets_per_join", self.sent_per_node().0);
    }

    fn contact_count(&self, host: HostId) -> usize {
        match self.population.policy {
            Policy::Shipping => self.world.dht_of(host).node().contact_count(),
            Policy::Naive => self.contacts(host).len(),
        }
    }

    /// Contacts that a node believes in.
    pub(crate) fn contacts(&self, host: HostId) -> Vec<ContactInfo> {
        let host = self.world.host(host);
        if let Some(dht) = &host.dht {
            return dht.node().snapshot().contacts;
        }
        let control = host.control.as_ref();
        control.map_or_else(Vec::new, |control| control.node().contacts().collect())
    }

    /// What the nodes have and have sent up to now. Bytes are those of each node that is there, and
    /// for each second that it is.
    pub(crate) fn measure_upkeep(&self, metrics: &mut Metrics) {
        let (mut contacts, mut memory) = (Series::default(), Series::default());
        let mut malformed = 0;
        for host in self.population.iter() {
            contacts.add(count(self.contact_count(host)));
            if let Some(dht) = &self.world.host(host).dht {
                malformed += dht.node().stats().malformed;
                memory.add(count(dht.node().memory_bytes()));
            }
        }
        let (packets, bytes) = self.sent_per_node();
        let uptime = self.population.uptime(self.world.now()).as_secs_f64();
        metrics.add("packets_per_node", packets);
        metrics.add("bytes_per_node", bytes);
        let (_, _, all_bytes) = self.sent();
        metrics.add("bytes_per_node_per_second", float(all_bytes) / uptime);
        metrics.add("contacts_per_node", contacts.mean());
        metrics.add("memory_per_node", memory.mean());
        metrics.add("malformed", float(malformed));
    }

    /// How good the tables of some nodes are: contacts that have left, contacts that strangers
    /// cannot reach.
    pub(crate) fn measure_tables(&self, metrics: &mut Metrics) {
        let (mut all, mut stale, mut unreachable) = (0, 0, 0);
        // Every seventh node will do.
        for host in self.population.iter().step_by(7) {
            for contact in self.contacts(host) {
                all += 1;
                match self.population.host_of(&contact.id) {
                    None => stale += 1,
                    Some(of) => unreachable += u64::from(!self.is_reachable(of)),
                }
            }
        }
        metrics.add("stale_contacts", share(stale, all));
        if self.has_gateways() {
            metrics.add("unreachable_contacts", share(unreachable, all));
        }
    }

    /// Rules of a routing table that some nodes break, in words: nobody is in it twice, the node
    /// itself is not, and no bucket holds more than it may.
    pub(crate) fn broken_tables(&self) -> Vec<String> {
        let nodes = self.population.iter().step_by(7);
        let rule = |host| Some((host, self.broken_rule(host)?));
        let told = |(host, rule): (HostId, &str)| format!("node {}: {rule}", host.0);
        nodes.filter_map(rule).map(told).take(8).collect()
    }

    fn broken_rule(&self, host: HostId) -> Option<&'static str> {
        let own = self.population.id(host)?;
        let contacts = self.contacts(host);
        // The last bucket holds all depths from its own on, so no depth has more than a bucket.
        let mut depths: Vec<u32> = contacts
            .iter()
            .map(|contact| own.common_prefix(&contact.id))
            .collect();
        depths.sort_unstable();
        let mut ids: Vec<NodeId> = contacts.iter().map(|contact| contact.id).collect();
        ids.sort_unstable();
        let mut addresses: Vec<_> = contacts.iter().map(|contact| contact.address).collect();
        addresses.sort_unstable();
        let is_twice = |pair: &[NodeId]| pair[0] == pair[1];
        let size = self.config.bucket_size;
        if contacts.iter().any(|contact| contact.id == own) {
            Some("its own id is in its table")
        } else if ids.windows(2).any(is_twice) {
            Some("an id is in its table twice")
        } else if addresses.windows(2).any(|pair| pair[0] == pair[1]) {
            Some("an address is in its table twice")
        } else if depths.chunk_by(|a, b| a == b).any(|run| run.len() > size) {
            Some("a bucket holds more contacts than it may")
        } else {
            None
        }
    }

    fn has_gateways(&self) -> bool {
        let network = self.world.network();
        let mut hosts = self.world.hosts();
        hosts.any(|host| network.nat_kind(host) != NatKind::Open)
    }

    /// How many times the average an open node sends.
    pub(crate) fn measure_load(&self, metrics: &mut Metrics) {
        let (nodes, packets, _) = self.sent();
        let network = self.world.network();
        let (mut open, mut by_open) = (0, 0);
        for host in self.population.iter() {
            if network.nat_kind(host) == NatKind::Open {
                open += 1;
                by_open += network.traffic(host).datagrams;
            }
        }
        let average = share(packets, nodes).filter(|average| *average > 0.0);
        let load = share(by_open, open).zip(average);
        metrics.add("load_on_open_nodes", load.map(|(open, all)| open / all));
    }

    /// Lets time pass until `until` and notes each minute how many nodes are there.
    pub(crate) fn watch_population(&mut self, until: Instant) -> Chart {
        let mut points = Vec::new();
        loop {
            let now = self.world.now();
            let minutes = now.saturating_since(Instant::ZERO).as_secs_f64() / 60.0;
            points.push((minutes, count(self.population.len())));
            if now >= until {
                break;
            }
            self.run_until(until.min(now + Duration::from_secs(60)));
        }
        let title = "Nodes that are there";
        Chart::new("population", title, "minutes", "nodes").with("", Shape::Line, points)
    }
}

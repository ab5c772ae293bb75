//! A host's DHT node: the shipping core, its wake-up and nothing else.

use std::collections::VecDeque;

use trackless::dht::{Config, Local, LocalId, Node};
use trackless::id::NodeId;

use super::{DATAGRAM_PORT, HostId};
use crate::network::{Happening, Network};
use crate::time::Alarm;
use crate::time::alarm::Ring;
use crate::world::Notice;

/// The one socket of a simulated node.
pub const LOCAL: LocalId = LocalId(0);

/// A DHT node and its wake-up.
#[derive(Debug)]
pub struct DhtHost {
    host: HostId,
    node: Node,
    alarm: Alarm,
}

impl DhtHost {
    /// A node that starts now with empty tables. `config` says everything but its socket.
    #[must_use]
    pub fn new(host: HostId, config: Config, network: &Network) -> Self {
        let local = Local {
            address: host.address(DATAGRAM_PORT),
            id: None,
        };
        let config = Config {
            locals: vec![local],
            ..config
        };
        let random = network.seeds().stream("dht node", u64::from(host.0));
        Self {
            host,
            node: Node::new(config, random, network.now()),
            alarm: Alarm::default(),
        }
    }

    /// The core, to be looked at.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The core, to be given an input or a command; [`Self::drain`] must follow.
    pub const fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node.id(LOCAL)
    }

    /// A datagram arrived.
    pub fn handle_datagram(&mut self, network: &Network, from: HostId, payload: &[u8]) {
        let from = from.address(DATAGRAM_PORT);
        self.node
            .handle_datagram(network.now(), LOCAL, from, payload);
    }

    /// A queued wake-up fired.
    pub fn handle_wake(&mut self, network: &mut Network) {
        let now = network.now();
        let wish = self.node.poll_timeout().map(|wake| wake.at);
        match self.alarm.ring(now, wish) {
            Ring::Stale => {}
            Ring::Again(at) => network.agenda.plan(at, Happening::WakeDht(self.host)),
            Ring::Due => self.node.handle_timeout(now),
        }
    }

    /// Takes everything the core wants done.
    pub fn drain(&mut self, network: &mut Network, notices: &mut VecDeque<Notice>) {
        while let Some(transmit) = self.node.poll_transmit() {
            network.send_datagram(self.host, transmit.to, transmit.payload);
        }
        while let Some(event) = self.node.poll_event() {
            let host = self.host;
            notices.push_back(Notice::Dht { host, event });
        }
        let wish = self.node.poll_timeout().map(|wake| wake.at);
        if let Some(at) = self.alarm.wish(network.now(), wish) {
            network.agenda.plan(at, Happening::WakeDht(self.host));
        }
    }
}

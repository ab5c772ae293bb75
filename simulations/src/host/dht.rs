//! A host's DHT node: the shipping core and nothing else.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use trackless::dht::{Config, Local, LocalId, Node};
use trackless::id::NodeId;

use super::{DATAGRAM_PORT, HostId};
use crate::adversary::NodeConduct;
use crate::adversary::node::{Fate, Misleader};
use crate::nat::NatKind;
use crate::network::{Happening, Network};
use crate::time::Alarm;
use crate::world::Notice;

/// The one socket of a simulated node.
pub const LOCAL: LocalId = LocalId(0);

/// A DHT node.
#[derive(Debug)]
pub struct DhtHost {
    host: HostId,
    node: Node,
    /// What stands between core and network, if it is an adversary's.
    misleader: Option<Box<Misleader>>,
}

impl DhtHost {
    /// A node that starts now with empty tables, on a host that has left so many times. `config`
    /// says everything but the address of its socket; the id of its first one counts.
    #[must_use]
    pub fn new(host: HostId, departures: u32, config: Config, network: &Network) -> Self {
        // Behind a gateway a node knows its port alone, as any that binds to all addresses.
        let address = match network.nat_kind(host) {
            NatKind::Open => SocketAddr::from((network.ip(host), DATAGRAM_PORT)),
            _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, DATAGRAM_PORT)),
        };
        let id = config.locals.first().and_then(|local| local.id);
        let local = Local { address, id };
        let config = Config {
            locals: vec![local],
            ..config
        };
        let index = u64::from(departures) << 32 | u64::from(host.0);
        let random = network.seeds().stream("dht node", index);
        Self {
            host,
            node: Node::new(config, random, network.now()),
            misleader: None,
        }
    }

    /// Makes it an adversary.
    pub fn set_conduct(&mut self, conduct: NodeConduct, network: &Network) {
        let random = network.seeds().stream("misleader", u64::from(self.host.0));
        self.misleader = Some(Box::new(Misleader::new(conduct, random)));
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
    pub fn handle_datagram(&mut self, network: &mut Network, from: SocketAddr, payload: &[u8]) {
        if let Some(misleader) = self.misleader.as_deref_mut() {
            match misleader.judge(self.node.id(LOCAL), from, payload) {
                Fate::Core => {}
                Fate::Dropped => return,
                Fate::Answered(answer) => {
                    return network.send_datagram(self.host, from, answer.into());
                }
            }
        }
        self.node
            .handle_datagram(network.now(), LOCAL, from, payload);
    }

    /// Its timer is due.
    pub fn handle_timeout(&mut self, network: &Network) {
        self.node.handle_timeout(network.now());
    }

    /// Takes everything the core wants done, and sets its alarm.
    pub fn drain(
        &mut self,
        alarm: &mut Alarm,
        network: &mut Network,
        notices: &mut VecDeque<Notice>,
    ) {
        while let Some(transmit) = self.node.poll_transmit() {
            network.send_datagram(self.host, transmit.to, transmit.payload);
        }
        while let Some(event) = self.node.poll_event() {
            let host = self.host;
            notices.push_back(Notice::Dht { host, event });
        }
        let wish = self.node.poll_timeout().map(|wake| wake.at);
        if let Some(at) = alarm.wish(network.now(), wish) {
            network.agenda.plan(at, Happening::WakeDht(self.host));
        }
    }
}

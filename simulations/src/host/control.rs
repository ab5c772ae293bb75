//! A host's control node.

use std::collections::VecDeque;
use std::net::SocketAddr;

use trackless::id::NodeId;

use super::HostId;
use crate::control::ControlNode;
use crate::network::{Happening, Network};
use crate::time::Alarm;
use crate::world::Notice;

/// A control node.
#[derive(Debug)]
pub struct ControlHost {
    host: HostId,
    node: ControlNode,
}

impl ControlHost {
    /// A node that starts now with an empty table, on a host that has left so many times.
    #[must_use]
    pub fn new(host: HostId, departures: u32, id: Option<NodeId>, network: &Network) -> Self {
        let index = u64::from(departures) << 32 | u64::from(host.0);
        let random = network.seeds().stream("dht node", index);
        Self {
            host,
            node: ControlNode::new(id, random, network.now()),
        }
    }

    /// The node, to be looked at.
    #[must_use]
    pub const fn node(&self) -> &ControlNode {
        &self.node
    }

    /// The node, to be given a command; [`Self::drain`] must follow.
    pub const fn node_mut(&mut self) -> &mut ControlNode {
        &mut self.node
    }

    /// A datagram arrived.
    pub fn handle_datagram(&mut self, network: &Network, from: SocketAddr, payload: &[u8]) {
        self.node.handle_datagram(network.now(), from, payload);
    }

    /// Its timer is due.
    pub fn handle_timeout(&mut self, network: &Network) {
        self.node.handle_timeout(network.now());
    }

    /// Takes everything the node wants done, and sets its alarm.
    pub fn drain(
        &mut self,
        alarm: &mut Alarm,
        network: &mut Network,
        notices: &mut VecDeque<Notice>,
    ) {
        while let Some((to, payload)) = self.node.poll_transmit() {
            network.send_datagram(self.host, to, payload);
        }
        while let Some(event) = self.node.poll_event() {
            let host = self.host;
            notices.push_back(Notice::Dht { host, event });
        }
        if let Some(at) = alarm.wish(network.now(), Some(self.node.poll_timeout())) {
            network.agenda.plan(at, Happening::WakeDht(self.host));
        }
    }
}

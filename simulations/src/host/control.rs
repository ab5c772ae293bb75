//! A host's control node and its wake-up.

use std::collections::VecDeque;
use std::net::SocketAddr;

use trackless::id::NodeId;

use super::HostId;
use crate::control::ControlNode;
use crate::network::{Happening, Network};
use crate::time::Alarm;
use crate::time::alarm::Ring;
use crate::world::Notice;

/// A control node and its wake-up.
#[derive(Debug)]
pub struct ControlHost {
    host: HostId,
    node: ControlNode,
    alarm: Alarm,
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
            alarm: Alarm::default(),
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

    /// A queued wake-up fired.
    pub fn handle_wake(&mut self, network: &mut Network) {
        let now = network.now();
        match self.alarm.ring(now, Some(self.node.poll_timeout())) {
            Ring::Stale => {}
            Ring::Again(at) => network.agenda.plan(at, Happening::WakeDht(self.host)),
            Ring::Due => self.node.handle_timeout(now),
        }
    }

    /// Takes everything the node wants done.
    pub fn drain(&mut self, network: &mut Network, notices: &mut VecDeque<Notice>) {
        while let Some((to, payload)) = self.node.poll_transmit() {
            network.send_datagram(self.host, to, payload);
        }
        while let Some(event) = self.node.poll_event() {
            let host = self.host;
            notices.push_back(Notice::Dht { host, event });
        }
        if let Some(at) = self
            .alarm
            .wish(network.now(), Some(self.node.poll_timeout()))
        {
            network.agenda.plan(at, Happening::WakeDht(self.host));
        }
    }
}

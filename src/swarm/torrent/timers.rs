//! When which connection must be looked at.
//!
//! Invariant: for each connection that waits for anything there is an entry that is due no later than its
//! own timer. An entry may be early, because most of what happens to a connection puts its timer off: then
//! it is looked at in vain, once.

use std::collections::BTreeSet;

use super::super::event::{ConnectionId, Reason};
use super::Torrent;
use crate::time::Instant;

/// The wake-ups of all connections of a torrent, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    queue: BTreeSet<(Instant, ConnectionId)>,
}

impl Wakes {
    /// When the first connection is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The next connection that is due.
    fn pop_due(&mut self, now: Instant) -> Option<ConnectionId> {
        let first = self.queue.first().filter(|(at, _)| *at <= now)?;
        let (at, id) = *first;
        self.queue.remove(&(at, id));
        Some(id)
    }

    /// A connection is gone.
    pub(super) fn remove(&mut self, at: Option<Instant>, id: ConnectionId) {
        if let Some(at) = at {
            self.queue.remove(&(at, id));
        }
    }
}

impl Torrent {
    /// Something was done to a connection that may have made its timer due earlier.
    pub(super) fn rewake(&mut self, id: ConnectionId) {
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        let Some(at) = peer.connection.poll_timeout().map(|wake| wake.at) else {
            return;
        };
        if peer.wake.is_none_or(|before| at < before) {
            self.wakes.remove(peer.wake, id);
            peer.wake = Some(at);
            self.wakes.queue.insert((at, id));
        }
    }

    /// Timers of connections.
    pub(super) fn handle_connection_timers(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        while let Some(id) = self.wakes.pop_due(now) {
            if let Some(peer) = self.connections.get_mut(&id) {
                peer.wake = None;
                due.push(id);
            }
        }
        for id in due {
            let Some(peer) = self.connections.get_mut(&id) else {
                continue;
            };
            let is_due = peer
                .connection
                .poll_timeout()
                .is_some_and(|wake| wake.at <= now);
            if is_due {
                let result = peer.connection.handle_timeout(now);
                self.handle_connection_events(id);
                if let Err(error) = result {
                    self.close(id, Reason::Protocol(error));
                }
                self.after_input(id);
            }
            self.rewake(id);
        }
    }

    /// Checks the invariant of the module.
    #[cfg(test)]
    pub(in crate::swarm) fn check_wakes(&self) {
        for (id, peer) in &self.connections {
            assert_eq!(
                peer.wake.is_some(),
                peer.wake
                    .is_some_and(|at| self.wakes.queue.contains(&(at, *id)))
            );
            if let Some(wake) = peer.connection.poll_timeout() {
                assert!(peer.wake.is_some_and(|at| at <= wake.at), "{id:?} {wake:?}");
            }
        }
        assert!(self.wakes.queue.len() <= self.connections.len());
    }
}

//! A torrent's streams: how they come, what goes through them, how they end.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::super::counters::Count;
use super::super::handle::Guest;
use super::super::listen::dial_from;
use super::super::places::Place;
use super::Task;
use crate::net;
use crate::net::stream::{StreamHandle, StreamInput, spawn_stream};
use crate::peer::Role;
use crate::swarm::{ConnectionId, DialError, Reason, Transport};
use crate::time::Instant;

/// How long a dial may take. Ours: hosts that are there answer within three retransmissions of a
/// SYN.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that wait while the core looks at the disk, when it takes none. A check of most contents
/// is over before a peer that waits for our handshake gives up, and one that is refused comes back
/// only after a minute.
const WAITING_MAX: usize = 16;

/// A stream that is being opened, or why it was not.
pub(super) type Dialled = (SocketAddr, Result<Guest, DialError>);

/// The streams of a torrent, those that wait, and those that are being opened.
pub(super) struct Links {
    streams: BTreeMap<ConnectionId, Link>,
    /// Streams to hand to the core after the check, at most [`WAITING_MAX`].
    waiting: VecDeque<(Guest, Role)>,
    dials: JoinSet<Dialled>,
    /// Whether nothing is to be read; the readers look at it.
    paused: watch::Sender<bool>,
    inputs: mpsc::Sender<StreamInput>,
}

/// A stream in use.
struct Link {
    handle: StreamHandle,
    /// Freed with the stream.
    _place: Place,
}

impl Links {
    /// No stream yet. What streams tell goes to `inputs`.
    pub(super) fn new(inputs: mpsc::Sender<StreamInput>) -> Self {
        Self {
            streams: BTreeMap::new(),
            waiting: VecDeque::new(),
            dials: JoinSet::new(),
            paused: watch::Sender::new(false),
            inputs,
        }
    }

    /// Stops or goes on with reading from all streams.
    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Waits until a dial ends; `None` at once when there is none. May be dropped.
    pub(super) async fn dial_ended(&mut self) -> Option<Dialled> {
        self.dials.join_next().await?.ok()
    }

    /// Ends everything and waits for the dials.
    pub(super) async fn end(&mut self) {
        self.streams.clear();
        self.waiting.clear();
        self.dials.shutdown().await;
    }
}

impl Task {
    /// Something came from a stream.
    pub(super) fn on_stream(&mut self, input: StreamInput) {
        let now = self.context.clock.now();
        match input {
            StreamInput::Bytes(id, bytes) => {
                if self.links.streams.contains_key(&id) {
                    self.core.handle_bytes(now, id, bytes);
                    // A bad message closes the stream at once: what else it sent is not looked at.
                    self.on_actions(now);
                }
            }
            StreamInput::Writable(id) => self.send(now, id),
            StreamInput::UploadFailed(id, block, error) => {
                if self.links.streams.contains_key(&id) {
                    self.core.handle_upload_failed(now, id, block, error);
                }
            }
            StreamInput::Closed(id, reason) => {
                if self.links.streams.remove(&id).is_some() {
                    self.core.handle_disconnected(now, id, reason);
                }
            }
        }
    }

    /// A dial ended.
    pub(super) fn on_dialled(&mut self, (address, result): Dialled) {
        match result {
            Ok(guest) => self.on_connected(guest, Role::Dialled),
            Err(error) => self.on_dial_failed(address, error),
        }
    }

    fn on_dial_failed(&mut self, address: SocketAddr, error: DialError) {
        if error == DialError::Local {
            self.context.tally.add(Count::DialLocal);
        }
        let now = self.context.clock.now();
        self.core.handle_dial_failed(now, address, error);
    }

    /// There is a stream to a peer; the core decides whether it is wanted, once it can.
    pub(super) fn on_connected(&mut self, guest: Guest, role: Role) {
        if self.is_checking() && self.links.waiting.len() < WAITING_MAX {
            self.links.waiting.push_back((guest, role));
            return;
        }
        let now = self.context.clock.now();
        let is_accepted = matches!(role, Role::Accepted(_));
        let connected = self
            .core
            .handle_connected(now, guest.address, role, Transport::Tcp);
        if let Some(id) = connected {
            let handle = spawn_stream(
                id,
                guest.stream,
                self.links.inputs.clone(),
                Some(self.store.subscribe()),
                self.links.paused.subscribe(),
                &self.context.limits,
            );
            let link = Link {
                handle,
                _place: guest.place,
            };
            self.links.streams.insert(id, link);
        } else if is_accepted {
            self.context.tally.add(Count::TorrentRefused);
        }
    }

    /// Hands one stream that waited to the core, when it takes streams again; says whether there
    /// was one.
    pub(super) fn admit_waiting(&mut self) -> bool {
        if !self.is_checking()
            && let Some((guest, role)) = self.links.waiting.pop_front()
        {
            self.on_connected(guest, role);
            return true;
        }
        false
    }

    /// Gives a connection's writer what the core has for it, while there is room. The writer says
    /// when it has room again.
    pub(super) fn send(&mut self, now: Instant, id: ConnectionId) {
        let Some(link) = self.links.streams.get_mut(&id) else {
            return;
        };
        while link.handle.room() > 0 {
            let Some(transmit) = self.core.poll_transmit(now, id) else {
                break;
            };
            if !link.handle.send(transmit) {
                // The writer has ended; that the stream did comes as an input of its own.
                return;
            }
        }
        if self.core.is_holding_back()
            && link.handle.is_idle()
            && let Some(transmit) = self.core.poll_deferred(now, id)
        {
            link.handle.send(transmit);
        }
    }

    /// Drops a stream; both of its tasks end.
    pub(super) fn close(&mut self, id: ConnectionId, reason: Reason) {
        tracing::debug!(info_hash = %self.info_hash, ?id, ?reason, "connection closed");
        self.links.streams.remove(&id);
    }

    /// Connects to a peer in a task of its own.
    pub(super) fn dial(&mut self, address: SocketAddr) {
        let Some(place) = self.context.places.take() else {
            tracing::debug!(%address, "no place for another stream");
            self.on_dial_failed(address, DialError::Local);
            return;
        };
        let from = dial_from(&self.context.listen, address.ip());
        self.links.dials.spawn(async move {
            let dialled = net::peer::dial(address, from, DIAL_TIMEOUT).await;
            let guest = dialled.map(|stream| Guest {
                stream,
                address,
                place,
            });
            (address, guest)
        });
    }
}

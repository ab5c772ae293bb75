//! Peers that are told to peers, and that they tell (BEP 11).
//!
//! A peer is told of those that are connected now, and later of what changed, once a minute at most. What it
//! tells is a hint: an address to dial if there is nothing better.
//!
//! Invariant: nothing of this happens for a torrent that is known to be private (BEP 27).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::super::event::{ConnectionId, PeerSource};
use super::super::host::Host;
use super::Torrent;
use super::connections::Peer;
use crate::address::{Scope, is_usable};
use crate::bitfield::Bitfield;
use crate::time::Instant;
use crate::wire::PexMessage;
use crate::wire::pex::{PEX_CONTACTS_MAX, PEX_REACHABLE, PEX_SEED, PexContact};

/// How long after its extension handshake a peer is told of others: by then those that came with it are known.
const FIRST_AFTER: Duration = Duration::from_secs(5);

/// Time between messages to one peer (BEP 11).
const INTERVAL: Duration = Duration::from_secs(60);

/// When it is looked again whether there is something to tell.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);

/// Addresses that one connection may name in its life. Ours: more than a torrent has connections, and few
/// enough that one peer alone does not fill the list of addresses.
const NAMED_MAX: usize = 500;

/// What one peer was told of others, and told.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// When it may be told next; `None` if it does not want to be told.
    at: Option<Instant>,
    /// Those that it was told of and that did not go, as far as it knows.
    told: BTreeSet<SocketAddr>,
    /// Addresses that it named and that could be used.
    named: usize,
}

impl Torrent {
    /// Whether peers are exchanged with peers.
    pub(super) fn exchanges_peers(&self) -> bool {
        self.config.pex && !self.is_private()
    }

    /// Whether the metadata is known, and says so.
    pub(super) fn is_private(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.is_private())
    }

    /// A peer may want to be told of others now.
    pub(super) fn offer_peers(&mut self, id: ConnectionId) {
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        if peer.exchange.at.is_none() && peer.connection.takes_pex() {
            let at = self.now + FIRST_AFTER;
            peer.exchange.at = Some(at);
            self.next_exchange = Some(self.next_exchange.map_or(at, |next| next.min(at)));
        }
    }

    /// Tells those whose time has come what changed.
    pub(super) fn exchange_peers(&mut self) {
        self.next_exchange = None;
        let contacts = self.contacts();
        let mut next: Option<Instant> = None;
        let mut told = Vec::new();
        for (&id, peer) in &mut self.connections {
            let Some(mut at) = peer.exchange.at else {
                continue;
            };
            if at <= self.now {
                let message = news(peer, &contacts);
                let is_sent = !message.is_empty() && peer.connection.send_pex(&message);
                at = self.now + if is_sent { INTERVAL } else { IDLE_INTERVAL };
                peer.exchange.at = Some(at).filter(|_| peer.connection.takes_pex());
                if is_sent {
                    peer.exchange.remember(&message);
                    told.push(id);
                }
            }
            let at = peer.exchange.at;
            next = next.into_iter().chain(at).min();
        }
        self.next_exchange = next;
        for id in told {
            self.mark_ready(id);
        }
    }

    /// Those that are connected and can be dialled, and what is known of them.
    fn contacts(&self) -> BTreeMap<SocketAddr, u8> {
        let established = self.connections.values();
        let established = established.filter(|peer| peer.peer_id.is_some());
        let contacts = established.filter_map(|peer| Some((peer.known_as()?, flags(peer))));
        contacts.collect()
    }

    /// A peer told of others.
    pub(super) fn peers_named(&mut self, id: ConnectionId, message: &PexMessage) {
        if !self.exchanges_peers() {
            return;
        }
        let Some(peer) = self.connections.get_mut(&id) else {
            return;
        };
        let mut hosts = BTreeSet::new();
        for contact in &message.added {
            let address = contact.address;
            let host = Host::of(address);
            // BEP 11: many ports of one host are a way to make us dial a victim.
            let is_new_host = !host.is_global() || hosts.insert(host);
            if is_new_host
                && peer.exchange.named < NAMED_MAX
                && is_usable(address, peer.address.ip())
            {
                peer.exchange.named += 1;
                self.peers.add(self.now, PeerSource::Pex, address);
            }
        }
    }
}

impl Exchange {
    /// The peer was told this.
    fn remember(&mut self, message: &PexMessage) {
        for address in &message.dropped {
            self.told.remove(address);
        }
        let added = message.added.iter();
        self.told.extend(added.map(|contact| contact.address));
    }
}

/// What a peer was not told yet of those that are connected now.
fn news(peer: &Peer, contacts: &BTreeMap<SocketAddr, u8>) -> PexMessage {
    let scope = Scope::of(peer.address.ip());
    let told = &peer.exchange.told;
    // Addresses that mean nothing where the peer is are not its business.
    let concerns = |address: &SocketAddr| {
        Some(*address) != peer.known_as() && Scope::of(address.ip()) >= scope
    };
    let added = contacts.iter().filter(|(address, _)| concerns(address));
    let added = added.filter(|(address, _)| !told.contains(*address));
    let added = added.map(|(&address, &flags)| PexContact { address, flags });
    let gone = told
        .iter()
        .filter(|address| !contacts.contains_key(*address));
    PexMessage {
        added: added.take(PEX_CONTACTS_MAX).collect(),
        dropped: gone.copied().take(PEX_CONTACTS_MAX).collect(),
    }
}

/// What is said of a peer.
fn flags(peer: &Peer) -> u8 {
    let extensions = peer.connection.extensions();
    let is_seed = peer.pieces.as_ref().is_some_and(Bitfield::is_full)
        || extensions.is_some_and(|theirs| theirs.upload_only);
    let seed = if is_seed { PEX_SEED } else { 0 };
    let reachable = if peer.dialled { PEX_REACHABLE } else { 0 };
    seed | reachable
}

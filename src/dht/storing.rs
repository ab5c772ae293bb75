//! The end of a lookup that stores something: an announce (BEP 5) or an item (BEP 44) goes to the
//! closest nodes that gave write tokens.
//!
//! Invariant: what is told to a node carries the token that this node gave.

use super::config::{LookupId, PeerKind, PeerPort};
use super::item_search::Putting;
use super::lookup::Kind;
use super::node::Node;
use super::rpc::Pending;
use super::search::Failure;
use super::walk::{Phase, Storage, Walk};
use crate::krpc::Method;

impl Node {
    /// An announce or a put was acknowledged, or failed.
    pub(super) fn on_announced(
        &mut self,
        id: LookupId,
        pending: &Pending,
        outcome: Result<(), &Failure>,
    ) {
        let Some(lookup) = self.lookups.get(id) else {
            return;
        };
        lookup.dirty = true;
        match outcome {
            Ok(()) => lookup.report.stored += 1,
            Err(Failure::Error(code, _)) => note_error(&mut lookup.report.errors, *code),
            Err(Failure::TimedOut | Failure::Impostor) => {}
        }
        // One that passed its soft time-out is no longer waited for.
        if pending.soft.is_some()
            && let Some(walk) = lookup.walk(pending.local)
        {
            close_storing(walk);
        }
    }
}

/// One announce or put less is waited for.
pub(super) fn close_storing(walk: &mut Walk) {
    if let Phase::Announcing { open } = walk.phase {
        walk.phase = match open.saturating_sub(1) {
            0 => Phase::Done,
            open => Phase::Announcing { open },
        };
    }
}

/// The arguments `port` and `implied_port` of an announce from a socket with this port, 0 when
/// unknown.
///
/// BEP 5 wants a port beside `implied_port`, to be ignored; for nodes that do not know that
/// argument it should be as right as possible, and it must not be 0, which some refuse.
const fn announced_port(port: PeerPort, local_port: u16) -> (u16, bool) {
    match (port, local_port) {
        (PeerPort::Explicit(port), _) => (port, false),
        (PeerPort::Implied, 0) => (1, true),
        (PeerPort::Implied, local_port) => (local_port, true),
    }
}

/// What is told to a node in the end, so that it stores it; `None` when nothing is.
pub(super) fn storing_method<'a>(
    kind: Kind,
    putting: Option<&'a Putting>,
    local_port: u16,
    storage: &Storage<'a>,
) -> Option<Method<'a>> {
    match kind {
        Kind::Announce(info_hash, port, peer_kind) => {
            let (port, implied_port) = announced_port(port, local_port);
            Some(Method::AnnouncePeer {
                info_hash,
                port,
                implied_port,
                seed: peer_kind == PeerKind::Seed,
                token: storage.token,
            })
        }
        Kind::PutItem => {
            let putting = putting?;
            // BEP 44: a node without the item has nothing to compare.
            let cas = putting.cas.filter(|_| storage.holds);
            Some(Method::Put(putting.item.put(storage.token, cas)))
        }
        Kind::FindNode
        | Kind::FindPeers(_)
        | Kind::Scrape(_)
        | Kind::Sample
        | Kind::GetItem
        | Kind::Ping(_) => None,
    }
}

/// Different codes of errors in a report.
const ERROR_CODES_MAX: usize = 8;

/// Counts an error.
fn note_error(errors: &mut Vec<(i64, u32)>, code: i64) {
    if let Some((_, count)) = errors.iter_mut().find(|(known, _)| *known == code) {
        *count += 1;
    } else if errors.len() < ERROR_CODES_MAX {
        errors.push((code, 1));
    }
}

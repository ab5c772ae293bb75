//! What a torrent that has everything gives first: each piece once, until others have all of them.
//!
//! Peers choose what they fetch without knowing what others fetch just now. While much of the content is with
//! us alone, many ask us for the same, and what goes out twice keeps the rest from getting out. Therefore,
//! while there is a piece that no connected peer has, a request is held back if its piece is with somebody else
//! or on its way there, and slots go to those who ask for what is new ([`Seeding::EachOnce`]). Held back means
//! rejected (BEP 6), so that the peer's pipeline has room for something new; the requests of a peer that goes on
//! to ask for nothing new, or does not know rejects, wait. When nobody asks for anything new and every writer has
//! room, those that wait are given a block at a time: an idle line helps nobody. Super-seeding, in
//! `torrent/super_seeding.rs`, goes further and shows each peer only what it is meant to fetch.
//!
//! Invariant: nobody waits for long. A peer that waited for [`WAIT_MAX`] gets its turn like others at the next
//! ranking, and one whose waits of that length come to [`WAITS_MAX`] is never made to wait again. A wait that
//! ends sooner does not count: it ended with a piece that nobody had.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::Seeding;
use super::super::event::{ConnectionId, State};
use super::super::pieces::Pieces;
use super::Torrent;
use super::connections::Peer;
use crate::metainfo::PieceIndex;
use crate::peer::Transmit;
use crate::time::Instant;

/// How long a peer waits, or goes last, before it gets its turn. Ours: the time between two rankings of the
/// choker, so that a wait ends with the second one.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What the waits of a peer come to at most. Ours: a minute is what a peer may lose if those who got the
/// pieces that it wants do not pass them on.
const WAITS_MAX: Duration = Duration::from_secs(60);

/// How long a piece counts as on its way to a peer that takes no more of it. Ours: far more than the way of
/// the last block, its hash and the `have` take.
const PASSES_ON_WITHIN: Duration = Duration::from_secs(20);

/// How long a peer that was given a block counts as taking it if its writer asks for no more. Ours: a peer
/// slower than a block a second does not keep a line busy.
const TAKES_WITHIN: Duration = Duration::from_secs(1);

/// A piece on its way to somebody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    to: ConnectionId,
    /// When it was asked for, or when a block of it was handed out last.
    at: Instant,
    /// Blocks that were handed out.
    blocks: u32,
}

impl Given {
    pub(super) const fn new(to: ConnectionId, at: Instant) -> Self {
        Self { to, at, blocks: 0 }
    }

    /// Whether others may have it.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now.saturating_since(self.at) >= PASSES_ON_WITHIN
    }
}

/// Who gets which piece first.
#[derive(Debug, Default)]
pub(super) struct FirstCopy {
    /// Pieces that no connected peer has and that are on their way to one.
    pub(super) given: BTreeMap<PieceIndex, Given>,
    /// Some peers may have been made to wait.
    under_way: bool,
    /// Peers see only what they were shown: these pieces, of which no other peer has shown yet that it got
    /// them. `None` unless we super-seed.
    pub(super) shown: Option<BTreeMap<ConnectionId, Vec<PieceIndex>>>,
}

impl FirstCopy {
    /// Whether the piece is for this peer: nobody else has it, and nobody else is getting it.
    fn gives(&mut self, now: Instant, is_held: bool, piece: PieceIndex, to: ConnectionId) -> bool {
        if is_held {
            self.given.remove(&piece);
            return false;
        }
        let new = Given::new(to, now);
        let given = self.given.entry(piece).or_insert(new);
        if given.to == to {
            given.at = now;
        } else if given.is_late(now) {
            *given = new;
        }
        given.to == to
    }
}

/// How a peer waits for the first copy.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    /// Since when all it asks for waits, or waited when it lost its slot.
    pub(super) since: Option<Instant>,
    /// What its waits of [`WAIT_MAX`] and longer came to.
    waited: Duration,
}

impl Patience {
    /// Whether it is never made to wait again.
    fn is_over(self) -> bool {
        self.waited >= WAITS_MAX
    }
}

/// What the writer of a connection does with blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    /// When it was given one last; at first, when it began.
    given_at: Instant,
    /// It asked for more and got nothing.
    has_room: bool,
}

impl Flow {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            given_at: now,
            has_room: true,
        }
    }

    /// Until when it counts as taking what it was given.
    fn busy_until(self) -> Option<Instant> {
        (!self.has_room).then(|| self.given_at + TAKES_WITHIN)
    }
}

impl Torrent {
    /// Whether there is something that nobody else has.
    pub(super) fn is_only_holder(&self) -> bool {
        let unheld = self.pieces.as_ref().is_some_and(Pieces::has_unheld);
        self.state == State::Seeding && unheld
    }

    /// Whether [`Self::poll_deferred`] may have something.
    #[must_use]
    pub const fn is_holding_back(&self) -> bool {
        self.first_copy.under_way
    }

    /// Looks at what a peer asks for: what others have or are getting is rejected or waits.
    pub(super) fn sort_requests(&mut self, id: ConnectionId) {
        if self.config.seeding != Seeding::EachOnce {
            return;
        }
        if !self.is_only_holder() {
            return self.end_first_copy();
        }
        self.first_copy.under_way = true;
        let (Some(pieces), Some(peer)) = (&self.pieces, self.connections.get_mut(&id)) else {
            return;
        };
        if peer.patience.is_over() {
            peer.connection.resume_deferred();
            return;
        }
        if !peer.connection.is_asked() {
            return;
        }
        let asked: Vec<PieceIndex> = peer.connection.asked_pieces().collect();
        // What it asked for and took back is nobody's again.
        self.first_copy
            .given
            .retain(|piece, given| given.to != id || given.blocks > 0 || asked.contains(piece));
        for piece in asked {
            // Whoever asks for what it said it has lost that.
            let others = pieces
                .holders(piece)
                .saturating_sub(u16::from(peer.has(piece)));
            let given = self.first_copy.gives(self.now, others > 0, piece, id);
            if given {
                peer.connection.undefer(piece);
            } else {
                peer.connection.defer(piece);
            }
        }
        if !peer.connection.is_asked() {
            return;
        }
        let waits = !peer.connection.is_served();
        if waits && peer.patience.since.is_none() {
            peer.patience.since = Some(self.now);
            self.choker.hurry(self.now);
        } else if !waits {
            peer.patience.since = None;
        }
        if waits && let Some(next) = self.next_on_idle_line() {
            self.queue(next);
        }
    }

    /// The writer of a connection has room, and there is nothing for it that need not wait: a block that
    /// waits, if the line would be idle otherwise and it is this peer's turn.
    pub(super) fn next_deferred(&mut self, to: ConnectionId) -> Option<Transmit> {
        self.connections.get_mut(&to)?.flow.has_room = true;
        let next = self.next_on_idle_line()?;
        if next != to {
            self.queue(next);
            return None;
        }
        self.connections
            .get_mut(&to)?
            .connection
            .poll_deferred(self.now)
    }

    /// Who is given a block that waits: of those whose writers have room, the one that was given none for the
    /// longest time. While somebody is getting something new only those that do, as they cannot ask for the
    /// rest of it while requests that wait fill their pipelines; nobody while somebody is being served, or
    /// takes what it was given.
    pub(super) fn next_on_idle_line(&self) -> Option<ConnectionId> {
        let is_busy = |peer: &Peer| {
            let takes = peer.flow.busy_until().is_some_and(|until| until > self.now);
            takes || peer.connection.is_served()
        };
        if !self.first_copy.under_way || self.connections.values().any(is_busy) {
            return None;
        }
        let new: Vec<ConnectionId> = self.getting_new().collect();
        let may_be_next = |(id, peer): &(&ConnectionId, &Peer)| {
            let is_first = new.is_empty() || new.contains(id);
            is_first && peer.flow.has_room && peer.connection.has_deferred()
        };
        let next = self.connections.iter().filter(may_be_next);
        let next = next.min_by_key(|(id, peer)| (peer.flow.given_at, **id));
        next.map(|(id, _)| *id)
    }

    /// Those to whom pieces that nobody has are on their way just now.
    fn getting_new(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let given = self.first_copy.given.values();
        let new = given.filter(|given| given.at + TAKES_WITHIN > self.now);
        new.map(|given| given.to)
    }

    /// When those that wait may be served although no writer said that it has room.
    pub(super) fn idle_line_at(&self) -> Option<Instant> {
        let mut peers = self.connections.values();
        let waits = self.first_copy.under_way && peers.any(|peer| peer.patience.since.is_some());
        if !waits {
            return None;
        }
        let taking = self.connections.values();
        let taking = taking.filter_map(|peer| peer.flow.busy_until());
        let given = self.first_copy.given.values();
        let idle = taking.chain(given.map(|given| given.at + TAKES_WITHIN));
        idle.max().filter(|at| *at > self.now)
    }

    /// Those that waited long enough wait no more.
    pub(super) fn end_waits(&mut self) {
        if !self.first_copy.under_way {
            return;
        }
        let mut freed = Vec::new();
        for (&id, peer) in &mut self.connections {
            let patience = &mut peer.patience;
            // What it asked for besides was sent since it said something last.
            if peer.connection.is_asked() && !peer.connection.is_served() {
                patience.since.get_or_insert(self.now);
            }
            let waited = patience.since.map(|since| self.now.saturating_since(since));
            if let Some(waited) = waited.filter(|waited| *waited >= WAIT_MAX) {
                patience.since = None;
                patience.waited += waited;
                peer.connection.resume_deferred();
                freed.push(id);
            }
        }
        for id in freed {
            self.mark_ready(id);
        }
    }

    /// Everything is with others: nothing waits any more, of those either who were served meanwhile.
    fn end_first_copy(&mut self) {
        if !std::mem::take(&mut self.first_copy.under_way) {
            return;
        }
        self.first_copy.given.clear();
        let mut freed = Vec::new();
        for (&id, peer) in &mut self.connections {
            peer.patience.since = None;
            peer.connection.resume_deferred();
            if peer.connection.is_asked() {
                freed.push(id);
            }
        }
        for id in freed {
            self.mark_ready(id);
        }
    }

    /// Something was handed to the writer of a connection.
    pub(super) fn on_transmit(&mut self, to: ConnectionId, transmit: Option<&Transmit>) {
        match transmit {
            Some(Transmit::Block { block, .. }) => self.block_given(to, block.piece),
            Some(Transmit::Bytes(_)) => {
                if let Some(peer) = self.connections.get_mut(&to) {
                    peer.flow.has_room = false;
                }
            }
            None => {}
        }
    }

    /// A block was handed out.
    fn block_given(&mut self, to: ConnectionId, piece: PieceIndex) {
        if let Some(given) = self.first_copy.given.get_mut(&piece)
            && given.to == to
        {
            given.blocks += 1;
            given.at = self.now;
        }
        if let Some(peer) = self.connections.get_mut(&to) {
            peer.flow = Flow {
                given_at: self.now,
                has_room: false,
            };
        }
    }

    /// A peer is not served any more: what it did not get whole can go to others, unless it was shown to
    /// this one only.
    pub(super) fn take_back_given(&mut self, id: ConnectionId) {
        let (None, Some(pieces)) = (&self.first_copy.shown, &self.pieces) else {
            return;
        };
        self.first_copy.given.retain(|piece, given| {
            given.to != id || given.blocks >= pieces.geometry().block_count(*piece)
        });
    }

    /// A peer is gone.
    pub(super) fn forget_given(&mut self, id: ConnectionId) {
        self.first_copy.given.retain(|_, given| given.to != id);
        if let Some(shown) = &mut self.first_copy.shown {
            shown.remove(&id);
        }
        self.show_more();
    }
}

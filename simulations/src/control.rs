//! A Kademlia node as a first draft writes it: the control beside the shipping core.
//!
//! Whoever asks or is named gets into the table unasked, one time-out hides a contact, three evict
//! it, each query waits two seconds and is never sent again. What the shipping policy is worth is
//! what it does better than this under the same draws.
//!
//! Invariant: it speaks the same KRPC bytes and is driven by the same four calls as the shipping
//! node, so that nothing but the policy differs.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use trackless::dht::{Event, LookupId, LookupReport};
use trackless::id::{Distance, NodeId};
use trackless::krpc::{
    Body, ContactInfo, Message, Method, Query, Response, ResponseWriter, Want, write_query,
};
use trackless::random::Random;
use trackless::time::Instant;

/// Contacts in a bucket and nodes in an answer.
const BUCKET: usize = 8;
/// Queries in flight per lookup.
const PARALLELISM: usize = 3;
/// Time-out of each query.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time-outs that evict a contact.
const FAILURES_MAX: u8 = 3;
/// A bucket untouched for this time is refreshed.
const REFRESH: Duration = Duration::from_secs(15 * 60);
/// Between two looks for such buckets.
const REFRESH_SPACING: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Contact {
    info: ContactInfo,
    failures: u8,
}

#[derive(Debug, Default)]
struct Bucket {
    contacts: Vec<Contact>,
    touched: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
}

#[derive(Debug)]
struct Candidate {
    info: ContactInfo,
    state: State,
    hop: u32,
}

#[derive(Debug)]
struct Lookup {
    target: NodeId,
    /// Reported, or the node's own.
    is_reported: bool,
    candidates: Vec<Candidate>,
    in_flight: usize,
    started: Instant,
    report: LookupReport,
}

#[derive(Debug)]
struct Pending {
    lookup: LookupId,
    to: SocketAddr,
    id: Option<NodeId>,
}

/// The control node.
#[derive(Debug)]
pub struct ControlNode {
    id: NodeId,
    random: Random,
    /// By the length of the prefix shared with our id.
    buckets: BTreeMap<u32, Bucket>,
    lookups: BTreeMap<LookupId, Lookup>,
    next_lookup: u64,
    pending: BTreeMap<u16, Pending>,
    /// When pending queries time out, earliest first.
    deadlines: VecDeque<(Instant, u16)>,
    next_transaction: u16,
    refresh_at: Instant,
    transmits: VecDeque<(SocketAddr, Bytes)>,
    events: VecDeque<Event>,
}

impl ControlNode {
    /// A node with an empty table.
    #[must_use]
    pub fn new(id: Option<NodeId>, mut random: Random, now: Instant) -> Self {
        let id = id.unwrap_or_else(|| NodeId::new(random.bytes()));
        let spread = Duration::from_secs(u64::from(random.below(60)));
        Self {
            id,
            random,
            buckets: BTreeMap::new(),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            pending: BTreeMap::new(),
            deadlines: VecDeque::new(),
            next_transaction: 0,
            refresh_at: now + REFRESH_SPACING + spread,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Its contacts that are not hidden.
    pub fn contacts(&self) -> impl Iterator<Item = ContactInfo> + '_ {
        let all = self.buckets.values().flat_map(|bucket| &bucket.contacts);
        all.filter(|contact| contact.failures == 0)
            .map(|contact| contact.info)
    }

    /// Asks these addresses for the nodes around its id.
    pub fn bootstrap(&mut self, now: Instant, addresses: &[SocketAddr]) {
        let lookup = self.start(now, self.id, false);
        for address in addresses {
            self.ask(now, lookup, *address, None);
        }
    }

    /// Looks for the nodes closest to a target.
    pub fn find_node(&mut self, now: Instant, target: NodeId) -> LookupId {
        let lookup = self.start(now, target, true);
        self.step(now, lookup);
        lookup
    }

    /// A datagram came in.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, payload: &[u8]) {
        let Ok(message) = Message::decode(payload) else {
            return;
        };
        match &message.body {
            Body::Query(query) => {
                self.note(ContactInfo {
                    id: query.id,
                    address: from,
                });
                self.answer(from, message.transaction, query);
            }
            Body::Response(response) => self.on_response(now, from, message.transaction, response),
            Body::Error { .. } => {}
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, transaction)) = self.deadlines.front().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop_front();
            if let Some(pending) = self.pending.remove(&transaction) {
                self.on_timeout(now, &pending);
            }
        }
        if self.refresh_at <= now {
            self.refresh_at = now + REFRESH_SPACING;
            self.refresh(now);
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When it wants to be woken.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        deadline.map_or(self.refresh_at, |at| at.min(self.refresh_at))
    }

    /// Puts a node into its bucket if there is room, or instead of one that failed.
    fn note(&mut self, info: ContactInfo) {
        if info.id == self.id {
            return;
        }
        let bucket = self
            .buckets
            .entry(self.id.common_prefix(&info.id))
            .or_default();
        let contacts = &mut bucket.contacts;
        let failed = contacts.iter().position(|contact| contact.failures > 0);
        if let Some(known) = contacts.iter_mut().find(|c| c.info.id == info.id) {
            *known = Contact { info, failures: 0 };
        } else if contacts.len() < BUCKET {
            contacts.push(Contact { info, failures: 0 });
        } else if let Some(place) = failed {
            contacts[place] = Contact { info, failures: 0 };
        }
    }

    fn closest(&self, target: NodeId) -> Vec<ContactInfo> {
        let far = |contact: ContactInfo| (contact.id.distance(&target), contact);
        let mut near: Vec<(Distance, ContactInfo)> = self.contacts().map(far).collect();
        if near.len() > BUCKET {
            near.select_nth_unstable_by_key(BUCKET, |(distance, _)| *distance);
            near.truncate(BUCKET);
        }
        near.sort_unstable_by_key(|(distance, _)| *distance);
        near.into_iter().map(|(_, contact)| contact).collect()
    }

    fn answer(&mut self, asker: SocketAddr, transaction: &[u8], query: &Query<'_>) {
        let target = match query.method {
            Method::FindNode { target }
            | Method::Get { target, .. }
            | Method::SampleInfohashes { target } => Some(target),
            Method::GetPeers { info_hash } => Some(info_hash.as_target()),
            Method::Ping
            | Method::AnnouncePeer { .. }
            | Method::Put(_)
            | Method::Unknown { .. } => None,
        };
        let nodes = target.map(|target| self.closest(target));
        let mut out = Vec::new();
        ResponseWriter {
            transaction,
            id: self.id,
            asker,
            nodes: nodes.as_deref(),
            nodes6: None,
            token: None,
            values: &[],
            extra: trackless::krpc::Extra::None,
        }
        .write(&mut out);
        self.transmits.push_back((asker, out.into()));
    }

    fn start(&mut self, now: Instant, target: NodeId, is_reported: bool) -> LookupId {
        let id = LookupId(self.next_lookup);
        self.next_lookup += 1;
        let candidate = |info| Candidate {
            info,
            state: State::New,
            hop: 1,
        };
        let lookup = Lookup {
            target,
            is_reported,
            candidates: self.closest(target).into_iter().map(candidate).collect(),
            in_flight: 0,
            started: now,
            report: LookupReport::default(),
        };
        if let Some(bucket) = self.buckets.get_mut(&self.id.common_prefix(&target)) {
            bucket.touched = Some(now);
        }
        self.lookups.insert(id, lookup);
        id
    }

    fn ask(&mut self, now: Instant, id: LookupId, to: SocketAddr, node: Option<NodeId>) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return;
        };
        lookup.in_flight += 1;
        lookup.report.queries += 1;
        let transaction = self.next_transaction;
        self.next_transaction = transaction.wrapping_add(1);
        let query = Query {
            id: self.id,
            want: Want::default(),
            method: Method::FindNode {
                target: lookup.target,
            },
        };
        let mut out = Vec::new();
        write_query(&mut out, &transaction.to_be_bytes(), false, &query);
        self.transmits.push_back((to, out.into()));
        self.deadlines.push_back((now + TIMEOUT, transaction));
        let pending = Pending {
            lookup: id,
            to,
            id: node,
        };
        self.pending.insert(transaction, pending);
    }

    fn on_response(
        &mut self,
        now: Instant,
        from: SocketAddr,
        transaction: &[u8],
        response: &Response<'_>,
    ) {
        let Ok(bytes) = <[u8; 2]>::try_from(transaction) else {
            return;
        };
        let transaction = u16::from_be_bytes(bytes);
        let is_from = |pending: &Pending| pending.to == from;
        if !self.pending.get(&transaction).is_some_and(is_from) {
            return;
        }
        let Some(pending) = self.pending.remove(&transaction) else {
            return;
        };
        let answerer = ContactInfo {
            id: response.id,
            address: from,
        };
        self.note(answerer);
        let named: Vec<ContactInfo> = response.nodes.iter().collect();
        for info in &named {
            self.note(*info);
        }
        let Some(lookup) = self.lookups.get_mut(&pending.lookup) else {
            return;
        };
        lookup.in_flight -= 1;
        lookup.on_answer(answerer, pending.id, &named, self.id);
        self.step(now, pending.lookup);
    }

    fn on_timeout(&mut self, now: Instant, pending: &Pending) {
        if let Some(id) = pending.id {
            let bucket = self.buckets.get_mut(&self.id.common_prefix(&id));
            if let Some(bucket) = bucket {
                let failed = bucket.contacts.iter_mut().find(|c| c.info.id == id);
                if let Some(contact) = failed {
                    contact.failures += 1;
                }
                bucket.contacts.retain(|c| c.failures < FAILURES_MAX);
            }
        }
        if let Some(lookup) = self.lookups.get_mut(&pending.lookup) {
            lookup.in_flight -= 1;
            lookup.report.timed_out += 1;
            if let Some(candidate) = lookup.candidate(pending.id) {
                candidate.state = State::Failed;
            }
            self.step(now, pending.lookup);
        }
    }

    /// Asks the next candidates, or ends the lookup.
    fn step(&mut self, now: Instant, id: LookupId) {
        while let Some(lookup) = self.lookups.get_mut(&id) {
            if lookup.in_flight < PARALLELISM
                && let Some(next) = lookup.next()
            {
                self.ask(now, id, next.address, Some(next.id));
                continue;
            }
            if lookup.in_flight == 0
                && let Some(mut lookup) = self.lookups.remove(&id)
                && lookup.is_reported
            {
                let report = lookup.finish(now);
                self.events
                    .push_back(Event::LookupDone { lookup: id, report });
            }
            return;
        }
    }

    /// Looks for a random id of each bucket that nobody has looked into for long.
    fn refresh(&mut self, now: Instant) {
        let deepest = self.buckets.keys().next_back().copied().unwrap_or(0);
        for index in 0..=deepest {
            let bucket = self.buckets.entry(index).or_default();
            let touched = *bucket.touched.get_or_insert(now);
            if now.saturating_since(touched) < REFRESH {
                continue;
            }
            let mut target = NodeId::new(self.random.bytes());
            for bit in 0..index {
                target = target.with_bit(bit, self.id.bit(bit));
            }
            target = target.with_bit(index, !self.id.bit(index));
            let lookup = self.start(now, target, false);
            self.step(now, lookup);
        }
    }
}

impl Lookup {
    fn on_answer(
        &mut self,
        answerer: ContactInfo,
        asked: Option<NodeId>,
        named: &[ContactInfo],
        own: NodeId,
    ) {
        let mut hop = 1;
        if let Some(candidate) = self.candidate(asked) {
            candidate.state = State::Answered;
            hop = candidate.hop;
        } else {
            self.add(answerer, State::Answered, 1);
            if let Some(candidate) = self.candidate(Some(answerer.id)) {
                candidate.state = State::Answered;
            }
        }
        self.report.answered += 1;
        for info in named {
            if info.id != own {
                self.add(*info, State::New, hop + 1);
            }
        }
    }

    /// Where a node is among the candidates, or where it belongs.
    fn place(&self, id: NodeId) -> Result<usize, usize> {
        let distance = id.distance(&self.target);
        let of = |candidate: &Candidate| candidate.info.id.distance(&self.target);
        self.candidates.binary_search_by_key(&distance, of)
    }

    fn candidate(&mut self, id: Option<NodeId>) -> Option<&mut Candidate> {
        let place = self.place(id?).ok()?;
        self.candidates.get_mut(place)
    }

    /// Adds a candidate; one that is there stays as it is.
    fn add(&mut self, info: ContactInfo, state: State, hop: u32) {
        if let Err(place) = self.place(info.id) {
            self.candidates
                .insert(place, Candidate { info, state, hop });
        }
    }

    /// The closest candidate not asked yet, among the eight closest that have not failed.
    fn next(&mut self) -> Option<ContactInfo> {
        let hopeful = self.candidates.iter_mut();
        let mut hopeful = hopeful.filter(|candidate| candidate.state != State::Failed);
        let next = hopeful
            .by_ref()
            .take(BUCKET)
            .find(|candidate| candidate.state == State::New)?;
        next.state = State::Asked;
        Some(next.info)
    }

    fn finish(&mut self, now: Instant) -> LookupReport {
        let answered = self.candidates.iter();
        let mut answered = answered.filter(|candidate| candidate.state == State::Answered);
        let mut report = std::mem::take(&mut self.report);
        if let Some(first) = answered.next() {
            report.hops = first.hop;
            report.closest.push(first.info);
        }
        let rest = answered.take(BUCKET - 1).map(|candidate| candidate.info);
        report.closest.extend(rest);
        report.duration = now.saturating_since(self.started);
        report
    }
}

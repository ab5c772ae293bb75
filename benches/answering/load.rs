//! Asks a server, counts the answers and how long they took.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use trackless::krpc::{Body, ContactInfo, Extra, Message, Method, ResponseWriter};

use crate::queries::{self, Book, Items, Kind, Token, index, scramble};
use crate::sources::{BURST, SOURCES, Sources};

/// Queries in flight when a server is asked as fast as it answers.
const WINDOW: usize = 256;

/// Queries that are remembered; more than can be in flight.
const SLOTS: usize = 1 << 16;

/// Without any answer for so long, what is in flight is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// 1 ping : 4 `find_node` : 4 `get_peers` : 1 announce.
    Mix,
    /// The same again and again.
    Only(Kind),
    /// Each torrent of a range is announced once.
    Store { first: u32, end: u32 },
    /// So many torrents are announced by so many sources each.
    Popular { torrents: u32, peers: u32 },
    /// Pings from one source.
    Flood,
}

/// How fast, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as it answers, for so long.
    Full(Duration),
    /// So many queries a second, for so long.
    Rate(f64, Duration),
    /// As fast as it answers, so many queries, or what there is to store.
    Count(u64),
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Answers that were errors.
    pub(crate) refused: u64,
    pub(crate) seconds: f64,
    /// Microseconds, in the order in which the answers came.
    latencies: Vec<u32>,
}

impl Outcome {
    /// The time within which a share of the answers came, in milliseconds.
    pub(crate) fn percentile(&mut self, share: f64) -> f64 {
        self.latencies.sort_unstable();
        let count = f64::from(u32::try_from(self.latencies.len()).unwrap());
        let last = self.latencies.len().saturating_sub(1);
        let place = num(count * share).min(last);
        f64::from(self.latencies.get(place).copied().unwrap_or(0)) / 1_000.0
    }
}

/// A whole number from a small positive one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and small"
)]
pub(crate) fn num(number: f64) -> usize {
    number as usize
}

/// A query in flight.
#[derive(Debug, Clone, Copy)]
struct Slot {
    transaction: u32,
    kind: Kind,
    source: u32,
    subject: u32,
    sent: Instant,
    is_open: bool,
}

/// Asks.
pub(crate) struct Load {
    sources: Sources,
    slots: Vec<Slot>,
    next: u32,
    in_flight: usize,
    random: u64,
    items: Items,
    burst: Vec<Vec<u8>>,
    /// Announces that follow the answers to `get_peers`.
    follow_ups: VecDeque<(u32, u32, Token)>,
    /// How many pairs of torrent and source were looked at.
    pairs: u32,
}

impl Load {
    pub(crate) fn new() -> Self {
        let slot = Slot {
            transaction: 0,
            kind: Kind::Ping,
            source: 0,
            subject: 0,
            sent: Instant::now(),
            is_open: false,
        };
        Self {
            sources: Sources::open(),
            slots: vec![slot; SLOTS],
            next: 0x4100_0000,
            in_flight: 0,
            random: 1,
            items: Items::sign(),
            burst: vec![Vec::new(); BURST],
            follow_ups: VecDeque::new(),
            pairs: 0,
        }
    }

    /// The address of a source, which answers queries like a node.
    pub(crate) fn entry(&self) -> String {
        self.sources.socket_address(0).to_string()
    }

    /// Asks a server.
    pub(crate) fn run(
        &mut self,
        server: SocketAddrV4,
        book: &mut Book,
        work: Work,
        pace: Pace,
    ) -> Outcome {
        self.sources.aim(server);
        self.sources.wait(!matches!(pace, Pace::Rate(..)));
        self.pairs = 0;
        let mut outcome = Outcome::default();
        let started = Instant::now();
        let mut heard = started;
        loop {
            let came = self.receive(book, work, &mut outcome);
            let now = Instant::now();
            let elapsed = now - started;
            if came > 0 {
                heard = now;
            } else if now - heard > PATIENCE {
                self.in_flight = 0;
                heard = now;
            }
            let (wanted, is_over) = match pace {
                Pace::Full(time) => (WINDOW, elapsed >= time),
                Pace::Count(count) => (WINDOW, outcome.sent >= count),
                Pace::Rate(rate, time) => {
                    let due = num(rate * elapsed.as_secs_f64());
                    let sent = usize::try_from(outcome.sent).unwrap();
                    (due.saturating_sub(sent) + self.in_flight, elapsed >= time)
                }
            };
            if is_over {
                if self.in_flight == 0 {
                    break;
                }
                continue;
            }
            let mut is_done = false;
            while !is_done && self.in_flight + BURST <= wanted {
                is_done = self.send(book, work, &mut outcome) == 0;
            }
            if is_done && self.in_flight == 0 {
                break;
            }
        }
        outcome.seconds = started.elapsed().as_secs_f64();
        self.slots.iter_mut().for_each(|slot| slot.is_open = false);
        outcome
    }

    fn random(&mut self) -> u64 {
        self.random += 1;
        scramble(self.random)
    }

    /// Sends a burst of one source; how many queries it has.
    fn send(&mut self, book: &mut Book, work: Work, outcome: &mut Outcome) -> usize {
        let mut burst = std::mem::take(&mut self.burst);
        let turn = outcome.sent / u64::try_from(BURST).unwrap();
        let mut from = u32::try_from(turn % u64::from(SOURCES)).unwrap();
        let mut count = 0;
        for out in &mut burst {
            out.clear();
            let planned = match work {
                Work::Mix | Work::Only(_) | Work::Flood => Some(self.plan(book, work, from)),
                Work::Store { .. } | Work::Popular { .. } => {
                    self.next_stored(work, (count > 0).then_some(from))
                }
            };
            let Some((source, kind, subject, token)) = planned else {
                break;
            };
            from = source;
            let transaction = self.next.to_be_bytes();
            let is_written = match kind {
                Kind::Get => {
                    queries::write_get(out, transaction, source, &self.items);
                    true
                }
                Kind::Put => queries::write_put(out, transaction, source, &self.items, book),
                _ => {
                    queries::write(out, transaction, source, kind, subject, token);
                    true
                }
            };
            if !is_written {
                break;
            }
            self.note(source, kind, subject);
            count += 1;
        }
        if count > 0 {
            self.sources.send(from, &burst[..count]);
        }
        self.burst = burst;
        outcome.sent += u64::try_from(count).unwrap();
        count
    }

    /// The next query of a source.
    fn plan(&mut self, book: &Book, work: Work, source: u32) -> (u32, Kind, u32, Option<Token>) {
        let kind = match work {
            Work::Only(kind) => kind,
            Work::Mix => match self.random() % 10 {
                0 => Kind::Ping,
                1..=4 => Kind::FindNode,
                5..=8 => Kind::GetPeers,
                _ => Kind::Announce,
            },
            Work::Flood | Work::Store { .. } | Work::Popular { .. } => Kind::Ping,
        };
        let source = if work == Work::Flood { 0 } else { source };
        let number = self.random();
        if kind == Kind::Announce
            && let Some((hash, token)) = book.some_token(source, number >> 8)
        {
            return (source, kind, hash, Some(token));
        }
        let subject = u32::try_from(number % u64::from(queries::HASHES)).unwrap();
        (source, kind, subject, None)
    }

    /// The next step of filling the store: an announce whose token has come, or else the query for
    /// the next token. All of a burst come from one source.
    fn next_stored(
        &mut self,
        work: Work,
        burst_of: Option<u32>,
    ) -> Option<(u32, Kind, u32, Option<Token>)> {
        let is_same = |source| burst_of.is_none_or(|other| other == source);
        if let Some(&(source, hash, token)) = self.follow_ups.front() {
            if !is_same(source) {
                return None;
            }
            self.follow_ups.pop_front();
            return Some((source, Kind::Announce, hash, Some(token)));
        }
        let burst = u32::try_from(BURST).unwrap();
        loop {
            let source = self.pairs / burst % SOURCES;
            let place = self.pairs / (burst * SOURCES) * burst + self.pairs % burst;
            let (hash, is_wanted, is_over) = match work {
                Work::Store { first, end } => {
                    let hash = first + place * SOURCES + source;
                    (
                        hash,
                        hash < end,
                        first + place * SOURCES >= end + burst * SOURCES,
                    )
                }
                Work::Popular { torrents, peers } => {
                    let is_wanted = place < torrents && source < peers;
                    (place, is_wanted, place >= torrents + burst)
                }
                Work::Mix | Work::Only(_) | Work::Flood => return None,
            };
            if is_over {
                return None;
            }
            if is_wanted && !is_same(source) {
                return None;
            }
            self.pairs += 1;
            if is_wanted {
                return Some((source, Kind::GetPeers, hash, None));
            }
        }
    }

    /// Remembers a query that is about to be sent.
    fn note(&mut self, source: u32, kind: Kind, subject: u32) {
        self.slots[index(self.next) % SLOTS] = Slot {
            transaction: self.next,
            kind,
            source,
            subject,
            sent: Instant::now(),
            is_open: true,
        };
        self.next = self.next.wrapping_add(1);
        self.in_flight += 1;
    }

    /// Takes what has come; how many datagrams.
    fn receive(&mut self, book: &mut Book, work: Work, outcome: &mut Outcome) -> usize {
        let count = self.sources.receive();
        let now = Instant::now();
        let mut asked = Vec::new();
        for place in 0..count {
            let (datagram, source) = self.sources.datagram(place);
            let Some(slot) = open_slot(&mut self.slots, datagram) else {
                if datagram.ends_with(b"1:y1:qe") {
                    asked.push((source, datagram.to_vec()));
                }
                continue;
            };
            slot.is_open = false;
            self.in_flight = self.in_flight.saturating_sub(1);
            if datagram.ends_with(b"1:y1:ee") {
                outcome.refused += 1;
                continue;
            }
            outcome.answered += 1;
            let micros = (now - slot.sent).as_micros();
            outcome.latencies.push(u32::try_from(micros).unwrap());
            match slot.kind {
                Kind::GetPeers | Kind::Get => {
                    if let Some(token) = queries::token(datagram) {
                        if slot.kind == Kind::Get {
                            book.keep_item(slot.source, token);
                        } else {
                            book.keep(slot.source, slot.subject, token);
                            if matches!(work, Work::Store { .. } | Work::Popular { .. }) {
                                let announce = (slot.source, slot.subject, token);
                                self.follow_ups.push_back(announce);
                            }
                        }
                    }
                }
                Kind::Ping | Kind::FindNode | Kind::Announce | Kind::Put => {}
            }
        }
        for (source, query) in asked {
            if let Some(source) = source {
                self.answer(source, &query);
            }
        }
        count
    }

    /// Answers as a node that knows some of the other sources.
    fn answer(&mut self, source: u32, query: &[u8]) {
        let Ok(message) = Message::decode(query) else {
            return;
        };
        let Body::Query(asked) = message.body else {
            return;
        };
        let known = (0..8).map(|_| {
            let other = u32::try_from(self.random() % u64::from(SOURCES)).unwrap();
            ContactInfo {
                id: queries::id(other),
                address: self.sources.socket_address(other),
            }
        });
        let known: Vec<_> = known.collect();
        let response = ResponseWriter {
            transaction: message.transaction,
            id: queries::id(source),
            asker: self.sources.server(),
            nodes: (asked.method != Method::Ping).then_some(&known),
            nodes6: None,
            token: None,
            values: &[],
            extra: Extra::None,
        };
        let mut out = Vec::new();
        response.write(&mut out);
        self.sources.send(source, &[out]);
    }
}

/// The query that a datagram answers, if it is in flight. An echo counts as an answer.
fn open_slot<'a>(slots: &'a mut [Slot], datagram: &[u8]) -> Option<&'a mut Slot> {
    const KEY: &[u8] = b"1:t4:";
    let at = datagram.windows(KEY.len()).rposition(|part| part == KEY)? + KEY.len();
    let transaction = datagram.get(at..)?.first_chunk::<4>()?;
    let transaction = u32::from_be_bytes(*transaction);
    let slot = &mut slots[index(transaction) % SLOTS];
    (slot.is_open && slot.transaction == transaction).then_some(slot)
}

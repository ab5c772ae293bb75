//! Plays a script to a node, and checks after each step that the node keeps its promises.
//!
//! Invariant: each promise is checked by a rule with a name, and what breaks it is a
//! [`Finding`], not a panic: panics are left to the node.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use trackless::dht::{Config, Counters, Event, LocalId, Node, PeerKind, PeerPort, PutOptions};
use trackless::krpc::{Body, Family, Message, compact};
use trackless::random::Random;
use trackless::time::Instant;

use crate::answers::{Asked, answer, contacts, peers};
use crate::cast::{Role, Speaker, cast, own_addresses};
use crate::model::{Model, Open, Running};
use crate::script::{Call, Script, Step, Style};
use crate::seeds::{item, torrent};
use crate::template::fill;

mod rules;

/// Answers in one step, so that no script goes on without end.
const ANSWERS_MAX: usize = 150;

/// Longest time that lookups may take to end when nobody answers.
const LOOKUPS_END_WITHIN: Duration = Duration::from_secs(30 * 60);

/// Longest time that anything is stored, and a sweep.
const ALL_EXPIRES_WITHIN: Duration = Duration::from_secs(2 * 3600 + 120);

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which promise.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.rule, self.detail)
    }
}

/// Fails a rule unless the condition holds.
fn ensure(holds: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Result<(), Finding> {
    if holds {
        return Ok(());
    }
    let detail = detail();
    Err(Finding { rule, detail })
}

/// What one step changed: its kind, a bit for each counter that rose, and one for each kind of event.
pub type Feature = (u8, u128, u8);

/// What came of a script.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What its steps reached.
    pub features: BTreeSet<Feature>,
    /// A bit for each counter that is not 0, in the order of [`Counters::named`].
    pub reached: u128,
    /// Datagrams that went in.
    pub received: u64,
    /// Datagrams that came out.
    pub sent: u64,
    /// The most bytes that the node took.
    pub memory: usize,
    /// Stands for everything that the node said, and when.
    pub fingerprint: u64,
}

/// How long a node is watched when its script is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Until its lookups have ended.
    Lookups,
    /// Until all that it stores has expired.
    Expiry,
}

/// A node, and what is known about it.
struct World {
    config: Config,
    profile: crate::profile::Profile,
    cast: &'static [Speaker],
    node: Node,
    /// Nodes that were started before this one.
    restarts: u64,
    now: Instant,
    /// When forged answers began to be counted.
    started: Instant,
    model: Model,
    outcome: Outcome,
    /// Kinds of events in this step.
    events: u8,
}

/// Plays a script.
///
/// # Errors
///
/// The first promise that the node breaks.
pub fn run(script: &Script, watch: Watch) -> Result<Outcome, Finding> {
    let config = script.profile.config();
    let mut world = World {
        node: Node::new(config.clone(), Random::from_seed(1), Instant::ZERO),
        config,
        profile: script.profile,
        cast: cast(),
        restarts: 0,
        now: Instant::ZERO,
        started: Instant::ZERO,
        model: Model::default(),
        outcome: Outcome::default(),
        events: 0,
    };
    for step in &script.steps {
        world.play(step)?;
    }
    world.watch(watch)?;
    Ok(world.outcome)
}

/// A bit for each counter that rose.
fn risen(before: &Counters, after: &Counters) -> u128 {
    let pairs = before.named().zip(after.named());
    let bits = pairs
        .enumerate()
        .map(|(bit, ((_, before), (_, after)))| u128::from(after > before) << bit);
    bits.fold(0, |all, bit| all | bit)
}

impl World {
    fn play(&mut self, step: &Step) -> Result<(), Finding> {
        let mut before = *self.node.stats();
        self.events = 0;
        let kind = match step {
            Step::Receive {
                from,
                times,
                template,
            } => {
                let speaker = self.cast[usize::from(*from) % self.cast.len()];
                for _ in 0..*times {
                    let payload = self.filled(&speaker, template);
                    self.receive(&speaker, &payload)?;
                }
                0
            }
            Step::Answer(style) => {
                self.answer(*style)?;
                1
            }
            Step::Call(call, number) => {
                if *call == Call::Restart {
                    before = Counters::default();
                }
                self.call(*call, *number)?;
                2
            }
            Step::Pass(millis) => {
                self.pass(Duration::from_millis((*millis).into()))?;
                3
            }
        };
        self.pass(Duration::ZERO)?;
        self.check_state()?;
        let after = self.node.stats();
        let mask = risen(&before, after);
        self.outcome.reached |= risen(&Counters::default(), after);
        self.outcome.features.insert((kind, mask, self.events));
        Ok(())
    }

    /// A datagram as this speaker sends it now.
    fn filled(&self, speaker: &Speaker, template: &[u8]) -> Vec<u8> {
        let secret = |found: Option<&[u8]>, out: &mut Vec<u8>| {
            let known = found.filter(|_| speaker.role != Role::Forged);
            write_string(out, known.unwrap_or(b"zz"));
        };
        fill(template, |letter, out| match letter {
            b'T' => secret(self.model.transaction(speaker.address, false), out),
            b't' => secret(self.model.transaction(speaker.address, true), out),
            b'K' => secret(self.model.token(speaker.address.ip(), false), out),
            b'k' => secret(self.model.token(speaker.address.ip(), true), out),
            b'I' => write_string(out, speaker.id.as_bytes()),
            b'O' => write_string(out, self.node.id(speaker.local).as_bytes()),
            b'V' => {
                out.push(b'l');
                for peer in peers(torrent(0), Family::of(&speaker.address), false) {
                    let mut packed = Vec::new();
                    compact::write_peer(&mut packed, &peer);
                    write_string(out, &packed);
                }
                out.push(b'e');
            }
            _ => {
                let family = if letter == b'N' {
                    Family::V4
                } else {
                    Family::V6
                };
                let mut packed = Vec::new();
                for contact in contacts(self.cast, speaker, family, 8) {
                    compact::write_node(&mut packed, &contact);
                }
                write_string(out, &packed);
            }
        })
    }

    /// Nodes of the cast answer what they are asked, until nothing more is.
    fn answer(&mut self, style: Style) -> Result<(), Finding> {
        for _ in 0..ANSWERS_MAX {
            let cast = self.cast;
            let speaker_of = |open: &Open| {
                let nodes = cast.iter().filter(|one| one.role == Role::Node);
                nodes.copied().find(|one| one.address == open.to)
            };
            let mut open = self.model.open.iter_mut().filter(|open| !open.is_tried);
            let found = open.find_map(|open| speaker_of(open).map(|speaker| (open, speaker)));
            let Some((open, speaker)) = found else {
                return Ok(());
            };
            open.is_tried = true;
            let query = (&open.transaction[..], open.asked);
            let here = own_addresses()[usize::from(speaker.local.0)];
            let payload = answer(self.cast, &speaker, query, here, style);
            self.receive(&speaker, &payload)?;
        }
        Ok(())
    }

    fn call(&mut self, call: Call, number: u8) -> Result<(), Finding> {
        let now = self.now;
        let info_hash = torrent(number);
        let speaker = self.cast[usize::from(number) % self.cast.len()];
        let at = speaker.address;
        let wanted = item(number);
        let node = &mut self.node;
        let mut searched = None;
        let lookup = match call {
            Call::FindPeers => node.find_peers(now, info_hash),
            Call::Announce => node.announce(now, info_hash, PeerPort::Explicit(7000)),
            Call::Seed => node.announce_as(now, info_hash, PeerPort::Implied, PeerKind::Seed),
            Call::KeepAnnounced => {
                let kept = node.keep_announced(now, info_hash, PeerPort::Implied, PeerKind::Peer);
                let Some(kept) = kept else {
                    return self.drain().map(drop);
                };
                kept
            }
            Call::FindNode => node.find_node(now, speaker.id),
            Call::Ping => node.ping(now, at),
            Call::Scrape => node.scrape(now, info_hash),
            Call::Sample => node.sample_infohashes(now, speaker.id),
            Call::Get => {
                searched = Some(wanted.target());
                let salt = wanted.version().map_or(&b""[..], |signed| &signed.salt);
                node.get_item(now, wanted.target(), salt)
            }
            Call::Put | Call::Keep => {
                searched = Some(wanted.target());
                let options = PutOptions {
                    cas: (number > 40).then_some(1),
                    keep: call == Call::Keep,
                };
                node.put_item(now, wanted.clone(), options)
            }
            Call::Bootstrap
            | Call::AddNode
            | Call::Drop
            | Call::Withdraw
            | Call::Cancel
            | Call::Wake
            | Call::Restart => return self.order(call, number),
        };
        let running = Running {
            item: searched,
            peers: 0,
        };
        let lookups = match call {
            Call::KeepAnnounced => &mut self.model.kept,
            _ => &mut self.model.running,
        };
        lookups.insert(lookup, running);
        self.drain().map(drop)
    }

    /// A call that starts no lookup.
    fn order(&mut self, call: Call, number: u8) -> Result<(), Finding> {
        let now = self.now;
        let at = self.cast[usize::from(number) % self.cast.len()].address;
        match call {
            Call::Bootstrap => self.node.bootstrap(now, &[at]),
            Call::AddNode => self.node.add_node(now, at),
            Call::Drop => self.node.withdraw_item(&item(number).target()),
            Call::Withdraw => {
                // Nothing may come of its announces any more.
                if let Some(lookup) = self.node.kept(torrent(number)) {
                    self.model.kept.remove(&lookup);
                }
                self.node.withdraw(torrent(number));
            }
            Call::Cancel => {
                let running = &mut self.model.running;
                let nth = usize::from(number) % running.len().max(1);
                if let Some(lookup) = running.keys().nth(nth).copied() {
                    running.remove(&lookup);
                    self.node.cancel(lookup);
                }
            }
            Call::Restart => {
                let snapshot = self.node.snapshot();
                self.restarts += 1;
                let random = Random::from_seed(1 + self.restarts);
                self.node = Node::new(self.config.clone(), random, now);
                // Nothing of a snapshot is believed, so nothing of it is in the model.
                self.model = Model::default();
                self.started = now;
                self.node.restore(now, &snapshot);
            }
            _ => self.node.handle_timeout(now),
        }
        self.drain().map(drop)
    }

    /// Lets time pass, and wakes the node whenever it wants.
    fn pass(&mut self, duration: Duration) -> Result<(), Finding> {
        let until = self.now + duration;
        let mut wakes = 0;
        while let Some(wake) = self.node.poll_timeout().filter(|wake| wake.at <= until) {
            self.now = self.now.max(wake.at);
            self.node.handle_timeout(self.now);
            self.drain()?;
            wakes += 1;
            self.check_wakes(wakes, duration)?;
        }
        self.now = until;
        Ok(())
    }

    /// The script is over: what was begun ends, and what was stored expires.
    fn watch(&mut self, watch: Watch) -> Result<(), Finding> {
        let until = self.now + LOOKUPS_END_WITHIN;
        while !self.model.running.is_empty() && self.now < until {
            self.pass(Duration::from_secs(20))?;
        }
        ensure(self.model.running.is_empty(), "every lookup ends", || {
            format!("{:?}", self.model.running)
        })?;
        if watch == Watch::Expiry {
            self.pass(ALL_EXPIRES_WITHIN)?;
            let left = (self.node.stored(), self.node.stored_items());
            ensure(left == ((0, 0), 0), "what is stored expires", || {
                format!("{left:?} are left")
            })?;
        }
        self.check_state()
    }

    /// Takes a stock of what the node has to say, and gives its datagrams.
    fn drain(&mut self) -> Result<Vec<trackless::dht::Transmit>, Finding> {
        let mut sent = Vec::new();
        while let Some(transmit) = self.node.poll_transmit() {
            let message = rules::check_sent(&transmit)?;
            self.outcome.sent += 1;
            for byte in self
                .now
                .as_micros()
                .to_be_bytes()
                .iter()
                .chain(&transmit.payload)
            {
                let mixed = self.outcome.fingerprint ^ u64::from(*byte);
                self.outcome.fingerprint = mixed.wrapping_mul(0x0100_0000_01b3);
            }
            if let Body::Query(query) = message.body {
                self.model.on_asked(Open {
                    at: self.now,
                    local: transmit.from,
                    to: transmit.to,
                    transaction: message.transaction.to_vec(),
                    asked: Asked::of(&query),
                    is_tried: false,
                });
            }
            sent.push(transmit);
        }
        while let Some(event) = self.node.poll_event() {
            self.on_event(&event)?;
        }
        Ok(sent)
    }

    /// A datagram comes in.
    fn receive(&mut self, speaker: &Speaker, payload: &[u8]) -> Result<(), Finding> {
        let before = *self.node.stats();
        let stored = (self.node.stored(), self.node.stored_items());
        let local = LocalId(speaker.local.0);
        self.node
            .handle_datagram(self.now, local, speaker.address, payload);
        self.outcome.received += 1;
        let sent = self.drain()?;
        self.check_belief(speaker, payload, &before)?;
        self.check_stored(speaker, payload, &before, stored)?;
        self.check_answers(speaker, payload, &sent)
    }

    fn on_event(&mut self, event: &Event) -> Result<(), Finding> {
        let bit = match event {
            Event::PeersFound { .. } => 0,
            Event::ItemFound { .. } => 1,
            Event::SamplesFound { .. } => 2,
            Event::LookupDone { .. } => 3,
            Event::Step { .. } => 4,
            Event::AddressChanged { .. } => 5,
            Event::TableChanged { .. } => 6,
            Event::Announced { .. } => 7,
        };
        self.events |= 1 << bit;
        self.check_event(event)
    }
}

/// Appends a bencoded string.
fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes.len().to_string().bytes());
    out.push(b':');
    out.extend(bytes);
}

/// A message that a payload holds, if it is one.
fn decoded(payload: &[u8]) -> Option<Message<'_>> {
    Message::decode(payload).ok()
}

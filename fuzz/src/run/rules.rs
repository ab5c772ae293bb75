//! The promises, one function for each kind of thing that the node does.

use std::time::Duration;

use trackless::bencode::{Limits, read};
use trackless::dht::item::{immutable_target, mutable_target};
use trackless::dht::{Counters, Event, Transmit};
use trackless::id::NodeId;
use trackless::krpc::{Body, DecodeError, Message, Method, REPLY_MAX, VALUE_REPLY_MAX};

use super::{Finding, World, decoded, ensure};
use crate::cast::{Role, Speaker};

/// Wake-ups without input: so many at once, and so many more each second. Ours: a few times what a node
/// with every lookup under way wants.
const WAKES_AT_ONCE: u64 = 400;
const WAKES_A_SECOND: u64 = 40;

/// What is sent is a message in canonical form, and no longer than BEP 32 and BEP 44 answers may be.
pub(super) fn check_sent(transmit: &Transmit) -> Result<Message<'_>, Finding> {
    let payload = &transmit.payload[..];
    let shown = || format!("to {}: {}", transmit.to, payload.escape_ascii());
    let canonical = read(payload, &Limits::KRPC).is_ok_and(|value| value.is_canonical());
    ensure(canonical, "what is sent is canonical bencode", shown)?;
    let Some(message) = decoded(payload) else {
        let rule = "what is sent is a message";
        return Err(Finding {
            rule,
            detail: shown(),
        });
    };
    let has_value = match message.body {
        Body::Query(query) => matches!(query.method, Method::Put(_)),
        Body::Response(response) => response.item.value.is_some(),
        Body::Error { .. } => false,
    };
    let max = if has_value {
        VALUE_REPLY_MAX
    } else {
        REPLY_MAX
    };
    ensure(payload.len() <= max, "datagrams are short", shown)?;
    ensure(transmit.to.port() != 0, "nothing is sent to port 0", shown)?;
    Ok(message)
}

/// Bytes out for one byte in, in tenths, as `docs/PROTOCOL.md` bounds them for a forged source.
fn amplification_max(message: Option<&Message<'_>>, has_value: bool) -> usize {
    // What is refused before it is read may have no method at all.
    let Some(Body::Query(query)) = message.map(|message| message.body) else {
        return 36;
    };
    match query.method {
        Method::Ping => 27,
        Method::FindNode { .. } => 64,
        Method::GetPeers { .. } if query.want.scrape => 104,
        Method::GetPeers { .. } => 95,
        Method::AnnouncePeer { .. } => 10,
        Method::Get { .. } if has_value => 175,
        Method::Get { .. } => 70,
        Method::Put(_) => 17,
        Method::SampleInfohashes { .. } => 94,
        Method::Unknown {
            target: Some(_), ..
        } => 69,
        Method::Unknown { target: None, .. } => 23,
    }
}

/// The torrent or item that a query names.
fn target_of(method: &Method<'_>) -> Option<NodeId> {
    match method {
        Method::GetPeers { info_hash } | Method::AnnouncePeer { info_hash, .. } => {
            Some(info_hash.as_target())
        }
        Method::Get { target, .. } => Some(*target),
        Method::Put(put) => Some(match put.signed {
            Some(signed) => mutable_target(signed.key, signed.salt),
            None => immutable_target(put.value),
        }),
        Method::Ping
        | Method::FindNode { .. }
        | Method::SampleInfohashes { .. }
        | Method::Unknown { .. } => None,
    }
}

impl World {
    /// Nothing but the answer to an open query, from where that went, counts as one; and nobody is a
    /// contact who has not given one.
    pub(super) fn check_belief(
        &mut self,
        speaker: &Speaker,
        payload: &[u8],
        before: &Counters,
    ) -> Result<(), Finding> {
        let sum = |stats: &Counters| stats.responses + stats.errors_received + stats.id_mismatches;
        let accepted = sum(self.node.stats()) - sum(before);
        if accepted == 0 {
            return Ok(());
        }
        let is_open = |world: &mut Self| {
            decoded(payload).is_some_and(|message| {
                let transaction = message.transaction;
                !matches!(message.body, Body::Query(_))
                    && world
                        .model
                        .on_accepted(speaker.local, speaker.address, transaction)
            })
        };
        let may = accepted == 1 && is_open(self);
        let shown = || format!("{} said {}", speaker.address, payload.escape_ascii());
        ensure(may, "only answers to open queries are accepted", shown)?;
        if let Some(Body::Response(response)) = decoded(payload).map(|message| message.body)
            && self.node.stats().id_mismatches == before.id_mismatches
        {
            self.model.answered.insert((speaker.address, response.id));
        }
        Ok(())
    }

    /// What is stored was brought with a token that its sender was given for it.
    pub(super) fn check_stored(
        &self,
        speaker: &Speaker,
        payload: &[u8],
        before: &Counters,
        (stored, items): ((usize, usize), usize),
    ) -> Result<(), Finding> {
        let after = self.node.stats();
        let is_stored = after.answered_announce > before.answered_announce
            || after.answered_put > before.answered_put;
        let (torrents, peers) = self.node.stored();
        let grows = torrents > stored.0 || peers > stored.1 || self.node.stored_items() > items;
        let shown = || format!("{} said {}", speaker.address, payload.escape_ascii());
        ensure(
            is_stored || !grows,
            "only what is acknowledged is stored",
            shown,
        )?;
        if !is_stored {
            return Ok(());
        }
        let Some(Body::Query(query)) = decoded(payload).map(|message| message.body) else {
            return ensure(false, "only queries are acknowledged", shown);
        };
        let token = match &query.method {
            Method::AnnouncePeer { token, .. } => Some(*token),
            Method::Put(put) => Some(put.token),
            _ => None,
        };
        let is_good = token
            .zip(target_of(&query.method))
            .is_some_and(|(token, target)| {
                let given = (speaker.address.ip(), target, token);
                self.model
                    .is_token(self.now, given, self.config.token_lifetime)
            });
        ensure(is_good, "only a token that was given is taken", shown)
    }

    /// A query is answered at most once, to its sender, with its transaction id; anything else is not.
    pub(super) fn check_answers(
        &mut self,
        speaker: &Speaker,
        payload: &[u8],
        sent: &[Transmit],
    ) -> Result<(), Finding> {
        let message = Message::decode(payload);
        let transaction = match &message {
            Ok(message) if matches!(message.body, Body::Query(_)) => Some(message.transaction),
            Err(DecodeError::Refused { transaction, .. }) => Some(*transaction),
            Ok(_) | Err(_) => None,
        };
        let shown = || format!("{} said {}", speaker.address, payload.escape_ascii());
        let mut bytes = (0, 0);
        let mut has_value = false;
        for transmit in sent {
            let Some(said) = decoded(&transmit.payload) else {
                continue;
            };
            match said.body {
                Body::Query(query) => {
                    let is_look =
                        matches!(query.method, Method::Ping) && transmit.to == speaker.address;
                    bytes.1 += if is_look { transmit.payload.len() } else { 0 };
                    continue;
                }
                Body::Response(response) => {
                    has_value |= response.item.value.is_some();
                    let asked = message.ok().map(|message| message.body);
                    if let (Some(token), Some(Body::Query(query))) = (response.token, asked)
                        && let Some(target) = target_of(&query.method)
                    {
                        let ip = speaker.address.ip();
                        self.model.on_token(self.now, ip, target, token);
                    }
                }
                Body::Error { .. } => {}
            }
            ensure(bytes.0 == 0, "a query is answered once", shown)?;
            let is_back = transmit.to == speaker.address && transmit.from == speaker.local;
            ensure(is_back, "answers go to who asked", shown)?;
            let is_same = transaction == Some(said.transaction);
            ensure(is_same, "queries are answered, nothing else is", shown)?;
            bytes.0 += transmit.payload.len();
        }
        if speaker.role != Role::Forged || self.config.throttle.is_none() {
            return Ok(());
        }
        let max = amplification_max(message.ok().as_ref(), has_value);
        let out = bytes.0 + bytes.1;
        ensure(
            out * 10 <= payload.len() * max,
            "amplification is bounded",
            || format!("{out} bytes for {}: {}", payload.len(), shown()),
        )?;
        self.check_share(speaker, bytes.0)
    }

    /// Answers to one forged address stay within its share of bytes a second.
    fn check_share(&mut self, speaker: &Speaker, length: usize) -> Result<(), Finding> {
        let Some(throttle) = &self.config.throttle else {
            return Ok(());
        };
        let bytes = self.model.forged_bytes.entry(speaker.address).or_default();
        *bytes += u64::try_from(length).unwrap_or(u64::MAX);
        // Whoever is forgotten gets a fresh share.
        if self.node.stats().sources_forgotten > 0 {
            return Ok(());
        }
        let seconds = self.now.saturating_since(self.started).as_secs() + 2;
        let max = seconds * u64::from(throttle.stranger_bytes_per_second) + 1_400;
        ensure(*bytes <= max, "strangers share few bytes", || {
            format!("{bytes} to {} in {seconds} s", speaker.address)
        })
    }

    /// An event tells of a lookup that runs, and of nothing that was not asked for.
    pub(super) fn check_event(&mut self, event: &Event) -> Result<(), Finding> {
        let shown = || format!("{event:?}");
        let model = &mut self.model;
        match event {
            Event::PeersFound { lookup, peers, .. } => {
                let kept = model.kept.get_mut(lookup);
                let Some(running) = kept.or_else(|| model.running.get_mut(lookup)) else {
                    return ensure(false, "events are of running lookups", shown);
                };
                running.peers += peers.len();
                let is_within = running.peers <= self.config.lookup_peers_max;
                ensure(is_within, "the peers of a lookup are bounded", shown)?;
                let has_port = peers.iter().all(|peer| peer.port() != 0);
                ensure(has_port, "a peer has a port", shown)
            }
            Event::ItemFound { lookup, item } => {
                let running = model.running.get(lookup);
                let wanted = running.and_then(|running| running.item);
                ensure(
                    wanted == Some(item.target()),
                    "an item is the one looked for",
                    shown,
                )
            }
            Event::LookupDone { lookup, .. } => {
                let ended = model.running.remove(lookup);
                ensure(ended.is_some(), "a lookup ends once", shown)
            }
            Event::Announced { lookup, .. } => {
                let kept = model.kept.get_mut(lookup);
                ensure(kept.is_some(), "what is announced is kept", shown)?;
                // The next announce may find as many.
                kept.into_iter().for_each(|running| running.peers = 0);
                Ok(())
            }
            Event::SamplesFound { lookup, .. } | Event::Step { lookup, .. } => {
                let runs = model.running.contains_key(lookup) || model.kept.contains_key(lookup);
                ensure(runs, "events are of running lookups", shown)
            }
            Event::AddressChanged { .. } | Event::TableChanged { .. } => Ok(()),
        }
    }

    /// Once woken the node sleeps, and not for a moment only.
    pub(super) fn check_wakes(&self, wakes: u64, passed: Duration) -> Result<(), Finding> {
        let next = self.node.poll_timeout();
        ensure(
            next.is_none_or(|wake| wake.at > self.now),
            "a node that was woken sleeps",
            || format!("{next:?} at {:?}", self.now),
        )?;
        let max = WAKES_AT_ONCE + WAKES_A_SECOND * passed.as_secs();
        ensure(wakes <= max, "a node sleeps most of the time", || {
            format!("{wakes} wake-ups in {passed:?}")
        })
    }

    /// The contacts are nodes that answered, and nothing is over its bound.
    pub(super) fn check_state(&mut self) -> Result<(), Finding> {
        let known = self.node.snapshot().contacts;
        let stranger = known.iter().find(|contact| {
            let contact = (contact.address, contact.id);
            !self.model.answered.contains(&contact)
        });
        ensure(stranger.is_none(), "contacts have answered", || {
            format!("{stranger:?}")
        })?;
        let (torrents, peers) = self.node.stored();
        let items = self.node.stored_items();
        let config = &self.config;
        let is_within = torrents <= config.store_torrents_max
            && peers <= torrents * config.store_peers_max
            && items <= config.store_items_max;
        ensure(is_within, "the stores are bounded", || {
            format!("{torrents} torrents, {peers} peers, {items} items")
        })?;
        let memory = self.node.memory_bytes();
        self.outcome.memory = self.outcome.memory.max(memory);
        ensure(
            memory <= self.profile.memory_max(),
            "memory is bounded",
            || format!("{memory} bytes"),
        )
    }
}

//! Answers to `get` and `put` (BEP 44).
//!
//! What is cheap is looked at first: the token, then the number of the version, and only what
//! would be stored has its signature verified, no more than a few a second for each host.
//!
//! Invariant: nothing is stored without a token issued to the asker's address for that target, and
//! no mutable item without a right signature and a higher number than the one it replaces.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Asker, Refusal, Server};
use crate::dht::config::Config;
use crate::dht::exchange::Exchange;
use crate::dht::host::Host;
use crate::dht::item::{Item, immutable_target, mutable_target};
use crate::dht::item_store::ItemStore;
use crate::dht::ledger::Ledger;
use crate::dht::throttle::{Meter, Standing};
use crate::id::{InfoHash, NodeId};
use crate::krpc::{ErrorCode, Extra, ItemView, Put, ResponseWriter};
use crate::time::Instant;

/// Hosts whose verifications are counted.
const VERIFIED_HOSTS_MAX: usize = 1024;

/// The items of others.
#[derive(Debug)]
pub(in crate::dht) struct Items {
    pub(in crate::dht) store: ItemStore,
    /// Verifications that each host has caused.
    verified: Ledger<Host, Meter>,
    verifications_per_second: u32,
}

/// What becomes of a `put`.
enum Verdict {
    /// It is stored.
    Store(Item),
    /// It is there already and lives on.
    Refresh,
}

impl Items {
    /// No items.
    pub(in crate::dht) fn new(config: &Config) -> Self {
        Self {
            store: ItemStore::new(
                config.store_items_max,
                config.store_item_bytes_max,
                config.item_lifetime,
            ),
            verified: Ledger::new(VERIFIED_HOSTS_MAX),
            verifications_per_second: config.item_verifications_per_second,
        }
    }

    /// Bytes on the heap.
    pub(in crate::dht) fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.verified.memory_bytes()
    }

    /// Whether a signature may be verified for a host now.
    fn may_verify(&mut self, now: Instant, by: &SocketAddr) -> bool {
        let rate = self.verifications_per_second.max(1);
        let cost = Duration::from_secs(1) / rate;
        let (meter, _) = self.verified.open(now, Host::of(by));
        let has_budget = meter.missing(now) + cost <= cost * rate;
        if has_budget {
            meter.spend(now, cost);
        }
        has_budget
    }

    /// Whether a `put` with a right token is stored.
    fn judge(
        &mut self,
        now: Instant,
        target: &NodeId,
        put: &Put<'_>,
        by: &SocketAddr,
    ) -> Result<Verdict, Refusal> {
        let known = self.store.get(now, target);
        let Some(signed) = &put.signed else {
            // The same target is the same value.
            return match known {
                Some(_) => Ok(Verdict::Refresh),
                None => self.verify(put),
            };
        };
        if let Some((known, seq)) = known.and_then(|known| Some((known, known.seq()?))) {
            if signed.cas.is_some_and(|cas| cas != seq) {
                return Err(Refusal::CAS_MISMATCH);
            }
            if signed.seq < seq || (signed.seq == seq && known.value() != put.value) {
                return Err(Refusal::OLD_SEQ);
            }
            if signed.seq == seq {
                return Ok(Verdict::Refresh);
            }
        }
        if !self.may_verify(now, by) {
            return Err(Refusal::TOO_MANY_PUTS);
        }
        self.verify(put)
    }

    /// The item that is put, if it is what it should be and finds room. What is acknowledged is kept:
    /// who is told that it is not can store it elsewhere.
    fn verify(&self, put: &Put<'_>) -> Result<Verdict, Refusal> {
        let item = Item::from_put(put).map_err(|_| Refusal::BAD_SIGNATURE)?;
        if self.store.fits(&item) {
            Ok(Verdict::Store(item))
        } else {
            Err(Refusal::NO_ROOM)
        }
    }
}

impl Server {
    /// Adds token and item, as far as the asker does not have it.
    pub(super) fn answer_get(
        &mut self,
        now: Instant,
        response: ResponseWriter<'_>,
        (target, seq): (NodeId, Option<i64>),
        asker: &Asker<'_>,
        exchange: &mut Exchange,
    ) {
        let name = InfoHash::new(*target.as_bytes());
        let token = self.tokens.issue(now, asker.address.ip(), name);
        let item = self.items.store.get(now, &target).cloned();
        let view = item.as_ref().map(Item::view);
        let view = view.map_or_else(ItemView::default, |view| match (view.seq, seq) {
            (Some(held), Some(known)) if held <= known => ItemView {
                seq: view.seq,
                ..ItemView::default()
            },
            _ => view,
        });
        let response = ResponseWriter {
            // Who gets no token stores its item at somebody who has room.
            token: Some(&token[..]).filter(|_| !self.items.store.is_closed()),
            extra: Extra::Item(view),
            ..response
        };
        let is_sent = self.reply(now, asker, exchange, |out| response.write(out));
        exchange.outbox.stats.answered_get += u64::from(is_sent);
    }

    /// Stores an item, or says why not.
    pub(super) fn answer_put(
        &mut self,
        now: Instant,
        own: &NodeId,
        plain: &ResponseWriter<'_>,
        asker: &Asker<'_>,
        put: &Put<'_>,
        exchange: &mut Exchange,
    ) {
        let target = match &put.signed {
            Some(signed) => mutable_target(signed.key, signed.salt),
            None => immutable_target(put.value),
        };
        let name = InfoHash::new(*target.as_bytes());
        if !self
            .tokens
            .accepts(now, asker.address.ip(), name, put.token)
        {
            self.refuse(now, asker, Refusal::BAD_TOKEN, exchange);
            return;
        }
        self.on_proof(now, &asker.address, &mut exchange.outbox.stats);
        let known = Asker {
            standing: Standing::Known,
            ..*asker
        };
        if self.items.store.is_closed() {
            // Before any signature is verified in vain.
            self.refuse(now, &known, Refusal::NO_ROOM, exchange);
            return;
        }
        match self.items.judge(now, &target, put, &asker.address) {
            Ok(Verdict::Refresh) => self.items.store.refresh(now, &target, &asker.address),
            Ok(Verdict::Store(item)) => {
                let evicted = self.items.store.put(now, item, &asker.address, own);
                exchange.outbox.stats.evicted_items += evicted;
            }
            Err(refusal) => {
                self.refuse(now, &known, refusal, exchange);
                return;
            }
        }
        exchange.outbox.stats.answered_put += 1;
        self.reply(now, &known, exchange, |out| plain.write(out));
    }
}

impl Refusal {
    /// BEP 44.
    const BAD_SIGNATURE: Self = Self {
        code: ErrorCode::InvalidSignature,
        text: "invalid signature",
    };
    /// BEP 44: the stored version is not the one that was to be replaced.
    const CAS_MISMATCH: Self = Self {
        code: ErrorCode::CasMismatch,
        text: "cas mismatch",
    };
    /// BEP 44: the stored version is newer, or another of the same number.
    const OLD_SEQ: Self = Self {
        code: ErrorCode::SeqTooOld,
        text: "seq is not higher",
    };
    /// The host made us verify too many signatures.
    const TOO_MANY_PUTS: Self = Self {
        code: ErrorCode::Server,
        text: "too many puts",
    };
}

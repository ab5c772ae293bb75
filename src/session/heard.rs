//! Whether anybody in the world is heard: nodes of the DHT, trackers.
//!
//! What fails while nobody is may be our own network's fault. The first who is heard again is told to all
//! torrents.
//!
//! Invariant: who listens is woken at most once in [`MEMORY`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::announce::Network;
use crate::net::clock::Clock;
use crate::time::Instant;

/// How long somebody who was heard says that there is a network. Ours: longer than any announce takes, so
/// that one that fails is judged by what was heard meanwhile.
const MEMORY: Duration = Duration::from_secs(90);

/// What a session has heard. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    clock: Clock,
    last: Arc<watch::Sender<Option<Instant>>>,
    /// Sees only who is heard after nobody was.
    returns: watch::Receiver<Option<Instant>>,
}

impl Heard {
    /// Nobody yet.
    pub(super) fn new(clock: Clock) -> Self {
        let (last, returns) = watch::channel(None);
        Self {
            clock,
            last: Arc::new(last),
            returns,
        }
    }

    /// Somebody was heard just now.
    pub(super) fn on_heard(&self) {
        self.on_heard_at(self.clock.now());
    }

    fn on_heard_at(&self, now: Instant) {
        self.last.send_if_modified(|last| {
            let is_return = !is_fresh(*last, now);
            *last = Some(now);
            is_return
        });
    }

    /// Whether there is a network now, as far as is known.
    pub(super) fn network(&self, now: Instant) -> Network {
        if is_fresh(*self.last.borrow(), now) {
            Network::Up
        } else {
            Network::Unknown
        }
    }

    /// Waits until somebody is heard after nobody was. May be dropped.
    pub(super) async fn returned(&mut self) {
        if self.returns.changed().await.is_err() {
            // Never: the sender is here.
            std::future::pending().await
        }
    }
}

/// Whether somebody was heard lately.
fn is_fresh(last: Option<Instant>, now: Instant) -> bool {
    last.is_some_and(|last| now.saturating_since(last) <= MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a return was told since the last look.
    async fn has_returned(heard: &mut Heard) -> bool {
        let told = tokio::time::timeout(Duration::ZERO, heard.returned()).await;
        told.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_heard_after_nobody_was_is_told_and_the_others_are_not() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let heard = Heard::new(Clock::start());
        let mut listener = heard.clone();
        assert_eq!(heard.network(at(0)), Network::Unknown);
        for (seconds, is_told) in [
            (0, true),
            (1, false),
            (91, false),
            (182, true),
            (183, false),
        ] {
            heard.on_heard_at(at(seconds));
            assert_eq!(has_returned(&mut listener).await, is_told, "{seconds}");
            assert_eq!(heard.network(at(seconds + 90)), Network::Up);
            assert_eq!(heard.network(at(seconds + 91)), Network::Unknown);
        }
    }
}

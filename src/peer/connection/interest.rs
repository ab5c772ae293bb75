//! Whether we say that we want something of the peer.
//!
//! Peers that get a piece at a time from the same seed have something for each other and have nothing again
//! many times a second. That we want something is said at once; that we want nothing any more is said at most
//! once in [`PAUSE`], so that nobody takes us for one that flaps.

use super::*;

/// Least time between two messages that we want nothing any more. Ours: far less than a choker's round.
const PAUSE: Duration = Duration::from_secs(1);

/// What we want and what the peer knows of it.
#[derive(Debug, Default)]
pub(super) struct Interest {
    wants: bool,
    pub(super) told: bool,
    /// When the peer was told last that we want nothing any more.
    lost_at: Option<Instant>,
}

impl Interest {
    /// What the peer is to be told now.
    fn news(&mut self, now: Instant) -> Option<Message> {
        if self.wants == self.told || self.due().is_some_and(|at| now < at) {
            return None;
        }
        self.told = self.wants;
        if self.told {
            return Some(Message::Interested);
        }
        self.lost_at = Some(now);
        Some(Message::NotInterested)
    }

    /// When the peer may be told that we want nothing any more; `None` if that is not to be told or was not
    /// told before.
    pub(super) fn due(&self) -> Option<Instant> {
        let lost_at = self.lost_at.filter(|_| self.told && !self.wants)?;
        Some(lost_at + PAUSE)
    }
}

impl Connection {
    /// Tells the peer that we want something, or not; sends only on change, and that we want nothing any more
    /// after a while if that was told just before.
    pub fn set_interested(&mut self, interested: bool) {
        self.interest.wants = interested;
        if self.is_established() {
            self.tell_interest();
        } else {
            self.interest.told = interested;
        }
    }

    /// Tells what could not be told before.
    pub(super) fn tell_interest(&mut self) {
        if let Some(news) = self.interest.news(self.now) {
            self.outbox.push(&news);
        }
    }
}

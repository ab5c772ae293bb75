//! Whom the torrent serves.

use std::time::Duration;

use super::super::choker::{Candidate, Goal};
use super::super::event::State;
use super::Torrent;

/// How long a peer may owe us blocks before it loses its slot: it snubs us (BEP 3: over a minute).
const SNUBBED_AFTER: Duration = Duration::from_secs(60);

impl Torrent {
    pub(super) fn unchoked_count(&self) -> usize {
        self.connections
            .values()
            .filter(|peer| peer.unchoked_at.is_some())
            .count()
    }

    /// Ranks the peers and serves those that come out on top.
    pub(super) fn rechoke(&mut self) {
        let now = self.now;
        let goal = if self.state == State::Seeding {
            Goal::Seed
        } else {
            Goal::Fetch
        };
        let established = self
            .connections
            .iter()
            .filter(|(_, peer)| peer.peer_id.is_some());
        let candidates: Vec<Candidate> = established
            .map(|(&id, peer)| Candidate {
                id,
                interested: peer.connection.peer_interested(),
                down_rate: peer.connection.download().long_bytes_per_second(now),
                unchoked_at: peer.unchoked_at,
                waits_since: peer.waits_since,
                snubbed: peer.connection.owed_for(now) >= SNUBBED_AFTER,
                connected_at: peer.connected_at,
            })
            .collect();
        self.watch.has_audience = candidates.iter().any(|peer| peer.interested);
        let mut serve = self.choker.rank(now, goal, &candidates);
        if self.state == State::Checking {
            serve.clear();
        }
        let mut changed = Vec::new();
        for (&id, peer) in &mut self.connections {
            let chosen = serve.contains(&id);
            if chosen != peer.unchoked_at.is_some() {
                if !chosen {
                    peer.waits_since = now;
                }
                peer.unchoked_at = chosen.then_some(now);
                peer.connection.set_choking(!chosen);
                changed.push(id);
            }
        }
        for id in changed {
            self.mark_ready(id);
        }
    }
}

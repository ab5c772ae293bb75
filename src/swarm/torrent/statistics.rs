//! The numbers of a torrent.

use super::super::event::Stats;
use super::super::metadata::MetadataFetch;
use super::super::pieces::Pieces;
use super::Torrent;
use crate::time::Instant;

impl Torrent {
    /// The numbers as of now.
    #[must_use]
    pub fn stats(&self, now: Instant) -> Stats {
        let now = self.now.max(now);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (parts_done, parts) = self.metadata.as_ref().map_or((0, 0), MetadataFetch::parts);
        let mut stats = Stats {
            downloaded: self.counters.downloaded,
            uploaded: self.counters.uploaded,
            wasted: self.counters.wasted,
            peers_known: count(self.peers.len()),
            peers_dialling: count(self.peers.dialling()),
            peers_banned: self.counters.banned,
            metadata_parts_done: parts_done,
            metadata_parts: parts,
            ..Stats::default()
        };
        for (source, number) in self.peers.sources() {
            stats.sources.insert(source.as_str(), count(*number));
        }
        for (reason, number) in &self.counters.failures {
            *stats.failures.entry(reason.to_string()).or_default() += number;
        }
        for (refusal, number) in &self.counters.refused {
            stats.refused.insert(refusal.to_string(), *number);
        }
        if self.counters.other_failures > 0 {
            stats
                .failures
                .insert("other".to_owned(), self.counters.other_failures);
        }
        if let Some(pieces) = &self.pieces {
            add_pieces(&mut stats, pieces);
        }
        self.add_connections(&mut stats, now);
        stats
    }

    fn add_connections(&self, stats: &mut Stats, now: Instant) {
        for peer in self.connections.values() {
            let connection = &peer.connection;
            stats.downloaded += connection.download().total();
            stats.uploaded += connection.upload().total();
            stats.down_rate += connection.download().bytes_per_second(now);
            stats.up_rate += connection.upload().bytes_per_second(now);
            stats.peers_connected += u32::from(peer.peer_id.is_some());
            let seeds = connection.pieces().is_some_and(|field| field.is_full());
            stats.peers_seeding += u32::from(seeds && peer.peer_id.is_some());
            stats.peers_unchoking +=
                u32::from(peer.peer_id.is_some() && !connection.peer_choking());
            stats.peers_unchoked += u32::from(peer.unchoked_at.is_some());
        }
    }
}

fn add_pieces(stats: &mut Stats, pieces: &Pieces) {
    (stats.bytes_wanted, stats.bytes_done) = pieces.bytes();
    (stats.pieces, stats.pieces_done) = pieces.progress();
    stats.availability_permille = pieces.availability_permille();
}

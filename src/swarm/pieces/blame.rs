//! Who sent which block of a piece that failed.
//!
//! When a piece fails, what each block was is remembered together with its sender. When the piece is right
//! later, the blocks that were different name the culprits. Nothing is computed or remembered for pieces
//! that are right at once.
//!
//! Invariant: at most [`EVIDENCE_MAX`] blocks are remembered; beyond it only who sent a piece is.

use std::collections::BTreeMap;

use super::Verdict;
use crate::metainfo::PieceIndex;
use crate::swarm::{BlockDigest, ConnectionId};

/// Blocks that are remembered at most; 32 bytes each, so half a MiB. Ours: four pieces of 64 MiB, the
/// longest there are.
const EVIDENCE_MAX: usize = 1 << 14;

/// What was wrong, or not, in a piece that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Evidence {
    /// Number of the block in its piece.
    block: u32,
    from: ConnectionId,
    digest: BlockDigest,
}

/// A piece that failed.
#[derive(Debug, Default)]
struct Failure {
    /// Who took part in it, each once.
    senders: Vec<ConnectionId>,
    /// Each block that somebody sent.
    evidence: Vec<Evidence>,
}

/// The pieces that failed and were not right since.
#[derive(Debug, Default)]
pub(super) struct Blame {
    failures: BTreeMap<PieceIndex, Failure>,
    /// Blocks remembered.
    remembered: usize,
}

impl Blame {
    /// Who took part in a piece when it failed last; `None` if it did not.
    pub(super) fn senders(&self, piece: PieceIndex) -> Option<&[ConnectionId]> {
        let failure = self.failures.get(&piece)?;
        Some(&failure.senders)
    }

    /// A piece failed that consisted of these blocks.
    pub(super) fn note(
        &mut self,
        piece: PieceIndex,
        senders: &[ConnectionId],
        sent: &[(u32, ConnectionId)],
        digests: &[BlockDigest],
    ) {
        let failure = self.failures.entry(piece).or_default();
        failure.senders = senders.to_vec();
        if sent.len() != digests.len() {
            return;
        }
        for (&(block, from), &digest) in sent.iter().zip(digests) {
            let evidence = Evidence {
                block,
                from,
                digest,
            };
            if self.remembered < EVIDENCE_MAX && !failure.evidence.contains(&evidence) {
                failure.evidence.push(evidence);
                self.remembered += 1;
            }
        }
    }

    /// A piece is right and consists of these blocks.
    pub(super) fn resolve(&mut self, piece: PieceIndex, digests: &[BlockDigest]) -> Verdict {
        let Some(failure) = self.failures.remove(&piece) else {
            return Verdict::default();
        };
        self.remembered -= failure.evidence.len();
        let mut culprits = Vec::new();
        let mut cleared = Vec::new();
        for evidence in failure.evidence {
            let right = usize::try_from(evidence.block)
                .ok()
                .and_then(|block| digests.get(block));
            if right.is_some_and(|right| *right != evidence.digest) {
                culprits.push(evidence.from);
            } else if right.is_some() {
                cleared.push(evidence.from);
            }
        }
        culprits.sort_unstable();
        culprits.dedup();
        cleared.sort_unstable();
        cleared.dedup();
        cleared.retain(|id| !culprits.contains(id));
        Verdict {
            senders: Vec::new(),
            culprits,
            cleared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::{BLOCK_LENGTH, Geometry};

    fn pieces() -> Vec<PieceIndex> {
        let length = u64::from(BLOCK_LENGTH) * 4;
        let geometry = Geometry::new(BLOCK_LENGTH * 4, [length * 10_000]).unwrap();
        geometry.pieces().collect()
    }

    fn id(number: u64) -> ConnectionId {
        ConnectionId(number)
    }

    #[test]
    fn the_sender_of_the_block_that_differed_is_to_blame_and_others_are_cleared() {
        let piece = pieces()[0];
        let mut blame = Blame::default();
        let sent = [(0, id(1)), (1, id(2)), (2, id(1)), (3, id(3))];
        let wrong = [[1; 20], [9; 20], [3; 20], [4; 20]];
        blame.note(piece, &[id(1), id(2), id(3)], &sent, &wrong);
        assert_eq!(blame.senders(piece), Some(&[id(1), id(2), id(3)][..]));
        let verdict = blame.resolve(piece, &[[1; 20], [2; 20], [3; 20], [4; 20]]);
        assert_eq!(verdict.culprits, [id(2)]);
        assert_eq!(verdict.cleared, [id(1), id(3)]);
        assert_eq!((blame.senders(piece), blame.remembered), (None, 0));
    }

    #[test]
    fn a_disk_that_tells_no_digests_leads_to_no_verdict() {
        let piece = pieces()[0];
        let mut blame = Blame::default();
        blame.note(piece, &[id(1), id(2)], &[(0, id(1)), (1, id(2))], &[]);
        assert_eq!(blame.resolve(piece, &[]), Verdict::default());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut blame = Blame::default();
        let pieces = pieces();
        let sent = [(0, id(1)), (1, id(2)), (2, id(1)), (3, id(2))];
        for _ in 0..2 {
            for &piece in &pieces {
                blame.note(piece, &[id(1), id(2)], &sent, &[[7; 20]; 4]);
            }
        }
        assert_eq!(blame.remembered, EVIDENCE_MAX);
        for &piece in &pieces {
            blame.resolve(piece, &[[7; 20]; 4]);
        }
        assert_eq!((blame.failures.len(), blame.remembered), (0, 0));
    }
}

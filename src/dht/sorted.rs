//! Searching among nodes that are sorted by id.

use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::id::NodeId;
use crate::krpc::ContactInfo;

/// Bits of an id.
const ID_BITS: u32 = 160;

/// Subtrees that are left at a time in a search, without another allocation: one for each bit in which tens of
/// thousands of ids differ.
const SUBTREES: usize = 32;

/// Something that is known of a node.
pub(super) trait Known {
    /// Which node.
    fn info(&self) -> &ContactInfo;
}

/// Where the first node is that has this id or a greater one.
pub(super) fn first_from<T: Known>(sorted: &[T], id: &NodeId) -> usize {
    sorted.partition_point(|known| known.info().id < *id)
}

/// Where a node is.
pub(super) fn place_of<T: Known>(sorted: &[T], info: &ContactInfo) -> Option<usize> {
    let from = first_from(sorted, &info.id);
    let same_id = sorted[from..].iter();
    let mut same_id = same_id.take_while(|known| known.info().id == info.id);
    let place = same_id.position(|known| known.info().address == info.address)?;
    Some(from + place)
}

/// Appends the nodes closest to a target, closest first, at most `max`, without the one at `except`
/// and those that are not eligible.
pub(super) fn closest<T: Known>(
    sorted: &[T],
    target: &NodeId,
    max: usize,
    except: Option<SocketAddr>,
    is_eligible: impl Fn(&T) -> bool,
    out: &mut Vec<ContactInfo>,
) {
    let is_chosen = |known: &&T| is_eligible(known) && Some(known.info().address) != except;
    let first = out.len();
    // Subtrees that are left, the closest one on top: all ids in one are closer than those in the next.
    let mut left: SmallVec<[(usize, usize, u32); SUBTREES]> = SmallVec::new();
    left.push((0, sorted.len(), 0));
    while let Some((start, end, depth)) = left.pop() {
        let chosen = out.len() - first;
        if chosen >= max {
            break;
        }
        let subtree = &sorted[start..end];
        if subtree.len() <= max || depth >= ID_BITS {
            // Whatever has one id is equally far.
            let subtree = &subtree[..subtree.len().min(max)];
            let run = out.len();
            out.extend(subtree.iter().filter(is_chosen).map(|known| *known.info()));
            out[run..].sort_unstable_by_key(|info| info.id.distance(target));
            continue;
        }
        let ones = start + subtree.partition_point(|known| !known.info().id.bit(depth));
        let (zeros, ones) = ((start, ones, depth + 1), (ones, end, depth + 1));
        left.extend(if target.bit(depth) {
            [zeros, ones]
        } else {
            [ones, zeros]
        });
    }
    out.truncate(first + max);
}

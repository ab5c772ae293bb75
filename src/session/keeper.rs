//! The task that watches over the DHT node: it publishes a summary and saves the routing table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::heard::Heard;
use super::state::StateDir;
use crate::dht::Snapshot;
use crate::id::NodeId;
use crate::net::dht::DhtHandle;

/// Time from the first contact to the first save. Ours: most of a new table is there by then, and who
/// is killed soon has the same id the next time, and a way in.
const FIRST_SAVE_AFTER: Duration = Duration::from_secs(5);

/// Time between two saves of the routing table; a crash loses at most so much of it.
const SAVE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Time between two looks at the node while it knows nobody: what waits for contacts starts soon
/// after the first one is there.
const SUMMARY_INTERVAL_EMPTY: Duration = Duration::from_millis(50);

/// Looks at that pace before the slower one is used, 10 s: a network that is down costs nothing.
const SUMMARY_FAST_LOOKS: u32 = 200;

/// Time between two looks at the node otherwise.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// What torrents want to know about the DHT node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DhtSummary {
    /// Good contacts in all tables.
    pub(super) contacts: usize,
    /// Why no bootstrap address could be resolved.
    pub(super) bootstrap_failed: Option<String>,
    /// Nodes that were asked in vain while none has ever answered.
    pub(super) silent: u64,
    /// Our ids: they change with the address at which others see us (BEP 42).
    pub(super) ids: Vec<NodeId>,
}

/// Publishes summaries until nobody listens, and tells when nodes are heard.
pub(super) async fn watch_node(dht: DhtHandle, summary: watch::Sender<DhtSummary>, heard: Heard) {
    let mut looks = 0u32;
    let mut responses = 0;
    while !summary.is_closed() {
        let status = dht.status().await;
        if std::mem::replace(&mut responses, status.stats.responses) < status.stats.responses {
            heard.on_heard();
        }
        let latest = DhtSummary {
            contacts: status.contacts,
            bootstrap_failed: status.bootstrap_failed,
            silent: match status.stats.responses {
                0 => status.stats.timeouts,
                1.. => 0,
            },
            ids: status.ids.into_iter().map(|(_, id)| id).collect(),
        };
        let is_empty = latest.contacts == 0;
        summary.send_if_modified(|current| {
            let changed = *current != latest;
            *current = latest;
            changed
        });
        looks = looks.saturating_add(1);
        let wait = if is_empty && looks < SUMMARY_FAST_LOOKS {
            SUMMARY_INTERVAL_EMPTY
        } else {
            SUMMARY_INTERVAL
        };
        tokio::time::sleep(wait).await;
    }
}

/// Saves the routing table again and again, with the ids of our nodes at these addresses.
pub(super) async fn save_regularly(
    dht: DhtHandle,
    addresses: Vec<SocketAddr>,
    state: Arc<StateDir>,
    summary: watch::Receiver<DhtSummary>,
) {
    let save = || async {
        save(dht.snapshot().await, addresses.clone(), Arc::clone(&state)).await;
    };
    repeat(summary, save).await;
}

/// Calls `save` soon after the first contacts are known, and then again and again, and at once when
/// our ids change: who is killed right after that comes back under the new one.
async fn repeat<F: Future<Output = ()>>(
    mut summary: watch::Receiver<DhtSummary>,
    save: impl Fn() -> F,
) {
    // Fails only when nobody looks at the node any more: then it ends soon.
    if summary.wait_for(|now| now.contacts > 0).await.is_err() {
        return;
    }
    let mut pause = FIRST_SAVE_AFTER;
    let mut ids = summary.borrow().ids.clone();
    loop {
        // It ends early with new ids, and when nobody looks at the node any more.
        let changed = summary.wait_for(|now| now.ids != ids);
        if let Ok(changed) = tokio::time::timeout(pause, changed).await {
            let Ok(latest) = changed else { return };
            ids.clone_from(&latest.ids);
        } else {
            pause = SAVE_INTERVAL;
        }
        save().await;
    }
}

/// Saves one snapshot, away from the network threads. A table without contacts does not replace one
/// that has some: it only means that the network was away.
pub(super) async fn save(snapshot: Snapshot, addresses: Vec<SocketAddr>, state: Arc<StateDir>) {
    if snapshot.contacts.is_empty() {
        return;
    }
    let save = move || state.save_table(&snapshot, &addresses);
    // The directory says what fails.
    if let Err(error) = tokio::task::spawn_blocking(save).await {
        tracing::warn!(%error, "saving the routing table was cut short");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Time in these tests is virtual: it passes when nobody has anything to do.
    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// A keeper that only counts: who tells it of the node, how often it has saved, and its task.
    fn counting() -> (
        watch::Sender<DhtSummary>,
        impl Fn() -> u32,
        tokio::task::JoinHandle<()>,
    ) {
        let saves = Arc::new(AtomicU32::new(0));
        let (sender, summary) = watch::channel(DhtSummary::default());
        let counted = Arc::clone(&saves);
        let save = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        };
        let saving = tokio::spawn(repeat(summary, save));
        (sender, move || saves.load(Ordering::Relaxed), saving)
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_saved_soon_after_the_first_contact_and_then_at_the_interval() {
        let (sender, count, saving) = counting();
        let moment = Duration::from_secs(1);
        pass(SAVE_INTERVAL).await;
        assert_eq!(count(), 0, "nobody is known");
        sender.send_modify(|summary| summary.contacts = 1);
        pass(FIRST_SAVE_AFTER + moment).await;
        assert_eq!(count(), 1);
        pass(SAVE_INTERVAL - 2 * moment).await;
        assert_eq!(count(), 1);
        pass(2 * moment).await;
        assert_eq!(count(), 2);
        saving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_saved_at_once_when_our_id_has_changed() {
        let (sender, count, saving) = counting();
        let moment = Duration::from_secs(1);
        sender.send_modify(|summary| summary.contacts = 1);
        pass(FIRST_SAVE_AFTER + moment).await;
        assert_eq!(count(), 1);
        for changes in 1..4 {
            sender.send_modify(|summary| summary.ids = vec![NodeId::new([changes; 20])]);
            pass(Duration::from_millis(1)).await;
            assert_eq!(count(), 1 + u32::from(changes));
            sender.send_modify(|summary| summary.contacts += 1);
            pass(moment).await;
            assert_eq!(
                count(),
                1 + u32::from(changes),
                "nothing but the table changed"
            );
        }
        pass(SAVE_INTERVAL).await;
        assert_eq!(count(), 5);
        drop(sender);
        assert!(saving.await.is_ok(), "it ends with the node");
    }
}

//! The task that watches over the DHT node: it publishes a summary and saves the routing table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::state::StateDir;
use crate::dht::Snapshot;
use crate::net::dht::DhtHandle;

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
}

/// Publishes summaries until nobody listens.
pub(super) async fn watch_node(dht: DhtHandle, summary: watch::Sender<DhtSummary>) {
    let mut looks = 0u32;
    while !summary.is_closed() {
        let status = dht.status().await;
        let latest = DhtSummary {
            contacts: status.contacts,
            bootstrap_failed: status.bootstrap_failed,
            silent: match status.stats.responses {
                0 => status.stats.timeouts,
                1.. => 0,
            },
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
) {
    let mut ticks = tokio::time::interval(SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        save(dht.snapshot().await, addresses.clone(), Arc::clone(&state)).await;
    }
}

/// Saves one snapshot, away from the network threads. A table without contacts does not replace one
/// that has some: it only means that the network was away.
pub(super) async fn save(snapshot: Snapshot, addresses: Vec<SocketAddr>, state: Arc<StateDir>) {
    if snapshot.contacts.is_empty() {
        return;
    }
    let save = move || state.save_table(&snapshot, &addresses);
    let saved = tokio::task::spawn_blocking(save).await;
    match saved {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "not saved"),
        Err(error) => tracing::warn!(%error, "saving the routing table was cut short"),
    }
}

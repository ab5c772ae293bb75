//! The end of a torrent, also of one whose task breaks off.
//!
//! Invariant: a torrent ends exactly once and says why; by then the session takes its info hash
//! again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;

use super::Routes;
use super::handle::{Ended, TorrentStatus};
use crate::id::InfoHash;

/// Runs a torrent's task to its end, frees its info hash, and tells those who watch.
pub(super) async fn supervise(
    info_hash: InfoHash,
    task: impl Future<Output = Ended>,
    routes: &Routes,
    status: watch::Sender<TorrentStatus>,
) {
    let ended = run(info_hash, task).await;
    routes.send_modify(|routes| drop(routes.remove(&info_hash)));
    status.send_modify(|status| status.ended = Some(ended));
}

/// Runs a task. A panic ends this one and nothing else; the panic hook has printed it by then.
async fn run(info_hash: InfoHash, task: impl Future<Output = Ended>) -> Ended {
    let mut task = pin!(task);
    std::future::poll_fn(|context| {
        // What a panic left behind is never looked at again: it is dropped with the task.
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            tracing::error!(%info_hash, "the task of a torrent broke off");
            Poll::Ready(Ended::Crashed)
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::mpsc;

    use super::*;
    use crate::session::DhtProgress;
    use crate::swarm::{State, Stats};

    #[tokio::test]
    async fn a_task_that_panics_ends_its_torrent_like_any_other_end() {
        let info_hash = InfoHash::new([1; 20]);
        let (commands, _inputs) = mpsc::channel(1);
        let routes = Routes::new(BTreeMap::from([(info_hash, commands)]));
        let first = TorrentStatus::new(State::Metadata, Stats::default(), DhtProgress::default());
        let (status, mut seen) = watch::channel(first);
        let crashes = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        supervise(info_hash, crashes, &routes, status).await;
        assert_eq!(seen.borrow_and_update().ended, Some(Ended::Crashed));
        assert!(seen.changed().await.is_err(), "nothing comes after the end");
        assert!(routes.borrow().is_empty());
    }
}

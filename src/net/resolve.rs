//! Turning the names of bootstrap hosts into addresses, with patience.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

/// First wait after a name could not be resolved; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest wait between two attempts: a network that comes back is noticed within a minute.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long an answer is good while no contact is known. Hosts move seldom; a name server should
/// not notice us.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// How one attempt went.
#[derive(Debug)]
pub(super) struct Resolved {
    /// `HOST:PORT`.
    pub name: String,
    /// Addresses, or why there are none, in words.
    pub outcome: Result<Vec<SocketAddr>, String>,
}

/// Resolves one `HOST:PORT` until nobody listens: again with back-off after a failure, and now and
/// then while the node is not `connected` to anybody.
pub(super) async fn resolve(
    name: String,
    answers: mpsc::Sender<Resolved>,
    connected: Arc<AtomicBool>,
) {
    let mut wait = RETRY_MIN;
    loop {
        let outcome = match tokio::net::lookup_host(name.as_str()).await {
            Ok(addresses) => Ok(addresses.collect::<Vec<_>>()),
            Err(error) => Err(error.to_string()),
        };
        let pause = if outcome.is_ok() {
            wait = RETRY_MIN;
            REFRESH
        } else {
            let pause = wait;
            wait = (wait * 2).min(RETRY_MAX);
            pause
        };
        let name = name.clone();
        if answers.send(Resolved { name, outcome }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        while connected.load(Ordering::Relaxed) {
            tokio::time::sleep(REFRESH).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_that_cannot_be_resolved_is_tried_again_with_back_off() {
        let (sender, mut answers) = mpsc::channel(1);
        let start = tokio::time::Instant::now();
        // Without a port it fails without asking anybody.
        let task = tokio::spawn(resolve("nowhere".to_owned(), sender, Arc::default()));
        for second in [0, 1, 3, 7, 15, 31, 63, 123, 183] {
            let resolved = answers.recv().await.unwrap();
            assert_eq!(resolved.name, "nowhere");
            assert!(resolved.outcome.is_err());
            assert_eq!(start.elapsed().as_secs(), second);
        }
        drop(answers);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_left_alone_while_the_node_has_contacts() {
        let (sender, mut answers) = mpsc::channel(1);
        let connected = Arc::new(AtomicBool::new(true));
        let start = tokio::time::Instant::now();
        let name = "127.0.0.1:7".to_owned();
        let task = tokio::spawn(resolve(name, sender, Arc::clone(&connected)));
        let first = answers.recv().await.unwrap().outcome.unwrap();
        assert_eq!(first, ["127.0.0.1:7".parse().unwrap()]);
        tokio::time::sleep(REFRESH * 5 + RETRY_MIN).await;
        assert!(answers.try_recv().is_err());
        connected.store(false, Ordering::Relaxed);
        answers.recv().await.unwrap().outcome.unwrap();
        assert_eq!(start.elapsed().as_secs(), (REFRESH * 6).as_secs());
        task.abort();
    }
}

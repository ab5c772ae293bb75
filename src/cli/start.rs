//! What `get` and `seed` share: starting a session, and finding hosts that a torrent names.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::interrupted;
use super::print::Failure;
use crate::net::dht::DhtHandle;
use crate::session::{Config, Session, SessionError, StateError, TorrentHandle};

/// Names of peers and nodes that are resolved for one torrent. A link with more is not written by
/// anybody who means well.
const HOSTS_MAX: usize = 32;

/// Starts a session; a failure says what to do about it.
///
/// # Errors
///
/// As [`Session::start`].
pub(super) async fn start_session(config: Config) -> Result<Session, Failure> {
    Session::start(config).await.map_err(|error| {
        let hint = match &error {
            SessionError::State(StateError::Locked { .. }) => {
                "give this one a state directory of its own with --state-dir DIR"
            }
            SessionError::State(_) => "choose another state directory with --state-dir DIR",
            SessionError::Listen { .. } => {
                "choose another address with --listen IP:PORT; port 0 takes a free one"
            }
            _ => return Failure::because("cannot start", &error),
        };
        Failure::because("cannot start", &error).hint(hint)
    })
}

/// Stops a session; whoever interrupts once more does not want to wait for that.
pub(super) async fn stop_session(session: Session) {
    tokio::select! {
        () = session.stop() => {}
        () = interrupted() => {}
    }
}

/// Resolves peers and DHT nodes that a torrent names by host, and hands them on as they come.
pub(super) fn resolve_hosts(
    tasks: &mut JoinSet<()>,
    torrent: &TorrentHandle,
    dht: Option<&DhtHandle>,
    peers: &[(String, u16)],
    nodes: &[(String, u16)],
) {
    for (host, port) in peers.iter().take(HOSTS_MAX).cloned() {
        let torrent = torrent.clone();
        tasks.spawn(async move { torrent.add_peers(resolve(host, port).await).await });
    }
    let Some(dht) = dht else { return };
    for (host, port) in nodes.iter().take(HOSTS_MAX).cloned() {
        let dht = dht.clone();
        tasks.spawn(async move {
            for address in resolve(host, port).await {
                dht.add_node(address).await;
            }
        });
    }
}

/// The addresses of a host; none when it is unknown.
async fn resolve(host: String, port: u16) -> Vec<SocketAddr> {
    match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            tracing::info!(host, %error, "unknown host");
            Vec::new()
        }
    }
}

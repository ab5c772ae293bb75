//! The torrents that are announced in the local network (BEP 14), and what is heard of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Routes;
use super::config::Config;
use super::handle::Command;
use crate::id::InfoHash;
use crate::net::clock::Clock;
use crate::net::lsd::{Discovery, LsdConfig};
use crate::swarm::PeerSource;

/// How long nobody may be heard in the local network before that is no way to find peers. Ours: whoever is
/// there answers an announce within seconds.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// The torrents of a session that take part.
#[derive(Debug, Clone)]
pub(super) struct LocalNetwork {
    torrents: Arc<watch::Sender<BTreeSet<InfoHash>>>,
    /// Whether there is an interface that does multicast.
    is_up: Arc<AtomicBool>,
}

impl LocalNetwork {
    /// Starts to announce and to listen, if that is wanted and others could connect to us, whenever there
    /// is an interface that does multicast.
    pub(super) fn start(
        config: &Config,
        listen: &[SocketAddr],
        port: Option<u16>,
        clock: Clock,
        routes: &Arc<Routes>,
        services: &mut JoinSet<()>,
    ) -> Option<Self> {
        let port = port.filter(|_| config.lsd && config.tcp)?;
        let (torrents, receiver) = watch::channel(BTreeSet::new());
        let config = LsdConfig {
            listen: listen.to_vec(),
            port,
            clock,
            torrents: receiver,
        };
        let routes = Arc::clone(routes);
        let heard = move |info_hash: InfoHash, address: SocketAddr| {
            if let Some(commands) = routes.borrow().get(&info_hash) {
                tracing::debug!(%info_hash, peer = %address, "heard in the local network");
                // A torrent that is too busy hears of it with the next announce.
                let _ = commands.try_send(Command::AddPeers(PeerSource::Lsd, vec![address]));
            }
        };
        let discovery = Discovery::open(config);
        let is_up = discovery.is_up();
        services.spawn(discovery.run(heard));
        Some(Self {
            torrents: Arc::new(torrents),
            is_up,
        })
    }

    /// A torrent takes part until what is given back is dropped.
    pub(super) fn join(&self, info_hash: InfoHash) -> Membership {
        self.torrents
            .send_if_modified(|torrents| torrents.insert(info_hash));
        Membership {
            torrents: Arc::clone(&self.torrents),
            is_up: Arc::clone(&self.is_up),
            info_hash,
        }
    }
}

/// A torrent that takes part.
#[derive(Debug)]
pub(super) struct Membership {
    torrents: Arc<watch::Sender<BTreeSet<InfoHash>>>,
    is_up: Arc<AtomicBool>,
    info_hash: InfoHash,
}

impl Membership {
    /// Whether others can hear of it now.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.torrents
            .send_if_modified(|torrents| torrents.remove(&self.info_hash));
    }
}

//! UDP trackers: the loop around [`UdpExchanges`].
//!
//! Its datagrams leave from the sockets of the DHT node, so that one port of a firewall is enough; where no
//! such node runs, from sockets of its own on the same addresses, opened when the first tracker is asked.
//!
//! Invariant: the loop holds one channel of bounded length for each kind of input, and what it waits for it
//! waits for in one place.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::clock::Clock;
use super::dht::DhtHandle;
use super::udp::{DATAGRAM_MAX, bind_udp};
use crate::announce::udp_tracker::{Datagram, ExchangeId, Route, UdpExchanges};
use crate::announce::{Answer, Request, TrackerError};
use crate::random::Random;

/// Announces and datagrams that wait for the loop.
const INPUTS_MAX: usize = 64;

/// Trackers whose datagrams are let through to the loop; the one asked longest ago is forgotten.
const ASKED_MAX: usize = 1024;

/// How long nothing is read after an error.
const READ_REST: Duration = Duration::from_millis(10);

/// What became of an announce.
type Outcome = Result<Answer, TrackerError>;

/// A datagram that came from a tracker.
#[derive(Debug)]
pub(super) struct Received {
    /// From whom, and to which of our addresses.
    pub(super) route: Route,
    /// Its bytes.
    pub(super) payload: Vec<u8>,
}

/// An announce to make.
#[derive(Debug)]
struct Wanted {
    route: Route,
    path: String,
    request: Request,
    reply: oneshot::Sender<Outcome>,
}

/// The way to UDP trackers. Cheap to clone; the loop ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct UdpTrackers {
    wanted: mpsc::Sender<Wanted>,
}

/// The part of the DHT's sockets in this: whom datagrams are taken from, and where they go.
#[derive(Debug, Default)]
pub(super) struct TrackerPort {
    received: Option<mpsc::Sender<Received>>,
    asked: VecDeque<SocketAddr>,
}

impl TrackerPort {
    /// From now on datagrams of trackers that were asked go there.
    pub(super) fn open(&mut self, received: mpsc::Sender<Received>) {
        self.received = Some(received);
    }

    /// A datagram is sent to a tracker.
    pub(super) fn on_asked(&mut self, tracker: SocketAddr) {
        self.asked.retain(|asked| *asked != tracker);
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(tracker);
    }

    /// A datagram that may be a tracker's came. Says whether somebody takes it.
    pub(super) fn on_datagram(&self, route: Route, payload: &[u8]) -> bool {
        let Some(received) = &self.received else {
            return false;
        };
        let payload = || payload.to_vec();
        self.asked.contains(&route.tracker)
            && received
                .try_reserve()
                .map(|place| {
                    place.send(Received {
                        route,
                        payload: payload(),
                    });
                })
                .is_ok()
    }
}

impl UdpTrackers {
    /// The way, and the loop, to be run by whoever owns it.
    pub fn new(
        dht: Option<DhtHandle>,
        clock: Clock,
        entropy: [u8; 32],
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (wanted, inputs) = mpsc::channel(INPUTS_MAX);
        let driver = Driver {
            exchanges: UdpExchanges::new(Random::from_entropy(entropy)),
            replies: BTreeMap::new(),
            clock,
            sockets: Sockets {
                dht,
                own: BTreeMap::new(),
                readers: JoinSet::new(),
                received: None,
            },
        };
        (Self { wanted }, driver.run(inputs))
    }

    /// Announces to a tracker; `path` is path and query of its URL. Ends some [`EXCHANGE_MAX`] later at
    /// the latest.
    ///
    /// [`EXCHANGE_MAX`]: crate::announce::udp_tracker::EXCHANGE_MAX
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn announce(&self, route: Route, path: &str, request: &Request) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let wanted = Wanted {
            route,
            path: path.to_owned(),
            request: request.clone(),
            reply,
        };
        let stopping = || Err(TrackerError::Local("the session stops".to_owned()));
        if self.wanted.send(wanted).await.is_err() {
            return stopping();
        }
        outcome.await.unwrap_or_else(|_| stopping())
    }
}

/// The state of the loop.
struct Driver {
    exchanges: UdpExchanges,
    replies: BTreeMap<ExchangeId, oneshot::Sender<Outcome>>,
    clock: Clock,
    sockets: Sockets,
}

/// What datagrams leave from.
struct Sockets {
    /// The DHT's sockets, if there are any.
    dht: Option<DhtHandle>,
    /// Ours, if not.
    own: BTreeMap<IpAddr, Arc<UdpSocket>>,
    readers: JoinSet<()>,
    /// What readers and the DHT are given; `None` before the first tracker is asked.
    received: Option<mpsc::Sender<Received>>,
}

impl Driver {
    /// Turns until nobody is left who could want anything.
    async fn run(mut self, mut wanted: mpsc::Receiver<Wanted>) {
        let (sender, mut received) = mpsc::channel(INPUTS_MAX);
        loop {
            let wake = self.exchanges.poll_timeout();
            // Every branch is cancel-safe: channels lose nothing when not chosen.
            tokio::select! {
                input = wanted.recv() => match input {
                    Some(wanted) => {
                        self.sockets.open(&sender).await;
                        self.start(wanted);
                    }
                    None => break,
                },
                // `sender` is here, so this never ends.
                Some(Received { route, payload }) = received.recv() => {
                    self.exchanges.handle_datagram(self.clock.now(), route, &payload);
                }
                () = self.clock.sleep_until(wake.unwrap_or_default()), if wake.is_some() => {
                    self.on_timeout();
                }
            }
            self.drain().await;
        }
        tracing::debug!(dropped = ?self.exchanges.dropped(), "UDP trackers stopped");
    }

    fn start(&mut self, wanted: Wanted) {
        let Wanted {
            route,
            path,
            request,
            reply,
        } = wanted;
        let now = self.clock.now();
        let id = self.exchanges.announce(now, route, &path, request);
        self.replies.insert(id, reply);
    }

    /// Sends again what is due, except for those who wait no longer.
    fn on_timeout(&mut self) {
        let exchanges = &mut self.exchanges;
        self.replies.retain(|&id, reply| {
            let is_wanted = !reply.is_closed();
            if !is_wanted {
                exchanges.cancel(id);
            }
            is_wanted
        });
        self.exchanges.handle_timeout(self.clock.now());
    }

    async fn drain(&mut self) {
        while let Some(datagram) = self.exchanges.poll_transmit() {
            let route = datagram.route;
            if let Err(error) = self.sockets.send(datagram).await {
                let error = match error.kind() {
                    io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NetworkDown
                    | io::ErrorKind::AddrNotAvailable => TrackerError::Local(error.to_string()),
                    _ => TrackerError::Unreachable(error.to_string()),
                };
                self.exchanges.handle_unsent(route, &error);
            }
        }
        while let Some((id, outcome)) = self.exchanges.poll_done() {
            if let Some(reply) = self.replies.remove(&id) {
                // Who asked may have gone meanwhile.
                let _ = reply.send(outcome);
            }
        }
    }
}

impl Sockets {
    /// Has datagrams of trackers come to `received`.
    async fn open(&mut self, received: &mpsc::Sender<Received>) {
        if self.received.is_none() {
            if let Some(dht) = &self.dht {
                dht.open_trackers(received.clone()).await;
            }
            self.received = Some(received.clone());
        }
    }

    /// Sends a datagram. What the DHT's sockets do not send is lost as on the way.
    async fn send(&mut self, datagram: Datagram) -> io::Result<()> {
        if let Some(dht) = &self.dht {
            dht.send_to_tracker(datagram).await;
            return Ok(());
        }
        let Datagram { route, payload } = datagram;
        let socket = self.own_socket(route.local)?;
        socket.send_to(&payload, route.tracker).await.map(drop)
    }

    /// Our socket on an address, opened when it is first needed.
    fn own_socket(&mut self, local: IpAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(socket) = self.own.get(&local) {
            return Ok(Arc::clone(socket));
        }
        let socket = UdpSocket::from_std(bind_udp(SocketAddr::new(local, 0))?)?;
        let socket = Arc::new(socket);
        self.own.insert(local, Arc::clone(&socket));
        if let Some(received) = self.received.clone() {
            let reader = Arc::clone(&socket);
            self.readers.spawn(read(reader, local, received));
        }
        Ok(socket)
    }
}

/// Hands on what a socket of ours receives.
async fn read(socket: Arc<UdpSocket>, local: IpAddr, received: mpsc::Sender<Received>) {
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        // An error is that of an earlier datagram of ours: nobody listened there.
        let Ok((length, tracker)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(READ_REST).await;
            continue;
        };
        let datagram = Received {
            route: Route { local, tracker },
            payload: buffer.get(..length).unwrap_or_default().to_vec(),
        };
        if received.send(datagram).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

//! How many streams there may be: as many as descriptors allow, and so many from one host.
//!
//! Invariant: each stream of the session holds one [`Place`] as long as it lives, so that files,
//! sockets and the state directory always find descriptors.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::address::Scope;

/// Descriptors that are left for everything but streams: 64 open files of torrents, files that are
/// checked, listeners, the state directory, the runtime, standard streams.
const DESCRIPTORS_KEPT: usize = 160;

/// Streams at most, however many descriptors there are: 10,000 cost some 400 MiB of buffers.
const STREAMS_MAX: usize = 10_000;

/// Streams at least; the system then says itself when it has no more.
const STREAMS_MIN: usize = 16;

/// Accepted streams whose handshake is awaited, on each listener. Each costs a kilobyte and a
/// descriptor.
const HANDSHAKES_MAX: usize = 64;

/// Accepted streams from one host of the Internet, over all torrents: some share an address behind a
/// NAT, and one peer may have several torrents in common with us.
const PER_HOST_MAX: usize = 16;

/// The same for hosts of private networks and this machine, where test networks put many peers at
/// one address.
const PER_NEAR_HOST_MAX: usize = 512;

/// The places of a session. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    streams_max: usize,
    taken: Mutex<Taken>,
}

/// Places that are taken; never locked across an await.
#[derive(Debug, Default)]
struct Taken {
    streams: usize,
    /// Accepted streams whose handshake was read: whom we dial, we chose.
    by_host: BTreeMap<IpAddr, usize>,
}

/// The right to have one stream; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    /// The host it counts for.
    host: Option<IpAddr>,
}

impl Places {
    /// As many places as the process can have descriptors, some left out.
    pub(super) fn new(descriptors: usize) -> Self {
        let streams_max = descriptors
            .saturating_sub(DESCRIPTORS_KEPT)
            .clamp(STREAMS_MIN, STREAMS_MAX);
        Self {
            shared: Arc::new(Shared {
                streams_max,
                taken: Mutex::default(),
            }),
        }
    }

    /// How many handshakes of strangers may be awaited at once: enough places are left for streams
    /// that are of use, also when there are few.
    pub(super) fn handshakes_max(&self) -> usize {
        (self.shared.streams_max / 2).min(HANDSHAKES_MAX)
    }

    /// A place for one more stream; `None` when there is none left.
    pub(super) fn take(&self) -> Option<Place> {
        let mut taken = self.shared.lock();
        if taken.streams >= self.shared.streams_max {
            return None;
        }
        taken.streams += 1;
        drop(taken);
        Some(Place {
            shared: Arc::clone(&self.shared),
            host: None,
        })
    }
}

impl Place {
    /// Counts this stream for the host it came from; `false` when that host has enough.
    pub(super) fn is_granted_to(&mut self, address: IpAddr) -> bool {
        debug_assert!(self.host.is_none(), "a stream counts for one host once");
        let host = host_of(address);
        let mut taken = self.shared.lock();
        let streams = taken.by_host.entry(host).or_default();
        if *streams >= per_host_max(host) {
            return false;
        }
        *streams += 1;
        self.host = Some(host);
        true
    }
}

impl Shared {
    /// A panic elsewhere leaves nothing half counted.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.lock();
        taken.streams -= 1;
        if let Some(host) = self.host
            && let Some(streams) = taken.by_host.get_mut(&host)
        {
            *streams -= 1;
            if *streams == 0 {
                taken.by_host.remove(&host);
            }
        }
    }
}

/// What counts as one host: an IPv4 address, and a /64 of IPv6, which one host has for itself.
pub(super) fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if Scope::of(address.into()) == Some(Scope::Global) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

/// Whether a host is on the Internet, and not in our own house.
pub(super) fn is_far(host: IpAddr) -> bool {
    Scope::of(host).is_none_or(|scope| scope == Scope::Global)
}

fn per_host_max(host: IpAddr) -> usize {
    if is_far(host) {
        PER_HOST_MAX
    } else {
        PER_NEAR_HOST_MAX
    }
}

/// Raises the process's limit of descriptors as far as it may go, and says how many it has then.
pub(super) fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::debug!(%error, ?limit, "the limit of descriptors stays");
        }
    }
    // Without any limit the number is none.
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(streams: usize) -> Places {
        Places::new(DESCRIPTORS_KEPT + streams)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A place for a stream from this address, if it gets one.
    fn take(places: &Places, address: &str) -> Option<Place> {
        let mut place = places.take()?;
        place.is_granted_to(ip(address)).then_some(place)
    }

    #[test]
    fn one_host_of_the_internet_gets_few_places_and_frees_them_again() {
        let places = places(1_000);
        let mut held: Vec<_> = (0..PER_HOST_MAX)
            .map(|_| take(&places, "8.8.8.8"))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(take(&places, "8.8.8.8").is_none());
        assert!(take(&places, "::ffff:8.8.8.8").is_none());
        assert!(take(&places, "8.8.8.9").is_some());
        assert!(places.take().is_some(), "whom we dial, we chose");
        held.pop();
        assert!(take(&places, "8.8.8.8").is_some());
        drop(held);
        assert!(places.shared.lock().by_host.is_empty());
        assert_eq!(places.shared.lock().streams, 0);
    }

    #[test]
    fn a_test_network_on_one_machine_has_room() {
        let places = places(1_000);
        let held: Vec<_> = (0..100).map(|_| take(&places, "127.0.0.1")).collect();
        assert!(held.iter().all(Option::is_some));
    }

    #[test]
    fn a_whole_network_of_ipv6_counts_as_one_host() {
        assert_eq!(host_of(ip("2a00:1:2:3:4:5:6:7")), ip("2a00:1:2:3::"));
        assert_eq!(host_of(ip("fd00::1")), ip("fd00::1"));
        assert!(is_far(ip("2a00:1:2:3::")));
        assert!(!is_far(ip("10.0.0.1")));
    }

    #[test]
    fn no_more_streams_than_descriptors() {
        let places = places(20);
        let held: Vec<_> = (0..21).map(|_| places.take()).collect();
        assert_eq!(held.iter().flatten().count(), 20);
        assert_eq!(places.handshakes_max(), 10);
        assert_eq!(Places::new(usize::MAX).handshakes_max(), HANDSHAKES_MAX);
    }

    #[test]
    fn the_limit_of_descriptors_is_raised_as_far_as_it_goes() {
        let descriptors = raise_descriptors();
        assert!(descriptors >= 64, "{descriptors}");
        let limit = getrlimit(Resource::Nofile);
        assert!(limit.current == limit.maximum || limit.current.is_some());
    }
}

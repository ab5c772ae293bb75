//! Looking up the names of trackers.
//!
//! The system's resolver blocks, at worst for minutes. Each look-up has a thread of its own, so that one that
//! hangs keeps nothing else waiting, neither files nor the end of the process. Whoever wants the same name at
//! the same time shares one look-up.
//!
//! Invariant: at most [`LOOKUPS_MAX`] look-ups are under way, those included that nobody waits for any
//! more, and nobody waits longer than [`LOOKUP_TIMEOUT`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Look-ups under way at most. Ours: each is a thread that waits, and the trackers of many torrents have few
/// names.
pub const LOOKUPS_MAX: usize = 16;

/// How long somebody waits for a look-up. Ours: twice what the system's resolver gives its first server.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a look-up gave; a failure in the system's words.
type Found = Result<Vec<IpAddr>, String>;

/// Asks for the addresses of a name, and blocks meanwhile.
type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The way to addresses of names. Clones share everything.
#[derive(Clone)]
pub struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    ask: Box<Ask>,
    places: Arc<Semaphore>,
    /// Look-ups under way by name.
    open: Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>>,
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Names")
            .field("free", &self.shared.places.available_permits())
            .finish_non_exhaustive()
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new(system)
    }
}

/// What the system knows of a name.
fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    let found = (host, 0).to_socket_addrs()?;
    Ok(found.map(|address: SocketAddr| address.ip()).collect())
}

impl Names {
    /// Names that are looked up by `ask`, which may block.
    pub fn new(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                ask: Box::new(ask),
                places: Arc::new(Semaphore::new(LOOKUPS_MAX)),
                open: Mutex::default(),
            }),
        }
    }

    /// The addresses of a host; one that is an address already is not looked up.
    ///
    /// # Errors
    ///
    /// Why there are none, in words: the system says so, or does not answer in time.
    pub async fn find(&self, host: &str) -> Found {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        tokio::time::timeout(LOOKUP_TIMEOUT, self.share(host))
            .await
            .unwrap_or_else(|_| Err("the resolver does not answer in time".to_owned()))
    }

    /// Waits for the look-up of a name that is under way, or makes one.
    async fn share(&self, host: &str) -> Found {
        let open = self.shared.open().get(host).cloned();
        let mut found = match open {
            Some(found) => found,
            None => self.begin(host).await?,
        };
        match found.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(found)) => found.clone(),
            Ok(None) | Err(_) => Err("the look-up broke off".to_owned()),
        }
    }

    /// Begins the look-up of a name once there is a place for it.
    async fn begin(&self, host: &str) -> Result<watch::Receiver<Option<Found>>, String> {
        let place = Arc::clone(&self.shared.places).acquire_owned().await;
        let place = place.map_err(|error| error.to_string())?;
        let mut open = self.shared.open();
        // Somebody else may have had a place sooner.
        if let Some(found) = open.get(host) {
            return Ok(found.clone());
        }
        let (sender, found) = watch::channel(None);
        let work = Work {
            shared: Arc::clone(&self.shared),
            host: host.to_owned(),
            _place: place,
        };
        let thread = thread::Builder::new().name("look-up".to_owned());
        thread
            .spawn(move || {
                let found = (work.shared.ask)(&work.host).map_err(|error| error.to_string());
                drop(work);
                sender.send_replace(Some(found));
            })
            .map_err(|error| error.to_string())?;
        open.insert(host.to_owned(), found.clone());
        Ok(found)
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<Option<Found>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up under way, until the thread is done with it, however that comes about.
struct Work {
    shared: Arc<Shared>,
    host: String,
    _place: OwnedSemaphorePermit,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.shared.open().remove(&self.host);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Names of which those that begin with `hang` are not answered before the sender is gone; and how
    /// often the resolver was asked.
    fn hanging() -> (Names, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (sender, receiver) = mpsc::channel::<()>();
        let receiver = Arc::new(Mutex::new(receiver));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let names = Names::new(move |host| {
            count.fetch_add(1, Ordering::SeqCst);
            if host.starts_with("hang") {
                // All of them wait here, one behind the other.
                let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = receiver.recv();
            }
            Ok(vec![HERE])
        });
        (names, sender, asked)
    }

    /// Waits until no look-up is under way.
    async fn all_ended(names: &Names) {
        let all = u32::try_from(LOOKUPS_MAX).unwrap();
        drop(names.shared.places.acquire_many(all).await.unwrap());
    }

    #[tokio::test]
    async fn a_look_up_that_hangs_is_not_waited_for() {
        let (names, sender, _) = hanging();
        tokio::time::pause();
        let error = names.find("hang.example").await.unwrap_err();
        assert!(error.contains("in time"), "{error}");
        tokio::time::resume();
        assert_eq!(names.find("tracker.example").await, Ok(vec![HERE]));
        drop(sender);
    }

    #[tokio::test]
    async fn look_ups_that_nobody_waits_for_any_more_still_count() {
        let (names, sender, asked) = hanging();
        tokio::time::pause();
        for number in 0..2 * LOOKUPS_MAX {
            assert!(names.find(&format!("hang{number}.example")).await.is_err());
        }
        assert!(names.find("tracker.example").await.is_err());
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(names.find("10.0.0.1").await, Ok(vec![address]));
        tokio::time::resume();
        // When they end there is room again.
        drop(sender);
        all_ended(&names).await;
        assert_eq!(asked.load(Ordering::SeqCst), LOOKUPS_MAX);
        assert_eq!(names.find("tracker.example").await, Ok(vec![HERE]));
    }

    #[tokio::test]
    async fn one_name_takes_one_place_however_many_wait_for_it() {
        let (names, sender, asked) = hanging();
        tokio::time::pause();
        let waiting = (0..100).map(|_| {
            let names = names.clone();
            tokio::spawn(async move { names.find("hang.example").await })
        });
        for one in waiting.collect::<Vec<_>>() {
            assert!(one.await.unwrap().is_err());
        }
        tokio::time::resume();
        drop(sender);
        all_ended(&names).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(names.find("hang.example").await, Ok(vec![HERE]));
    }

    #[test]
    fn a_look_up_that_hangs_keeps_no_file_from_being_written() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .start_paused(true)
            .build()
            .unwrap();
        let (names, sender, _) = hanging();
        runtime.block_on(async {
            assert!(names.find("hang.example").await.is_err());
            let written = tokio::task::spawn_blocking(|| true).await;
            assert!(written.unwrap());
        });
        drop(sender);
    }
}

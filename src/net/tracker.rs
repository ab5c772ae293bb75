//! Trackers: the requests that `announce` wants made (BEP 3, 7, 15).
//!
//! One [`Trackers`] serves a session. For HTTP it makes a client the first time one is needed, one
//! for each local address, so that each of our addresses is announced from itself (BEP 7).
//!
//! Invariant: an announce ends within [`REQUEST_TIMEOUT`] ([`UDP_TIMEOUT`] over UDP), holds at most
//! [`ANSWER_LENGTH_MAX`] bytes of answer, and reaches nobody that
//! [`TrackerUrl`] and [`may_have_address`] do not allow.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};

use super::http::{self, REDIRECTS_MAX};
use super::names::{LOOKUP_TIMEOUT, Names};
use super::udp_tracker::UdpTrackers;
use crate::announce::tracker::ANSWER_LENGTH_MAX;
use crate::announce::tracker_url::may_have_address;
use crate::announce::udp_tracker::{EXCHANGE_MAX, Route};
use crate::announce::{Answer, Request, Scheme, TrackerError, TrackerUrl, UrlError};

/// How long an announce over HTTP may take, look-ups, redirects and all.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an announce over UDP may take: the look-up, the exchange, and a moment for the loop.
pub const UDP_TIMEOUT: Duration = LOOKUP_TIMEOUT
    .saturating_add(EXCHANGE_MAX)
    .saturating_add(Duration::from_secs(2));

/// Local addresses that trackers are asked from; a host with more is announced at the first ones.
const PATHS_MAX: usize = 4;

/// Clients by local address, and whether they speak TLS.
type Clients = BTreeMap<(IpAddr, bool), Client>;

/// The way to HTTP trackers. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct HttpTrackers {
    names: Names,
    clients: Arc<Mutex<Clients>>,
}

/// The way to all trackers. Clones share everything.
#[derive(Debug, Clone)]
pub struct Trackers {
    names: Names,
    http: HttpTrackers,
    udp: UdpTrackers,
}

impl Trackers {
    /// The way to all trackers, those over UDP by this one.
    #[must_use]
    pub fn new(udp: UdpTrackers) -> Self {
        Self::with_names(udp, Names::default())
    }

    /// The same with names looked up by these.
    #[must_use]
    pub fn with_names(udp: UdpTrackers, names: Names) -> Self {
        Self {
            http: HttpTrackers {
                names: names.clone(),
                ..HttpTrackers::default()
            },
            names,
            udp,
        }
    }

    /// Announces to a tracker from the local address `from` (unspecified: any of its family).
    ///
    /// # Errors
    ///
    /// Why there is no answer. [`TrackerError::NoAddress`] if the tracker has none of that family.
    pub async fn announce(
        &self,
        from: IpAddr,
        tracker: &TrackerUrl,
        request: &Request,
    ) -> Result<Answer, TrackerError> {
        match tracker.scheme() {
            Scheme::Http | Scheme::Https => self.http.announce(from, tracker, request).await,
            Scheme::Udp => {
                let announce = self.over_udp(from, tracker, request);
                let ended = tokio::time::timeout(UDP_TIMEOUT, announce).await;
                ended.unwrap_or(Err(TrackerError::TimedOut))
            }
        }
    }

    async fn over_udp(
        &self,
        from: IpAddr,
        url: &TrackerUrl,
        request: &Request,
    ) -> Result<Answer, TrackerError> {
        let found = resolve(&self.names, url.host(), url.port(), from.is_ipv4()).await?;
        let Some(&tracker) = found.first() else {
            return Err(TrackerError::NoAddress);
        };
        let route = Route {
            local: from,
            tracker,
        };
        self.udp.announce(route, url.path(), request).await
    }
}

/// The addresses to announce us from, and the port that peers reach us at: those listened on, one of each
/// kind.
#[must_use]
pub fn paths(listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut paths: Vec<SocketAddr> = Vec::new();
    for &address in listen {
        let is_known = paths.iter().any(|path| path.ip() == address.ip());
        if !is_known && paths.len() < PATHS_MAX {
            paths.push(address);
        }
    }
    paths
}

/// No address of a name can be used.
#[derive(Debug, thiserror::Error)]
enum NameError {
    #[error("{0}")]
    Lookup(String),
    #[error("the name has no address of this family")]
    NoAddress,
    #[error("the name leads into a private network")]
    Narrower,
}

/// Finds addresses of one family, those left out that a name must not have.
#[derive(Debug)]
struct Resolver {
    names: Names,
    wants_ipv4: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, wants_ipv4) = (self.names.clone(), self.wants_ipv4);
        Box::pin(async move {
            let found = resolve(&names, name.as_str(), 0, wants_ipv4).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The addresses of one family that a host has and may have, at least one.
async fn resolve(
    names: &Names,
    host: &str,
    port: u16,
    wants_ipv4: bool,
) -> Result<Vec<SocketAddr>, NameError> {
    let found = names.find(host).await;
    let found = found.map_err(|error| NameError::Lookup(http::plain(&error)))?;
    let mut found: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| address.is_ipv4() == wants_ipv4)
        .map(|address| SocketAddr::new(address, port))
        .collect();
    if found.is_empty() {
        return Err(NameError::NoAddress);
    }
    found.retain(|address| may_have_address(host, address.ip()));
    if found.is_empty() {
        return Err(NameError::Narrower);
    }
    Ok(found)
}

impl From<&NameError> for TrackerError {
    fn from(error: &NameError) -> Self {
        match error {
            NameError::Lookup(words) => Self::Lookup(words.clone()),
            NameError::NoAddress => Self::NoAddress,
            NameError::Narrower => UrlError::Narrower.into(),
        }
    }
}

impl From<NameError> for TrackerError {
    fn from(error: NameError) -> Self {
        (&error).into()
    }
}

impl HttpTrackers {
    /// Announces to a tracker from the local address `from` (unspecified: any of its family).
    ///
    /// # Errors
    ///
    /// Why there is no answer. [`TrackerError::NoAddress`] if the tracker has none of that family.
    pub async fn announce(
        &self,
        from: IpAddr,
        tracker: &TrackerUrl,
        request: &Request,
    ) -> Result<Answer, TrackerError> {
        let exchange = self.exchange(from, tracker, request);
        tokio::time::timeout(REQUEST_TIMEOUT, exchange)
            .await
            .unwrap_or(Err(TrackerError::TimedOut))
    }

    async fn exchange(
        &self,
        from: IpAddr,
        tracker: &TrackerUrl,
        request: &Request,
    ) -> Result<Answer, TrackerError> {
        let mut at = tracker.clone();
        let mut url = request.url(tracker);
        for _ in 0..=REDIRECTS_MAX {
            let url_now = parse(&url, &at)?;
            let client = self.client(from, &at)?;
            let response = client.get(url_now.clone()).send().await.map_err(failure)?;
            let Some(answered) = response.remote_addr() else {
                return Err(TrackerError::Unreachable("nobody knows where".to_owned()));
            };
            if !response.status().is_redirection() {
                let status = response.status();
                let body = http::body(response, ANSWER_LENGTH_MAX).await;
                let bytes = body.map_err(failure)?.ok_or(TrackerError::TooLong)?;
                let answer = Answer::decode(&bytes, answered.ip());
                return match answer {
                    // Some trackers give their reason beside a status that says no.
                    Err(TrackerError::Malformed(_)) | Ok(_) if !status.is_success() => {
                        Err(TrackerError::Status(status.as_u16()))
                    }
                    answer => answer,
                };
            }
            let Some(location) = http::location(&response) else {
                return Err(TrackerError::Status(response.status().as_u16()));
            };
            let next = url_now.join(location).map_err(|_| UrlError::Unsupported)?;
            let next = TrackerUrl::parse(next.as_str())?;
            at.check_redirect(answered.ip(), &next)?;
            url = next.to_string();
            at = next;
        }
        Err(TrackerError::Redirects)
    }

    /// The client that speaks from a local address, made when it is first needed.
    fn client(&self, from: IpAddr, tracker: &TrackerUrl) -> Result<Client, TrackerError> {
        if let Some(address) = tracker.address()
            && address.is_ipv4() != from.is_ipv4()
        {
            return Err(TrackerError::NoAddress);
        }
        let from = match from {
            // What is bound to this machine's own network reaches nobody else.
            IpAddr::V4(ip) if ip.is_loopback() && !tracker.may_be_here() => {
                Ipv4Addr::UNSPECIFIED.into()
            }
            IpAddr::V6(ip) if ip.is_loopback() && !tracker.may_be_here() => {
                Ipv6Addr::UNSPECIFIED.into()
            }
            from => from,
        };
        let with_tls = match tracker.scheme() {
            Scheme::Https => true,
            Scheme::Http => false,
            Scheme::Udp => return Err(UrlError::Unsupported.into()),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&(from, with_tls)) {
            return Ok(client.clone());
        }
        let client = build(self.names.clone(), from, with_tls).map_err(failure)?;
        clients.insert((from, with_tls), client.clone());
        Ok(client)
    }
}

/// A client that keeps no connection: a tracker is asked again in half an hour.
fn build(names: Names, from: IpAddr, with_tls: bool) -> reqwest::Result<Client> {
    let resolver = Resolver {
        names,
        wants_ipv4: from.is_ipv4(),
    };
    http::client(resolver, with_tls).local_address(from).build()
}

/// A URL as the client reads it, which must be how it was read here.
fn parse(url: &str, expected: &TrackerUrl) -> Result<Url, TrackerError> {
    let url = Url::parse(url).map_err(|_| UrlError::Unsupported)?;
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_same = match expected.address() {
        Some(address) => host.parse() == Ok(address),
        None => host == expected.host(),
    };
    // The client resolves `..` and the like, and what a torrent may send us to was judged by the path as written.
    let path = expected.path().split('?').next().unwrap_or_default();
    let is_same = is_same && url.path() == if path.is_empty() { "/" } else { path };
    if is_same && url.port_or_known_default() == Some(expected.port()) {
        Ok(url)
    } else {
        Err(UrlError::Unsupported.into())
    }
}

/// Why the client has no answer.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn failure(error: reqwest::Error) -> TrackerError {
    if error.is_timeout() {
        return TrackerError::TimedOut;
    }
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
        if let Some(error) = innermost.downcast_ref::<NameError>() {
            return error.into();
        }
        let kind = innermost
            .downcast_ref::<io::Error>()
            .map(|error| error.kind());
        if let Some(
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable,
        ) = kind
        {
            return TrackerError::Local(words(innermost));
        }
    }
    TrackerError::Unreachable(words(innermost))
}

/// An error in words that are fit for display.
fn words(error: &dyn std::error::Error) -> String {
    http::plain(&error.to_string())
}

#[cfg(test)]
mod tests;

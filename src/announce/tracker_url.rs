//! Where a tracker is, and whether a stranger may send us there.
//!
//! The URLs of trackers come from torrents and links that strangers wrote. Invariant: what is asked on
//! this machine or in a private network is the path of an announce and nothing else, and no name of the
//! Internet and no redirect leads from there into such a network.

use std::fmt;
use std::net::IpAddr;

use crate::address::Scope;

/// Ends of names that are answered inside a network only (RFC 6761, 6762, 8375 and habit).
const LOCAL_ENDS: [&str; 6] = [
    ".localhost",
    ".local",
    ".lan",
    ".internal",
    ".home.arpa",
    ".test",
];

/// What HTTP trackers in private networks are asked for, and nothing else. libtorrent has the same rule.
const LOCAL_PATH: &str = "/announce";

/// What a tracker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP (BEP 3).
    Http,
    /// HTTP over TLS.
    Https,
    /// UDP (BEP 15).
    Udp,
}

/// The URL of a tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerUrl {
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
    /// Path and query; begins with `/`, or is empty.
    path: String,
}

/// Why a tracker is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is none that is understood here: `wss:`, a user name, no port with `udp:`.
    #[error("such a URL is not understood")]
    Unsupported,
    /// Nobody can be there: a multicast or reserved address.
    #[error("nobody can be at that address")]
    Nowhere,
    /// A host in this network is asked for something that is no announce.
    #[error("in a private network only the path /announce is asked for")]
    LocalPath,
    /// A redirect from a wider network into a narrower one.
    #[error("it sends us from a wider network into a narrower one")]
    Narrower,
}

/// Where a host is, as far as its name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An address.
    Address(Scope),
    /// A name of a private network or of this machine.
    LocalName,
    /// A name of the Internet.
    GlobalName,
}

impl TrackerUrl {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// It is not understood, or a torrent must not send us there.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Self::split(text).ok_or(UrlError::Unsupported)?;
        let is_local = match url.place() {
            None => return Err(UrlError::Nowhere),
            Some(Place::Address(scope)) => scope != Scope::Global,
            Some(Place::LocalName) => true,
            Some(Place::GlobalName) => false,
        };
        if is_local && url.scheme != Scheme::Udp && !url.path.starts_with(LOCAL_PATH) {
            return Err(UrlError::LocalPath);
        }
        Ok(url)
    }

    fn split(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "udp" => Scheme::Udp,
            _ => return None,
        };
        let rest = rest.split('#').next()?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = split_authority(authority)?;
        let port = match (port, scheme) {
            (Some(port), _) => port,
            (None, Scheme::Http) => 80,
            (None, Scheme::Https) => 443,
            (None, Scheme::Udp) => return None,
        };
        if port == 0 || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let slash = if path.starts_with('?') { "/" } else { "" };
        Some(Self {
            text: text.to_owned(),
            scheme,
            host: host.to_ascii_lowercase(),
            port,
            path: format!("{slash}{path}"),
        })
    }

    /// What the tracker speaks.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its host: a name in lower case, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query as they stand in the URL: beginning with `/`, or empty.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its address, if the URL has one in place of a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it may be on this machine, as far as its host says it.
    #[must_use]
    pub fn may_be_here(&self) -> bool {
        match self.place() {
            Some(Place::Address(scope)) => scope == Scope::Loopback,
            Some(Place::LocalName) => true,
            Some(Place::GlobalName) | None => false,
        }
    }

    /// `None` for an address that no host can have.
    fn place(&self) -> Option<Place> {
        match self.address() {
            Some(address) => Scope::of(address).map(Place::Address),
            None if is_local_name(&self.host) => Some(Place::LocalName),
            None => Some(Place::GlobalName),
        }
    }

    /// Whether what this tracker answered, from the address `from`, may send us to `to`.
    ///
    /// # Errors
    ///
    /// `to` is in a narrower network. Of a local name it is not known how narrow that is, so it is
    /// refused unless it is the same host.
    pub fn check_redirect(&self, from: IpAddr, to: &Self) -> Result<(), UrlError> {
        let allowed = match (to.place(), Scope::of(from)) {
            (None, _) | (_, None) => false,
            (Some(Place::GlobalName), Some(_)) => true,
            (Some(Place::Address(scope)), Some(asked)) => scope >= asked,
            (Some(Place::LocalName), Some(_)) => to.host == self.host,
        };
        if allowed {
            Ok(())
        } else {
            Err(UrlError::Narrower)
        }
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a host of this name may have this address: a name of the Internet leads nowhere else.
#[must_use]
pub fn may_have_address(host: &str, address: IpAddr) -> bool {
    match Scope::of(address) {
        None => false,
        Some(Scope::Global) => true,
        Some(Scope::Loopback | Scope::Link | Scope::Private) => {
            host.parse::<IpAddr>().is_ok() || is_local_name(host)
        }
    }
}

/// Whether a name can only be one of a private network.
fn is_local_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    !host.contains('.') || LOCAL_ENDS.iter().any(|end| host.ends_with(end))
}

/// Host without brackets, and port.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (
            host,
            port.strip_prefix(':').or(port.is_empty().then_some(""))?,
        )
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        // What reads as a number elsewhere (`127.1`, `0x7f000001`) is no name: it would slip through.
        let last = host.trim_end_matches('.').rsplit('.').next()?;
        let is_number = last.starts_with(|first: char| first.is_ascii_digit());
        let is_odd = is_number && host.parse::<std::net::Ipv4Addr>().is_err();
        if host.is_empty() || host.len() > 253 || is_odd || !host.bytes().all(is_name) {
            return None;
        }
        (host, port)
    };
    if port.is_empty() {
        return Some((host, None));
    }
    let is_decimal = port.bytes().all(|byte| byte.is_ascii_digit());
    Some((host, Some(port.parse().ok().filter(|_| is_decimal)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, port: u16, path: &str) {
        let url = TrackerUrl::parse(text).unwrap();
        let found = (url.host(), url.port(), url.path());
        assert_eq!(found, (host, port, path));
        assert_eq!(url.to_string(), text);
    }

    #[track_caller]
    fn check_refused(text: &str, expected: UrlError) {
        assert_eq!(TrackerUrl::parse(text), Err(expected), "{text}");
    }

    #[test]
    fn urls_are_taken_apart() {
        check("http://T.example/announce", "t.example", 80, "/announce");
        check("https://t.example/a?k=1", "t.example", 443, "/a?k=1");
        check("udp://t.example:6969", "t.example", 6969, "");
        check("udp://[2a00::1]:80/dir?a=b", "2a00::1", 80, "/dir?a=b");
        check("HTTP://8.8.8.8:81?a", "8.8.8.8", 81, "/?a");
        check("http://t.example/announce#x", "t.example", 80, "/announce");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "wss://t.example/",
            "udp://t.example/announce",
            "http://",
            "http://t.example:0/announce",
            "http://t.example:65536/announce",
            "http://t.example:+8/announce",
            "http://user@t.example/announce",
            "http://[::1/announce",
            "http://[t]:1/announce",
            "http://2130706433/announce",
            "http://127.1/announce",
            "http://0x7f000001/announce",
            "http://127.0.0.1\\@t.example/announce",
            "http://t.example/a b",
            "t.example",
        ] {
            check_refused(text, UrlError::Unsupported);
        }
        check_refused("udp://224.0.0.1:1", UrlError::Nowhere);
        check_refused("http://0.0.0.0/announce", UrlError::Nowhere);
    }

    #[test]
    fn on_this_machine_and_in_private_networks_only_announces_are_asked_for() {
        for host in [
            "127.0.0.1:631",
            "10.0.0.1",
            "[::1]:80",
            "localhost",
            "box.lan",
        ] {
            check_refused(&format!("http://{host}/printers"), UrlError::LocalPath);
            check_refused(&format!("https://{host}"), UrlError::LocalPath);
            for path in ["/announce", "/announce.php?key=1"] {
                assert!(TrackerUrl::parse(&format!("http://{host}{path}")).is_ok());
            }
        }
        // No tracker in a private network, but it cannot be told from one.
        assert!(TrackerUrl::parse("udp://127.0.0.1:53").is_ok());
        assert!(TrackerUrl::parse("http://t.example/key/announce").is_ok());
    }

    #[test]
    fn a_name_of_the_internet_has_addresses_of_the_internet_only() {
        let may = |host, address: &str| may_have_address(host, address.parse().unwrap());
        assert!(may("t.example", "8.8.8.8") && may("localhost", "127.0.0.1"));
        assert!(may("10.0.0.1", "10.0.0.1") && may("box.lan", "192.168.1.2"));
        for address in ["127.0.0.1", "192.168.1.1", "fe80::1", "fd00::1", "0.0.0.0"] {
            assert!(!may("t.example", address), "{address}");
            assert!(!may("localhost.t.example.", address), "{address}");
        }
    }

    #[test]
    fn redirects_lead_only_as_far_out_as_they_come_from() {
        let check = |from: &str, to: &str| {
            let asked = TrackerUrl::parse("http://box.lan/announce").unwrap();
            let to = TrackerUrl::parse(to).unwrap();
            asked.check_redirect(from.parse().unwrap(), &to).is_ok()
        };
        assert!(check("8.8.8.8", "http://t.example/x"));
        assert!(check("8.8.8.8", "http://9.9.9.9/x"));
        assert!(!check("8.8.8.8", "http://10.0.0.1/announce"));
        assert!(!check("8.8.8.8", "http://localhost/announce"));
        assert!(!check("10.0.0.1", "http://127.0.0.1/announce"));
        assert!(check("10.0.0.1", "http://10.0.0.2/announce"));
        assert!(check("10.0.0.1", "https://box.lan/announce"));
        assert!(check("127.0.0.1", "http://127.0.0.1:2/announce"));
    }
}

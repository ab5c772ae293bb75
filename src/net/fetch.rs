//! Fetching a file from the web, for those who name a .torrent file by its URL.
//!
//! Invariant: a fetch ends within [`FETCH_TIMEOUT`] and holds at most the bytes that were asked for;
//! a redirect leads into no narrower network than the one it came from.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::http::{self, REDIRECTS_MAX};
use super::names::Names;
use crate::address::Scope;

/// How long a fetch may take, look-ups, redirects and all.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchError {
    /// Neither `http` nor `https`, or no URL at all.
    #[error("that is no URL that begins with http:// or https://")]
    Url,
    /// It took longer than [`FETCH_TIMEOUT`].
    #[error("it took longer than {} seconds", FETCH_TIMEOUT.as_secs())]
    TimedOut,
    /// The server answered with a status that is no success.
    #[error("the server says {0}")]
    Status(u16),
    /// More bytes than wanted.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// One redirect after another.
    #[error("more than {REDIRECTS_MAX} redirects")]
    Redirects,
    /// A redirect leads from the Internet into a private network, or from there to this machine.
    #[error("it leads into a narrower network")]
    Narrower,
    /// The system's or the library's words.
    #[error("{0}")]
    Unreachable(String),
}

/// What lies at a URL, at most `length_max` bytes of it.
///
/// # Errors
///
/// Why there is nothing.
pub async fn fetch(url: &str, length_max: usize) -> Result<Vec<u8>, FetchError> {
    tokio::time::timeout(FETCH_TIMEOUT, follow(url, length_max))
        .await
        .unwrap_or(Err(FetchError::TimedOut))
}

async fn follow(url: &str, length_max: usize) -> Result<Vec<u8>, FetchError> {
    let names = Names::default();
    let mut url = Url::parse(url).map_err(|_| FetchError::Url)?;
    // What the user named may be anywhere.
    let mut least = Scope::Loopback;
    for _ in 0..=REDIRECTS_MAX {
        check(&url, least)?;
        let resolver = Resolver {
            names: names.clone(),
            least,
        };
        let client = http::client(resolver, url.scheme() == "https").build();
        let response = client.map_err(failure)?.get(url.clone()).send().await;
        let response = response.map_err(failure)?;
        let status = response.status();
        if status.is_success() {
            let body = http::body(response, length_max).await.map_err(failure)?;
            return body.ok_or(FetchError::TooLong(length_max));
        }
        let location = http::location(&response).filter(|_| status.is_redirection());
        let next = location.and_then(|location| url.join(location).ok());
        url = next.ok_or(FetchError::Status(status.as_u16()))?;
        let from = response.remote_addr().and_then(|at| Scope::of(at.ip()));
        least = from.unwrap_or(Scope::Global);
    }
    Err(FetchError::Redirects)
}

/// Whether a URL may be asked by somebody in a network of this scope.
fn check(url: &Url, least: Scope) -> Result<(), FetchError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FetchError::Url);
    }
    let host = url.host_str().ok_or(FetchError::Url)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) if !is_within(address, least) => Err(FetchError::Narrower),
        _ => Ok(()),
    }
}

fn is_within(address: IpAddr, least: Scope) -> bool {
    Scope::of(address).is_some_and(|scope| scope >= least)
}

/// Finds the addresses of a name, those left out that are too near.
#[derive(Debug)]
struct Resolver {
    names: Names,
    least: Scope,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, least) = (self.names.clone(), self.least);
        Box::pin(async move {
            let found = names.find(name.as_str()).await.map_err(io::Error::other)?;
            let any = !found.is_empty();
            let found = found
                .into_iter()
                .filter(|&address| is_within(address, least));
            let found: Vec<_> = found.map(|address| SocketAddr::new(address, 0)).collect();
            if any && found.is_empty() {
                return Err(FetchError::Narrower.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Why the client has no answer, in words that are fit for display.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn failure(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::TimedOut;
    }
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
        if let Some(FetchError::Narrower) = innermost.downcast_ref() {
            return FetchError::Narrower;
        }
    }
    FetchError::Unreachable(http::plain(&innermost.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request with the next of these; gives the address.
    async fn serve(answers: Vec<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4_096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    fn found(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }

    fn moved(to: &str) -> String {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }

    #[tokio::test]
    async fn a_file_comes_also_by_way_of_a_redirect() {
        let address = serve(vec![moved("/other"), found("content")]).await;
        let fetched = fetch(&format!("http://{address}/file"), 100).await;
        assert_eq!(fetched.as_deref(), Ok(&b"content"[..]));
    }

    #[tokio::test]
    async fn what_is_too_long_or_not_there_is_refused() {
        let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let address = serve(vec![found("0123456789"), missing.to_owned()]).await;
        let url = format!("http://{address}/file");
        assert_eq!(fetch(&url, 9).await, Err(FetchError::TooLong(9)));
        assert_eq!(fetch(&url, 9).await, Err(FetchError::Status(404)));
        assert!(matches!(
            fetch("http://127.0.0.1:1/", 9).await,
            Err(FetchError::Unreachable(_))
        ));
    }

    #[tokio::test]
    async fn redirects_without_end_end() {
        let address = serve(vec![moved("/again"); REDIRECTS_MAX + 1]).await;
        let fetched = fetch(&format!("http://{address}/"), 9).await;
        assert_eq!(fetched, Err(FetchError::Redirects));
    }

    #[test]
    fn only_the_user_leads_into_a_narrower_network() {
        let check = |url: &str, least| check(&Url::parse(url).unwrap(), least);
        assert_eq!(check("http://127.0.0.1/", Scope::Loopback), Ok(()));
        assert_eq!(check("https://93.184.215.14/", Scope::Global), Ok(()));
        for url in ["http://127.0.0.1/", "http://[::1]/", "http://192.168.1.1/"] {
            assert_eq!(
                check(url, Scope::Global),
                Err(FetchError::Narrower),
                "{url}"
            );
        }
        assert_eq!(
            check("http://127.0.0.1/", Scope::Private),
            Err(FetchError::Narrower)
        );
        assert_eq!(
            check("file:///etc/passwd", Scope::Loopback),
            Err(FetchError::Url)
        );
    }

    #[tokio::test]
    async fn a_name_that_leads_into_a_narrower_network_is_refused() {
        let resolver = Resolver {
            names: Names::default(),
            least: Scope::Global,
        };
        let name = "localhost".parse().unwrap();
        let refused = resolver.resolve(name).await.err().unwrap();
        assert_eq!(refused.downcast_ref(), Some(&FetchError::Narrower));
    }
}

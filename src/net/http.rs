//! What all who ask over HTTP have in common.
//!
//! Invariant: nobody is asked twice for one answer, a redirect is followed by whoever judges it, and an answer takes
//! no more memory than its reader allows.

use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};

use crate::metainfo::plain_text;

/// Redirects followed.
pub(super) const REDIRECTS_MAX: usize = 5;

/// How long a connection may take to open. Ours: as long as one to a peer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the system's or the library's words for a failure.
const WORDS_LENGTH_MAX: usize = 200;

/// What we call ourselves.
const USER_AGENT: &str = concat!("trackless/", env!("CARGO_PKG_VERSION"));

/// A client to be completed.
pub(super) fn client(resolver: impl Resolve + 'static, with_tls: bool) -> ClientBuilder {
    // Somebody else in this process may have chosen one before; either does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        .dns_resolver(resolver)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(0)
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .http1_only()
        .no_proxy();
    if with_tls {
        return builder;
    }
    // The system's certificates are a megabyte that plain HTTP has no use for.
    builder.tls_certs_only([])
}

/// Where a redirect leads, as it says.
pub(super) fn location(response: &Response) -> Option<&str> {
    response.headers().get(LOCATION)?.to_str().ok()
}

/// What stands in an answer, decompressed; `None` if it is longer than `length_max` bytes.
pub(super) async fn body(
    mut response: Response,
    length_max: usize,
) -> reqwest::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > length_max {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// Words for a failure that are fit for display.
pub(super) fn plain(words: &str) -> String {
    plain_text(words.as_bytes(), WORDS_LENGTH_MAX).unwrap_or_default()
}

//! One page of text over HTTP/1.1, for programs that fetch it again and again.
//!
//! A connection is one request: `GET` of the one path gets the page, everything else a short error,
//! and then the connection is closed. Nothing of a request is used but its first line.
//!
//! Invariant: at most [`CONNECTIONS_MAX`] connections, each for at most [`REQUEST_TIMEOUT`] and
//! [`RESPONSE_TIMEOUT`] and with at most [`REQUEST_MAX`] bytes of a request, and the page is made at
//! most once in [`PAGE_AGE_MAX`], however many ask for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Connections at the same time; one more is closed at once. Ours: a few programs watch a node, and
/// each descriptor is one that the node does not have.
pub const CONNECTIONS_MAX: usize = 16;

/// Bytes of a request, headers included.
pub const REQUEST_MAX: usize = 8 << 10;

/// Time until a request has come as a whole, however it is spread.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Time until the other side has taken the response.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A page that is younger is handed out again: who asks a thousand times a second costs the node
/// four pages.
pub const PAGE_AGE_MAX: Duration = Duration::from_millis(250);

/// Pause after a connection could not be accepted, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Who waits for the page.
type Ask = oneshot::Sender<Arc<str>>;

/// Binds the listener; port 0 takes a free one.
///
/// # Errors
///
/// What the system says: address in use, no such address on this machine, not permitted.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves what `page` makes at `path`, until it is dropped.
pub async fn serve<R: Future<Output = String>>(
    listener: TcpListener,
    path: &'static str,
    page: impl Fn() -> R,
) {
    let (asks, mut asked) = mpsc::channel::<Ask>(CONNECTIONS_MAX);
    let mut connections = JoinSet::new();
    let mut latest: Option<(Instant, Arc<str>)> = None;
    loop {
        // Each branch may be dropped while it waits: nothing is taken before it is ready.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(converse(stream, path, asks.clone()));
                }
                Ok((stream, from)) => {
                    tracing::debug!(%from, "too many connections");
                    drop(stream);
                }
                Err(error) => {
                    tracing::debug!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ask) = asked.recv() => {
                let text = match &latest {
                    Some((made, text)) if made.elapsed() < PAGE_AGE_MAX => Arc::clone(text),
                    _ => page().await.into(),
                };
                if !matches!(&latest, Some((_, known)) if Arc::ptr_eq(known, &text)) {
                    latest = Some((Instant::now(), Arc::clone(&text)));
                }
                // Who asked may have gone meanwhile.
                let _ = ask.send(text);
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// One request and its response.
async fn converse(mut stream: TcpStream, path: &str, asks: mpsc::Sender<Ask>) {
    // Who went away, or takes too long, does not wait for words.
    let Ok(Ok(request)) = timeout(REQUEST_TIMEOUT, read_head(&mut stream)).await else {
        return;
    };
    let response = match judge(&request, path) {
        Verdict::Page => {
            let (reply, answer) = oneshot::channel();
            if asks.send(reply).await.is_err() {
                return;
            }
            let Ok(text) = answer.await else { return };
            // The media type of Prometheus' text format.
            response(
                "200 OK",
                "text/plain; version=0.0.4; charset=utf-8",
                "",
                &text,
            )
        }
        Verdict::Refuse(status) => {
            let allow = match status {
                "405 Method Not Allowed" => "Allow: GET\r\n",
                _ => "",
            };
            response(status, "text/plain; charset=utf-8", allow, status)
        }
    };
    let write = async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await
    };
    if !matches!(timeout(RESPONSE_TIMEOUT, write).await, Ok(Ok(()))) {
        tracing::debug!("response not taken");
    }
}

fn response(status: &str, media_type: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n{more}Connection: \
         close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads up to the empty line that ends the head of a request; what is longer than
/// [`REQUEST_MAX`] is cut.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while head.len() < REQUEST_MAX && !is_whole(&head) {
        let length = stream.read(&mut part).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&part[..length]);
    }
    Ok(head)
}

/// Whether the head of a request has ended. Some programs send bare line feeds.
fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

/// What a request deserves.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The page.
    Page,
    /// An error with this status.
    Refuse(&'static str),
}

fn judge(request: &[u8], path: &str) -> Verdict {
    if !is_whole(request) {
        return Verdict::Refuse("431 Request Header Fields Too Large");
    }
    let line = request.split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().trim_end_matches('\r').split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.0" | "HTTP/1.1"), None) =
        (method, target, version, words.next())
    else {
        return Verdict::Refuse("400 Bad Request");
    };
    let asked = target.split_once('?').map_or(target, |(asked, _)| asked);
    match (asked == path, method) {
        (true, "GET") => Verdict::Page,
        (true, _) => Verdict::Refuse("405 Method Not Allowed"),
        (false, _) => Verdict::Refuse("404 Not Found"),
    }
}

#[cfg(test)]
mod tests;

//! Who looks on while a run goes: a progress line, and the story of one host.
//!
//! Invariant: a watch is told and never asked. A run with one has the same trace hash as one
//! without.

use std::fmt;
use std::rc::Rc;

use trackless::krpc::{Body, Message};
use trackless::time::Instant;

use crate::host::HostId;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Virtual time.
    pub now: Instant,
    /// Virtual time at which it is expected to end.
    pub end: Instant,
    /// Happenings so far.
    pub events: u64,
}

/// Somebody who looks on.
pub trait Watch: fmt::Debug {
    /// A few thousand more happenings were simulated.
    fn on_progress(&self, progress: Progress);
    /// Something happened to the traced host.
    fn on_story(&self, now: Instant, host: HostId, what: &str);
}

/// A watch and what it wants to hear of.
#[derive(Debug, Clone)]
pub struct Watcher {
    /// Who is told.
    pub watch: Rc<dyn Watch>,
    /// When the run is expected to end.
    pub end: Instant,
    /// Whose story is told.
    pub traced: Option<HostId>,
}

/// Happenings between two reports of progress. Ours: milliseconds apart, and unnoticeable.
const PROGRESS_SPACING: u64 = 1 << 13;

impl Watcher {
    /// Reports progress now and then.
    pub fn on_event(&self, now: Instant, events: u64) {
        if events.is_multiple_of(PROGRESS_SPACING) {
            self.watch.on_progress(Progress {
                now,
                end: self.end,
                events,
            });
        }
    }

    /// Tells something about a host, if it is the traced one. `what` is only called then.
    pub fn tell(&self, now: Instant, host: HostId, what: impl FnOnce() -> String) {
        if self.traced == Some(host) {
            self.watch.on_story(now, host, &what());
        }
    }
}

/// What a datagram says, in a few words.
#[must_use]
pub fn describe(payload: &[u8]) -> String {
    let Ok(message) = Message::decode(payload) else {
        return format!("{} bytes that are no message", payload.len());
    };
    match message.body {
        Body::Query(query) => String::from_utf8_lossy(query.method.name()).into_owned(),
        Body::Response(response) => format!(
            "response with {} nodes and {} peers",
            response.nodes.iter().count(),
            response.values.iter().count(),
        ),
        Body::Error { code, text } => {
            format!("error {code} {}", String::from_utf8_lossy(text))
        }
    }
}

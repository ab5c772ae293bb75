//! What a user is told of trackers: what they gave and what they said.
//!
//! Invariant: what a tracker said is printed with its control characters escaped.

use serde_json::{Value, json};

use super::args::Global;
use super::print::{count, escape, note, number, print_json, shorten};
use super::progress::Display;
use crate::session::{TorrentHandle, TorrentStatus, TrackerProgress, TrackerStatus};

/// Characters of a URL in a sentence.
const URL_LENGTH_MAX: usize = 60;

/// What was told of one tracker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    answers: u32,
    failure: Option<String>,
    warning: Option<String>,
}

/// What was told of the trackers of one torrent.
#[derive(Debug, Default)]
pub(super) struct News {
    told: Vec<Told>,
}

impl News {
    /// Tells what is new: every answer and failure to programs, what trackers warn of to people.
    pub(super) fn tell(
        &mut self,
        torrent: &TorrentHandle,
        status: &TorrentStatus,
        global: &Global,
        display: &Display,
    ) {
        for tracker in self.fresh(&status.trackers) {
            if global.json {
                let mut line = tracker_json(tracker);
                line["event"] = "tracker".into();
                line["info_hash"] = torrent.info_hash().to_string().into();
                display.suspend(|| print_json(&line));
            } else if global.quiet == 0
                && let Some(warning) = &tracker.warning
            {
                let url = shown(&tracker.url);
                let text = format!("tracker {url} warns: {}", escape(warning));
                display.suspend(|| note(&text));
            }
        }
    }

    /// The trackers that said something since the last call.
    fn fresh<'a>(&mut self, progress: &'a TrackerProgress) -> Vec<&'a TrackerStatus> {
        self.told.resize(progress.trackers.len(), Told::default());
        let told = self.told.iter_mut().zip(progress.trackers.iter());
        told.filter_map(|(told, tracker)| {
            let now = Told {
                answers: tracker.answers,
                failure: tracker.failure.clone(),
                warning: tracker.warning.clone(),
            };
            let is_new = *told != now;
            // The same warning with each answer is no news to people, and an answer is to programs.
            *told = now;
            is_new.then_some(tracker)
        })
        .collect()
    }
}

/// A tracker for programs.
pub(super) fn tracker_json(tracker: &TrackerStatus) -> Value {
    json!({
        "url": tracker.url,
        "tier": tracker.tier,
        "answers": tracker.answers,
        "failures": tracker.failures,
        "peers": tracker.peers,
        "seeds": tracker.seeds,
        "leechers": tracker.leechers,
        "completed": tracker.completed,
        "failure": tracker.failure,
        "warning": tracker.warning,
    })
}

/// How far the trackers came; `None` when there are none.
pub(super) fn trackers_text(progress: &TrackerProgress) -> Option<String> {
    let all = &progress.trackers;
    let first = all.first()?;
    let answered = all.iter().filter(|tracker| is_answering(tracker)).count();
    if answered > 0 {
        let peers = count(number(progress.peers_found), "peer");
        let who = match all.len() {
            1 => "the tracker".to_owned(),
            all => format!("{answered} of {all} trackers"),
        };
        return Some(format!("{peers} from {who}"));
    }
    let failed = all.iter().find_map(|tracker| {
        let failure = tracker.failure.as_ref()?;
        Some((tracker, failure))
    });
    match failed {
        // One that is asked for the first time may be better.
        Some((tracker, failure)) if !all.iter().any(is_fresh) => {
            let (url, failure) = (shown(&tracker.url), escape(failure));
            Some(if all.len() == 1 {
                format!("tracker {url}: {failure}")
            } else {
                let all = all.len();
                format!("none of {all} trackers answers, {url}: {failure}")
            })
        }
        Some(_) | None if all.len() == 1 => Some(format!("asking tracker {}", shown(&first.url))),
        Some(_) | None => Some(format!("asking {}", count(number(all.len()), "tracker"))),
    }
}

/// Where a torrent is announced: `2 trackers`; `None` when no tracker knows of it.
pub(super) fn announced_text(progress: &TrackerProgress) -> Option<String> {
    let answering = progress.trackers.iter().filter(|one| is_answering(one));
    match answering.count() {
        0 => None,
        known => Some(count(number(known), "tracker")),
    }
}

fn is_answering(tracker: &TrackerStatus) -> bool {
    tracker.answers > 0 && tracker.failure.is_none()
}

/// Whether nothing is known of it yet.
fn is_fresh(tracker: &TrackerStatus) -> bool {
    tracker.answers == 0 && tracker.failure.is_none()
}

/// A URL in a sentence.
fn shown(url: &str) -> String {
    shorten(&escape(url), URL_LENGTH_MAX).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(url: &str) -> TrackerStatus {
        TrackerStatus {
            url: url.to_owned(),
            tier: 0,
            is_asked: false,
            answers: 0,
            failures: 0,
            peers: 0,
            seeds: None,
            leechers: None,
            completed: None,
            failure: None,
            warning: None,
        }
    }

    fn progress(trackers: &[TrackerStatus]) -> TrackerProgress {
        TrackerProgress {
            trackers: trackers.into(),
            peers_found: 7,
            enabled: true,
        }
    }

    #[track_caller]
    fn check(trackers: &[TrackerStatus], expected: Option<&str>) {
        assert_eq!(trackers_text(&progress(trackers)).as_deref(), expected);
    }

    #[test]
    fn what_trackers_gave_is_told_and_why_they_did_not() {
        let (a, b) = (tracker("http://a/announce"), tracker("http://b/announce"));
        check(&[], None);
        check(
            std::slice::from_ref(&a),
            Some("asking tracker http://a/announce"),
        );
        check(&[a.clone(), b.clone()], Some("asking 2 trackers"));
        let dead = TrackerStatus {
            failure: Some("it says: no\u{1b}[2J".to_owned()),
            failures: 1,
            ..a.clone()
        };
        check(
            std::slice::from_ref(&dead),
            Some("tracker http://a/announce: it says: no\\u{1b}[2J"),
        );
        check(&[dead.clone(), b.clone()], Some("asking 2 trackers"));
        let good = TrackerStatus { answers: 1, ..b };
        check(&[dead, good.clone()], Some("7 peers from 1 of 2 trackers"));
        check(&[good], Some("7 peers from the tracker"));
    }

    #[test]
    fn news_is_told_once() {
        let mut news = News::default();
        let mut one = tracker("http://a/announce");
        assert!(news.fresh(&progress(&[one.clone()])).is_empty());
        one.answers = 1;
        one.warning = Some("soon down".to_owned());
        let said = progress(&[one.clone()]);
        assert_eq!(news.fresh(&said), [&one]);
        assert!(news.fresh(&said).is_empty());
    }
}

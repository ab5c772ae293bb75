//! A scripted leecher: asks a seeder for blocks and looks closely at what comes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::content::{BLOCK, Content};
use crate::lab::PATIENCE;

/// A seeder looks at its files every few seconds: until then it may serve what changed meanwhile.
const SEEN_WITHIN: Duration = Duration::from_secs(45);
use crate::wire::{Message, Wire};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The right bytes came.
    Right,
    /// Other bytes came.
    Wrong,
    /// Nothing came in time, or the peer chokes us.
    Nothing,
    /// The stream ended, or could not be opened.
    Closed,
}

/// A leecher of one torrent at one peer. It connects again when the stream ends.
pub(crate) struct Leecher<'a> {
    content: &'a Content,
    from: IpAddr,
    to: SocketAddr,
    wire: Option<Wire>,
    unchoked: bool,
}

impl<'a> Leecher<'a> {
    /// One that has not connected yet.
    pub(crate) fn new(content: &'a Content, from: impl Into<IpAddr>, to: SocketAddr) -> Self {
        Self {
            content,
            from: from.into(),
            to,
            wire: None,
            unchoked: false,
        }
    }

    /// Asks for a block, and waits for it.
    pub(crate) fn fetch(&mut self, piece: u32, offset: u32, wait: Duration) -> Answer {
        let answer = self.try_fetch(piece, offset, wait);
        answer.unwrap_or_else(|_| {
            self.wire = None;
            Answer::Closed
        })
    }

    fn try_fetch(&mut self, piece: u32, offset: u32, wait: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + wait;
        let wire = match &mut self.wire {
            Some(wire) => wire,
            gone => {
                self.unchoked = false;
                let mut wire = Wire::join(self.from, self.to, &self.content.info_hash)?;
                wire.send(2, &[])?;
                gone.insert(wire)
            }
        };
        let length = u32::try_from(BLOCK).unwrap();
        let expected = self.content.block(piece, offset, length).unwrap();
        let mut asked = false;
        loop {
            if self.unchoked && !asked {
                wire.request(piece, offset, length)?;
                asked = true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match wire.receive(left)? {
                Some(Message::Unchoke) => self.unchoked = true,
                Some(Message::Choke) => {
                    self.unchoked = false;
                    asked = false;
                }
                Some(Message::Piece(index, begin, data)) if (index, begin) == (piece, offset) => {
                    let is_right = data == expected;
                    return Ok(if is_right {
                        Answer::Right
                    } else {
                        Answer::Wrong
                    });
                }
                Some(_) => {}
                None => return Ok(Answer::Nothing),
            }
        }
    }

    /// Asks again and again until the answer is the expected one; gives the answers before.
    #[track_caller]
    pub(crate) fn fetch_until(&mut self, piece: u32, offset: u32, expected: Answer) -> Vec<Answer> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        loop {
            let answer = self.fetch(piece, offset, Duration::from_secs(3));
            if answer == expected {
                return before;
            }
            before.push(answer);
            assert!(
                Instant::now() < deadline,
                "never {expected:?} in {PATIENCE:?}, {} answers, the last {:?}",
                before.len(),
                before.last()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks again and again until nothing more is served; gives the answers before.
    #[track_caller]
    pub(crate) fn fetch_until_refused(&mut self, piece: u32, offset: u32) -> Vec<Answer> {
        let deadline = Instant::now() + SEEN_WITHIN;
        let mut before = Vec::new();
        loop {
            let answer = self.fetch(piece, offset, Duration::from_secs(3));
            if matches!(answer, Answer::Nothing | Answer::Closed) {
                return before;
            }
            before.push(answer);
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it is still served after {SEEN_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

//! A node that a walk may ask, and what has become of it.

use super::leads::Namers;
use crate::krpc::ContactInfo;

/// What is known of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not asked.
    New,
    /// Asked; counts as in flight.
    Asked,
    /// Asked, and past its soft time-out.
    Stalled,
    /// Asked once, and its time is over.
    Silent,
    /// Asked a second time after the first soft time-out; counts neither as in flight nor among the
    /// closest, but is waited for.
    AskedAgain,
    /// Asked a second time, and past that time-out too.
    StalledAgain,
    /// Asked a second time, and its time is over.
    GivenUp,
    /// Has answered.
    Answered,
    /// Answered with an error, or is not who it was said to be.
    Failed,
}

impl State {
    /// Whether its first answer is overdue.
    pub(super) const fn is_overdue(self) -> bool {
        match self {
            Self::Stalled
            | Self::Silent
            | Self::AskedAgain
            | Self::StalledAgain
            | Self::GivenUp => true,
            Self::New | Self::Asked | Self::Answered | Self::Failed => false,
        }
    }

    /// Whether it was asked once and may be asked a second time.
    pub(super) const fn is_asked_once(self) -> bool {
        match self {
            Self::Stalled | Self::Silent => true,
            Self::New
            | Self::Asked
            | Self::AskedAgain
            | Self::StalledAgain
            | Self::GivenUp
            | Self::Answered
            | Self::Failed => false,
        }
    }

    /// Whether nothing is expected of it any more, if it is not asked a second time.
    pub(super) const fn is_gone(self) -> bool {
        match self {
            Self::Silent | Self::StalledAgain | Self::GivenUp | Self::Failed => true,
            Self::New | Self::Asked | Self::Stalled | Self::AskedAgain | Self::Answered => false,
        }
    }
}

/// A node that may be close to the target.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) info: ContactInfo,
    /// 1 for a contact of our table, else one more than the node that named it.
    pub(super) hop: u32,
    pub(super) state: State,
    /// Its id follows from its address, or that does not matter.
    pub(super) is_bound: bool,
    /// Write token it gave.
    pub(super) token: Option<Box<[u8]>>,
    /// It has the item that is looked for.
    pub(super) holds: bool,
    /// It was asked twice before its answer came.
    pub(super) is_late: bool,
    /// When it did not answer, those that named it were not believed.
    pub(super) is_doubtful: bool,
    /// Who named it; nobody named a contact of our table.
    pub(super) namers: Namers,
}

/// A node at which something may be stored.
#[derive(Debug, Clone, Copy)]
pub(in crate::dht) struct Storage<'a> {
    pub(in crate::dht) info: ContactInfo,
    /// The write token it gave.
    pub(in crate::dht) token: &'a [u8],
    /// It has a version of the item.
    pub(in crate::dht) holds: bool,
}

impl Candidate {
    /// What it takes to store something there.
    pub(super) fn storage(&self) -> Option<Storage<'_>> {
        Some(Storage {
            info: self.info,
            token: self.token.as_deref()?,
            holds: self.holds,
        })
    }
}

//! What became of the nodes that were named in a walk.
//!
//! A liar can name nodes that are not there, ever closer to the target, and each costs queries and time. So it is
//! noted who named whom: when those that somebody named stay silent, and few answer, the others that only such
//! namers know of are asked last. An honest node names some that are gone; one that names few others that are there
//! does no good either. Before a walk ends without them, one node of each such namer is asked: an honest node may
//! have named some that answer everybody but us. Who answers clears those that named it.
//!
//! Invariant: no more namers are remembered than a byte can number; what others name counts as named by nobody.

use std::net::SocketAddr;

/// Nodes named by somebody that may be silent, beyond those that answered. Ours: one may be gone. None may while
/// the walk is wary, until their namer has had its second chance.
const SILENT_MAX: u8 = 1;

/// Named nodes that were silent in the whole walk before it is wary, if a quarter as many as answered were. Ours:
/// among nodes that stay for a quarter of an hour there are one or two.
const WARY_FROM: u32 = 3;

/// Second chances in a walk. Ours: liars do not get one each, and one honest node that is heard is enough.
const PROBES_MAX: u32 = 3;

/// Number of somebody who named a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Namer(u8);

/// Somebody who named others.
#[derive(Debug, Clone, Copy)]
struct Lead {
    namer: SocketAddr,
    silent: u8,
    answered: u8,
    /// Of those that it named, so many are asked just now.
    open: u8,
    /// It has had its second chance.
    is_probed: bool,
}

/// Those who named others.
#[derive(Debug, Default)]
pub(super) struct Leads {
    leads: Vec<Lead>,
    /// Of all that were named.
    silent: u32,
    answered: u32,
    probes: u32,
}

/// Who named a candidate: the first two, of which a liar gives way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namers([Option<Namer>; 2]);

impl Namers {
    /// Named by this one alone so far.
    pub(super) const fn only(namer: Option<Namer>) -> Self {
        Self([namer, None])
    }
}

impl Leads {
    /// The number of somebody who names others.
    pub(super) fn namer(&mut self, address: SocketAddr) -> Option<Namer> {
        let known = self.leads.iter().position(|lead| lead.namer == address);
        let place = known.unwrap_or(self.leads.len());
        let namer = u8::try_from(place).ok().map(Namer)?;
        if known.is_none() {
            self.leads.push(Lead {
                namer: address,
                silent: 0,
                answered: 0,
                open: 0,
                is_probed: false,
            });
        }
        Some(namer)
    }

    /// Somebody else named a candidate, too. A contact of ours stays one.
    pub(super) fn add(&self, namers: &mut Namers, namer: Option<Namer>) {
        let is_named = namers.0.iter().any(Option::is_some);
        let is_new = |namer: &Namer| is_named && !namers.0.contains(&Some(*namer));
        let Some(namer) = namer.filter(is_new) else {
            return;
        };
        let is_free = |place: &&mut Option<Namer>| place.is_none_or(|known| self.is_false(known));
        if let Some(place) = namers.0.iter_mut().find(is_free) {
            *place = Some(namer);
        }
    }

    /// A candidate is asked.
    pub(super) fn on_asked(&mut self, namers: Namers) {
        if self.are_false(namers) {
            self.probes += 1;
            self.of(namers).for_each(|lead| lead.is_probed = true);
        }
        for lead in self.of(namers) {
            lead.open = lead.open.saturating_add(1);
        }
    }

    /// A candidate has answered; whether it was silent before.
    pub(super) fn on_answer(&mut self, namers: Namers, was_silent: bool) {
        if namers.0[0].is_some() {
            self.answered += 1;
            self.silent = self.silent.saturating_sub(u32::from(was_silent));
        }
        for lead in self.of(namers) {
            lead.answered = lead.answered.saturating_add(1);
            lead.silent = lead.silent.saturating_sub(u8::from(was_silent));
            lead.open = lead.open.saturating_sub(u8::from(!was_silent));
            if lead.is_probed {
                lead.silent = 0;
            }
        }
    }

    /// A candidate does not answer.
    pub(super) fn on_silence(&mut self, namers: Namers) {
        self.silent += u32::from(namers.0[0].is_some());
        for lead in self.of(namers) {
            lead.silent = lead.silent.saturating_add(1);
            lead.open = lead.open.saturating_sub(1);
        }
    }

    /// Whether all who named a candidate name nodes that are not there. Nobody named our own contacts.
    pub(super) fn are_false(&self, namers: Namers) -> bool {
        let mut named = namers.0.iter().flatten().peekable();
        named.peek().is_some() && named.all(|namer| self.is_false(*namer))
    }

    /// Whether a candidate should wait: liars are about, and all who named it have yet to be proved right by one
    /// that is asked just now.
    pub(super) fn are_on_trial(&self, namers: Namers) -> bool {
        let mut named = namers.0.iter().flatten().peekable();
        self.is_wary()
            && named.peek().is_some()
            && named.all(|namer| {
                let lead = self.lead(*namer);
                lead.is_some_and(|lead| lead.open > lead.answered)
            })
    }

    /// Whether nobody who named a candidate has had its second chance, and there are some left.
    pub(super) fn may_probe(&self, namers: Namers) -> bool {
        let mut named = namers.0.iter().flatten();
        self.probes < PROBES_MAX
            && named.all(|namer| self.lead(*namer).is_some_and(|lead| !lead.is_probed))
    }

    /// Whether what may be a lost datagram is more likely a lie: nobody but liars may know of the candidate.
    pub(super) fn are_doubtful(&self, namers: Namers) -> bool {
        namers.0[0].is_some() && (self.is_wary() || self.are_false(namers))
    }

    /// Bytes on the heap.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.leads.capacity() * size_of::<Lead>()
    }

    /// Whether so many are silent that somebody must be lying.
    const fn is_wary(&self) -> bool {
        self.silent >= WARY_FROM && 4 * self.silent > self.answered
    }

    fn lead(&self, namer: Namer) -> Option<&Lead> {
        self.leads.get(usize::from(namer.0))
    }

    fn is_false(&self, namer: Namer) -> bool {
        self.lead(namer).is_some_and(|lead| {
            let is_strict = self.is_wary() && !lead.is_probed;
            let max = if is_strict { 0 } else { SILENT_MAX };
            lead.silent > lead.answered.saturating_add(max)
        })
    }

    fn of(&mut self, namers: Namers) -> impl Iterator<Item = &mut Lead> {
        let leads = self.leads.iter_mut().enumerate();
        leads.filter_map(move |(place, lead)| {
            let mut named = namers.0.iter().flatten();
            named
                .any(|namer| usize::from(namer.0) == place)
                .then_some(lead)
        })
    }
}

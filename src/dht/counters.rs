//! What a node counts: everything that came in, went out, or was dropped, by reason.
//!
//! Invariant: nothing is dropped without a counter that says why, and
//! [`Counters::named`] lists every counter.

use crate::krpc::Garbage;

/// Declares [`Counters`] and lists its fields, so that none is forgotten where they are printed.
macro_rules! counters {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// Counters of a node since its start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $text])+ pub $name: u64,)+
        }

        impl Counters {
            /// Every counter under its name, in the order of the fields: for statistics and logs.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// What a counter counts, in words; `None` for a name that is none.
            #[must_use]
            pub fn meaning(name: &str) -> Option<&'static str> {
                let text = match name {
                    $(stringify!($name) => concat!($($text),+),)+
                    _ => return None,
                };
                Some(text.trim())
            }
        }
    };
}

counters! {
    /// Datagrams handed in.
    received,
    /// Payload bytes handed in.
    bytes_in,
    /// Payload bytes handed out.
    bytes_out,
    /// Datagrams dropped because they are no message or break a rule; the sum of the next seven.
    malformed,
    /// Of `malformed`: from an address nobody can have, of another family, or our own, or to no socket of ours.
    malformed_source,
    /// Of `malformed`: longer than a KRPC message may be.
    malformed_length,
    /// Of `malformed`: no bencoded dictionary, or one beyond the limits of depth and values.
    malformed_bencode,
    /// Of `malformed`: without a transaction id of 1 to 32 bytes.
    malformed_transaction,
    /// Of `malformed`: neither query nor response nor error.
    malformed_kind,
    /// Of `malformed`: a response without an id, or an error without a code.
    malformed_response,
    /// Of `malformed`: a bad query to a read-only node, which refuses nothing.
    malformed_query,
    /// Responses and errors nobody waited for: late, repeated or invented.
    unsolicited,
    /// Of these, with the transaction id of a query in flight, but not from where that went.
    unsolicited_foreign,
    /// Responses from a node with another id than the one that was asked.
    id_mismatches,
    /// Good queries that a read-only node left unanswered (BEP 43).
    ignored_queries,
    /// Datagrams dropped because their sender had asked too much.
    throttled,
    /// Times that a sender had asked too much.
    sources_silenced,
    /// Senders whose budget was forgotten early, because too many others came.
    sources_forgotten,
    /// Queries left unanswered because strangers had used up their bytes.
    answers_withheld,
    /// `ping` queries answered.
    answered_ping,
    /// `find_node` queries answered, unknown methods with a target among them.
    answered_find_node,
    /// `get_peers` queries answered.
    answered_get_peers,
    /// `announce_peer` queries answered: peers stored.
    answered_announce,
    /// `get` queries answered.
    answered_get,
    /// `put` queries answered: items stored, or kept alive.
    answered_put,
    /// `sample_infohashes` queries answered.
    answered_sample,
    /// Errors sent; the sum of the next five.
    errors_sent,
    /// Of `errors_sent`: because arguments were missing or wrong.
    refused_arguments,
    /// Of `errors_sent`: because the method is unknown.
    refused_methods,
    /// Of `errors_sent`: because the write token was wrong, too old or of somebody else.
    refused_tokens,
    /// Of `errors_sent`: because an item was too big, its signature wrong, another version stored,
    /// or because too many came.
    refused_items,
    /// Of `errors_sent`: because the store takes no peers or no items at all, or none of that size.
    refused_room,
    /// Stored items that gave way to others because the store was full.
    evicted_items,
    /// Stored torrents that gave way to others because the store was full.
    evicted_torrents,
    /// Stored peers that gave way to others because the list of their torrent was full.
    evicted_peers,
    /// Queries sent.
    queries_sent,
    /// Queries sent a second time because no answer came.
    queries_resent,
    /// Times that a query was put off because too many were in flight.
    queries_deferred,
    /// Responses to our queries.
    responses,
    /// Errors in answer to our queries.
    errors_received,
    /// Queries that were never answered.
    timeouts,
    /// Of the queries sent, those to addresses of the bootstrap list.
    bootstrap_queries,
    /// Of these, answered.
    bootstrap_responses,
    /// Of these, never answered.
    bootstrap_timeouts,
    /// Nodes and peers that others named and that are not used: no port, no host there, or an
    /// address narrower than that of who named it.
    unusable_named,
    /// Nodes not looked at more closely because too many others waited, of their network or in all.
    unverified_dropped,
    /// Nodes that answered but are not in the table: their address or network has its share, or
    /// their id belongs to another address.
    contacts_refused,
    /// Times that others agreed on an address of ours that was not known before (BEP 42).
    address_changes,
    /// Of these, with a new id for us.
    id_changes,
    /// Items in answers to our queries that are not what they should be: wrong hash, key or
    /// signature.
    bad_items,
    /// Announces of torrents that are kept announced.
    kept_announces,
    /// Queries that these took, those sent a second time among them.
    kept_announce_queries,
    /// Nodes that stored these.
    kept_announces_stored,
    /// Lookups that ended at once because too many waited.
    lookups_refused,
    /// Datagrams dropped because the driver did not drain them.
    transmits_dropped,
    /// Events dropped because nobody took them.
    events_dropped,
}

/// Why a datagram counts as malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Its source or the socket it came to.
    Source,
    /// What it holds, which deserves silence.
    Garbage(Garbage),
    /// A response or error that breaks the rules.
    Response,
    /// A query that breaks the rules, and a node that answers none.
    Query,
}

impl Counters {
    /// A datagram was dropped because it breaks a rule.
    pub(super) const fn on_malformed(&mut self, why: Malformed) {
        self.malformed += 1;
        let reason = match why {
            Malformed::Source => &mut self.malformed_source,
            Malformed::Garbage(Garbage::Length) => &mut self.malformed_length,
            Malformed::Garbage(Garbage::Bencode) => &mut self.malformed_bencode,
            Malformed::Garbage(Garbage::Transaction) => &mut self.malformed_transaction,
            Malformed::Garbage(Garbage::Kind) => &mut self.malformed_kind,
            Malformed::Response => &mut self.malformed_response,
            Malformed::Query => &mut self.malformed_query,
        };
        *reason += 1;
    }

    /// A length joins a count of bytes.
    pub(super) fn add_bytes(count: &mut u64, length: usize) {
        *count = count.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let counters = Counters {
            received: 7,
            events_dropped: 9,
            ..Counters::default()
        };
        let mut names: Vec<_> = counters.named().map(|(name, _)| name).collect();
        assert_eq!(names.len() * size_of::<u64>(), size_of::<Counters>());
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len() * size_of::<u64>(), size_of::<Counters>());
        assert_eq!(counters.named().next(), Some(("received", 7)));
        assert_eq!(counters.named().last(), Some(("events_dropped", 9)));
        assert_eq!(Counters::meaning("received"), Some("Datagrams handed in."));
        let two_lines = Counters::meaning("malformed_source").unwrap();
        assert!(two_lines.starts_with("Of `malformed`: ") && !two_lines.contains("  "));
        assert_eq!(Counters::meaning("nothing"), None);
    }
}

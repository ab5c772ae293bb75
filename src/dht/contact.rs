//! One contact of a routing table in 32 bytes (IPv4) or 44 (IPv6).
//!
//! Invariant: a contact has answered a query of ours at least once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::NodeId;
use crate::krpc::ContactInfo;

/// Queries in a row a contact may leave unanswered and still be handed out to others. Ours: with
/// one, 2 % packet loss hides as many contacts as heavy churn.
const FAILURES_GOOD_MAX: u8 = 1;

/// Queries in a row without an answer that make a contact bad. BEP 5: "fail to respond to multiple
/// queries in a row".
pub(super) const FAILURES_BAD: u8 = 3;

/// A gateway lets in what comes from those its host has sent something to, for a while: 30 s to a few minutes
/// (RFC 4787 wants 2). Who answers after so many seconds of silence can be reached by others too.
pub(super) const GATEWAY_SECS: u32 = 150;

/// Bit of [`Contact::trials`] that says that others can reach it.
const PROVEN: u8 = 0x80;

/// Bit of [`Contact::trials`] that says that it has asked us before others could be known to reach it.
const ASKED: u8 = 0x40;

/// The other bits of [`Contact::trials`]; more failures in a row are not counted.
const FAILURES: u8 = 0x3f;

/// A contact: id, address with `N` bytes of IP, and how it behaved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contact<const N: usize> {
    id: NodeId,
    /// When it last answered us or asked us something, in seconds since the node started.
    seen_secs: u32,
    ip: [u8; N],
    port: u16,
    /// Smoothed round-trip time, see [`pack_rtt`]; 0 = not measured.
    rtt: u8,
    /// Queries in a row without an answer, [`PROVEN`] and [`ASKED`].
    trials: u8,
}

impl<const N: usize> Contact<N>
where
    IpAddr: From<[u8; N]>,
{
    /// A contact that has just answered; `None` when its address is of the other family.
    pub(super) fn new(info: &ContactInfo, now_secs: u32, rtt: Option<Duration>) -> Option<Self> {
        Some(Self {
            id: info.id,
            seen_secs: now_secs,
            ip: pack_ip(info.address.ip())?,
            port: info.address.port(),
            rtt: rtt.map_or(0, pack_rtt),
            trials: 0,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.ip), self.port)
    }

    /// Id and address.
    pub(super) fn info(&self) -> ContactInfo {
        ContactInfo {
            id: self.id,
            address: self.address(),
        }
    }
}

impl<const N: usize> Contact<N> {
    /// Its id.
    pub(super) const fn id(&self) -> &NodeId {
        &self.id
    }

    /// Its IP address.
    pub(super) const fn ip(&self) -> &[u8; N] {
        &self.ip
    }

    /// Its port.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// When it was last heard from, in seconds since the node started.
    pub(super) const fn seen_secs(&self) -> u32 {
        self.seen_secs
    }

    /// Queries in a row it left unanswered.
    pub(super) const fn failures(&self) -> u8 {
        self.trials & FAILURES
    }

    /// Whether no gateway would let us in now only because its host has sent us something.
    pub(super) const fn is_out_of_the_blue(&self, now_secs: u32) -> bool {
        now_secs.saturating_sub(self.seen_secs) >= GATEWAY_SECS
    }

    /// Whether it has asked us, and may be one of those whom nobody else reaches.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.trials & (PROVEN | ASKED) == ASKED
    }

    /// Round-trip time, `None` when not measured.
    pub(super) fn rtt(&self) -> Option<Duration> {
        (self.rtt != 0).then(|| unpack_rtt(self.rtt))
    }

    /// Good in the sense of BEP 5: heard from within the interval, and no more than one answer
    /// missing; none, if others may not reach it.
    pub(super) const fn is_good(&self, now_secs: u32, interval_secs: u32) -> bool {
        let failures_max = if self.is_doubtful() {
            0
        } else {
            FAILURES_GOOD_MAX
        };
        self.failures() <= failures_max && now_secs.saturating_sub(self.seen_secs) <= interval_secs
    }

    /// Bad in the sense of BEP 5.
    pub(super) const fn is_bad(&self) -> bool {
        self.failures() >= FAILURES_BAD
    }

    /// It answered a query of ours.
    pub(super) fn on_answer(&mut self, now_secs: u32, rtt: Option<Duration>) {
        if self.is_out_of_the_blue(now_secs) {
            self.trials |= PROVEN;
        }
        self.seen_secs = now_secs;
        self.trials &= !FAILURES;
        if let Some(sample) = rtt {
            let smoothed = match self.rtt() {
                Some(known) => (known * 3 + sample) / 4,
                None => sample,
            };
            self.rtt = pack_rtt(smoothed);
        }
    }

    /// It asked us something. That proves nothing about its answering, so failures stay.
    pub(super) const fn on_query(&mut self, now_secs: u32) {
        self.seen_secs = now_secs;
        self.trials |= ASKED;
    }

    /// It left a query unanswered.
    pub(super) const fn on_failure(&mut self) {
        if self.failures() < FAILURES {
            self.trials += 1;
        }
    }
}

/// The bytes of an IP address, `None` when it is of the other family. IPv4 mapped into IPv6 is
/// IPv4.
pub(super) fn pack_ip<const N: usize>(ip: IpAddr) -> Option<[u8; N]> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => <[u8; N]>::try_from(ip.octets().as_slice()).ok(),
        IpAddr::V6(ip) => <[u8; N]>::try_from(ip.octets().as_slice()).ok(),
    }
}

/// A round-trip time as a logarithm: five bits of exponent, three of mantissa, so that 8 µs to more
/// than an hour fit into one byte with an error below 13 %. Never 0.
fn pack_rtt(rtt: Duration) -> u8 {
    let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(8);
    let exponent = micros.ilog2();
    let mantissa = micros >> (exponent - 3) & 7;
    u8::try_from(exponent << 3 | mantissa).unwrap_or(u8::MAX)
}

/// The duration behind [`pack_rtt`], rounded down.
fn unpack_rtt(packed: u8) -> Duration {
    let (exponent, mantissa) = (packed >> 3, u64::from(packed & 7));
    Duration::from_micros(((8 + mantissa) << exponent) >> 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact() -> Contact<4> {
        let info = ContactInfo {
            id: NodeId::new([7; 20]),
            address: "10.1.2.3:6881".parse().unwrap(),
        };
        Contact::new(&info, 100, Some(Duration::from_millis(80))).unwrap()
    }

    #[test]
    fn a_contact_takes_32_bytes_for_ipv4_and_44_for_ipv6() {
        assert_eq!(size_of::<Contact<4>>(), 32);
        assert_eq!(size_of::<Contact<16>>(), 44);
    }

    #[test]
    fn an_address_comes_back_as_it_went_and_the_other_family_is_refused() {
        assert_eq!(contact().address(), "10.1.2.3:6881".parse().unwrap());
        assert_eq!(pack_ip::<16>("10.1.2.3".parse().unwrap()), None);
        assert_eq!(pack_ip::<4>("fd00::1".parse().unwrap()), None);
        assert_eq!(
            pack_ip::<4>("::ffff:10.1.2.3".parse().unwrap()),
            Some([10, 1, 2, 3])
        );
    }

    #[test]
    fn round_trip_times_are_kept_within_13_percent() {
        for micros in [8, 100, 999, 1000, 50_000, 80_000, 1_999_999, 3_600_000_000] {
            let kept = unpack_rtt(pack_rtt(Duration::from_micros(micros)));
            let kept = u64::try_from(kept.as_micros()).unwrap();
            assert!(
                kept <= micros && kept * 100 >= micros * 87,
                "{micros} {kept}"
            );
        }
        assert!(pack_rtt(Duration::ZERO) != 0);
        assert!(unpack_rtt(pack_rtt(Duration::MAX)) > Duration::from_secs(3600));
    }

    #[test]
    fn a_contact_is_bad_after_three_failures_in_a_row_and_good_again_after_an_answer() {
        let mut contact = contact();
        contact.on_failure();
        assert!(contact.is_good(100, 900), "one lost packet hides nobody");
        contact.on_failure();
        assert!(!contact.is_good(100, 900) && !contact.is_bad());
        contact.on_query(101);
        contact.on_failure();
        assert!(contact.is_bad(), "asking is not answering");
        contact.on_answer(102, None);
        assert!(contact.is_good(102, 900));
    }

    #[test]
    fn a_contact_not_heard_from_for_the_interval_is_not_good() {
        let mut contact = contact();
        assert!(contact.is_good(1000, 900));
        assert!(!contact.is_good(1001, 900));
        contact.on_query(1001);
        assert!(contact.is_good(1001, 900));
    }
}

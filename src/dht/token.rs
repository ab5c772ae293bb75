//! Write tokens: proof that a node asked from the address it announces (BEP 5).
//!
//! A token is a keyed hash over the asker's IP address and the torrent, under a secret that changes
//! every half lifetime. Secrets are derived from one key and the time, so tokens cost no state,
//! however many are given out.
//!
//! Invariant: a token is accepted only for the IP address and info hash it was issued for, and
//! never later than its lifetime after that.

use std::net::IpAddr;
use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::id::InfoHash;
use crate::time::Instant;

/// Bytes in a token. BEP 5 wants a short string; 2^64 guesses at one node do not fit into ten
/// minutes.
pub const TOKEN_LENGTH: usize = 8;

/// How long a token may be accepted after it was issued. BEP 5: "tokens up to ten minutes old are
/// accepted", with a secret "that changes every five minutes".
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Issues and checks the tokens of one node.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// What the secrets are derived from; never leaves the node.
    key: [u8; 16],
    /// Microseconds between two secrets: half the lifetime.
    epoch_micros: u64,
}

impl Tokens {
    /// Tokens under a random key, good for [`TOKEN_LIFETIME`].
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self::with_lifetime(key, TOKEN_LIFETIME)
    }

    /// Tokens that are accepted for at least half of `lifetime` and at most all of it.
    #[must_use]
    pub fn with_lifetime(key: [u8; 16], lifetime: Duration) -> Self {
        let micros = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
        Self {
            key,
            epoch_micros: (micros / 2).max(1),
        }
    }

    /// The token for an asker. The port does not count: a NAT may change it between two queries.
    #[must_use]
    pub fn issue(&self, now: Instant, ip: IpAddr, info_hash: InfoHash) -> [u8; TOKEN_LENGTH] {
        self.token(self.epoch(now), ip, info_hash)
    }

    /// Whether `token` was issued to this address for this torrent under the current or the
    /// previous secret. Takes the same time for every wrong token of the right length.
    #[must_use]
    pub fn accepts(&self, now: Instant, ip: IpAddr, info_hash: InfoHash, token: &[u8]) -> bool {
        let Ok(token) = <[u8; TOKEN_LENGTH]>::try_from(token) else {
            return false;
        };
        let epoch = self.epoch(now);
        let current = is_equal(&token, &self.token(epoch, ip, info_hash));
        let previous = epoch
            .checked_sub(1)
            .is_some_and(|epoch| is_equal(&token, &self.token(epoch, ip, info_hash)));
        current | previous
    }

    /// The number of the secret in use.
    fn epoch(&self, now: Instant) -> u64 {
        now.as_micros() / self.epoch_micros
    }

    /// SHA-1 over key, epoch, address and info hash, cut to 8 of 20 bytes so that it cannot be
    /// extended.
    fn token(&self, epoch: u64, ip: IpAddr, info_hash: InfoHash) -> [u8; TOKEN_LENGTH] {
        let mut hash = Sha1::new();
        hash.update(self.key);
        hash.update(epoch.to_be_bytes());
        match ip.to_canonical() {
            IpAddr::V4(ip) => hash.update(ip.octets()),
            IpAddr::V6(ip) => hash.update(ip.octets()),
        }
        hash.update(info_hash.as_bytes());
        let digest = hash.finalize();
        std::array::from_fn(|index| digest[index])
    }
}

/// Compares without telling by its duration how many bytes are right.
fn is_equal(a: &[u8; TOKEN_LENGTH], b: &[u8; TOKEN_LENGTH]) -> bool {
    let difference = a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TORRENT: InfoHash = InfoHash::new([7; 20]);
    const EPOCH: Duration = Duration::from_secs(5 * 60);

    fn tokens() -> Tokens {
        Tokens::new([1; 16])
    }

    #[test]
    fn token_is_accepted_in_its_epoch_and_the_next() {
        let tokens = tokens();
        let token = tokens.issue(Instant::ZERO, ALICE, TORRENT);
        let last = Instant::ZERO + TOKEN_LIFETIME - Duration::from_micros(1);
        for now in [Instant::ZERO, Instant::ZERO + EPOCH, last] {
            assert!(tokens.accepts(now, ALICE, TORRENT, &token));
        }
    }

    #[test]
    fn token_is_refused_after_ten_minutes() {
        let tokens = tokens();
        for issued in [0, 1, 299, 300, 1234] {
            let issued = Instant::ZERO + Duration::from_secs(issued);
            let token = tokens.issue(issued, ALICE, TORRENT);
            assert!(tokens.accepts(issued + EPOCH, ALICE, TORRENT, &token));
            assert!(!tokens.accepts(issued + TOKEN_LIFETIME, ALICE, TORRENT, &token));
        }
    }

    #[test]
    fn token_of_another_address_torrent_or_node_is_refused() {
        let now = Instant::ZERO + Duration::from_secs(1000);
        let token = tokens().issue(now, ALICE, TORRENT);
        let bob = "10.0.0.2".parse().unwrap();
        assert!(!tokens().accepts(now, bob, TORRENT, &token));
        assert!(!tokens().accepts(now, ALICE, InfoHash::new([8; 20]), &token));
        assert!(!Tokens::new([2; 16]).accepts(now, ALICE, TORRENT, &token));
    }

    #[test]
    fn token_of_the_future_is_refused() {
        let late = Instant::ZERO + TOKEN_LIFETIME;
        let token = tokens().issue(late, ALICE, TORRENT);
        assert!(!tokens().accepts(Instant::ZERO, ALICE, TORRENT, &token));
    }

    #[test]
    fn tokens_of_three_addresses_do_not_give_that_of_a_fourth() {
        // Tokens that are linear in the address let one forge a ^ b ^ c.
        let issue = |last: u8| tokens().issue(Instant::ZERO, [10, 0, 0, last].into(), TORRENT);
        let (a, b, c) = (issue(1), issue(2), issue(4));
        let forged: Vec<u8> = (0..TOKEN_LENGTH).map(|i| a[i] ^ b[i] ^ c[i]).collect();
        let victim = [10, 0, 0, 1 ^ 2 ^ 4].into();
        assert!(!tokens().accepts(Instant::ZERO, victim, TORRENT, &forged));
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let token = tokens().issue(Instant::ZERO, ALICE, TORRENT);
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(tokens().accepts(Instant::ZERO, mapped, TORRENT, &token));
    }

    #[test]
    fn another_lifetime_is_kept_to() {
        let tokens = Tokens::with_lifetime([1; 16], Duration::from_secs(60));
        let token = tokens.issue(Instant::ZERO, ALICE, TORRENT);
        let after = |secs| Instant::ZERO + Duration::from_secs(secs);
        assert!(tokens.accepts(after(59), ALICE, TORRENT, &token));
        assert!(!tokens.accepts(after(60), ALICE, TORRENT, &token));
        let never = Tokens::with_lifetime([1; 16], Duration::ZERO);
        let token = never.issue(after(1), ALICE, TORRENT);
        assert!(!never.accepts(after(2), ALICE, TORRENT, &token));
    }

    proptest! {
        #[test]
        fn a_guess_is_refused(
            guess in prop::collection::vec(any::<u8>(), 0..40),
            secs in 0u64..9999,
        ) {
            let now = Instant::ZERO + Duration::from_secs(secs);
            prop_assert!(!tokens().accepts(now, ALICE, TORRENT, &guess));
        }

        #[test]
        fn a_token_with_one_bit_changed_is_refused(byte in 0..TOKEN_LENGTH, bit in 0u8..8) {
            let mut token = tokens().issue(Instant::ZERO, ALICE, TORRENT);
            token[byte] ^= 1 << bit;
            prop_assert!(!tokens().accepts(Instant::ZERO, ALICE, TORRENT, &token));
        }
    }
}

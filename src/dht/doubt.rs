//! How many of those that ask us nobody else can reach.
//!
//! Whoever is behind a gateway that lets in answers only can be reached by those it has just asked. When
//! it asks us, it answers our ping, and is a good contact for us; everybody whom we tell of it waits in
//! vain. So who asked us is pinged again when its gateway would not let us in any more. Where nobody is
//! behind such a gateway that is an effort for nothing, so then only some are.
//!
//! Invariant: some of those that ask are always looked at, so it is noticed when it becomes worse, and when it ends.

use super::contact::Contact;

/// Of those that ask, one of so many is looked at in any case.
const ONE_OF: u8 = 8;

/// From this level on all are: that is where one of thirteen cannot be reached in the long run.
const MANY: u8 = 64;

/// What the last of those that were looked at have shown, from 0 to 255. One that cannot be reached brings it a
/// quarter of the way up, one that can a sixteenth of the way down.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doubt(u8);

impl Doubt {
    /// Whether it is to be found out soon if others can reach this contact.
    pub(super) fn concerns<const N: usize>(self, contact: &Contact<N>) -> bool {
        // As good as chance: nothing depends on the last bits of an id.
        let [.., last] = contact.id().as_bytes();
        contact.is_doubtful() && (self.0 >= MANY || last.is_multiple_of(ONE_OF))
    }

    /// One could not be reached.
    pub(super) const fn on_confirmed(&mut self) {
        self.0 += (u8::MAX - self.0).div_ceil(4);
    }

    /// One could be reached.
    pub(super) const fn on_cleared(&mut self) {
        self.0 -= self.0.div_ceil(16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::krpc::ContactInfo;

    /// A node that has just asked us, with an id that ends with this number.
    fn asker(last: u8) -> Contact<4> {
        let mut id = [1; 20];
        id[19] = last;
        let info = ContactInfo {
            id: NodeId::new(id),
            address: ([10, 0, 0, 1], 1).into(),
        };
        let mut contact = Contact::new(&info, 0, None).unwrap();
        contact.on_query(0);
        contact
    }

    /// How many of 256 askers are looked at.
    fn looked_at(doubt: Doubt) -> usize {
        (0..=u8::MAX)
            .filter(|last| doubt.concerns(&asker(*last)))
            .count()
    }

    #[test]
    fn some_are_looked_at_and_all_once_two_cannot_be_reached() {
        let mut doubt = Doubt::default();
        assert_eq!(looked_at(doubt), 32);
        doubt.on_confirmed();
        doubt.on_confirmed();
        assert_eq!(looked_at(doubt), 256);
        for _ in 0..40 {
            doubt.on_cleared();
        }
        assert_eq!(looked_at(doubt), 32);
    }

    #[test]
    fn doubt_stays_in_its_range() {
        let mut doubt = Doubt::default();
        for _ in 0..100 {
            doubt.on_confirmed();
        }
        assert_eq!(doubt.0, u8::MAX);
        for _ in 0..1000 {
            doubt.on_cleared();
        }
        assert_eq!(doubt.0, 0);
    }

    #[test]
    fn who_answers_out_of_the_blue_is_doubted_no_more() {
        let mut contact = asker(0);
        assert!(contact.is_doubtful());
        contact.on_answer(149, None);
        assert!(contact.is_doubtful(), "its gateway may have let us in");
        contact.on_query(200);
        contact.on_answer(350, None);
        assert!(!contact.is_doubtful());
        contact.on_query(351);
        assert!(!contact.is_doubtful());
    }
}

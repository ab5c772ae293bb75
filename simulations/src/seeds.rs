//! One root seed, many independent generators.
//!
//! Invariant: the generator for (component, index) depends on the root seed, the name and the index
//! only. Asking for one, or drawing from it, never shifts another, so two variants of a scenario
//! meet the same topology, losses and workload.

use trackless::random::Random;

/// The root seed of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds(u64);

impl Seeds {
    /// Generators derived from this root.
    #[must_use]
    pub const fn new(root: u64) -> Self {
        Self(root)
    }

    /// The generator of the component `name`, instance `index`.
    #[must_use]
    pub fn stream(&self, name: &str, index: u64) -> Random {
        Random::from_seed(self.0).stream(name, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_does_not_depend_on_which_others_were_asked_for() {
        let seeds = Seeds::new(4);
        let alone = seeds.stream("loss", 0).next_u64();
        let _ = seeds.stream("topology", 9).next_u64();
        assert_eq!(seeds.stream("loss", 0).next_u64(), alone);
        assert_ne!(seeds.stream("loss", 1).next_u64(), alone);
        assert_ne!(seeds.stream("jitter", 0).next_u64(), alone);
        assert_ne!(Seeds::new(5).stream("loss", 0).next_u64(), alone);
    }
}

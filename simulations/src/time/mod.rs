//! Virtual time: the queue of what happens next, and one wake-up for each core.
//!
//! Invariant: nothing here reads a clock. Time moves only because an entry is taken from the queue.

pub mod alarm;
pub mod queue;
pub mod wheel;

pub use alarm::Alarm;
pub use queue::{Entry, Heap, Queue, QueueKind};
pub use wheel::Wheel;

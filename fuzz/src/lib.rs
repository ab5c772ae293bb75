//! Hostile datagrams for the DHT node, made from a seed.
//!
//! A [`Script`](script::Script) is what happens to one node: datagrams from a cast of speakers, calls of its
//! owner, answers to what it asks, time that passes. [`run`] plays one and checks after each step that the
//! node keeps its promises; [`mutate`] changes scripts, in ways that know bencode and in ways that do not;
//! [`hunt`] plays changed scripts without end and keeps those that reach something new.
//!
//! - [`script`] is the form of a script and its text, [`template`] that of a datagram in it: what the node
//!   alone knows (transaction ids, tokens) is filled in while it is played;
//! - [`cast`] says who speaks from where, [`profile`] which node listens, [`answers`] what a
//!   well-behaved or lying speaker answers, [`seeds`] what a hunt starts from;
//! - [`model`] knows what the node may believe, independent of its code.
//!
//! Invariant: a script is played the same way each time, so a finding is replayed by its text.

pub mod answers;
pub mod cast;
pub mod hunt;
pub mod model;
pub mod mutate;
pub mod profile;
pub mod run;
pub mod script;
pub mod seeds;
pub mod template;
mod tree;

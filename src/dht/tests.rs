//! Nodes joined in memory, with virtual time.

mod bounds;
mod hostile;
mod join;
mod lookups;
mod network;
mod queries;
mod table;

//! Nodes joined in memory, with virtual time.

mod bounds;
mod hostile;
mod identity;
mod item_lookups;
mod items;
mod join;
mod keeping;
mod lookups;
mod neighbours;
mod network;
mod queries;
mod rows;
mod table;
mod throttle;

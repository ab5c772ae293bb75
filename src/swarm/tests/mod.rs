//! Torrents against each other.

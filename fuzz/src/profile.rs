//! The nodes that scripts are played to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use trackless::dht::{Config, Local, ThrottleConfig};

use crate::cast::own_addresses;

/// A configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// What a real node uses.
    Plain,
    /// Every bound so low that a script fills it.
    Small,
    /// A node that many ask for a way in, without a throttle.
    Many,
    /// Asks, and answers nothing (BEP 43).
    ReadOnly,
    /// Does not know its own addresses.
    Roaming,
}

impl Profile {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::Small,
        Self::Many,
        Self::ReadOnly,
        Self::Roaming,
    ];

    /// Its name in a script.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Small => "small",
            Self::Many => "many",
            Self::ReadOnly => "read-only",
            Self::Roaming => "roaming",
        }
    }

    /// What the node is made with.
    #[must_use]
    pub fn config(self) -> Config {
        let locals = own_addresses();
        let config = Config {
            locals: locals.map(|address| Local { address, id: None }).into(),
            report_steps: true,
            ..Config::default()
        };
        match self {
            Self::Plain => config,
            Self::Small => small(config),
            Self::Many => Config {
                locals: config.locals,
                throttle: None,
                ..Config::for_many()
            },
            Self::ReadOnly => Config {
                read_only: true,
                ..config
            },
            Self::Roaming => {
                let anywhere: [SocketAddr; 2] = [
                    (Ipv4Addr::UNSPECIFIED, 6881).into(),
                    (Ipv6Addr::UNSPECIFIED, 6881).into(),
                ];
                Config {
                    locals: anywhere.map(|address| Local { address, id: None }).into(),
                    ..config
                }
            }
        }
    }

    /// Bytes that such a node may take whatever it is sent in one script. Ours: twice the most that
    /// twenty million datagrams have reached.
    #[must_use]
    pub const fn memory_max(self) -> usize {
        match self {
            Self::Small => 48 << 10,
            Self::Plain | Self::ReadOnly | Self::Roaming => 224 << 10,
            Self::Many => 320 << 10,
        }
    }
}

fn small(config: Config) -> Config {
    Config {
        lookups_max: 2,
        lookups_queued_max: 3,
        lookup_candidates_max: 8,
        lookup_peers_max: 10,
        pending_max: 6,
        verify_queue_max: 4,
        verify_parallelism: 2,
        transmits_max: 3,
        events_max: 4,
        bootstrap_max: 4,
        store_torrents_max: 3,
        store_peers_max: 4,
        store_items_max: 3,
        store_item_bytes_max: 900,
        item_verifications_per_second: 1,
        own_items_max: 2,
        throttle: Some(ThrottleConfig {
            burst: 10,
            sources_max: 8,
            ..ThrottleConfig::default()
        }),
        ..config
    }
}

//! A libtorrent node that asks what it is told to ask.

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::{Lab, Program};
use crate::libtorrent::PYTHON;
use crate::matrix::parse;

/// Whether it listens to nodes whose id does not follow from their address (BEP 42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// To all.
    Any,
    /// To none of them.
    Bound,
}

/// A libtorrent node.
pub(crate) struct Node(Program);

impl Node {
    /// Starts one at a host that knows a node of the DHT, or nobody.
    pub(crate) fn start(lab: &Lab, host: u8, dht: Option<&str>) -> Self {
        Self::start_with(lab, host, dht, Ids::Any)
    }

    /// The same, by what it demands of others.
    pub(crate) fn start_with(lab: &Lab, host: u8, dht: Option<&str>, ids: Ids) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/interop/libtorrent_node.py"
        );
        let listen = lab.at(host, 6881);
        let mut arguments = vec![script, "--listen", &listen];
        arguments.extend(dht.iter().flat_map(|dht| ["--dht", dht]));
        if ids == Ids::Bound {
            arguments.push("--enforce-node-ids");
        }
        let name = format!("libtorrent at {listen}");
        let mut program = lab.start(&name, Path::new(PYTHON), &arguments);
        program.wait_for("its start", |line| line.contains("ready"));
        Self(program)
    }

    /// What it answers to an order.
    pub(crate) fn ask(&mut self, order: &Value) -> Value {
        self.0.tell(&order.to_string());
        parse(&self.0.wait_for("the answer", |line| line.contains("event")))
    }

    /// Whom it has in its table.
    pub(crate) fn nodes(&mut self) -> Vec<String> {
        let told = self.ask(&json!({"do": "nodes"}));
        serde_json::from_value(told["nodes"].clone()).unwrap()
    }

    /// Ends it.
    pub(crate) fn finish(mut self) {
        self.0.finish();
    }
}

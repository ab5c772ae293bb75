//! `trackless dht …`: one operation in the DHT, by hand.

pub(in crate::cli) mod key;
mod operation;
mod outcome;
mod value;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::args::{DhtCommand, Global, WayIn};
use super::print::{Exit, Failure, note};
use super::{bootstrap_list, interrupted};
use crate::dht::{Config, Local, Snapshot};
use crate::net::clock::{Clock, entropy};
use crate::net::dht::{DhtConfig, DhtHandle, spawn};
use crate::net::udp::bind_udp;
use crate::session::StateDir;
use operation::Operation;
use outcome::Outcome;

/// Runs the command.
pub(super) async fn run(command: DhtCommand, global: Global) -> Result<Exit, Failure> {
    let flags = command.flags().clone();
    let (bootstrap, snapshot) = match command {
        // The one node to ask is known.
        DhtCommand::Ping { .. } => (Vec::new(), None),
        _ => way_in(&flags.way_in)?,
    };
    let operation = Operation::of(command)?;
    let node = start(&flags.way_in, bootstrap, snapshot)?;
    let mut outcome = Outcome::default();
    let ended = tokio::select! {
        ended = carry_out(&node, &operation, &global, &mut outcome) => ended.map(|()| Exit::Done),
        () = tokio::time::sleep(flags.timeout) => Ok(Exit::TimedOut),
        () = interrupted() => Ok(Exit::Interrupted),
    };
    outcome.status = node.status().await;
    node.stop().await;
    match ended? {
        Exit::Done => outcome.conclude(&operation, &global),
        Exit::TimedOut => {
            outcome.print_so_far(&operation, &global);
            Err(outcome.timed_out(&operation, flags.timeout))
        }
        Exit::Failed | Exit::Usage | Exit::Interrupted => {
            outcome.print_so_far(&operation, &global);
            Err(Failure::interrupted(&outcome.so_far(&operation)))
        }
    }
}

/// Does what is wanted, to its end.
async fn carry_out(
    node: &DhtHandle,
    operation: &Operation,
    global: &Global,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    if let Operation::Put(put) = operation
        && let Some(signing) = put.signing.as_ref().filter(|_| put.counts_on())
    {
        let salt = signing.salt.as_bytes();
        let lookup = node.get_item(put.target(), salt).await;
        outcome.follow(lookup, global).await;
        if outcome.has_no_answer() {
            return Ok(());
        }
    }
    if let Operation::Put(put) = operation {
        outcome.seq = put.seq(outcome.item.as_deref());
    }
    let lookup = operation.start(node, outcome.item.as_deref()).await?;
    outcome.follow(lookup, global).await;
    Ok(())
}

/// The nodes to start from: those that the flags name, and the contacts in the state directory.
fn way_in(flags: &WayIn) -> Result<(Vec<String>, Option<Snapshot>), Failure> {
    let bootstrap = bootstrap_list(&flags.bootstrap)?;
    let mut snapshot = None;
    if let Some(path) = flags.state_dir.as_ref().filter(|path| path.is_dir()) {
        match StateDir::open(path) {
            Ok(state) => snapshot = state.load_snapshot(),
            Err(error) => note(&format!("saved contacts are not used: {error}")),
        }
    }
    // The ids in there belong to another node, which may be running.
    let contacts = snapshot.map(|saved| saved.contacts).unwrap_or_default();
    if bootstrap.is_empty() && contacts.is_empty() {
        return Err(
            Failure::new("there is no way into the DHT: no node to start from")
                .hint("name one with --bootstrap HOST:PORT"),
        );
    }
    Ok((
        bootstrap,
        Some(Snapshot {
            ids: Vec::new(),
            contacts,
        }),
    ))
}

/// Starts a read-only node (BEP 43): one that lives for seconds is of no use in others' tables.
fn start(
    flags: &WayIn,
    bootstrap: Vec<String>,
    snapshot: Option<Snapshot>,
) -> Result<DhtHandle, Failure> {
    let mut wanted = flags.listen.clone();
    if wanted.is_empty() {
        wanted = vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        ];
    }
    let mut sockets = Vec::new();
    let mut locals = Vec::new();
    for address in wanted {
        match bind_udp(address) {
            Ok(socket) => {
                let address = socket.local_addr().unwrap_or(address);
                locals.push(Local { address, id: None });
                sockets.push(socket);
            }
            // A machine without IPv6 is no reason to stop, unless the user asked for it.
            Err(error) if flags.listen.is_empty() && address.is_ipv6() => {
                tracing::info!(%error, "no IPv6 here");
            }
            Err(error) => {
                return Err(Failure::because(
                    format!("cannot listen at {address}"),
                    &error,
                ));
            }
        }
    }
    let node = Config {
        locals,
        read_only: true,
        report_steps: true,
        ..Config::default()
    };
    let config = DhtConfig {
        node,
        bootstrap,
        snapshot,
    };
    spawn(sockets, config, Clock::start(), entropy())
        .map_err(|error| Failure::because("cannot start the DHT node", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_node_to_start_from_there_is_no_way_in() {
        let flags = WayIn {
            listen: Vec::new(),
            bootstrap: vec!["none".to_owned()],
            state_dir: None,
        };
        let failure = way_in(&flags).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(
            failure
                .hint
                .is_some_and(|hint| hint.contains("--bootstrap"))
        );
    }
}

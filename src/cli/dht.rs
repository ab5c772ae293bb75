//! `trackless dht …`: one operation in the DHT, by hand.

pub(in crate::cli) mod key;
mod operation;
mod outcome;
pub(in crate::cli) mod value;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use super::args::{DhtCommand, Global, WayIn};
use super::print::{Exit, Failure, duration, escape, note};
use super::{bootstrap_list, interrupted};
use crate::dht::{Config, Local, Snapshot};
use crate::net::clock::{Clock, entropy};
use crate::net::dht::{DhtConfig, DhtHandle, spawn};
use crate::net::udp::bind_udp;
use crate::session::StateDir;
use operation::Operation;
use outcome::{Outcome, outdated};

/// Shortest time between two puts of the same item.
const REPEAT_MIN: Duration = Duration::from_secs(1);

/// Time until the next attempt after nobody stored an item. Ours: as in the node itself; it lives for
/// an hour more with those who have it.
const REPEAT_RETRY: Duration = Duration::from_secs(60);

/// Runs the command.
pub(super) async fn run(command: DhtCommand, global: Global) -> Result<Exit, Failure> {
    // Listened for from the start on, so that no interruption is lost between two puts.
    let mut stop = pin!(interrupted());
    let flags = command.flags().clone();
    let (bootstrap, snapshot) = match command {
        // The one node to ask is known.
        DhtCommand::Ping { .. } => (Vec::new(), None),
        _ => way_in(&flags.way_in)?,
    };
    let every = command.repeats_after();
    let started = tokio::time::Instant::now();
    let mut operation = tokio::select! {
        biased;
        operation = Operation::of(command) => operation?,
        () = tokio::time::sleep(flags.timeout) => {
            let message = format!("gave up after {}: a name was not looked up", duration(flags.timeout));
            return Err(Failure::new(message).exit(Exit::TimedOut));
        }
        () = stop.as_mut() => return Err(Failure::interrupted("a name was not looked up")),
    };
    let node = start(&flags.way_in, bootstrap, snapshot)?;
    let task = Task {
        node: &node,
        global: &global,
        timeout: flags.timeout.saturating_sub(started.elapsed()),
    };
    let first = task.run(&operation, stop.as_mut(), Turn::First).await;
    let ended = match (first.result, every) {
        (Ok(Exit::Done), Some(every)) => {
            if let Operation::Put(put) = &mut operation {
                put.settle(first.seq);
            }
            task.keep(&operation, stop.as_mut(), every).await
        }
        (result, _) => result,
    };
    node.stop().await;
    ended
}

/// How often an operation was done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Never.
    First,
    /// At least once: what was printed then is not printed again.
    Again,
}

/// How one operation ended.
struct Ended {
    result: Result<Exit, Failure>,
    /// The number under which a mutable item was put.
    seq: Option<i64>,
    /// The number of the newest version that was found.
    newest: Option<i64>,
}

/// What an operation is done with.
struct Task<'a> {
    node: &'a DhtHandle,
    global: &'a Global,
    timeout: Duration,
}

impl Task<'_> {
    /// Does an operation once and tells what came of it.
    async fn run(
        &self,
        operation: &Operation,
        stop: Pin<&mut impl Future<Output = ()>>,
        turn: Turn,
    ) -> Ended {
        let mut outcome = Outcome::default();
        outcome.is_again = turn == Turn::Again;
        let ended = tokio::select! {
            ended = self.carry_out(operation, &mut outcome) => ended.map(|()| Exit::Done),
            () = tokio::time::sleep(self.timeout) => Ok(Exit::TimedOut),
            () = stop => Ok(Exit::Interrupted),
        };
        outcome.status = self.node.status().await;
        let (seq, newest) = (
            outcome.seq,
            outcome.item.as_ref().and_then(|item| item.seq()),
        );
        let result = match ended {
            Err(failure) => Err(failure),
            Ok(Exit::Done) => outcome.conclude(operation, self.global),
            Ok(Exit::TimedOut) => {
                outcome.print_so_far(operation, self.global);
                Err(outcome.timed_out(operation, self.timeout))
            }
            Ok(Exit::Failed | Exit::Usage | Exit::Interrupted) => {
                outcome.print_so_far(operation, self.global);
                Err(Failure::interrupted(&outcome.so_far(operation)))
            }
        };
        Ended {
            result,
            seq,
            newest,
        }
    }

    /// Does what is wanted, to its end.
    async fn carry_out(&self, operation: &Operation, outcome: &mut Outcome) -> Result<(), Failure> {
        if let Operation::Put(put) = operation
            && let Some(signing) = put.signing.as_ref().filter(|_| put.counts_on())
        {
            let salt = signing.salt.as_bytes();
            let lookup = self.node.get_item(put.target(), salt).await;
            outcome.follow(lookup, self.global).await;
            if outcome.has_no_answer() {
                return Ok(());
            }
            let stored = outcome.item.as_ref().and_then(|item| item.seq());
            if let (Some(cas), Some(stored)) = (signing.cas, stored)
                && cas != stored
            {
                // Nodes that have no version at all would take it.
                return Err(outdated(cas, Some(stored)));
            }
            if put.is_withdrawal && outcome.item.is_none() {
                return Err(Failure::new("there is nothing to withdraw")
                    .hint("no node has an item under this key and salt; is the salt right?"));
            }
        }
        if let Operation::Put(put) = operation {
            outcome.seq = put.seq(outcome.item.as_deref());
        }
        let newest = outcome.item.as_deref();
        let lookup = operation.start(self.node, newest).await?;
        outcome.follow(lookup, self.global).await;
        Ok(())
    }

    /// Puts an item again and again. It ends when the user wants it, or when somebody has put a newer
    /// version.
    async fn keep(
        &self,
        operation: &Operation,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        every: Duration,
    ) -> Result<Exit, Failure> {
        // Without any pause it would be an attack.
        let every = every.max(REPEAT_MIN);
        if !self.global.json && self.global.quiet == 0 {
            note(&format!(
                "it is put again every {}, until this is interrupted; two hours later it is gone",
                duration(every)
            ));
        }
        let mut pause = every;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.as_mut() => return Ok(Exit::Interrupted),
            }
            let ended = self.run(operation, stop.as_mut(), Turn::Again).await;
            if let (Some(seq), Some(newest)) = (ended.seq, ended.newest)
                && newest > seq
            {
                let message = format!("somebody has put version {newest}, this one is {seq}");
                return Err(Failure::new(message)
                    .hint("it is not put any more; `trackless dht get` shows the newer one"));
            }
            pause = every;
            match ended.result {
                Ok(Exit::Done) => {}
                Ok(exit) => return Ok(exit),
                Err(failure) if failure.exit == Exit::Interrupted => return Ok(Exit::Interrupted),
                Err(failure) => {
                    pause = every.min(REPEAT_RETRY);
                    let again = duration(pause);
                    let why = escape(&failure.message);
                    note(&format!("warning: {why}; tried again in {again}"));
                }
            }
        }
    }
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

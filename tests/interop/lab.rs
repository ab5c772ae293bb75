//! A closed network of programs: one namespace, one address for each, all of one family.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Addresses in the namespace: hosts 1 to 60.
const ADDRESSES: u8 = 60;

/// The port at which `trackless` listens, at whatever address.
const PORT: u16 = 6881;

/// Which addresses a lab has; there are none of the other family but loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// 10.77.0.N: private ones, where neither ids nor subnets are looked at.
    V4,
    /// 2001:2:0:N::1: global ones, each in a /64 of its own. The range is set aside for benchmarks (RFC
    /// 5180), and programs treat it as they treat the Internet: libtorrent takes a unique-local address for
    /// no external one, and without such it sends no samples over IPv6.
    #[allow(dead_code, reason = "the benchmark measures over IPv4")]
    V6,
}

impl Family {
    /// The address of a host.
    pub(crate) fn address(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 77, 0, host).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 2, 0, host.into(), 0, 0, 0, 1).into(),
        }
    }

    /// Bits of an address: each is a network of its own.
    const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// How long any one step may take before a test gives up on it, where nothing else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Labs that may be open at a time, besides those of [`Lab::beside_others`]. Ours: most of the time the programs
/// in them wait for timers of theirs, and six together take a core; but each may take 1 GiB of disk.
const LABS: u8 = 6;

/// How many of the [`LABS`] may still be opened.
static FREE: Mutex<u8> = Mutex::new(LABS);

/// Told of each lab that is gone.
static FREED: Condvar = Condvar::new();

/// Where `ip netns` keeps the namespaces.
const NAMESPACES: &str = "/run/netns";

/// Is there where the kernel speaks IPv6.
const IPV6: &str = "/proc/net/if_inet6";

/// Names of namespaces must differ between tests and between runs.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// One of the [`LABS`] that may be open.
struct Turn(());

impl Turn {
    /// Waits for it.
    fn wait() -> Self {
        let none = |free: &mut u8| *free == 0;
        let free = FREED.wait_while(FREE.lock().unwrap(), none);
        *free.unwrap() -= 1;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap() += 1;
        FREED.notify_one();
    }
}

/// A program by the name its package has, and whether it is here.
pub(crate) type Need = (&'static str, fn() -> bool);

/// A network namespace with a loopback interface and nothing else, and a folder for files.
pub(crate) struct Lab {
    namespace: String,
    family: Family,
    folder: tempfile::TempDir,
    /// While it counts among the [`LABS`]. The last field: given back when the others are gone.
    turn: Option<Turn>,
}

impl Lab {
    /// A new lab with IPv4 addresses, or `None` where one cannot be had: then the reason was printed.
    ///
    /// # Panics
    ///
    /// Under `CI`, where nothing may be skipped.
    pub(crate) fn open(programs: &[Need]) -> Option<Self> {
        Self::open_over(Family::V4, programs)
    }

    /// The same with addresses of a family.
    pub(crate) fn open_over(family: Family, programs: &[Need]) -> Option<Self> {
        let turn = Turn::wait();
        let mut missing: Vec<&str> = programs
            .iter()
            .filter(|(_, there)| !there())
            .map(|&(name, _)| name)
            .collect();
        let namespace = format!(
            "trackless-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        if family == Family::V6 && !Path::new(IPV6).exists() {
            missing.push("IPv6");
        }
        if missing.is_empty() && !run("ip", &["netns", "add", &namespace]) {
            missing.push("a network namespace (needs root and iproute2)");
        }
        if !missing.is_empty() {
            let reason = format!("missing: {}", missing.join(", "));
            assert!(
                std::env::var_os("CI").is_none(),
                "not skipped in CI; {reason}"
            );
            eprintln!("skipped; {reason}");
            return None;
        }
        let lab = Self {
            namespace,
            family,
            folder: tempfile::tempdir().unwrap(),
            turn: Some(turn),
        };
        lab.add_addresses();
        Some(lab)
    }

    /// Lets one more lab be opened, because in this one there is little to do but wait for timers of programs.
    #[allow(dead_code, reason = "the benchmark wants all cores")]
    pub(crate) fn beside_others(mut self) -> Self {
        self.turn = None;
        self
    }

    /// Gives the loopback interface its addresses, and nothing else: there is no way out.
    fn add_addresses(&self) {
        let mut orders = "link set lo up\n".to_owned();
        for host in 1..=ADDRESSES {
            let (address, bits) = (self.family.address(host), self.family.bits());
            // Without `nodad` an IPv6 address is of no use until it was looked whether somebody has it.
            let checked = if address.is_ipv6() { " nodad" } else { "" };
            orders += &format!("addr add {address}/{bits} dev lo{checked}\n");
        }
        let path = self.folder("network").join("orders");
        std::fs::write(&path, orders).unwrap();
        let arguments = ["-n", &self.namespace, "-batch", path.to_str().unwrap()];
        assert!(run("ip", &arguments));
    }

    /// Gives an IPv6 host what makes it look as if it had a way out and IPv4: a route, on which what is sent
    /// comes back to nobody, and an IPv4 address, which no other host has.
    #[allow(dead_code, reason = "the benchmark measures over IPv4")]
    pub(crate) fn pretend_way_out(&self, host: u8) {
        let route = format!("-6 route add default dev lo src {}", self.address(host));
        let address = format!("addr add {}/32 dev lo", Family::V4.address(host));
        for order in [route, address] {
            let arguments = ["-n", &self.namespace].into_iter().chain(order.split(' '));
            assert!(run("ip", &arguments.collect::<Vec<_>>()));
        }
    }

    /// Which addresses there are.
    #[allow(dead_code, reason = "the benchmark measures over IPv4")]
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The address of a host.
    pub(crate) fn address(&self, host: u8) -> String {
        self.family.address(host).to_string()
    }

    /// The address of a host with a port, as programs print and read it.
    pub(crate) fn at(&self, host: u8, port: u16) -> String {
        SocketAddr::new(self.family.address(host), port).to_string()
    }

    /// The one DHT node that everybody is told of.
    pub(crate) fn entry(&self) -> String {
        self.at(1, PORT)
    }

    /// Has the one interface carry multicast, too.
    pub(crate) fn allow_multicast(&self) {
        let link = [
            "-n",
            &self.namespace,
            "link",
            "set",
            "lo",
            "multicast",
            "on",
        ];
        assert!(run("ip", &link));
        let route = match self.family {
            Family::V4 => "route add 239.0.0.0/8 dev lo",
            // By any other kind of route nothing comes back from the loopback interface.
            Family::V6 => "-6 route add local ff00::/8 dev lo",
        };
        let arguments = ["-n", &self.namespace].into_iter().chain(route.split(' '));
        assert!(run("ip", &arguments.collect::<Vec<_>>()));
    }

    /// A folder of this name in the lab, made if needed.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Starts a program inside the namespace.
    pub(crate) fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> Program {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .arg(program)
            .args(arguments)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let stderr_sender = sender.clone();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = stderr_sender.send(Line::Error(line));
            }
        });
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(Line::Output(line));
            }
        });
        Program {
            name: name.to_owned(),
            child,
            lines,
            said: Vec::new(),
        }
    }

    /// Starts `trackless` with a state folder of its own, at an address of its own.
    pub(crate) fn trackless(&self, host: u8, arguments: &[&str]) -> Program {
        let state = self.folder(&format!("state-{host}"));
        let listen = self.at(host, PORT);
        let mut all = arguments.to_vec();
        all.extend(["--listen", &listen, "--state-dir", state.to_str().unwrap()]);
        let name = format!("trackless {} at {listen}", arguments[0]);
        self.start(&name, Path::new(env!("CARGO_BIN_EXE_trackless")), &all)
    }

    /// Does something in a thread of the namespace, for example talks to a program there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let handle = std::fs::File::open(Path::new(NAMESPACES).join(&self.namespace)).unwrap();
        let enter_and_work = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(handle.as_fd(), network).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter_and_work).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A private DHT of `count` nodes at the first addresses; all of them know only the first.
    pub(crate) fn dht(&self, count: u8) -> Vec<Program> {
        (1..=count)
            .map(|host| {
                let bootstrap = if host == 1 {
                    "none".to_owned()
                } else {
                    self.entry()
                };
                let mut node = self.trackless(host, &["node", "--bootstrap", &bootstrap]);
                node.wait_for("its first line", |line| line.contains(&self.address(host)));
                node
            })
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        run("ip", &["netns", "delete", &self.namespace]);
    }
}

/// Runs a short command; whether it succeeded. What it says goes nowhere.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A line that a program printed.
enum Line {
    /// On standard output.
    Output(String),
    /// On standard error.
    Error(String),
}

/// A running program; killed and waited for when dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    lines: Receiver<Line>,
    said: Vec<String>,
}

impl Program {
    /// Waits for a line on standard output that fits, and returns it.
    ///
    /// # Panics
    ///
    /// If the program ends or [`PATIENCE`] runs out first; shows what it said.
    pub(crate) fn wait_for(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        self.wait_for_within(PATIENCE, what, fits)
    }

    /// The same with a patience of its own.
    pub(crate) fn wait_for_within(
        &mut self,
        patience: Duration,
        what: &str,
        fits: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(Line::Output(line)) => {
                    self.said.push(line.clone());
                    if fits(&line) {
                        return line;
                    }
                }
                Ok(Line::Error(line)) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => self.give_up(what, "it never came"),
                Err(RecvTimeoutError::Disconnected) => self.give_up(what, "the program ended"),
            }
        }
    }

    /// Its process id.
    #[allow(dead_code, reason = "the benchmark measures by it")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program ended by itself with success.
    pub(crate) fn wait(&mut self) {
        self.wait_within(PATIENCE);
    }

    /// Waits until it closed its output, which is as good as its end.
    #[allow(dead_code, reason = "the benchmark measures by it")]
    pub(crate) fn wait_for_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(Line::Output(line) | Line::Error(line)) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => self.give_up("its end", "it goes on"),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Like `wait`, with another patience.
    pub(crate) fn wait_within(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.drain();
                assert!(
                    status.success(),
                    "{}: {status}\n{}",
                    self.name,
                    self.said.join("\n")
                );
                return;
            }
            self.drain();
            std::thread::sleep(Duration::from_millis(20));
        }
        self.give_up("its end", "it goes on");
    }

    /// Writes a line to its standard input.
    #[allow(dead_code, reason = "the benchmark has nothing to say")]
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    /// Closes its standard input, which tells it to go, and waits until it went: what it holds in memory
    /// is on disk then.
    pub(crate) fn finish(&mut self) {
        drop(self.child.stdin.take());
        self.wait();
    }

    /// Takes note of what it has printed by now, so that whoever waits next sees later lines only.
    pub(crate) fn drain(&mut self) {
        while let Ok(Line::Output(line) | Line::Error(line)) = self.lines.try_recv() {
            self.said.push(line);
        }
    }

    fn give_up(&mut self, what: &str, why: &str) -> ! {
        self.drain();
        let said = self
            .said
            .iter()
            .rev()
            .take(40)
            .rev()
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        panic!(
            "{}: waited for {what}, but {why}. It said:\n{said}",
            self.name
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

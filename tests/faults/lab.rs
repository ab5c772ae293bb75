//! A closed world for one test: a network of its own, mounts of its own, a folder for files.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::program::Program;

/// How long any one step may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The port of every `trackless` in a lab; a namespace has all ports to itself.
pub(crate) const PORT: u16 = 6881;

/// A network namespace with a loopback interface, and a mount namespace.
///
/// The thread that opens it moves into the network, and so do the threads and programs it starts from then
/// on. Both namespaces end with the last of them: nothing is left behind, however a test ends.
pub(crate) struct Lab {
    keeper: Child,
    folder: tempfile::TempDir,
}

impl Lab {
    /// A new lab, or `None` where one cannot be had: then the reason was printed.
    ///
    /// # Panics
    ///
    /// Under `CI`, where nothing may be skipped.
    pub(crate) fn open() -> Option<Self> {
        let Some(keeper) = keeper() else {
            let absent = !Path::new("/proc/self/ns/net").exists();
            skip_unless_absent("namespaces (needs root and unshare of util-linux)", absent);
            return None;
        };
        let network = fs::File::open(format!("/proc/{}/ns/net", keeper.id())).unwrap();
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let lab = Self {
            keeper,
            folder: tempfile::tempdir().unwrap(),
        };
        assert!(run("ip", &["link", "set", "lo", "up"]), "iproute2 is here");
        Some(lab)
    }

    /// Makes every address of 9.0.0.0/8 one of this machine. They count as addresses of the Internet, where
    /// hosts have neighbours and limits of their own.
    pub(crate) fn widen(&self) {
        let route = ["route", "add", "local", "9.0.0.0/8", "dev", "lo"];
        assert!(run("ip", &route), "the network takes a route");
    }

    /// A folder of this name, made if needed. What is mounted there is seen through [`Lab::seen`] only.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A path as this process has to write it to see what is mounted in the lab.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let mut seen = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        seen.push(path.strip_prefix("/").unwrap());
        seen
    }

    /// Runs a short command among the lab's mounts; whether it succeeded.
    pub(crate) fn run(&self, arguments: &[&str]) -> bool {
        let mount = self.mount_argument();
        let mut all = vec![mount.as_str(), "--"];
        all.extend(arguments);
        run("nsenter", &all)
    }

    /// Mounts a new file system in memory; gives its folder.
    pub(crate) fn mount_memory(&self, name: &str, size: &str) -> PathBuf {
        let folder = self.folder(name);
        let path = folder.to_str().unwrap();
        let options = format!("size={size}");
        assert!(
            self.run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path]),
            "tmpfs is here"
        );
        folder
    }

    /// Mounts a new ext4 in a file; gives its folder, or `None` where loop devices or ext4 are missing:
    /// then the reason was printed.
    pub(crate) fn mount_disk(&self, name: &str, bytes: u64) -> Option<PathBuf> {
        let image = self.image(name);
        fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let folder = self.folder(name);
        let (image, path) = (image.to_str().unwrap(), folder.to_str().unwrap());
        let mounted = run("mkfs.ext4", &["-q", "-F", image])
            && self.run(&["mount", "-o", "loop", image, path]);
        if !mounted {
            let absent = !Path::new("/dev/loop-control").exists();
            skip_unless_absent("an ext4 in a loop device", absent);
            return None;
        }
        Some(folder)
    }

    /// The file in which a mounted ext4 is.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.image"))
    }

    /// Stops all writing to a mounted disk until the value is dropped.
    pub(crate) fn freeze(&self, folder: &Path) -> Frozen<'_> {
        let path = folder.to_str().unwrap();
        assert!(self.run(&["fsfreeze", "-f", path]), "fsfreeze is here");
        Frozen {
            lab: self,
            folder: folder.to_owned(),
        }
    }

    /// Starts `trackless` with a state folder and an address (port [`PORT`]) of its own.
    pub(crate) fn trackless(&self, host: u8, arguments: &[&str]) -> Program {
        self.trackless_under(&[], host, arguments)
    }

    /// The same, started by another program such as `prlimit`.
    pub(crate) fn trackless_under(&self, by: &[&str], host: u8, arguments: &[&str]) -> Program {
        let state = self.state_folder(host);
        let listen = format!("{}:{PORT}", address(host));
        let mut all = arguments.to_vec();
        all.extend(["--listen", &listen, "--state-dir", state.to_str().unwrap()]);
        self.start(by, &all)
    }

    /// The state folder of the `trackless` at a host.
    pub(crate) fn state_folder(&self, host: u8) -> PathBuf {
        self.folder(&format!("state-{host}"))
    }

    /// Starts `trackless` with a state folder of its own at an address of a network that was widened.
    pub(crate) fn trackless_at(&self, address: Ipv4Addr, arguments: &[&str]) -> Program {
        let state = self.folder(&format!("state-{address}"));
        let listen = format!("{address}:{PORT}");
        let own = ["--listen", &listen, "--state-dir", state.to_str().unwrap()];
        self.start(&[], &[arguments, &own].concat())
    }

    /// Starts `trackless` with these arguments and no others.
    pub(crate) fn start(&self, by: &[&str], arguments: &[&str]) -> Program {
        let mut command = Command::new("nsenter");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRACKLESS_") {
                command.env_remove(name);
            }
        }
        let home = self.folder("home");
        command
            .arg(self.mount_argument())
            .arg("--")
            .args(by)
            .arg(env!("CARGO_BIN_EXE_trackless"))
            .args(arguments)
            .env("HOME", &home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("RUST_BACKTRACE", "1")
            .env_remove("RUST_LOG");
        let name = format!("trackless {}", arguments.first().unwrap_or(&""));
        Program::start(&name, command)
    }

    fn mount_argument(&self) -> String {
        format!("--mount=/proc/{}/ns/mnt", self.keeper.id())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// A disk that takes no writes. Who writes to it waits, and cannot even be killed.
pub(crate) struct Frozen<'a> {
    lab: &'a Lab,
    folder: PathBuf,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.lab
            .run(&["fsfreeze", "-u", self.folder.to_str().unwrap()]);
    }
}

/// A process in new namespaces that waits until its input ends; `None` where there are none.
fn keeper() -> Option<Child> {
    let mut keeper = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut ready = [0; 6];
    let read = std::io::Read::read_exact(keeper.stdout.as_mut()?, &mut ready);
    if read.is_ok() {
        return Some(keeper);
    }
    let _ = keeper.kill();
    let _ = keeper.wait();
    None
}

/// Prints why a test is skipped.
///
/// # Panics
///
/// Under `CI`, where nothing may be skipped.
pub(crate) fn skip(missing: &str) {
    skip_unless_absent(missing, false);
}

/// Prints why a test is skipped, under `CI` as well if the kernel itself lacks the feature.
///
/// # Panics
///
/// Under `CI`, when the kernel has it.
pub(crate) fn skip_unless_absent(missing: &str, kernel_lacks_it: bool) {
    assert!(
        kernel_lacks_it || std::env::var_os("CI").is_none(),
        "not skipped in CI; missing: {missing}"
    );
    eprintln!("skipped; missing: {missing}");
}

/// The address of a host in the lab; all of them are on the loopback interface.
pub(crate) fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, host)
}

/// Where the `trackless` at a host listens, as an argument.
pub(crate) fn socket(host: u8) -> String {
    format!("{}:{PORT}", address(host))
}

/// The command that downloads a torrent from one peer and asks nobody else for others.
pub(crate) fn get<'a>(torrent: &'a str, peer: &'a str, output: &'a Path) -> [&'a str; 9] {
    let output = output.to_str().unwrap();
    [
        "get",
        torrent,
        "--json",
        "--bootstrap",
        "none",
        "--peer",
        peer,
        "-o",
        output,
    ]
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

/// Waits until something is so.
///
/// # Panics
///
/// When it is not after `patience`.
#[track_caller]
pub(crate) fn eventually(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "waited {} s in vain: {what}",
            patience.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A number from the environment, for longer runs of a test.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
    })
}

//! Running the built command, with a bound on everything that is waited for.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a test waits for a line or for the end of a process before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The built command with a home of its own: nothing of the user's configuration or state is seen.
pub(crate) fn trackless(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trackless"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRACKLESS_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
#[track_caller]
pub(crate) fn run(home: &Path, arguments: &[&str]) -> Output {
    finish(trackless(home, arguments))
}

/// Runs a command that was prepared and ends by itself.
#[track_caller]
pub(crate) fn finish(mut command: Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Running::new(child).finish()
}

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<Vec<u8>>,
    printed: String,
}

impl Running {
    /// Starts a command that runs until it is told to stop.
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut command = trackless(home, arguments);
        Self::new(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn new(mut child: Child) -> Self {
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (line, lines) = mpsc::channel();
        let (error, errors) = mpsc::channel();
        // Both threads end with the pipes, that is with the process.
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = line.send(text);
            }
        });
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            let _ = error.send(bytes);
        });
        Self {
            child,
            lines,
            errors,
            printed: String::new(),
        }
    }

    /// The next line of standard output.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
            let _ = self.child.kill();
            let errors = self.errors.recv_timeout(PATIENCE).unwrap_or_default();
            panic!(
                "no line came; standard error: {}",
                String::from_utf8_lossy(&errors)
            );
        };
        self.printed.push_str(&line);
        self.printed.push('\n');
        line
    }

    /// Lines up to the first one that has all of `parts`, which is returned.
    #[track_caller]
    pub(crate) fn line_with(&mut self, parts: &[&str]) -> String {
        loop {
            let line = self.line();
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }

    /// Interrupts the process as a user does, and waits for its end.
    #[track_caller]
    pub(crate) fn interrupt(self) -> Output {
        self.end_with(rustix::process::Signal::INT)
    }

    /// Tells the process to end as a service manager does, and waits for its end.
    #[track_caller]
    pub(crate) fn terminate(self) -> Output {
        self.end_with(rustix::process::Signal::TERM)
    }

    #[track_caller]
    fn end_with(self, signal: rustix::process::Signal) -> Output {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
        self.finish()
    }

    /// Waits for the end; standard output has every line since the start.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        let deadline = std::time::Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "the process did not end"
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut stdout = std::mem::take(&mut self.printed);
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let stderr = self.errors.recv_timeout(PATIENCE).unwrap_or_default();
        Output {
            status,
            stdout: stdout.into_bytes(),
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error says that it ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Standard output as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text of a key in a line of JSON.
#[track_caller]
pub(crate) fn text(line: &str, key: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    match &value[key] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Starts a DHT node on a free loopback port; gives the process and its address.
#[track_caller]
pub(crate) fn start_node(home: &Path, bootstrap: &str) -> (Running, String) {
    start_node_with(home, bootstrap, &[])
}

/// The same with more flags.
#[track_caller]
pub(crate) fn start_node_with(home: &Path, bootstrap: &str, flags: &[&str]) -> (Running, String) {
    let arguments = [
        "node",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--bootstrap",
        bootstrap,
    ];
    let mut node = Running::start(home, &[&arguments, flags].concat());
    let line = node.line_with(&["listening"]);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = value["addresses"][0].as_str().unwrap().to_owned();
    (node, address)
}

/// Runs a command that starts a node on a free loopback port and ends by itself.
#[track_caller]
pub(crate) fn run_quick(home: &Path, arguments: &[&str]) -> Output {
    let listen = ["--listen", "127.0.0.1:0"];
    run(home, &[arguments, &listen[..]].concat())
}

/// Seeds a file or folder on a free loopback port, and waits until others find it: its announce is
/// stored, or with `--no-dht` its address stands in the link. Gives the process and the link.
#[track_caller]
pub(crate) fn start_seeder(home: &Path, content: &Path, flags: &[&str]) -> (Running, String) {
    let (mut seeder, mut magnet) = start_seeder_with(home, content, flags);
    if flags.contains(&"--no-dht") {
        let line = seeder.printed.lines().next().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let address = value["listen"][0].as_str().unwrap();
        magnet.push_str(&format!("&x.pe={address}"));
    } else {
        seeder.line_with(&["progress", "\"stored\":1"]);
    }
    (seeder, magnet)
}

/// The same, as soon as it has printed the link.
#[track_caller]
pub(crate) fn start_seeder_with(home: &Path, content: &Path, flags: &[&str]) -> (Running, String) {
    let arguments = ["seed", "--json", "--listen", "127.0.0.1:0"];
    let content = [content.to_str().unwrap()];
    let mut seeder = Running::start(home, &[&arguments[..], flags, &content].concat());
    let line = seeder.line();
    assert_eq!(text(&line, "event"), "seeding", "{line}");
    (seeder, text(&line, "magnet"))
}

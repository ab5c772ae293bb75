//! A running `trackless`: what it prints, how much memory it takes, and its end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::PATIENCE;

/// Lines shown when a test fails.
const LINES_SHOWN: usize = 30;

/// Characters of each of them.
const LINE_SHOWN: usize = 300;

/// A started program; killed by its id and waited for when dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    heard: Arc<Heard>,
    /// Events that were looked at by [`Program::wait_for`].
    seen: usize,
}

/// What the reading threads share with the test.
#[derive(Default)]
struct Heard {
    said: Mutex<Said>,
    news: Condvar,
}

#[derive(Default)]
struct Said {
    /// JSON objects on standard output, with the time they came.
    events: Vec<(Instant, Value)>,
    /// Other lines on standard output.
    lines: Vec<String>,
    /// Lines on standard error.
    errors: Vec<String>,
    /// Both outputs, in the order they came.
    all: Vec<String>,
    /// Outputs that have ended.
    closed: u8,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one output to its end.
    fn read(&self, output: impl Read, is_error: bool) {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut said = self.lock();
            said.all.push(line.clone());
            if is_error {
                said.errors.push(line);
            } else if let Ok(value) = serde_json::from_str(&line) {
                said.events.push((Instant::now(), value));
            } else {
                said.lines.push(line);
            }
            drop(said);
            self.news.notify_all();
        }
        self.lock().closed += 1;
        self.news.notify_all();
    }
}

impl Program {
    /// Starts a command and reads what it prints.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let heard = Arc::new(Heard::default());
        let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        // Both threads end with the pipes, that is with the process.
        let ears = Arc::clone(&heard);
        std::thread::spawn(move || ears.read(output, false));
        let ears = Arc::clone(&heard);
        std::thread::spawn(move || ears.read(errors, true));
        Self {
            name: name.to_owned(),
            child,
            heard,
            seen: 0,
        }
    }

    /// Waits for a JSON object that fits, beginning after the one found last, and returns it.
    ///
    /// # Panics
    ///
    /// If the program ends or [`PATIENCE`] runs out first; shows what it said.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.heard.lock();
        loop {
            while let Some((_, event)) = said.events.get(self.seen) {
                self.seen += 1;
                if fits(event) {
                    return event.clone();
                }
            }
            let ended = said.closed == 2;
            let left = deadline.saturating_duration_since(Instant::now());
            if ended || left.is_zero() {
                drop(said);
                self.give_up(&format!("waited for {what} in vain"));
            }
            let waited = self.heard.news.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for an event of this name.
    #[track_caller]
    pub(crate) fn wait_for_event(&mut self, name: &str) -> Value {
        self.wait_for(name, |event| event["event"] == name)
    }

    /// Waits for an event of this name that tells of a moment after this call.
    #[track_caller]
    pub(crate) fn wait_for_news(&mut self, name: &str) -> Value {
        self.seen = self.heard.lock().events.len();
        // The first may have been on its way.
        self.wait_for_event(name);
        self.wait_for_event(name)
    }

    /// Waits until so many bytes are verified.
    #[track_caller]
    pub(crate) fn wait_for_bytes(&mut self, bytes: u64) -> Value {
        self.wait_for(&format!("{bytes} bytes done"), |event| {
            event["bytes_done"]
                .as_u64()
                .is_some_and(|done| done >= bytes)
        })
    }

    /// Waits until the program ends by itself; its exit code, or `None` if a signal ended it.
    #[track_caller]
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.drain();
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.give_up(&format!("it did not end within {} s", patience.as_secs()));
    }

    /// Waits for the end of a download that succeeds.
    #[track_caller]
    pub(crate) fn wait_done(&mut self) {
        if self.wait(PATIENCE) != Some(0) {
            self.give_up("it failed");
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.drain();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// JSON objects so far, with the time they came.
    pub(crate) fn events(&self) -> Vec<(Instant, Value)> {
        self.heard.lock().events.clone()
    }

    /// The latest progress.
    pub(crate) fn progress(&self) -> Option<Value> {
        let said = self.heard.lock();
        let latest = said.events.iter().rev();
        latest
            .map(|(_, event)| event)
            .find(|event| event["event"] == "progress")
            .cloned()
    }

    /// A number of the latest progress, 0 if there is none.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.progress()
            .and_then(|event| event[key].as_u64())
            .unwrap_or(0)
    }

    /// Lines on standard error so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.heard.lock().errors.clone()
    }

    /// Everything printed so far.
    pub(crate) fn said(&self) -> String {
        self.heard.lock().all.join("\n")
    }

    /// Bytes of memory: now (`VmRSS`), or at most so far (`VmHWM`).
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|found| found.strip_prefix(line));
        let kilobytes = value
            .and_then(|value| value.trim_matches([':', ' ', '\t']).strip_suffix(" kB"))
            .unwrap_or_else(|| panic!("no {line} in {status}"));
        kilobytes.trim().parse::<u64>().unwrap() << 10
    }

    /// Time it has spent on processors (`utime` and `stime` of `/proc/PID/stat`).
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in parentheses may have spaces; after it come the state and the third field on.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        // A tick is a hundredth of a second on every Linux (USER_HZ).
        Duration::from_millis(ticks * 10)
    }

    /// Prints the largest memory so far and holds it to a bound.
    #[track_caller]
    pub(crate) fn check_memory(&self, what: &str, bound: u64) {
        let highest = self.memory("VmHWM");
        eprintln!(
            "{what}: VmHWM {} MiB, bound {} MiB",
            highest >> 20,
            bound >> 20
        );
        assert!(highest <= bound, "{what}: {highest} bytes of memory");
    }

    /// Waits until the outputs of a program that ended are read.
    fn drain(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.heard.lock();
        while said.closed < 2 && Instant::now() < deadline {
            let waited = self.heard.news.wait_timeout(said, Duration::from_secs(1));
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last of what was printed, short enough to be read when a test fails.
    pub(crate) fn tail(&self) -> String {
        let said = self.heard.lock();
        let (progress, others): (Vec<&String>, Vec<&String>) = said
            .all
            .iter()
            .partition(|line| line.contains("\"event\":\"progress\""));
        let shown = others
            .iter()
            .rev()
            .take(LINES_SHOWN)
            .rev()
            .chain(progress.last());
        let cut = |line: &&String| line.chars().take(LINE_SHOWN).collect::<String>();
        let lines: Vec<String> = shown.map(cut).collect();
        format!("{} said:\n{}", self.name, lines.join("\n"))
    }

    /// Fails and shows what the program said.
    #[track_caller]
    pub(crate) fn give_up(&self, why: &str) -> ! {
        panic!("{why}. {}", self.tail())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! What a person or a program gets to read: results, sizes, durations, hints.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

/// How a command ended; its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It could not be done.
    Failed = 1,
    /// The arguments make no sense together.
    Usage = 2,
    /// `--timeout` ran out.
    TimedOut = 3,
    /// The user interrupted it.
    Interrupted = 130,
}

/// Why a command failed, in words for the user.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was tried and what happened, without a full stop.
    pub(crate) message: String,
    /// A remedy.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A plain failure.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            exit: Exit::Failed,
        }
    }

    /// A failure with the chain of its causes: `what: cause: cause of the cause`.
    pub(crate) fn because(what: impl Into<String>, cause: &dyn Error) -> Self {
        let mut message = what.into();
        let mut next = Some(cause);
        while let Some(error) = next {
            let _ = write!(message, ": {error}");
            next = error.source();
        }
        Self::new(message)
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    pub(crate) const fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Prints it: on standard error, or as a JSON line on standard output.
    pub(crate) fn report(&self, json: bool) {
        if json {
            print_json(&serde_json::json!({
                "event": "failed",
                "reason": self.message,
                "hint": self.hint,
            }));
        } else {
            note(&format!("error: {}", escape(&self.message)));
            if let Some(hint) = &self.hint {
                note(&format!("\nhint: {}", escape(hint)));
            }
        }
    }
}

/// Prints a line on standard output. A reader that went away is no error.
pub(crate) fn print_line(line: &str) {
    let mut output = io::stdout().lock();
    // Nothing sensible can be done about a closed or broken standard output.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// Prints a JSON object as one line on standard output.
pub(crate) fn print_json(value: &Value) {
    print_line(&value.to_string());
}

/// Prints a line on standard error. A reader that went away is no error here either.
pub(crate) fn note(line: &str) {
    let mut output = io::stderr().lock();
    let _ = writeln!(output, "{line}");
}

/// Whether a progress bar makes sense: standard error is a terminal.
pub(crate) fn is_interactive() -> bool {
    io::stderr().is_terminal()
}

/// A size in IEC units: `512 B`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the current unit, in integers so that nothing is rounded twice.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A rate in IEC units: `1.5 MiB/s`.
pub(crate) fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", size(bytes_per_second))
}

/// A duration in its two largest units: `850ms`, `2.4s`, `1m 20s`, `2h 5m`, `3d 1h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}.{}s", duration.subsec_millis() / 100),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `1 peer`, `2 peers`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Text from a stranger as a terminal may show it: control characters and those that change the
/// direction of writing are escaped.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Control characters, and those that reorder or hide text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{061c}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_iec_units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(3 << 19), "1.5 MiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
        assert_eq!(rate(1 << 30), "1.0 GiB/s");
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!(duration(Duration::from_millis(850)), "850ms");
        assert_eq!(duration(Duration::from_millis(2_450)), "2.4s");
        assert_eq!(duration(Duration::from_secs(80)), "1m 20s");
        assert_eq!(duration(Duration::from_secs(7_500)), "2h 5m");
        assert_eq!(duration(Duration::from_secs(262_800)), "3d 1h");
    }

    #[test]
    fn text_that_could_fool_a_terminal_is_escaped() {
        assert_eq!(escape("plain ünïcode"), "plain ünïcode");
        assert_eq!(escape("\x1b[2J"), "\\u{1b}[2J");
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(escape("a\nb"), "a\\u{a}b");
    }

    #[test]
    fn a_failure_names_the_chain_of_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let failure = Failure::because("cannot do it", &Outer(io::Error::other("inner")));
        assert_eq!(failure.message, "cannot do it: outer: inner");
    }
}

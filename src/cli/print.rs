//! What a person or a program gets to read: results, sizes, durations, hints.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
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
    /// What else is wrong in the same way, a sentence each.
    pub(crate) also: Vec<String>,
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
            also: Vec::new(),
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

    /// Adds what else is wrong in the same way.
    pub(crate) fn also(mut self, more: Vec<String>) -> Self {
        self.also = more;
        self
    }

    /// Sets the exit code.
    pub(crate) const fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The user ended it; `kept` says what became of the work so far.
    pub(crate) fn interrupted(kept: &str) -> Self {
        Self::new(format!("interrupted: {kept}")).exit(Exit::Interrupted)
    }

    /// Prints it: on standard error, or as a JSON line on standard output.
    pub(crate) fn report(&self, json: bool) {
        self.report_with(json, Value::Null);
    }

    /// Prints it, in JSON with more keys.
    pub(crate) fn report_with(&self, json: bool, more: Value) {
        if json {
            print_json(&self.to_json(more));
            return;
        }
        if self.exit == Exit::Interrupted {
            note(&escape(&self.message));
        } else {
            for message in std::iter::once(&self.message).chain(&self.also) {
                note(&format!("{} {}", error_label(), escape(message)));
            }
        }
        if let Some(hint) = &self.hint {
            note(&format!("\nhint: {}", escape(hint)));
        }
    }

    /// The `failed` line. An interruption has that one word as its reason, so that programs need
    /// not read sentences.
    fn to_json(&self, more: Value) -> Value {
        let mut line = serde_json::json!({
            "event": "failed",
            "reason": self.message,
            "hint": self.hint,
        });
        if !self.also.is_empty() {
            line["also"] = self.also.clone().into();
        }
        if self.exit == Exit::Interrupted {
            line["reason"] = "interrupted".into();
            line["message"] = self.message.clone().into();
        }
        if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
            line.extend(more);
        }
        line
    }
}

/// `error:`, in red where that is seen and wanted.
fn error_label() -> &'static str {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if is_interactive() && !is_set("NO_COLOR") && !is_dumb {
        "\x1b[1;31merror:\x1b[0m"
    } else {
        "error:"
    }
}

/// The first thing that went wrong with standard output.
static OUTPUT_ERROR: OnceLock<io::Error> = OnceLock::new();

/// Remembers what went wrong with standard output. A reader that went away is nothing wrong.
pub(crate) fn on_output_error(error: io::Error) {
    if error.kind() != io::ErrorKind::BrokenPipe {
        // Later ones have the same cause.
        let _ = OUTPUT_ERROR.set(error);
    }
}

/// Why not everything could be printed, if so: the command has failed then, whatever it did.
pub(crate) fn output_failure() -> Option<Failure> {
    let error = OUTPUT_ERROR.get()?;
    Some(Failure::because("cannot write to standard output", error))
}

/// Prints a line on standard output.
pub(crate) fn print_line(line: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush()) {
        on_output_error(error);
    }
}

/// Prints text with line breaks of its own on standard output.
pub(crate) fn print_text(text: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        on_output_error(error);
    }
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

/// `1 peer`, `2 peers`, `2 queries`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if number == 1 => format!("{number} {noun}"),
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {noun}s"),
    }
}

/// A count of things in memory as [`count`] takes it.
pub(crate) fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Text shortened to so many characters, the last of them an ellipsis.
pub(crate) fn shorten(text: &str, characters_max: usize) -> Cow<'_, str> {
    if text.chars().count() <= characters_max {
        return Cow::Borrowed(text);
    }
    let kept = text.chars().take(characters_max.saturating_sub(1));
    Cow::Owned(kept.chain(['…']).collect())
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
        let line = failure
            .hint("do that")
            .to_json(serde_json::json!({"path": "x"}));
        let expected = serde_json::json!({
            "event": "failed", "reason": "cannot do it: outer: inner", "hint": "do that", "path": "x",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn an_interruption_has_a_reason_that_programs_can_compare() {
        let line = Failure::interrupted("all is kept").to_json(Value::Null);
        assert_eq!(line["reason"], "interrupted");
        assert_eq!(line["message"], "interrupted: all is kept");
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(count(1, "query"), "1 query");
        assert_eq!(count(0, "query"), "0 queries");
        assert_eq!(count(2, "node"), "2 nodes");
    }

    #[test]
    fn long_names_end_with_an_ellipsis() {
        assert_eq!(shorten("größe", 5), "größe");
        assert_eq!(shorten("größen", 5), "größ…");
        assert_eq!(shorten("abc", 0), "…");
    }
}

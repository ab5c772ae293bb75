//! Log lines on standard error: bounded, and harmless to a terminal whatever a stranger put into
//! them.

use std::io::{self, Write};

use serde_json::Value;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::args::{Arguments, Command, LogFormat};
use super::print::{escape, shorten};

/// Longest line, in bytes: what comes after it is cut and counted, or in JSON left out of the
/// longest texts.
const LINE_MAX: usize = 1024;

/// Characters that the texts of a JSON line keep, tried in this order until the line is short
/// enough.
const TEXT_LENGTHS: [usize; 6] = [512, 256, 128, 64, 32, 16];

/// Sends log lines to standard error, as detailed as the flags or `RUST_LOG` say.
pub(super) fn start(arguments: &Arguments) {
    let global = &arguments.global;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level(arguments)));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // A second subscriber can only mean that a test runs several commands: the first one stays.
    let _ = match global.log_format {
        LogFormat::Text => builder
            .with_ansi(false)
            .with_writer(Lines(safe_line))
            .try_init(),
        LogFormat::Json => builder.json().with_writer(Lines(safe_json)).try_init(),
    };
}

/// What is logged.
fn level(arguments: &Arguments) -> &'static str {
    match i16::from(arguments.global.verbose) - i16::from(arguments.global.quiet) {
        ..=-1 => "error",
        // Who waits for a command's end reads there, in better words, what a warning would say;
        // only that state was lost is told nowhere else.
        0 => match arguments.command {
            Command::Seed(_) | Command::Node(_) => "warn",
            _ => "error,trackless::session::state=warn",
        },
        1 => "trackless=info,warn",
        2 => "trackless=debug,info",
        3.. => "trace",
    }
}

/// Makes a writer for each line, which passes it through the function.
struct Lines(fn(&[u8]) -> String);

/// Writes one line. The subscriber hands over a line with one call.
struct Line(fn(&[u8]) -> String);

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Self::Writer {
        Line(self.0)
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let safe = (self.0)(line);
        // A log that nobody reads any more is no reason to fail.
        let _ = io::stderr().lock().write_all(safe.as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of JSON with its texts escaped as those of [`safe_line`], and so much of them that the
/// line is short enough. A line that is no JSON, which the subscriber does not write, becomes text.
fn safe_json(line: &[u8]) -> String {
    let Ok(mut value) = serde_json::from_slice::<Value>(line) else {
        return safe_line(line);
    };
    texts(&mut value, &|text| escape(text).into_owned());
    let mut safe = value.to_string();
    for length in TEXT_LENGTHS {
        if safe.len() < LINE_MAX {
            break;
        }
        texts(&mut value, &|text| shorten(text, length).into_owned());
        safe = value.to_string();
    }
    safe.push('\n');
    safe
}

/// Changes every text in a JSON value; keys are ours.
fn texts(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| texts(value, change)),
        Value::Object(fields) => fields.values_mut().for_each(|value| texts(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The line without its line break escaped and cut, then one line break.
fn safe_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let mut safe = escape(text).into_owned();
    if safe.len() > LINE_MAX {
        let mut end = LINE_MAX;
        while !safe.is_char_boundary(end) {
            end -= 1;
        }
        let cut = safe.len() - end;
        safe.truncate(end);
        safe.push_str(&format!("… ({cut} bytes more)"));
    }
    safe.push('\n');
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_cannot_move_the_cursor_or_start_another_line() {
        let safe = safe_line("peer says \x1b[2J\rdone\nERROR forged \u{202e}\n".as_bytes());
        let expected = "peer says \\u{1b}[2J\\u{d}done\\u{a}ERROR forged \\u{202e}\n";
        assert_eq!(safe, expected);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let safe = safe_line("ä".repeat(100_000).as_bytes());
        assert!(safe.len() < LINE_MAX + 40);
        assert!(safe.ends_with("… (198976 bytes more)\n"));
    }

    #[test]
    fn a_line_of_json_is_escaped_and_cut_inside_its_texts() {
        let line = serde_json::json!({
            "level": "WARN",
            "fields": {"message": "\u{1b}[2J \u{202e}", "name": "ä".repeat(100_000), "count": 7},
        });
        let safe = safe_json(format!("{line}\n").as_bytes());
        assert!(safe.len() <= LINE_MAX && safe.ends_with("}\n"), "{safe}");
        let safe: Value = serde_json::from_str(&safe).unwrap();
        assert_eq!(safe["fields"]["message"], "\\u{1b}[2J \\u{202e}");
        assert_eq!(safe["fields"]["count"], 7);
        let name = safe["fields"]["name"].as_str().unwrap();
        assert!(name.starts_with("ää") && name.ends_with('…'));
    }

    #[test]
    fn an_ordinary_line_stays_as_it_is() {
        assert_eq!(safe_line(b"INFO listening\n"), "INFO listening\n");
        assert_eq!(safe_line(&[0xff, b'a']), "\u{fffd}a\n");
        let json = "{\"fields\":{\"message\":\"listening\"},\"level\":\"INFO\"}\n";
        assert_eq!(safe_json(json.as_bytes()), json);
    }
}

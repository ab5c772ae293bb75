//! Log lines on standard error: bounded, and harmless to a terminal whatever a stranger put into
//! them.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::args::{Global, LogFormat};
use super::print::escape;

/// Longest line of text, in bytes: what comes after it is cut and counted.
const LINE_MAX: usize = 1024;

/// Sends log lines to standard error, as detailed as the flags or `RUST_LOG` say.
pub(super) fn start(global: &Global) {
    let level = match i16::from(global.verbose) - i16::from(global.quiet) {
        ..=-1 => "error",
        0 => "warn",
        1 => "trackless=info,warn",
        2 => "trackless=debug,info",
        3.. => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // A second subscriber can only mean that a test runs several commands: the first one stays.
    let _ = match global.log_format {
        LogFormat::Text => builder.with_ansi(false).with_writer(SafeLines).try_init(),
        // JSON has its own escapes for control characters, and half an object is no object.
        LogFormat::Json => builder.json().with_writer(io::stderr).try_init(),
    };
}

/// Makes a writer for each line.
struct SafeLines;

/// Writes one line, escaped and cut. The subscriber hands over a line with one call.
struct SafeLine;

impl MakeWriter<'_> for SafeLines {
    type Writer = SafeLine;

    fn make_writer(&self) -> Self::Writer {
        SafeLine
    }
}

impl Write for SafeLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let safe = safe_line(line);
        // A log that nobody reads any more is no reason to fail.
        let _ = io::stderr().lock().write_all(safe.as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    fn an_ordinary_line_stays_as_it_is() {
        assert_eq!(safe_line(b"INFO listening\n"), "INFO listening\n");
        assert_eq!(safe_line(&[0xff, b'a']), "\u{fffd}a\n");
    }
}

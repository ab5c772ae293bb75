//! The `trackless` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    trackless::cli::main()
}

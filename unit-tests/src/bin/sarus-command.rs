//! The `sarus` program for the tests of whole commands, which need it as a process: cargo builds a
//! package's own programs for its tests, not those of another package.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(sarus_cli::main(std::env::args_os()))
}

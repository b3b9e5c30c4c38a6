//! The `sarus` program.

use std::process::ExitCode;

/// What the parser of the command line takes, with room to spare.
const STACK: usize = 2 << 20;

fn main() -> ExitCode {
    sarus_sys::process::with_stack(STACK, || ExitCode::from(sarus_cli::main(std::env::args_os())))
}

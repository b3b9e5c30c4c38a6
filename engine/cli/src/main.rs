//! The `sarus` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(sarus_cli::main(std::env::args_os()))
}

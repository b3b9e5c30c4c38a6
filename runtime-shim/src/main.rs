//! `sarus-shim`: makes a container from a launch request, and stays until it has ended.
//!
//! The process tree, who waits for whom and what is left after a kill: `docs/ARCHITECTURE.md`,
//! "The shim". Links no network, TLS or archive code. Only this file prints.

mod adopt;
mod aftermath;
mod blame;
mod block;
mod bundle;
mod caller;
mod channel;
mod construct;
mod descriptors;
mod error;
mod exec;
mod explain;
mod forward;
mod hooks;
mod image;
mod janitor;
mod label;
mod ledger;
mod mode;
mod pmi;
mod policy;
mod prepare;
mod record;
mod reports;
mod rootfs;
mod runtime;
mod scratch;
mod seccomp;
mod setup;
mod start;
mod supervise;
mod terminal;
mod user_mounts;
mod watch;

use std::process::ExitCode;

use error::ShimError;
use sarus_launch::{ExecRequest, Request};

/// Exit status when the engine fails, as Docker's.
const ENGINE_FAILED: u8 = 125;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        complain(&format!("error: internal error in `sarus-shim`: {panic}"));
        std::process::exit(i32::from(ENGINE_FAILED));
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["run", "--request-fd", number] => run(number),
        ["exec", "--request-fd", number] => exec(number),
        ["explain", "--request-fd", number] => explain(number),
        ["--version"] => Ok(version()),
        _ => Err(ShimError::Usage),
    };
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(ENGINE_FAILED)),
        Err(error) => {
            let message = error::report(&error);
            if !message.is_empty() {
                complain(&message);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(number: &str) -> Result<i32, ShimError> {
    let caller = caller::Caller::observe(number)?;
    let invalid = |source| ShimError::Request { source };
    let request = Request::parse(&caller.read_request()?).map_err(invalid)?;
    start_logging(request.verbosity);
    start::run(&caller, &request)
}

fn explain(number: &str) -> Result<i32, ShimError> {
    let caller = caller::Caller::observe(number)?;
    let invalid = |source| ShimError::Request { source };
    let request = Request::parse(&caller.read_request()?).map_err(invalid)?;
    start_logging(request.verbosity);
    let text = explain::run(&caller, &request)?;
    use std::io::Write;
    let written = std::io::stdout().write_all(&text);
    written.map_err(error::cannot("write to standard output"))?;
    Ok(0)
}

fn exec(number: &str) -> Result<i32, ShimError> {
    let caller = caller::Caller::observe(number)?;
    let invalid = |source| ShimError::Request { source };
    let request = ExecRequest::parse(&caller.read_request()?).map_err(invalid)?;
    start_logging(request.verbosity);
    exec::run(&caller, &request)
}

#[expect(clippy::print_stdout, reason = "the version is what was asked for")]
fn version() -> i32 {
    println!("sarus-shim {}", env!("CARGO_PKG_VERSION"));
    0
}

/// Says something on standard error. Where that cannot be written (a full disk, no reader), the run and
/// its exit status are as they would be.
pub(crate) fn complain(text: &str) {
    use std::io::Write;
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}

/// Writes log records to standard error; a logger with time stamps and filters would be most of
/// this program.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        complain(&format!("sarus-shim: {}", record.args()));
    }

    fn flush(&self) {}
}

fn start_logging(verbosity: u8) {
    log::set_max_level(match verbosity {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    });
    let _once = log::set_logger(&Log);
}

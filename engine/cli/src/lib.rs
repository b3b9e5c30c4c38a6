//! The `sarus` command: words in, results out.
//!
//! The one crate that prints. Data goes to standard output, all else to standard error; every
//! failure ends with status 125.

pub mod annotations;
pub mod args;
mod cat;
mod diff;
pub mod error;
pub mod explain;
mod export;
mod foreign;
mod hooks;
pub mod images;
pub mod launch;
mod load;
mod login;
mod ls;
pub mod mounts;
mod names;
pub mod output;
pub mod parse_error;
pub mod plan;
pub mod policy;
mod progress;
mod prune;
mod pull;
mod rows;
mod run;
pub mod running;
mod secret;
pub mod settings;
mod ssh_keygen;
mod timing;
pub mod usage;
pub mod variables;
mod verify;
mod version;

use std::ffi::OsString;
use std::io::Write;

use clap::{CommandFactory, Parser};
use rustix::fs::Mode;
use rustix::process::umask;

use crate::args::{Arguments, Command, Verbosity};
use crate::error::{CliError, ENGINE_ERROR, report};
use crate::launch::LaunchError;

/// Does what the words say; gives the exit status.
pub fn main(words: impl Iterator<Item = OsString>) -> u8 {
    install_panic_hook();
    sarus_sys::signals::ignore_file_size_limit();
    let words: Vec<OsString> = words.collect();
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return answer(&error, &words),
    };
    start_log(arguments.verbosity);
    match execute(arguments) {
        Ok(()) => 0,
        Err(error) if error.is_closed_output() => 0,
        Err(CliError::Launch(LaunchError::Refused { code })) => {
            u8::try_from(code).unwrap_or(ENGINE_ERROR)
        }
        Err(error) => {
            to_stderr(&report(&error, error.hint().as_deref()));
            ENGINE_ERROR
        }
    }
}

fn execute(arguments: Arguments) -> Result<(), CliError> {
    // Of a run the shim does this, while the container is being made: nobody waits for it.
    if !matches!(arguments.command, Command::Run(_)) {
        sweep();
    }
    if !matches!(arguments.command, Command::Run(_) | Command::Exec(_)) {
        keep_own_bits();
    }
    match arguments.command {
        Command::Pull(args) => pull::pull(&args),
        Command::Load(args) => load::load(&args),
        Command::Run(args) => run::run(&args, arguments.verbosity).inspect_err(|_| sweep()),
        Command::Ps(args) => running::ps(&args),
        Command::Kill(args) => running::kill(&args),
        Command::Exec(args) => running::exec(&args, arguments.verbosity),
        Command::Images(args) => images::images(&args),
        Command::Rmi(args) => images::rmi(&args),
        Command::Prune(args) => prune::prune(&args),
        Command::Inspect(args) => images::inspect(&args),
        Command::Hooks(args) => hooks::hooks(&args),
        Command::SshKeygen(args) => ssh_keygen::ssh_keygen(&args),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Completion(args) => version::completion(&args),
        Command::Version(args) => version::version(&args),
        Command::Ls(args) => ls::ls(&args),
        Command::Cat(args) => cat::cat(&args),
        Command::Diff(args) => diff::diff(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Export(args) => export::export(&args),
        Command::UnpackImage(args) => export::unpack(&args),
    }
}

/// Lets the user into what this process makes, whatever the umask is; returns the umask there was.
fn keep_own_bits() -> Mode {
    let before = umask(Mode::empty());
    umask(before.difference(Mode::RWXU));
    before
}

/// Ends and removes what killed runs of the user left behind on this node. Whatever stays is no
/// reason to fail, nor is a broken configuration one here.
fn sweep() {
    let ended = sarus_sys::orphans::sweep();
    let directory = settings::temporary_directory();
    let removed = sarus_sys::scratch::sweep(&sarus_sys::scratch::parent(directory.as_deref()));
    sarus_sys::rendezvous::sweep();
    if ended + removed > 0 {
        log::debug!("of killed runs: {ended} processes ended, {removed} directories removed");
    }
}

/// Help and version are data; everything else that the parser says is an error.
fn answer(error: &clap::Error, words: &[OsString]) -> u8 {
    if !error.use_stderr() {
        // A closed standard output is no failure.
        let _closed = error.print();
        return 0;
    }
    let table = Arguments::command();
    let command = words
        .iter()
        .skip(1)
        .filter_map(|word| word.to_str())
        .find(|word| !word.starts_with('-'))
        .filter(|word| table.find_subcommand(word).is_some());
    to_stderr(&parse_error::report(error, command));
    ENGINE_ERROR
}

/// Standard error is the last resort: a failure to write to it has nowhere to go.
fn to_stderr(text: &str) {
    let _nowhere_to_go = std::io::stderr().write_all(text.as_bytes());
}

/// A defect of the program is one line, never a backtrace, and an engine error.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        to_stderr(&format!("error: internal error at {place}; please report it\n"));
        end();
    }));
}

#[expect(clippy::exit, reason = "unwinding is off: without this the process would be aborted")]
fn end() -> ! {
    std::process::exit(ENGINE_ERROR.into())
}

fn start_log(verbosity: Verbosity) {
    let level = match plan::verbosity_level(verbosity) {
        0 => return,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new().filter_level(level).format_timestamp_millis().init();
}

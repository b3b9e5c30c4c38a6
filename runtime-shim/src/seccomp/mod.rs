//! What system calls the container's command may make: from a profile to what the kernel takes.
//!
//! `sarus-entry` loads the result last of all; loaded by the OCI runtime it would forbid what the
//! entry does. The same for every mode and runtime. What the profiles mean: `docs/CONFIGURATION.md`,
//! "System calls".

mod bpf;
mod builtin;
mod syscalls;

use std::path::Path;

use sarus_config::seccomp::{Action, Host, Profile};
use sarus_config::{Config, SeccompProfile};

use crate::error::ShimError;
use bpf::{Instruction, compile};
use syscalls::Machine;

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;

/// A program for the kernel, with the flags of seccomp(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    flags: u64,
    program: Vec<Instruction>,
}

impl Filter {
    fn new(profile: &Profile, program: Vec<Instruction>) -> Self {
        const LOG: u64 = 2;
        const SPEC_ALLOW: u64 = 4;
        let flags = [(profile.log, LOG), (!profile.mitigate_speculation, SPEC_ALLOW)];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        Self { flags, program }
    }

    /// As it stands in the block.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> {
        [self.flags, self.program.len() as u64]
            .into_iter()
            .chain(self.program.iter().map(Instruction::word))
    }
}

/// The filters that the configuration asks for, to be loaded in this order. Reads the profile that
/// it names, which whoever has privilege checked before.
pub(crate) fn filters(config: &Config) -> Result<Vec<Filter>, ShimError> {
    let machine = Machine::OWN;
    let filter = match &config.seccomp_profile {
        SeccompProfile::Unconfined => return Ok(Vec::new()),
        SeccompProfile::Default => {
            let profile = builtin::profile();
            let program = compile(&profile, machine, Some(machine.newest()));
            Filter::new(&profile, program)
        }
        SeccompProfile::Path(path) => of_file(path, machine)?,
    };
    log::debug!("seccomp filter: {} instructions", filter.program.len());
    Ok(vec![filter])
}

fn of_file(path: &Path, machine: Machine) -> Result<Filter, ShimError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let host = Host { architecture: machine.go_name(), kernel: version(&release) };
    let profile =
        Profile::load(path, host).map_err(|source| ShimError::SeccompProfile { source })?;
    let unknown = names(&profile).filter(|name| machine.number(name).is_none());
    let unknown: Vec<&str> = unknown.collect();
    log::debug!("calls in `{}` that this machine does not have: {unknown:?}", path.display());
    let program = compile(&profile, machine, newest_named(&profile, machine));
    if program.len() > INSTRUCTIONS_MAX {
        let (path, size, max) = (path.to_owned(), program.len(), INSTRUCTIONS_MAX);
        return Err(ShimError::SeccompSize { path, size, max });
    }
    Ok(Filter::new(&profile, program))
}

/// The newest call that a profile knows, where what it does not know is refused: calls that are
/// newer still are answered with ENOSYS, as by an older kernel, so that programs do without them.
fn newest_named(profile: &Profile, machine: Machine) -> Option<u32> {
    match profile.default {
        Action::Allow | Action::Log | Action::Trace(_) => None,
        Action::KillProcess | Action::KillThread | Action::Trap | Action::Errno(_) => {
            names(profile).filter_map(|name| machine.number(name)).max()
        }
    }
}

fn names(profile: &Profile) -> impl Iterator<Item = &str> {
    profile.rules.iter().flat_map(|rule| rule.names.iter().map(String::as_str))
}

/// The first two numbers of a kernel's release, like `6.1.0-18-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests;

//! `sarus exec`: one more program in a running container of the caller's.
//!
//! No runtime and no hook takes part: a child of the supervisor joins the container's namespaces and
//! becomes `sarus-entry`. Namespaces are opened with the caller's own rights, so that a setuid shim
//! leads nowhere that the caller could not look into.

use std::convert::Infallible;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use sarus_config::{Config, SYSTEM_CONFIG};
use sarus_entry::flag;
use sarus_launch::{ExecRequest, RECORD_NAME, RECORD_SIZE_MAX, RawString, Record};
use sarus_sys::identity::{become_person, seal_privileges, with_rights_of};
use sarus_sys::namespace;
use sarus_sys::process::{self, Fork, PidFd, fork};
use sarus_sys::signals::SignalReader;

use crate::block::{self, Block, Descriptors};
use crate::caller::Caller;
use crate::construct::{Ends, die_with_supervisor, open_entry, search_path};
use crate::descriptors::Arrangement;
use crate::error::{ShimError, cannot};
use crate::forward::{Forwarder, Left};
use crate::image::release_signals;
use crate::label;
use crate::seccomp::{self, Filter};
use crate::start::{connect, give_up_privileges, load_site};
use crate::supervise::{Charge, Supervisor};

/// A running container, opened.
#[derive(Debug)]
struct Container {
    record: Record,
    users: OwnedFd,
    mounts: OwnedFd,
    /// The PID namespace, if it has one of its own.
    processes: Option<OwnedFd>,
    /// It shares the host's user namespace: root made it.
    privileged: bool,
    /// Its first process.
    first: PidFd,
}

/// Runs the program and returns its exit status.
pub(crate) fn run(caller: &Caller, request: &ExecRequest) -> Result<i32, ShimError> {
    // Read before the privileges are given up; the profile is the site's alone.
    let config = load_site(Path::new(SYSTEM_CONFIG))?.config;
    let filters = seccomp::filters(&config)?;
    let container = with_rights_of(caller.person(), || Container::open(caller, request))
        .and_then(|container| container)
        .map_err(|source| ShimError::NoContainer { pid: request.supervisor, source })?;
    if caller.is_setuid() && !container.privileged {
        give_up_privileges(caller)?;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| cannot("become the parent of orphans")(e.into()))?;
    let signals = SignalReader::open().map_err(cannot("read signals"))?;
    let (ours, theirs) = connect()?;
    let entry = open_entry()?;
    let supervisor = rustix::process::getpid().as_raw_nonzero().get();
    match fork().map_err(cannot("make a process"))? {
        Fork::Child => {
            drop((ours, signals));
            die_with_supervisor(supervisor)?;
            // As a container's first process: what is sent to the caller's group reaches the program
            // once, by the supervisor, and what it leaves behind is known by its session.
            rustix::process::setsid().map_err(|e| cannot("make a session")(e.into()))?;
            match enter((caller, request, &config), &container, (&entry, theirs, &filters))? {}
        }
        Fork::Parent(child) => {
            drop((theirs, entry));
            if caller.is_setuid() && container.privileged {
                give_up_privileges(caller)?;
            }
            let forwarder =
                Forwarder::start(&Left { session: Some(child.as_raw_pid()), ..Left::default() })?;
            let program = request.args.first().map(RawString::to_string_lossy).unwrap_or_default();
            let charge = Charge::Program(&program);
            let mut supervisor =
                Supervisor::new(charge, (signals, ours, forwarder), child.as_raw_pid());
            supervisor.spare(&caller.children);
            supervisor.end_with(container.first);
            let result = supervisor.watch();
            supervisor.clean_up();
            result
        }
    }
}

impl Container {
    /// Finds the container by its supervisor, and opens its namespaces, all of which must be of the
    /// caller's.
    fn open(caller: &Caller, request: &ExecRequest) -> std::io::Result<Self> {
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        let file = process::memory_file(request.supervisor, RECORD_NAME)?;
        let mut json = Vec::new();
        file.take(RECORD_SIZE_MAX as u64).read_to_end(&mut json)?;
        let record = Record::parse(&json).map_err(invalid)?;
        let gone = || std::io::Error::from_raw_os_error(libc::ESRCH);
        if record.supervisor != request.supervisor
            || !process::runs(record.process, record.process_started)
        {
            return Err(gone());
        }
        let process = record.process.to_string();
        let (users, mounts) = (namespace::of(&process, "user")?, namespace::of(&process, "mnt")?);
        let processes = namespace::of(&process, "pid")?;
        let first = PidFd::of(record.process)?;
        // What was opened is the process's whose start was looked at, unless it ended meanwhile.
        let owner = Path::new("/proc").join(&process).metadata()?.uid();
        if !process::runs(record.process, record.process_started) || owner != caller.uid {
            return Err(gone());
        }
        let home = namespace::own_number("user")?;
        let privileged = namespace::number(&users)? == home;
        let of = namespace::number(namespace::user_of(mounts.as_fd())?)?;
        let expected = if privileged {
            home
        } else {
            namespace::number(namespace::parent_of(users.as_fd())?)?
        };
        if of != expected {
            return Err(std::io::Error::from_raw_os_error(libc::EPERM));
        }
        let shares = namespace::number(&processes)? == namespace::own_number("pid")?;
        let processes = (!shares).then_some(processes);
        Ok(Self { record, users, mounts, processes, privileged, first })
    }

    /// Joins its namespaces, but for the user's own, which `sarus-entry` joins.
    fn join(&self) -> std::io::Result<()> {
        if !self.privileged {
            let outer = namespace::parent_of(self.users.as_fd())?;
            namespace::join_user(outer.as_fd())?;
        }
        if let Some(processes) = &self.processes {
            namespace::join(processes.as_fd())?;
        }
        namespace::join(self.mounts.as_fd())
    }
}

/// Becomes the program. Returns only on failure.
fn enter(
    (caller, request, config): (&Caller, &ExecRequest, &Config),
    container: &Container,
    (entry, ends, filters): (&OwnedFd, Ends, &[Filter]),
) -> Result<Infallible, ShimError> {
    let environment = environment(&container.record, request);
    let arguments: Vec<Vec<u8>> =
        request.args.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    let mut arrangement = Arrangement::new(caller)?;
    let stdio = [
        arrangement.take(rustix::stdio::stdin())?,
        arrangement.take(rustix::stdio::stdout())?,
        arrangement.take(rustix::stdio::stderr())?,
    ];
    let entry_number = arrangement.take(entry)?;
    let socket = arrangement.take(&ends.entry)?;
    let user_namespace = match container.privileged {
        true => None,
        false => Some(arrangement.take(&container.users)?),
    };
    let failed = |e: rustix::io::Errno| cannot("write the block for `sarus-entry`")(e.into());
    let memory = memfd_create("sarus-entry", MemfdFlags::CLOEXEC).map_err(failed)?;
    let number = arrangement.take(&memory)?;
    let (close, moves) = (arrangement.to_close(), arrangement.to_move().to_vec());
    let descriptors = Descriptors { user_namespace, socket, stdio, close, moves };
    let block = Block {
        flags: flags(request, container),
        arguments: &arguments,
        environment: &environment,
        search_path: search_path(&environment),
        descriptors: &descriptors,
        filters,
    };
    let affinity = affinity(caller, &container.record);
    block::write_to(&memory, &block, (caller, &affinity))?;
    label::apply_at_exec(config)?;
    container.join().map_err(cannot("join the container"))?;
    change_directory(caller, container, request)?;
    if container.processes.is_some() {
        fork_into_namespace()?;
    }
    if container.privileged {
        seal_privileges()
            .and_then(|()| become_person(caller.person()))
            .map_err(|source| ShimError::Privileges { source })?;
    }
    release_signals()?;
    arrangement.establish(&ends.output)?;
    let path = format!("/proc/self/fd/{entry_number}");
    let words = crate::runtime::c_strings(vec![path.clone().into(), number.to_string().into()]);
    let source = process::execute(path.as_ref(), &words, &[]);
    Err(ShimError::NoEntry { path: PathBuf::from(path), source })
}

fn flags(request: &ExecRequest, container: &Container) -> u64 {
    let bits = [(!container.privileged, flag::JOIN_USER_NAMESPACE), (request.tty, flag::TERMINAL)];
    bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

/// The container's variables, with the user's over them.
fn environment(record: &Record, request: &ExecRequest) -> Vec<Vec<u8>> {
    let name = |entry: &RawString| {
        let bytes = entry.as_bytes();
        let end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        bytes[..end].to_vec()
    };
    let given: Vec<Vec<u8>> = request.env.iter().map(name).collect();
    let kept = record.env.iter().filter(|entry| !given.contains(&name(entry)));
    kept.chain(&request.env).map(|entry| entry.as_bytes().to_vec()).collect()
}

/// The container's CPUs, where the caller's cgroup permits them; else the caller's.
fn affinity(caller: &Caller, record: &Record) -> Vec<u8> {
    let theirs = process::affinity_of(record.process);
    let usable = theirs.and_then(|mask| process::set_affinity(&mask).map(|()| mask));
    usable.unwrap_or_else(|error| {
        log::debug!("the container's CPUs cannot be used: {error}");
        caller.affinity.clone()
    })
}

fn change_directory(
    caller: &Caller,
    container: &Container,
    request: &ExecRequest,
) -> Result<(), ShimError> {
    let path = request.workdir.as_ref().unwrap_or(&container.record.workdir);
    let path = PathBuf::from(path.as_os_str());
    let change = || rustix::process::chdir(&path);
    let changed = match container.privileged {
        true => with_rights_of(caller.person(), change),
        false => Ok(change()),
    };
    changed
        .and_then(|changed| Ok(changed?))
        .map_err(|source| ShimError::Workdir { path: path.clone(), source })
}

/// A process is of a PID namespace only if it was forked into it. The child goes on; it becomes
/// the supervisor's when this process ends.
fn fork_into_namespace() -> Result<(), ShimError> {
    match fork().map_err(cannot("make a process"))? {
        Fork::Child => Ok(()),
        Fork::Parent(_) => process::exit_at_once(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_variables_replace_those_of_the_container() {
        let raw = |list: &[&str]| list.iter().map(|entry| RawString::from(*entry)).collect();
        let record = Record {
            version: 1,
            id: "a".into(),
            supervisor: 1,
            process: 2,
            process_started: 3,
            created: 4,
            image: "image".into(),
            command: Vec::new(),
            env: raw(&["A=1", "AB=2", "C=3"]),
            workdir: "/".into(),
            privileged: false,
        };
        let request = ExecRequest {
            version: 1,
            supervisor: 1,
            args: raw(&["true"]),
            env: raw(&["A=9", "D=4"]),
            workdir: None,
            tty: false,
            verbosity: 0,
        };
        let want: Vec<Vec<u8>> =
            ["AB=2", "C=3", "A=9", "D=4"].iter().map(|entry| entry.as_bytes().to_vec()).collect();
        assert_eq!(environment(&record, &request), want);
    }
}

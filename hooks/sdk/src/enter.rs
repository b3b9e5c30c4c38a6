//! Into the container's mount namespace, from wherever the runtime started the hook.
//!
//! The number of the container's process in the state is not to be trusted as a path below `/proc`:
//! runc at `createContainer` says the number inside the container, which in the host's `/proc` is
//! another process, and crun says 0.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sarus_sys::namespace;

use crate::{Failure, State};

/// Enters the container's mount namespace, where the hook is not in it already.
pub(crate) fn mount_namespace(state: &State) -> Result<(), Failure> {
    let Some(pid) = state.pid.and_then(Pid::from_raw) else { return Ok(()) };
    // Whoever the container's process starts is in its namespaces.
    if state.status == "stopped" || getppid() == Some(pid) {
        return Ok(());
    }
    let entered = if proc_is_own() { by_path(pid) } else { by_descriptor(pid) };
    entered.map_err(|error| {
        let what = format!("cannot enter the mount namespace of container `{}`", state.id);
        let hint = "name the stage `createContainer` in the hook's file: it runs there already";
        Failure::new(what).because(error).hint(hint)
    })
}

/// Whether `/proc` numbers processes as this process does.
pub(crate) fn proc_is_own() -> bool {
    let own = std::fs::read_link("/proc/self");
    own.is_ok_and(|own| own == Path::new(&getpid().as_raw_nonzero().to_string()))
}

fn by_path(pid: Pid) -> std::io::Result<()> {
    let process = pid.as_raw_nonzero().to_string();
    let theirs = namespace::of(&process, "mnt")?;
    if namespace::own_number("mnt")? == namespace::number(&theirs)? {
        return Ok(());
    }
    match namespace::join(theirs.as_fd()) {
        // A runtime without privilege made a user namespace, in which its user may do it.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let users = namespace::of(&process, "user")?;
            namespace::join_user(users.as_fd())?;
            namespace::join(theirs.as_fd())
        }
        joined => joined,
    }
}

/// The kernel takes the number as this process's own namespace of processes has it.
fn by_descriptor(pid: Pid) -> std::io::Result<()> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT)?)
}

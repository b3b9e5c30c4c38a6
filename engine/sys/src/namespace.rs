//! Namespaces: making them, joining them, mapping ids.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{UnshareFlags, move_into_link_name_space};

use crate::process::{Fork, fork};

/// An id inside a user namespace and the one outside that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// As seen in the namespace.
    pub inside: u32,
    /// As seen in its parent.
    pub outside: u32,
}

/// Gives the process a mount namespace of its own, a copy of the one it had.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn new_mount_namespace() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)
}

/// Gives the process a user and a mount namespace in which it is the given ids.
///
/// One id each is mapped, which needs no privilege; groups cannot be changed inside.
///
/// # Errors
///
/// `EPERM` or `ENOSPC` where the system permits no user namespaces.
pub fn new_user_and_mount_namespace(uid: IdMap, gid: IdMap) -> io::Result<()> {
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    map_own_ids(uid, gid)
}

/// A user namespace with nobody in it, child of the caller's, in which `uid` and `gid` are
/// mapped. Ids other than the caller's own need the privilege to map them.
///
/// # Errors
///
/// As [`new_user_and_mount_namespace`].
pub fn empty_user_namespace(uid: IdMap, gid: IdMap) -> io::Result<OwnedFd> {
    let (mine, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (answer, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork()? {
        Fork::Child => {
            drop((mine, go));
            let mut byte = [0];
            let made = unshare(UnshareFlags::NEWUSER).is_ok();
            let _reported = rustix::io::write(&theirs, &[u8::from(made)]);
            let _released = rustix::io::read(&answer, &mut byte);
            crate::process::exit_at_once(0)
        }
        Fork::Parent(child) => {
            drop((theirs, answer));
            let namespace = name_and_map(&mine, child.as_raw_pid(), (uid, gid));
            drop(go);
            child.wait()?;
            namespace
        }
    }
}

fn name_and_map(ready: &OwnedFd, child: i32, (uid, gid): (IdMap, IdMap)) -> io::Result<OwnedFd> {
    let mut made = [0];
    rustix::io::read(ready, &mut made)?;
    if made != [1] {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    write_maps(&format!("/proc/{child}"), uid, gid)?;
    let path = format!("/proc/{child}/ns/user");
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The calling process's own namespace of a kind: `user`, `mnt`, `pid`.
///
/// # Errors
///
/// As `open(2)`.
pub fn own(kind: &str) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/ns/{kind}");
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Joins a namespace, of whatever kind it is.
///
/// # Errors
///
/// As `setns(2)`.
pub fn join(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, None)?)
}

/// Joins a user namespace.
///
/// # Errors
///
/// As `setns(2)`: `EINVAL` if it is the caller's own already.
pub fn join_user(namespace: BorrowedFd<'_>) -> io::Result<()> {
    let kind = rustix::thread::LinkNameSpaceType::User;
    Ok(move_into_link_name_space(namespace, Some(kind))?)
}

fn map_own_ids(uid: IdMap, gid: IdMap) -> io::Result<()> {
    write_maps("/proc/self", uid, gid)
}

fn write_maps(process: &str, uid: IdMap, gid: IdMap) -> io::Result<()> {
    // Without `deny` the kernel refuses a map of groups by who has no privilege:
    // user_namespaces(7).
    match write(&format!("{process}/setgroups"), "deny") {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    write(&format!("{process}/uid_map"), &format!("{} {} 1", uid.inside, uid.outside))?;
    write(&format!("{process}/gid_map"), &format!("{} {} 1", gid.inside, gid.outside))
}

fn write(path: &str, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

#[expect(unsafe_code, reason = "unshare(2) of the descriptor table would break open files")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: neither of the flags used here separates file descriptors or memory.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Whether `namespace` is the calling process's own of that kind.
///
/// # Errors
///
/// As `stat(2)`.
pub fn is_own(namespace: impl AsFd, kind: &str) -> io::Result<bool> {
    let given = rustix::fs::fstat(namespace)?;
    let mine = rustix::fs::stat(format!("/proc/self/ns/{kind}"))?;
    Ok((given.st_dev, given.st_ino) == (mine.st_dev, mine.st_ino))
}

/// Whether the process is in the first user namespace, in which root is root.
pub fn is_initial_user() -> bool {
    /// `PROC_USER_INIT_INO` of `linux/proc_ns.h`.
    const FIRST_INODE: u64 = 0xEFFF_FFFD;
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|found| found.st_ino == FIRST_INODE)
}

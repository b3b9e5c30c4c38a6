//! Namespaces: making them, joining them, mapping ids.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{UnshareFlags, move_into_link_name_space};

use crate::process::{Fork, fork, start_time};

/// The limit of user namespaces, for each user: `namespaces(7)`.
const USER_LIMIT: &str = "/proc/sys/user/max_user_namespaces";

/// Age up to which a process waits where a limit is reached, and how often it tries. The kernel frees
/// what nobody has any more when it has nothing else to do, within ten seconds
/// (`CONFIG_RCU_LAZY`).
const PATIENCE: Duration = Duration::from_secs(11);
const PAUSE: Duration = Duration::from_millis(10);

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
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOSPC` when the limit of mount namespaces is reached, which
/// is waited for, as long as the process is young.
pub fn new_mount_namespace() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS, own_id())
}

/// Gives the process a user and a mount namespace in which it is the given ids.
///
/// One id each is mapped, which needs no privilege; groups cannot be changed inside.
///
/// # Errors
///
/// `EPERM` or `ENOSPC` where the system permits no user namespaces; `ENOSPC` when a limit of them is
/// reached, which is waited for, as long as the process is young: many that start at once all know
/// after the same time.
pub fn new_user_and_mount_namespace(uid: IdMap, gid: IdMap) -> io::Result<()> {
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS, own_id())?;
    map_own_ids(uid, gid)
}

/// A user namespace with nobody in it, child of the caller's, in which `uid` and `gid` are
/// mapped. Ids other than the caller's own need the privilege to map them.
///
/// # Errors
///
/// As [`new_user_and_mount_namespace`].
pub fn empty_user_namespace(uid: IdMap, gid: IdMap) -> io::Result<OwnedFd> {
    let creator = own_id();
    let (mine, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (answer, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork()? {
        Fork::Child => {
            drop((mine, go));
            let mut byte = [0];
            let made = unshare(UnshareFlags::NEWUSER, creator);
            let errno = made.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EPERM));
            let _reported = rustix::io::write(&theirs, &errno.to_ne_bytes());
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
    let mut errno = libc::EPERM.to_ne_bytes();
    rustix::io::read(ready, &mut errno)?;
    let errno = i32::from_ne_bytes(errno);
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
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

/// A namespace of the process with that id, as text.
///
/// # Errors
///
/// As `open(2)`; `EACCES` where the process may not be looked into.
pub fn of(process: &str, kind: &str) -> io::Result<OwnedFd> {
    let path = format!("/proc/{process}/ns/{kind}");
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

fn own_id() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// Where a limit is reached it may be by namespaces of processes that have ended; nothing tells when
/// the kernel frees them. They are waited for while process `creator` is young.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for")]
fn unshare(flags: UnshareFlags, creator: i32) -> io::Result<()> {
    loop {
        let result = unshare_once(flags);
        let is_limit = matches!(&result, Err(error) if error.raw_os_error() == Some(libc::ENOSPC));
        if !is_limit || !is_young(creator) || are_forbidden() {
            return result;
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_young(process: i32) -> bool {
    let Some(ticks) = start_time(process) else { return false };
    let started = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).is_ok_and(|now| now.saturating_sub(started) < PATIENCE)
}

#[expect(clippy::disallowed_methods, reason = "an unreadable limit forbids nothing")]
fn are_forbidden() -> bool {
    std::fs::read_to_string(USER_LIMIT).is_ok_and(|limit| limit.trim() == "0")
}

#[expect(unsafe_code, reason = "unshare(2) of the descriptor table would break open files")]
fn unshare_once(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: neither of the flags used here separates file descriptors or memory.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// What tells a namespace from every other that exists: the number that `/proc/PID/ns` shows.
///
/// # Errors
///
/// None in practice.
pub fn number(namespace: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(namespace)?.st_ino)
}

/// The [`number`] of the calling process's own namespace of a kind.
///
/// # Errors
///
/// As `stat(2)`.
pub fn own_number(kind: &str) -> io::Result<u64> {
    Ok(rustix::fs::stat(format!("/proc/self/ns/{kind}"))?.st_ino)
}

/// The user namespace above a user namespace: `ioctl_ns(2)`.
///
/// # Errors
///
/// `EPERM` if it is above the caller's own.
pub fn parent_of(user_namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    ask(user_namespace, NS_GET_PARENT)
}

/// The user namespace that a namespace of another kind belongs to: `ioctl_ns(2)`.
///
/// # Errors
///
/// `EPERM` if it is above the caller's own.
pub fn user_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    ask(namespace, NS_GET_USERNS)
}

/// The user who made a user namespace: `ioctl_ns(2)`.
///
/// # Errors
///
/// `EINVAL` if it is none.
#[expect(unsafe_code, reason = "ioctl(2)")]
pub fn owner_of(user_namespace: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid = 0_u32;
    let place = std::ptr::from_mut(&mut uid);
    // SAFETY: the kernel writes one id, whose place lives until the call returns.
    let result = unsafe { libc::ioctl(user_namespace.as_raw_fd(), NS_GET_OWNER_UID, place) };
    if result == 0 { Ok(uid) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "ioctl(2)")]
fn ask(namespace: BorrowedFd<'_>, question: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: these questions have no argument, and are answered by a new descriptor.
    let answer = unsafe { libc::ioctl(namespace.as_raw_fd(), question) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it, and nobody else has it. It is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// Whether the process is in the first user namespace, in which root is root.
pub fn is_initial_user() -> bool {
    /// `PROC_USER_INIT_INO` of `linux/proc_ns.h`.
    const FIRST_INODE: u64 = 0xEFFF_FFFD;
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|found| found.st_ino == FIRST_INODE)
}

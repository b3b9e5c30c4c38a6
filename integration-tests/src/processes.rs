//! The processes below the test, and waiting for their end.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, set_child_subreaper, waitpid,
};

/// Servers of the tests: their end is not what a test waits for.
static OWN_CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

pub(crate) fn remember_child(pid: u32) {
    OWN_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

pub(crate) fn forget_child(pid: u32) {
    OWN_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// Makes this process the parent of whatever its descendants leave behind, so that
/// [`descendants`] sees it.
pub(crate) fn adopt_orphans() {
    set_child_subreaper(Pid::from_raw(1)).expect("the kernel is younger than Linux 3.4");
}

/// Sends a signal to a process that may be gone.
pub fn kill(pid: u32, signal: Signal) {
    if let Ok(()) | Err(rustix::io::Errno::SRCH) = kill_process(to_pid(pid), signal) {}
}

fn to_pid(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}

/// State and parent of a process, from `/proc/PID/stat`.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The living children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs_err::read_dir("/proc").expect("there is /proc");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(state, of)| of == parent && state != 'Z'))
        .collect()
}

/// The living processes that have that name for the kernel and that user.
pub fn named(name: &str, uid: u32) -> Vec<u32> {
    let is_one = |pid: &u32| {
        let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next())
        };
        field("Name:") == Some(name)
            && field("Uid:") == Some(&uid.to_string())
            && field("State:") != Some("Z")
    };
    let entries = fs_err::read_dir("/proc").expect("there is /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_one).collect()
}

/// The living processes below one, parents first, without the tests' own servers.
pub fn descendants(root: u32) -> Vec<u32> {
    let own = OWN_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut found = Vec::new();
    let mut waiting = vec![root];
    while let Some(parent) = waiting.pop() {
        let below: Vec<u32> =
            children(parent).into_iter().filter(|pid| !own.contains(pid)).collect();
        found.extend(&below);
        waiting.extend(below);
    }
    found
}

/// What a process executes, for messages.
pub(crate) fn describe(pid: u32) -> String {
    let words = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} `{}`", String::from_utf8_lossy(&words).replace('\0', " ").trim())
}

/// Waits until a process has ended; `false` when it has not after `limit`.
pub fn wait_gone(pid: u32, limit: Duration) -> bool {
    let Ok(descriptor) = pidfd_open(to_pid(pid), PidfdFlags::empty()) else { return true };
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("a short time");
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait for process {pid}: {error}"),
        }
    }
}

/// Looks again and again until something holds that no event tells of; `false` when it does not
/// after `limit`.
#[expect(clippy::disallowed_methods, reason = "nothing tells of a stopped process or a full pipe")]
pub fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !holds() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Waits until nothing lives below this process but its servers; returns what still does.
pub(crate) fn wait_alone(limit: Duration) -> Vec<u32> {
    let end = Instant::now() + limit;
    loop {
        let living = descendants(std::process::id());
        let left = end.saturating_duration_since(Instant::now());
        let Some(first) = living.first() else { return living };
        if left.is_zero() || !wait_gone(*first, left) {
            return living;
        }
        // An adopted one is ours to reap; one of another's children is not, and that is fine.
        if waitpid(Some(to_pid(*first)), WaitOptions::NOHANG).is_err() {}
    }
}

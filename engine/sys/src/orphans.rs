//! Runs whose supervisor was killed: recognised from what the kernel keeps, and ended.
//!
//! A run writes nothing on the host. Its root file system, an overlay, carries in its source the
//! process id, the start time and the process namespace of the supervisor ([`mark_of`]); so every
//! process of a container says in `/proc/PID/mountinfo` whose it is. When that supervisor is gone,
//! so should they be. In another process namespace ids mean others, so runs started there are left
//! alone: they end with it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::namespace::own_number;
use crate::process::{PidFd, runs, session_of, start_time};

const PREFIX: &str = "sarus:";
const SIGKILL: i32 = 9;

/// The source of the overlay of a run that process `supervisor` supervises, which is in the
/// caller's process namespace.
pub fn mark_of(supervisor: i32) -> String {
    let started = start_time(supervisor).unwrap_or(0);
    format!("{PREFIX}{supervisor}:{started}:{}", own_number("pid").unwrap_or(0))
}

/// Kills the processes of the calling user that belong to a run without a supervisor, and returns
/// how many there were. Mounts and FUSE servers end with them.
///
/// Processes of others are not looked at, by root neither. Reads the mounts of each process that
/// has another mount namespace than the caller's; a process that cannot be read is left alone.
pub fn sweep() -> usize {
    kill_where(|_, directory| {
        let Some((supervisor, started, namespace)) = supervisor(directory) else { return false };
        own_number("pid").ok() == Some(namespace) && !runs(supervisor, started)
    })
}

/// Kills the processes of the calling user that are in a session and in other mounts than the caller,
/// and returns how many there were: what a program left in a container that goes on.
pub fn end_session(leader: i32) -> usize {
    kill_where(|pid, _| session_of(pid) == Some(leader))
}

/// Kills the processes of the calling user in other mounts than the caller's of which that holds, by
/// their number and their directory in `/proc`, and returns how many there were.
fn kill_where(holds: impl Fn(i32, &Path) -> bool) -> usize {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let mine = namespace(Path::new("/proc/self"));
    let uid = rustix::process::getuid().as_raw();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let killed = pids.filter(|pid| {
        let directory = format!("/proc/{pid}");
        let directory = Path::new(&directory);
        let is_mine = std::fs::metadata(directory).is_ok_and(|found| found.uid() == uid);
        if !is_mine || namespace(directory) == mine {
            return false;
        }
        // The descriptor comes before the look, so that what is killed is what was looked at.
        let Ok(process) = PidFd::of(*pid) else { return false };
        holds(*pid, directory) && process.signal(SIGKILL).is_ok()
    });
    killed.count()
}

fn namespace(process: &Path) -> Option<std::path::PathBuf> {
    std::fs::read_link(process.join("ns/mnt")).ok()
}

/// Who supervises the process, if its root is a run's overlay: `proc_pid_mountinfo(5)`.
fn supervisor(process: &Path) -> Option<(i32, u64, u64)> {
    let file = File::open(process.join("mountinfo")).ok()?;
    BufReader::new(file).lines().map_while(Result::ok).find_map(|line| parse_mark(&line))
}

/// The mark in a line of mountinfo, if its mount is at `/` and has one.
fn parse_mark(line: &str) -> Option<(i32, u64, u64)> {
    let (mount, file_system) = line.split_once(" - ")?;
    if mount.split(' ').nth(4)? != "/" {
        return None;
    }
    let mut fields = file_system.split(' ');
    if fields.next()? != "overlay" {
        return None;
    }
    let mut mark = fields.next()?.strip_prefix(PREFIX)?.split(':');
    let pid = mark.next()?.parse().ok()?;
    Some((pid, mark.next()?.parse().ok()?, mark.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_root_overlay_with_a_mark_is_a_run() {
        for (line, want) in [
            ("9 8 0:5 / / rw,nosuid - overlay sarus:41:977:5 rw,lowerdir=x", Some((41, 977, 5))),
            ("9 8 0:5 / /mnt rw - overlay sarus:41:977:5 rw", None),
            ("9 8 0:5 / / rw shared:1 - ext4 sarus:41:977:5 rw", None),
            ("9 8 0:5 / / rw - overlay overlay rw", None),
            ("9 8 0:5 / / rw - overlay sarus:x:y:z rw", None),
            ("9 8 0:5 / / rw - overlay sarus:41:977 rw", None),
            ("", None),
        ] {
            assert_eq!(parse_mark(line), want, "{line:?}");
        }
    }

    #[test]
    fn a_mark_names_the_supervisor() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let mark = format!("1 1 0:1 / / rw - overlay {} rw", mark_of(pid));
        assert_eq!(
            parse_mark(&mark),
            Some((pid, start_time(pid).unwrap(), own_number("pid").unwrap()))
        );
        assert_eq!(start_time(-1), None);
    }
}

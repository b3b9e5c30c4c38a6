//! Who writes a temporary: enough to tell later whether the writer is still there.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::FOREIGN_AGE_MAX;

/// A process, on one host, in one boot, in one PID namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    host: String,
    boot: String,
    pid_namespace: u64,
    pid: u32,
    start: u64,
}

impl Owner {
    /// This process. What cannot be read (no `/proc`) is left empty; then only age tells whether
    /// the process is gone.
    pub fn current() -> Self {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        let boot = read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino);
        let pid = std::process::id();
        Self {
            host: host
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c))
                .collect(),
            boot: boot.chars().filter(char::is_ascii_hexdigit).take(12).collect(),
            pid_namespace: namespace,
            pid,
            start: start_time(pid).unwrap_or(0),
        }
    }

    /// The label in file names: no `/`, fields divided by commas.
    pub fn label(&self) -> String {
        let Self { host, boot, pid_namespace, pid, start } = self;
        let host = &host[..host.len().min(64)];
        format!("{host},{boot},{pid_namespace},{pid},{start}")
    }

    /// Reads what [`Owner::label`] wrote; more fields may follow.
    pub fn parse(label: &str) -> Option<Self> {
        let mut fields = label.split(',');
        Some(Self {
            host: fields.next()?.to_owned(),
            boot: fields.next()?.to_owned(),
            pid_namespace: fields.next()?.parse().ok()?,
            pid: fields.next()?.parse().ok()?,
            start: fields.next()?.parse().ok()?,
        })
    }

    /// The node's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The process's number on its node, in its PID namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor that becomes readable when the process ends; none for one that is gone, or
    /// that `observer` cannot see.
    pub fn pidfd(&self, observer: &Self) -> Option<OwnedFd> {
        let number = i32::try_from(self.pid).ok()?;
        let pid = Pid::from_raw(number).filter(|_| self.is_seen_by(observer))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after the descriptor is there, so that it is not another one's.
        (start_time(self.pid) == Some(self.start)).then_some(pidfd)
    }

    /// Whether the process `self` is gone, as `observer` sees it. A process of another host or
    /// PID namespace cannot be seen: it counts as gone when what it wrote is older than
    /// [`FOREIGN_AGE_MAX`].
    pub fn is_gone(&self, observer: &Self, age: Duration) -> bool {
        self.is_gone_after(observer, age, FOREIGN_AGE_MAX)
    }

    /// [`Owner::is_gone`], with another limit for what cannot be seen.
    pub(crate) fn is_gone_after(&self, observer: &Self, age: Duration, limit: Duration) -> bool {
        let same_host = self.host == observer.host && self.start != 0 && !self.boot.is_empty();
        if same_host && self.boot != observer.boot {
            return true;
        }
        if !self.is_seen_by(observer) {
            return age > limit;
        }
        start_time(self.pid) != Some(self.start)
    }

    fn is_seen_by(&self, observer: &Self) -> bool {
        self.host == observer.host
            && self.start != 0
            && !self.boot.is_empty()
            && self.boot == observer.boot
            && self.pid_namespace == observer.pid_namespace
    }
}

/// The time since `modified`; none for a time to come (clocks of nodes differ).
pub(crate) fn age(modified: SystemTime) -> Duration {
    SystemTime::now().duration_since(modified).unwrap_or(Duration::ZERO)
}

/// Field 22 of `/proc/PID/stat`, `proc_pid_stat(5)`: clock ticks between boot and start. None
/// for a process that is gone, or a zombie that will write no more.
fn start_time(pid: u32) -> Option<u64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The command's name, field 2, may hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    fs_err::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back() {
        let me = Owner::current();
        assert_eq!(Owner::parse(&format!("{},7", me.label())), Some(me));
        for broken in ["", "a,b", "h,b,x,1,1", "h,b,1,-1,1"] {
            assert_eq!(Owner::parse(broken), None, "given {broken:?}");
        }
    }

    #[test]
    fn a_process_is_gone_when_its_number_is_another_ones() {
        let me = Owner::current();
        let gone = |change: &dyn Fn(&mut Owner), age| {
            let mut other = me.clone();
            change(&mut other);
            other.is_gone(&me, age)
        };
        let (young, old) = (Duration::from_secs(60), FOREIGN_AGE_MAX * 2);
        assert!(!gone(&|_| (), old), "this process is there");
        assert!(gone(&|other| other.start += 1, young));
        assert!(gone(&|other| other.pid = u32::MAX, young));
        assert!(gone(&|other| "0123".clone_into(&mut other.boot), young));
        for change in [
            (&|other: &mut Owner| other.host.push('x')) as &dyn Fn(&mut Owner),
            &|other| other.pid_namespace += 1,
            &|other| other.start = 0,
        ] {
            assert!(!gone(change, young), "cannot be seen from here");
            assert!(gone(change, old));
        }
    }
}

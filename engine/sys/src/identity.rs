//! Whose rights the process acts with, and giving up those of a setuid program.

use std::io;

use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// The user for whom a privileged program works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Gives up every privilege for good: all ids become the person's, no capability is left in any
/// set. The person may signal the process afterwards but not look into it, since it may still hold
/// descriptors, memory and namespaces of root's: [`show_to_person`].
///
/// The supplementary groups stay: a setuid program has its caller's.
///
/// # Errors
///
/// As `setresuid(2)`. The process must end then.
pub fn become_person(person: Person) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(person.uid), Gid::from_raw(person.gid));
    let is_other = rustix::process::geteuid() != uid || rustix::process::getuid() != uid;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    if is_other {
        // The kernel has just set what `fs.suid_dumpable` says.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    let now = rustix::process::getuid().as_raw();
    if now != person.uid || rustix::process::geteuid().as_raw() != person.uid {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// Lets the person look into the process from now on (`PR_SET_DUMPABLE`), as into every program of
/// theirs: `/proc/PID` is theirs. For a process that has become the person and holds nothing that
/// they must not have.
///
/// # Errors
///
/// None in practice.
pub fn show_to_person() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

/// Makes a setuid program root's in every respect: programs that it executes are not to see that
/// somebody else started it, and that one can no longer signal it. The supplementary groups stay.
///
/// # Errors
///
/// `EPERM` if the effective user is not root.
pub fn become_root() -> io::Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    if rustix::process::getgid() != gid {
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    }
    if rustix::process::getuid() != uid {
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(())
}

/// Does something with the person's rights and no capability, and takes root's back.
///
/// A process that is the person already does it as it is. Signals that the person sends in the
/// meantime reach the process.
///
/// # Errors
///
/// When the rights cannot be changed; what was to be done is undone by nobody then, and the
/// process must end.
pub fn with_rights_of<T>(person: Person, act: impl FnOnce() -> T) -> io::Result<T> {
    let root = rustix::process::geteuid();
    if root.as_raw() == person.uid || !root.is_root() {
        return Ok(act());
    }
    let group = rustix::process::getegid();
    set_effective(Some(Gid::from_raw(person.gid)), Uid::from_raw(person.uid))?;
    let done = act();
    set_effective(Some(group), root)?;
    Ok(done)
}

/// The group is changed while the process may.
fn set_effective(gid: Option<Gid>, uid: Uid) -> io::Result<()> {
    let change_group = || match gid {
        Some(gid) => change(libc::SYS_setresgid, gid.as_raw()),
        None => Ok(()),
    };
    if uid.is_root() {
        change(libc::SYS_setresuid, uid.as_raw())?;
        change_group()
    } else {
        change_group()?;
        change(libc::SYS_setresuid, uid.as_raw())
    }
}

#[expect(unsafe_code, reason = "the effective id alone, which has no safe wrapper")]
fn change(call: libc::c_long, id: u32) -> io::Result<()> {
    const UNCHANGED: u32 = u32::MAX;
    // SAFETY: numbers only. The calling program has one thread, so the kernel's per-thread ids
    // are the process's.
    let result = unsafe { libc::syscall(call, UNCHANGED, id, UNCHANGED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Drops the capability bounding set and forbids gaining privileges by executing programs.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP`.
pub fn seal_privileges() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Newer than the kernel.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Ended, Fork, exit_at_once, fork};

    const NOBODY: Person = Person { uid: 65534, gid: 65534 };

    /// Whether a process of the person's can look into another that has become the person.
    fn is_seen(shown: bool) -> bool {
        let (waits, goes_on) = std::io::pipe().unwrap();
        let (is_ready, ready) = std::io::pipe().unwrap();
        let Fork::Parent(target) = fork().unwrap() else {
            drop((goes_on, is_ready));
            let became = become_person(NOBODY);
            let told = became.and_then(|()| if shown { show_to_person() } else { Ok(()) });
            let told = told.and_then(|()| Ok(rustix::io::write(&ready, b"R")?));
            let _end = rustix::io::read(&waits, &mut [0_u8; 1]);
            exit_at_once(i32::from(told.is_err()))
        };
        drop((waits, ready));
        assert_eq!(rustix::io::read(&is_ready, &mut [0_u8; 1]).unwrap(), 1);
        let root = format!("/proc/{}/root", target.as_raw_pid());
        let Fork::Parent(looker) = fork().unwrap() else {
            let looked = become_person(NOBODY).and_then(|()| std::fs::read_link(&root));
            exit_at_once(i32::from(looked.is_ok()))
        };
        let looked = looker.wait().unwrap();
        drop(goes_on);
        assert_eq!(target.wait().unwrap(), Ended::Exited(0));
        looked == Ended::Exited(1)
    }

    #[test]
    fn a_process_that_gave_its_privileges_up_is_not_looked_into_until_it_is_shown() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        assert!(!is_seen(false));
        assert!(is_seen(true));
    }
}

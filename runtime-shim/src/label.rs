//! AppArmor profile and SELinux label of a program that no OCI runtime starts.
//!
//! Both are asked of the kernel for the calling thread's next `execve(2)` (`proc_pid_attr(5)`;
//! AppArmor, "aa_change_onexec"), and are kept by the processes that it forks before.

use std::fs::OpenOptions;
use std::io::{self, Write};

use sarus_config::Config;

use crate::error::ShimError;

/// Where AppArmor is asked; the second is all there is before Linux 5.8.
const APPARMOR: [&str; 2] = ["/proc/thread-self/attr/apparmor/exec", "/proc/thread-self/attr/exec"];
const SELINUX: [&str; 1] = ["/proc/thread-self/attr/exec"];

/// Has the next program of this thread run under what the configuration names. To be called where
/// `/proc` is the host's.
///
/// # Errors
///
/// [`ShimError::Label`], also where the kernel has no such security module: a restriction is never
/// left away.
pub(crate) fn apply_at_exec(config: &Config) -> Result<(), ShimError> {
    let wanted = [
        ("AppArmor profile", &APPARMOR[..], "exec ", &config.apparmor_profile),
        ("SELinux label", &SELINUX[..], "", &config.selinux_label),
    ];
    for (what, places, prefix, name) in wanted {
        let Some(name) = name else { continue };
        ask(places, &format!("{prefix}{name}")).map_err(|source| ShimError::Label {
            what,
            name: name.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Writes to the first place that there is, in one call, as the kernel demands.
fn ask(places: &[&str], text: &str) -> io::Result<()> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for place in places {
        match OpenOptions::new().write(true).open(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            opened => {
                let written = opened?.write(text.as_bytes())?;
                return if written == text.len() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::WriteZero.into())
                };
            }
        }
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// A file in memory stands for the kernel's: the test's kernel may have no such module.
    #[test]
    fn the_first_place_that_there_is_gets_the_words() {
        let file = memfd_create("attr", MemfdFlags::CLOEXEC).unwrap();
        let there = format!("/proc/self/fd/{}", file.as_raw_fd());
        let missing = "/proc/self/attr/missing";
        ask(&[missing, &there], "exec strict").unwrap();
        let mut words = [0; 32];
        let count = rustix::io::pread(&file, &mut words, 0).unwrap();
        assert_eq!(&words[..count], b"exec strict");
        assert_eq!(ask(&[missing], "x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

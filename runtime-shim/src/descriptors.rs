//! Puts descriptors where the OCI runtime and `sarus-entry` expect them.
//!
//! A runtime passes 3 to 3+N on (`--preserve-fds N`) and demands that each be open. The caller's
//! keep their numbers; ours take free ones; gaps are plugged with `/dev/null`, and the entry
//! closes the plugs.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::error::{ShimError, cannot};

/// The descriptors of the container's process, as arranged.
#[derive(Debug)]
pub(crate) struct Arrangement {
    /// Those of ours, with their final numbers; still close-on-exec.
    ours: Vec<OwnedFd>,
    callers: BTreeSet<RawFd>,
}

impl Arrangement {
    pub(crate) fn new(callers: &BTreeSet<RawFd>) -> Self {
        Self { ours: Vec::new(), callers: callers.clone() }
    }

    /// Takes a copy of a descriptor along and returns the number it will have.
    pub(crate) fn take(&mut self, descriptor: impl AsFd) -> Result<RawFd, ShimError> {
        let copy = fcntl_dupfd_cloexec(descriptor, 3)
            .map_err(|error| cannot("copy a descriptor")(error.into()))?;
        let number = copy.as_raw_fd();
        self.ours.push(copy);
        Ok(number)
    }

    /// The numbers that will have to be plugged, and with ours closed by the entry.
    pub(crate) fn to_close(&self) -> Vec<RawFd> {
        (3..=self.last()).filter(|number| !self.callers.contains(number)).collect()
    }

    /// N of `--preserve-fds`.
    pub(crate) fn preserved(&self) -> i32 {
        self.last() - 2
    }

    fn last(&self) -> RawFd {
        let ours = self.ours.iter().map(AsRawFd::as_raw_fd);
        ours.chain(self.callers.iter().copied()).max().unwrap_or(2)
    }

    /// Makes it so, at the very last before the runtime is executed: whatever else of this
    /// process has a number that is to be plugged is closed by it. On failure
    /// standard error may be `output` already.
    pub(crate) fn establish(self, output: &OwnedFd) -> Result<(), ShimError> {
        let failed = cannot("arrange the descriptors");
        let null = open_null()?;
        let keep: BTreeSet<RawFd> = self.ours.iter().map(AsRawFd::as_raw_fd).collect();
        let plugs: Vec<RawFd> =
            self.to_close().into_iter().filter(|number| !keep.contains(number)).collect();
        // Beyond every number that is about to be overwritten. The caller may have one above its limit.
        let beyond = |descriptor: &OwnedFd| match fcntl_dupfd_cloexec(descriptor, self.last() + 1) {
            Err(Errno::INVAL) => Err(failed(Errno::MFILE.into())),
            other => other.map_err(|e| failed(e.into())),
        };
        let (null, output) = (beyond(&null)?, beyond(output)?);
        for (source, target) in [(&null, 0), (&output, 1), (&output, 2)] {
            duplicate(source, target).map_err(&failed)?;
        }
        for plug in plugs {
            duplicate(&null, plug).map_err(&failed)?;
        }
        for descriptor in self.ours {
            fcntl_setfd(&descriptor, FdFlags::empty()).map_err(|e| failed(e.into()))?;
            let _executed_or_exited = descriptor.into_raw_fd();
        }
        Ok(())
    }
}

/// `/dev/null` for reading and writing.
pub(crate) fn open_null() -> Result<OwnedFd, ShimError> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())
        .map_err(|error| cannot("open /dev/null")(error.into()))
}

/// `dup2(2)`: afterwards `target` is open across `execve(2)`.
pub(crate) fn duplicate(source: &OwnedFd, target: RawFd) -> std::io::Result<()> {
    sarus_sys::process::duplicate(source.as_fd(), target)
}

/// Keeps the caller's descriptors from a program that is none of the container's.
pub(crate) fn hide(callers: &BTreeSet<RawFd>) {
    for number in callers {
        let _closed_already = sarus_sys::process::close_on_exec(*number);
    }
}

//! Puts descriptors where the OCI runtime and `sarus-entry` expect them.
//!
//! A runtime passes 3 to 3+N on (`--preserve-fds N`) and demands that each be open. The caller's
//! keep their numbers; ours take free ones; gaps are plugged with `/dev/null`, and the entry
//! closes the plugs. The caller's with numbers far above the others would make hundreds of gaps, which
//! cost calls and count for `RLIMIT_NOFILE`: the entry gets copies of them and puts them back.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::caller::Caller;
use crate::error::{ShimError, cannot};

/// The descriptors of the container's process, as arranged.
#[derive(Debug)]
pub(crate) struct Arrangement {
    /// Those of ours, with their final numbers; still close-on-exec.
    ours: Vec<OwnedFd>,
    /// All of the caller's.
    callers: BTreeSet<RawFd>,
    /// The last of the caller's that keeps its number all the way.
    last_near: RawFd,
    /// Numbers of a copy, which is one of `ours`, and of the caller's.
    far: Vec<(RawFd, RawFd)>,
}

impl Arrangement {
    /// Takes the caller's along.
    ///
    /// `EMFILE`, named, where the caller has one that its own limit would not let it make again.
    pub(crate) fn new(caller: &Caller) -> Result<Self, ShimError> {
        let (callers, last_near) = (caller.descriptors.clone(), last_near(&caller.descriptors));
        let mut arrangement = Self { ours: Vec::new(), callers, last_near, far: Vec::new() };
        for &number in caller.descriptors.range(last_near + 1..) {
            let source = cannot("copy a descriptor");
            if u64::from(number.unsigned_abs()) >= caller.most_descriptors() {
                return Err(source(Errno::MFILE.into()));
            }
            let copy = sarus_sys::process::copy_descriptor(number).map_err(source)?;
            arrangement.far.push((copy.as_raw_fd(), number));
            arrangement.ours.push(copy);
        }
        Ok(arrangement)
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

    /// What the entry is to make again: from which number, to which.
    pub(crate) fn to_move(&self) -> &[(RawFd, RawFd)] {
        &self.far
    }

    /// N of `--preserve-fds`.
    pub(crate) fn preserved(&self) -> i32 {
        self.last() - 2
    }

    fn last(&self) -> RawFd {
        let ours = self.ours.iter().map(AsRawFd::as_raw_fd);
        ours.max().unwrap_or(2).max(self.last_near)
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
        hide(self.far.iter().map(|(_, theirs)| theirs));
        for descriptor in self.ours {
            fcntl_setfd(&descriptor, FdFlags::empty()).map_err(|e| failed(e.into()))?;
            let _executed_or_exited = descriptor.into_raw_fd();
        }
        Ok(())
    }
}

/// The last number up to which there are few gaps, 2 where there is none.
fn last_near(callers: &BTreeSet<RawFd>) -> RawFd {
    /// Gaps that are no matter.
    const GAPS: usize = 32;
    let with_few_gaps = callers.iter().enumerate().filter(|(others, number)| {
        usize::try_from(**number).is_ok_and(|number| number < 3 + GAPS + 2 * others)
    });
    with_few_gaps.map(|(_, number)| *number).next_back().unwrap_or(2)
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
pub(crate) fn hide<'a>(callers: impl IntoIterator<Item = &'a RawFd>) {
    for number in callers {
        let _closed_already = sarus_sys::process::close_on_exec(*number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_hundreds_of_gaps_below_them_are_far() {
        for (numbers, want) in [
            (vec![], 2),
            (vec![3, 7, 34], 34),
            (vec![251], 2),
            (vec![3, 251, 252, 1000], 3),
            ((3..4000).collect(), 3999),
            ((3..4000).chain([9000]).collect(), 3999),
            ((40..400).collect(), 399),
        ] {
            let all: BTreeSet<RawFd> = numbers.into_iter().collect();
            assert_eq!(last_near(&all), want, "{all:?}");
        }
    }
}

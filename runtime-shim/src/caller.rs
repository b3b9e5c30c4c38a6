//! What the caller hands over: ids, descriptors, limits, masks, and the request.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use sarus_entry::LIMITS_COUNT;
use sarus_launch::REQUEST_SIZE_MAX;
use sarus_sys::identity::Person;
use sarus_sys::process;
use sarus_sys::signals::{self, SignalMask};

use crate::error::{ShimError, cannot};

/// The caller as found when the shim started.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Real user id.
    pub(crate) uid: u32,
    /// Real group id.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Descriptors above 2 that were handed over, without the request's.
    pub(crate) descriptors: BTreeSet<RawFd>,
    /// Signal mask.
    pub(crate) signal_mask: SignalMask,
    /// Signals that are ignored, but for `SIGPIPE`, which `sarus` itself ignores.
    pub(crate) ignored_signals: SignalMask,
    /// File mode creation mask.
    pub(crate) umask: u32,
    /// CPUs, as the kernel's mask of bits.
    pub(crate) affinity: Vec<u8>,
    /// Soft and hard limit by resource number.
    pub(crate) limits: [(u64, u64); LIMITS_COUNT],
    /// Processes that are this one's children though the caller made them, each with its start: a shell's,
    /// in whose place this program was executed.
    pub(crate) children: Vec<(Pid, Option<u64>)>,
    setuid: bool,
    request: RawFd,
}

impl Caller {
    /// Looks at everything before anything is opened. Blocks all signals: they wait for
    /// the supervisor.
    pub(crate) fn observe(request: &str) -> Result<Self, ShimError> {
        let request: RawFd = request.parse().map_err(|_not_a_number| ShimError::Usage)?;
        let limits = limits();
        raise_limits();
        let descriptors = inherited().map_err(cannot("list the open descriptors"))?;
        if request < 3 || !descriptors.contains(&request) {
            return Err(ShimError::Usage);
        }
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(Self {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            groups: groups().map_err(cannot("read the supplementary groups"))?,
            descriptors: descriptors.into_iter().filter(|number| *number != request).collect(),
            signal_mask: signals::block_all().map_err(cannot("block signals"))?,
            ignored_signals: signals::take_ignored().map_err(cannot("read the ignored signals"))?,
            umask: umask.as_raw_mode(),
            affinity: sarus_sys::process::affinity().map_err(cannot("read the CPU mask"))?,
            limits,
            children: children(),
            setuid: rustix::process::geteuid() != rustix::process::getuid(),
            request,
        })
    }

    /// The caller's ids.
    pub(crate) fn person(&self) -> Person {
        Person { uid: self.uid, gid: self.gid }
    }

    /// Whether this program is installed setuid root and the caller is somebody else.
    pub(crate) fn is_setuid(&self) -> bool {
        self.setuid
    }

    /// The number that no descriptor of the caller's can reach: `RLIMIT_NOFILE`, hard.
    pub(crate) fn most_descriptors(&self) -> u64 {
        let at = RESOURCES.iter().position(|resource| *resource == Resource::Nofile);
        at.map_or(u64::MAX, |index| self.limits[index].1)
    }

    /// Lowers the limits that root raised to what the caller's programs may have, before root's privilege
    /// is given up: `setrlimit(2)`.
    pub(crate) fn restore_limits(&self) -> std::io::Result<()> {
        for (resource, (_, hard)) in RESOURCES.into_iter().zip(self.limits) {
            if RAISED.contains(&resource) {
                let hard = Some(hard).filter(|hard| *hard != u64::MAX);
                setrlimit(resource, Rlimit { current: hard, maximum: hard })?;
            }
        }
        Ok(())
    }

    /// Reads the request. To be called once: the descriptor is closed.
    pub(crate) fn read_request(&self) -> Result<Vec<u8>, ShimError> {
        let read = |source| ShimError::ReadRequest { source };
        let descriptor = sarus_sys::process::adopt_descriptor(self.request).map_err(read)?;
        let mut file = File::from(descriptor);
        // A pipe or device would let the caller stop a privileged process at will.
        if !file.metadata().map_err(read)?.is_file() {
            return Err(ShimError::Usage);
        }
        std::io::Seek::rewind(&mut file).map_err(read)?;
        let mut json = Vec::new();
        let limit = REQUEST_SIZE_MAX as u64;
        file.by_ref().take(limit + 1).read_to_end(&mut json).map_err(read)?;
        if json.len() > REQUEST_SIZE_MAX {
            return Err(read(std::io::Error::from_raw_os_error(libc::E2BIG)));
        }
        Ok(json)
    }
}

/// The open descriptors above 2.
fn inherited() -> std::io::Result<BTreeSet<RawFd>> {
    let mut numbers = BTreeSet::new();
    let directory = rustix::fs::open(
        "/proc/self/fd",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let own = std::os::fd::AsRawFd::as_raw_fd(&directory);
    for entry in rustix::fs::Dir::new(directory)? {
        let number: Option<RawFd> =
            entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
        numbers.extend(number.filter(|number| *number > 2 && *number != own));
    }
    Ok(numbers)
}

fn children() -> Vec<(Pid, Option<u64>)> {
    let children = process::children().unwrap_or_default();
    children.into_iter().map(|pid| (pid, process::start_time(pid.as_raw_pid()))).collect()
}

fn groups() -> std::io::Result<Vec<u32>> {
    Ok(rustix::process::getgroups()?.into_iter().map(rustix::fs::Gid::as_raw).collect())
}

/// The resources in the kernel's order: `asm-generic/resource.h`.
const RESOURCES: [Resource; LIMITS_COUNT] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// What [`raise_limits`] raises.
const RAISED: [Resource; 5] =
    [Resource::Fsize, Resource::Data, Resource::As, Resource::Cpu, Resource::Nofile];

/// Raises what the caller limited and this program needs: as far as it goes, and for the time
/// until `sarus-entry` puts the caller's limits back, or [`Caller::restore_limits`].
fn raise_limits() {
    const DESCRIPTORS: u64 = 4096;
    let is_root = rustix::process::geteuid().is_root();
    for resource in RAISED {
        let hard = getrlimit(resource).maximum;
        let most = match (is_root, resource) {
            (false, _) => hard,
            (true, Resource::Nofile) => hard.map(|hard| hard.max(DESCRIPTORS)),
            (true, _) => None,
        };
        let _as_it_was = setrlimit(resource, Rlimit { current: most, maximum: most });
    }
}

fn limits() -> [(u64, u64); LIMITS_COUNT] {
    RESOURCES.map(|resource| {
        let limit = getrlimit(resource);
        (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
    })
}

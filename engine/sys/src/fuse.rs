//! A FUSE connection, as its server sees it. Mounting one is in [`crate::mount`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Setter, ioctl, opcode};

/// `FUSE_DEV_IOC_CLONE` of `linux/fuse.h`.
const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// Opens `/dev/fuse` once more for the connection of `device`, so that a thread reads requests
/// through a queue of its own. The connection ends when the last of its descriptors is closed.
///
/// # Errors
///
/// `ENOENT` or `EACCES` where `/dev/fuse` cannot be opened any more; `EINVAL` if `device` is no
/// connection, or one of another user namespace.
#[expect(unsafe_code, reason = "ioctl(2)")]
pub fn clone_connection(device: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let clone = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let number = device.as_raw_fd().unsigned_abs();
    // SAFETY: FUSE_DEV_IOC_CLONE reads 32 bits, the number of a descriptor, which `device`
    // keeps open during the call.
    let request = unsafe { Setter::<CLONE, u32>::new(number) };
    // SAFETY: the request above is the kernel's for a FUSE device; anything else refuses it.
    unsafe { ioctl(clone.as_fd(), request)? };
    Ok(clone)
}

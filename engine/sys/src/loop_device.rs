//! Loop devices that vanish with their last user.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Times that a free device may be snatched away before giving up.
const ATTEMPTS_MAX: usize = 64;

/// `struct loop_config` of `linux/loop.h`: 304 bytes, all zero but for what is named.
#[repr(C)]
struct LoopConfig {
    descriptor: u32,
    block_size: u32,
    before_flags: [u64; 5],
    encryption: [u32; 3],
    flags: u32,
    names_and_keys: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A loop device on a file, read-only. The kernel frees it when the last mount or descriptor of
/// it is gone.
#[derive(Debug)]
#[must_use = "dropping a loop device that is not mounted frees it"]
pub struct LoopDevice {
    path: PathBuf,
    _device: OwnedFd,
}

impl LoopDevice {
    /// Attaches `file` to a free loop device.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `EACCES` without `/dev/loop-control`; `EBUSY` if others took every free device
    /// first, 64 times.
    pub fn attach(file: BorrowedFd<'_>) -> io::Result<Self> {
        let control = open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..ATTEMPTS_MAX {
            let path = PathBuf::from(format!("/dev/loop{}", free_number(control.as_fd())?));
            let device = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            match configure(device.as_fd(), file) {
                Ok(()) => return Ok(Self { path, _device: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// The device's node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[expect(unsafe_code, reason = "ioctl(2)")]
fn free_number(control: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if number >= 0 { Ok(number) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "ioctl(2)")]
fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let config = LoopConfig {
        descriptor: file.as_raw_fd().unsigned_abs(),
        block_size: 0,
        before_flags: [0; 5],
        encryption: [0; 3],
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        names_and_keys: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    const { assert!(size_of::<LoopConfig>() == 304) };
    // SAFETY: the structure lives until the call returns and has the kernel's layout.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, std::ptr::from_ref(&config)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

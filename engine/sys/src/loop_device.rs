//! Loop devices that vanish with their last user.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, readlink};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
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

/// `struct loop_info64` of `linux/loop.h`.
#[derive(Default)]
#[repr(C)]
struct LoopStatus {
    device: u64,
    inode: u64,
    _special_device: u64,
    offset: u64,
    size_limit: u64,
    _number_and_encryption: [u32; 3],
    flags: u32,
    _names_and_keys: [[u64; 4]; 5],
    _init: [u64; 2],
}

/// A loop device on a file, read-only. The kernel frees it when the last mount or descriptor of
/// it is gone.
#[derive(Debug)]
#[must_use = "dropping a loop device that is not mounted frees it"]
pub struct LoopDevice {
    path: PathBuf,
    was_there: bool,
    _device: OwnedFd,
}

impl LoopDevice {
    /// The loop device on `file` that is there already, else a new one: all users of a file share
    /// one device, and with it the kernel's cache.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `EACCES` without `/dev/loop-control`; `EBUSY` if others took every free device
    /// first, 64 times.
    pub fn share(file: BorrowedFd<'_>) -> io::Result<Self> {
        let wanted = Wanted::of(file)?;
        if let Some(found) = wanted.find() {
            return Ok(found);
        }
        let control = open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // One attaches, the others find; the lock goes with the descriptor.
        rustix::io::retry_on_intr(|| flock(&control, FlockOperation::LockExclusive))?;
        match wanted.find() {
            Some(found) => Ok(found),
            None => Self::attach(control.as_fd(), file),
        }
    }

    fn attach(control: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<Self> {
        for _ in 0..ATTEMPTS_MAX {
            let path = PathBuf::from(format!("/dev/loop{}", free_number(control)?));
            let device = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            match configure(device.as_fd(), file) {
                Ok(()) => return Ok(Self { path, was_there: false, _device: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Whether somebody else had attached it.
    pub fn was_there(&self) -> bool {
        self.was_there
    }

    /// The device's node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The file that a device is to be on.
struct Wanted {
    device: u64,
    inode: u64,
    /// As `/sys/block` shows it: what narrows the search.
    path: Vec<u8>,
}

impl Wanted {
    fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        let found = fstat(file)?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = readlink(link, Vec::new())?.into_bytes();
        Ok(Self { device: found.st_dev, inode: found.st_ino, path })
    }

    fn find(&self) -> Option<LoopDevice> {
        let entries = std::fs::read_dir("/sys/block").ok()?;
        let names = entries.map_while(Result::ok).filter_map(|entry| {
            entry.file_name().into_string().ok().filter(|name| name.starts_with("loop"))
        });
        names.filter(|name| self.is_named(name)).find_map(|name| self.open(&name))
    }

    fn is_named(&self, name: &str) -> bool {
        let mut text = Vec::new();
        let file = std::fs::File::open(format!("/sys/block/{name}/loop/backing_file"));
        let read = file.and_then(|mut file| io::Read::read_to_end(&mut file, &mut text));
        read.is_ok() && text.strip_suffix(b"\n") == Some(&self.path)
    }

    /// An open device keeps what it is on: the look comes after the opening.
    fn open(&self, name: &str) -> Option<LoopDevice> {
        let path = PathBuf::from(format!("/dev/{name}"));
        let device = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let status = status(device.as_fd()).ok()?;
        let is_it = (status.device, status.inode) == (self.device, self.inode)
            && (status.offset, status.size_limit) == (0, 0)
            && status.flags & (LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR)
                == LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
        is_it.then_some(LoopDevice { path, was_there: true, _device: device })
    }
}

#[expect(unsafe_code, reason = "ioctl(2)")]
fn status(device: BorrowedFd<'_>) -> io::Result<LoopStatus> {
    let mut status = LoopStatus::default();
    const { assert!(size_of::<LoopStatus>() == 232) };
    let place = std::ptr::from_mut(&mut status);
    // SAFETY: the structure lives until the call returns and has the kernel's layout.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, place) };
    if result == 0 { Ok(status) } else { Err(io::Error::last_os_error()) }
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

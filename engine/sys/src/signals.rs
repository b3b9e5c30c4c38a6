//! Signals as data: blocked, and read from a descriptor.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// A set of signals as the kernel keeps it: bit N-1 is signal N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalMask(pub u64);

/// `SIGPIPE` in a mask.
const PIPE: u64 = 1 << (libc::SIGPIPE - 1);

/// Blocks every signal that can be blocked, and returns the mask there was. Not `SIGPIPE`, which
/// Rust's runtime ignores: one that is blocked is kept all the same, so that a message which nobody
/// reads would come back as a signal.
///
/// # Errors
///
/// None in practice.
pub fn block_all() -> io::Result<SignalMask> {
    set_mask(SignalMask(!PIPE))
}

/// Sets the mask and returns the one there was.
///
/// # Errors
///
/// None in practice.
pub fn set_mask(mask: SignalMask) -> io::Result<SignalMask> {
    change_mask(libc::SIG_SETMASK, mask)
}

/// Blocks some signals more and returns the mask there was.
///
/// # Errors
///
/// None in practice.
pub fn block(signals: SignalMask) -> io::Result<SignalMask> {
    change_mask(libc::SIG_BLOCK, signals)
}

#[expect(unsafe_code, reason = "the kernel's own mask, which is not the C library's type")]
fn change_mask(how: libc::c_int, mask: SignalMask) -> io::Result<SignalMask> {
    let mut before = 0_u64;
    // SAFETY: both masks are eight bytes, as said in the last argument.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            std::ptr::from_ref(&mask.0),
            std::ptr::from_mut(&mut before),
            size_of::<u64>(),
        )
    };
    if result == 0 { Ok(SignalMask(before)) } else { Err(io::Error::last_os_error()) }
}

/// The signals that this process ignores, without `SIGPIPE`, which Rust's runtime ignores: from
/// `SigIgn` of `/proc/self/status`.
///
/// # Errors
///
/// The file cannot be read or has no such line.
pub fn ignored() -> io::Result<SignalMask> {
    let mut status = String::new();
    std::fs::File::open("/proc/self/status")?.read_to_string(&mut status)?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask = mask.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(SignalMask(mask & !PIPE))
}

/// [`ignored`]. `SIGCHLD` is no longer ignored afterwards, since a process that ignores it cannot wait
/// for its children.
///
/// # Errors
///
/// As [`ignored`].
pub fn take_ignored() -> io::Result<SignalMask> {
    let ignored = ignored()?;
    restore_default(libc::SIGCHLD);
    Ok(ignored)
}

/// A signal that was pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub number: i32,
    /// The kernel sent it, not a process: a terminal's key, a limit.
    pub by_kernel: bool,
}

/// Reads the signals that are blocked.
#[derive(Debug)]
pub struct SignalReader(OwnedFd);

impl SignalReader {
    /// A reader for all signals, non-blocking and close-on-exec.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit on descriptors.
    pub fn open() -> io::Result<Self> {
        Self::of(SignalMask(u64::MAX))
    }

    /// The same for some signals.
    ///
    /// # Errors
    ///
    /// As [`SignalReader::open`].
    #[expect(unsafe_code, reason = "signalfd(2)")]
    pub fn of(signals: SignalMask) -> io::Result<Self> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the mask is eight bytes, as said in the third argument.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_signalfd4,
                -1,
                std::ptr::from_ref(&signals.0),
                size_of::<u64>(),
                flags,
            )
        };
        let descriptor = i32::try_from(descriptor).unwrap_or(-1);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned it, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// The next pending signal, if there is one.
    ///
    /// # Errors
    ///
    /// As `read(2)`.
    pub fn next(&self) -> io::Result<Option<Received>> {
        let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut record) {
            Ok(_) => {
                // ssi_signo, ssi_errno, ssi_code of `signalfd_siginfo`.
                let [a, b, c, d, _, _, _, _, e, f, g, h, ..] = record;
                let number = i32::from_ne_bytes([a, b, c, d]);
                let by_kernel = i32::from_ne_bytes([e, f, g, h]) == libc::SI_KERNEL;
                Ok(Some(Received { number, by_kernel }))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Stops the calling process, as the terminal's stop key would.
pub fn stop_self() {
    let pid = rustix::process::getpid();
    let _cannot_fail = rustix::process::kill_process(pid, Signal::STOP);
}

/// Makes the process ignore these signals, for a server that ends by another event only.
pub fn ignore(signals: &[Signal]) {
    for signal in signals {
        ignore_one(signal.as_raw());
    }
}

#[expect(unsafe_code, reason = "signal(2)")]
fn ignore_one(signal: i32) {
    // SAFETY: no handler is installed.
    let _cannot_fail = unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives SIGPIPE its default effect again, which Rust's start-up code changed and programs that
/// are executed would inherit.
pub fn restore_pipe_signal() {
    restore_default(libc::SIGPIPE);
}

/// Makes a limit on the size of files an error of the write, which can be reported, instead of the
/// end of the process. Programs that are executed get the signal's default effect back by
/// [`restore_file_size_limit`].
#[expect(unsafe_code, reason = "signal(2)")]
pub fn ignore_file_size_limit() {
    // SAFETY: no handler is installed.
    let _cannot_fail = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Undoes [`ignore_file_size_limit`].
pub fn restore_file_size_limit() {
    restore_default(libc::SIGXFSZ);
}

#[expect(unsafe_code, reason = "signal(2)")]
fn restore_default(signal: i32) {
    // SAFETY: no handler is installed, only the default.
    let _cannot_fail = unsafe { libc::signal(signal, libc::SIG_DFL) };
}

//! `-t`: copies between the caller's terminal, or pipes, and the container's.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use sarus_sys::signals::stop_self;

use crate::error::{ShimError, cannot};

/// End of input, as a terminal's user types it.
const END_OF_INPUT: u8 = 4;

/// Bytes at most that are taken of a terminal whose command has ended: more than the kernel keeps.
const LEFT_MAX: usize = 1 << 20;

/// A pipe that can be written at all takes `PIPE_BUF` bytes without waiting, a terminal fewer.
const PIPE_CHUNK: usize = 4096;
const TERMINAL_CHUNK: usize = 128;

/// The container's terminal, seen from outside. Dropped, it puts the caller's back as it was.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// None when nobody reads what the container writes: its terminal is hung up then.
    master: Option<OwnedFd>,
    stdin: OwnedFd,
    stdout: Output,
    /// The caller's settings, when the caller has a terminal.
    before: Option<Termios>,
    /// Read from the caller, not yet taken by the container.
    pending: Vec<u8>,
    input_open: bool,
    /// What was read last ended a line, so that one key ends the input.
    at_line_start: bool,
    /// Bytes that are still taken of the container when its command has ended.
    left: usize,
}

/// The caller's standard output, written without waiting for who reads it.
#[derive(Debug)]
struct Output {
    descriptor: OwnedFd,
    /// So many bytes can be written at once where there is room at all.
    chunk: usize,
    /// Read from the container, not yet written.
    pending: Vec<u8>,
}

impl Terminal {
    /// Takes the master over: the caller's terminal becomes a mere wire, as large as before.
    pub(crate) fn adopt(master: OwnedFd) -> Result<Self, ShimError> {
        let failed = |e: Errno| cannot("set up the terminal")(e.into());
        let flags = rustix::fs::fcntl_getfl(&master).map_err(failed)?;
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK).map_err(failed)?;
        let stdin = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(failed)?;
        let is_ours = isatty(&stdin) && await_foreground(&stdin);
        let before = is_ours.then(|| tcgetattr(&stdin)).transpose().map_err(failed)?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        }
        let terminal = Self {
            master: Some(master),
            stdin,
            stdout: Output::open().map_err(failed)?,
            before,
            pending: Vec::new(),
            input_open: true,
            at_line_start: true,
            left: LEFT_MAX,
        };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the container's terminal the size of the caller's.
    pub(crate) fn resize(&self) {
        if let (Some(master), Ok(size)) = (&self.master, tcgetwinsize(&self.stdin)) {
            let _cannot_fail = tcsetwinsize(master, size);
        }
    }

    /// Whether the caller's terminal is another process group's now: its settings and its input are none
    /// of ours until `SIGCONT`.
    fn is_in_background(&self) -> bool {
        self.before.is_some() && is_in_background(&self.stdin)
    }

    /// What to wait for.
    pub(crate) fn interests(&self) -> Vec<PollFd<'_>> {
        let mut interests = Vec::new();
        let mut wanted = PollFlags::empty();
        if self.stdout.pending.is_empty() {
            wanted |= PollFlags::IN;
        } else {
            interests
                .push(PollFd::from_borrowed_fd(self.stdout.descriptor.as_fd(), PollFlags::OUT));
        }
        if !self.pending.is_empty() {
            wanted |= PollFlags::OUT;
        } else if self.input_open && !self.is_in_background() {
            interests.push(PollFd::from_borrowed_fd(self.stdin.as_fd(), PollFlags::IN));
        }
        // Without a wish, an end of the other side would be reported for ever.
        if let Some(master) = self.master.as_ref().filter(|_| !wanted.is_empty()) {
            interests.push(PollFd::from_borrowed_fd(master.as_fd(), wanted));
        }
        interests
    }

    /// Copies what there is, without waiting.
    pub(crate) fn copy(&mut self) {
        self.copy_output();
        self.copy_input();
    }

    /// Whether all is written that the container wrote before its command ended. To be asked only
    /// then, after each [`Terminal::copy`]; what others still write comes to an end.
    pub(crate) fn is_drained(&mut self) -> bool {
        while self.stdout.pending.is_empty() && self.left > 0 {
            match self.copy_output() {
                0 => return self.stdout.pending.is_empty(),
                count => self.left = self.left.saturating_sub(count),
            }
        }
        self.stdout.pending.is_empty()
    }

    /// The number of bytes read from the container.
    fn copy_output(&mut self) -> usize {
        let mut count = 0;
        if let (Some(master), true) = (&self.master, self.stdout.pending.is_empty()) {
            let mut buffer = [0_u8; 16384];
            match read(master, &mut buffer) {
                Ok(size @ 1..) => {
                    self.stdout.pending.extend_from_slice(&buffer[..size]);
                    count = size;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // EIO: nobody has the other side open any more.
                _ => self.master = None,
            }
        }
        if let Err(error) = self.stdout.write() {
            // As a terminal whose window is closed: what is written to it reaches nobody.
            if error != Errno::PIPE {
                log::warn!("cannot write standard output: {error}; the terminal is hung up");
            }
            self.stdout.pending.clear();
            self.master = None;
        }
        count
    }

    fn copy_input(&mut self) {
        if self.pending.is_empty()
            && self.input_open
            && !self.is_in_background()
            && is_readable(&self.stdin)
        {
            let mut buffer = [0_u8; 4096];
            match read(&self.stdin, &mut buffer) {
                Ok(size @ 1..) => {
                    self.pending.extend_from_slice(&buffer[..size]);
                    self.at_line_start = buffer[size - 1] == b'\n';
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // It was put into the background just now.
                Err(Errno::IO) if self.is_in_background() => {}
                _ => {
                    self.input_open = false;
                    // The key only hands an open line over, and ends the input at the start of one.
                    let keys = if self.at_line_start { 1 } else { 2 };
                    self.pending.extend([END_OF_INPUT; 2].iter().take(keys));
                }
            }
        }
        let Some(master) = &self.master else {
            self.pending.clear();
            return;
        };
        if !self.pending.is_empty() {
            match write(master, &self.pending) {
                Ok(size) => drop(self.pending.drain(..size)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_closed) => self.pending.clear(),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = self.before.as_ref().filter(|_| !is_in_background(&self.stdin)) {
            let _terminal_is_gone = tcsetattr(&self.stdin, OptionalActions::Now, before);
        }
    }
}

/// Stops until the terminal is this process group's, as the kernel stops who changes another group's
/// (`SIGTTOU`, which this process blocks). False where no shell is there to say `fg`.
fn await_foreground(terminal: &OwnedFd) -> bool {
    while is_in_background(terminal) {
        let parent = rustix::process::getppid();
        let session = |pid| rustix::process::getsid(pid).ok();
        if parent.is_none() || session(parent) != session(None) {
            return false;
        }
        stop_self();
    }
    true
}

/// Whether the terminal is the session's, and another process group's.
fn is_in_background(terminal: &OwnedFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group != rustix::process::getpgrp())
}

impl Output {
    fn open() -> Result<Self, Errno> {
        let own = rustix::stdio::stdout();
        // Anew, since others may have it open who want to wait when they write.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let anew = isatty(own).then(|| open("/proc/self/fd/1", flags, Mode::empty()));
        let (descriptor, chunk) = match anew {
            Some(Ok(descriptor)) => (descriptor, usize::MAX),
            Some(Err(_not_ours)) => (fcntl_dupfd_cloexec(own, 3)?, TERMINAL_CHUNK),
            None => (fcntl_dupfd_cloexec(own, 3)?, PIPE_CHUNK),
        };
        Ok(Self { descriptor, chunk, pending: Vec::new() })
    }

    /// Writes what can be written now.
    fn write(&mut self) -> Result<(), Errno> {
        while !self.pending.is_empty() && is_ready(&self.descriptor, PollFlags::OUT) {
            let size = self.pending.len().min(self.chunk);
            match write(&self.descriptor, &self.pending[..size]) {
                Ok(size) => drop(self.pending.drain(..size)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_readable(descriptor: &OwnedFd) -> bool {
    is_ready(descriptor, PollFlags::IN)
}

/// Whether the next call does not wait, be it that it fails.
fn is_ready(descriptor: &OwnedFd, wanted: PollFlags) -> bool {
    let mut waited = [PollFd::from_borrowed_fd(descriptor.as_fd(), wanted)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut waited, Some(&now)).is_ok_and(|ready| ready > 0)
}

//! `-t`: copies between the caller's terminal, or pipes, and the container's.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{ShimError, cannot};

/// End of input, as a terminal's user types it.
const END_OF_INPUT: u8 = 4;

/// The container's terminal, seen from outside. Dropped, it puts the caller's back as it was.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
    stdin: OwnedFd,
    /// The caller's settings, when the caller has a terminal.
    before: Option<Termios>,
    /// Read from the caller, not yet taken by the container.
    pending: Vec<u8>,
    input_open: bool,
    output_open: bool,
}

impl Terminal {
    /// Takes the master over: the caller's terminal becomes a mere wire, as large as before.
    pub(crate) fn adopt(master: OwnedFd) -> Result<Self, ShimError> {
        let failed = |e: Errno| cannot("set up the terminal")(e.into());
        let flags = rustix::fs::fcntl_getfl(&master).map_err(failed)?;
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK).map_err(failed)?;
        let stdin = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(failed)?;
        let before = isatty(&stdin).then(|| tcgetattr(&stdin)).transpose().map_err(failed)?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        }
        let terminal = Self {
            master,
            stdin,
            before,
            pending: Vec::new(),
            input_open: true,
            output_open: true,
        };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the container's terminal the size of the caller's.
    pub(crate) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(&self.stdin) {
            let _cannot_fail = tcsetwinsize(&self.master, size);
        }
    }

    /// What to wait for.
    pub(crate) fn interests(&self) -> Vec<PollFd<'_>> {
        let mut interests = Vec::new();
        let mut wanted = PollFlags::empty();
        if self.output_open {
            wanted |= PollFlags::IN;
        }
        if !self.pending.is_empty() {
            wanted |= PollFlags::OUT;
        } else if self.input_open {
            interests.push(PollFd::from_borrowed_fd(self.stdin.as_fd(), PollFlags::IN));
        }
        if self.output_open {
            interests.push(PollFd::from_borrowed_fd(self.master.as_fd(), wanted));
        }
        interests
    }

    /// Copies what there is, without waiting.
    pub(crate) fn copy(&mut self) {
        self.copy_output();
        self.copy_input();
    }

    /// Copies what the container has written before it ended.
    pub(crate) fn drain(&mut self) {
        while self.output_open && self.copy_output() {}
    }

    /// True if there was something.
    fn copy_output(&mut self) -> bool {
        let mut buffer = [0_u8; 16384];
        match read(&self.master, &mut buffer) {
            Ok(size @ 1..) => {
                self.output_open = write_all(&buffer[..size]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            // EIO: nobody has the other side open any more.
            _ => {
                self.output_open = false;
                false
            }
        }
    }

    fn copy_input(&mut self) {
        if self.pending.is_empty() && self.input_open && is_readable(&self.stdin) {
            let mut buffer = [0_u8; 4096];
            match read(&self.stdin, &mut buffer) {
                Ok(size @ 1..) => self.pending.extend_from_slice(&buffer[..size]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                _ => {
                    self.input_open = false;
                    self.pending.push(END_OF_INPUT);
                }
            }
        }
        if !self.pending.is_empty() {
            match write(&self.master, &self.pending) {
                Ok(size) => drop(self.pending.drain(..size)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_closed) => self.pending.clear(),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _terminal_is_gone = tcsetattr(&self.stdin, OptionalActions::Now, before);
        }
    }
}

fn is_readable(descriptor: &OwnedFd) -> bool {
    let mut waited = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut waited, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// False when nobody reads standard output any more.
fn write_all(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match write(rustix::stdio::stdout(), bytes) {
            Ok(size) => bytes = &bytes[size..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let stdout = rustix::stdio::stdout();
                let mut waited = [PollFd::from_borrowed_fd(stdout, PollFlags::OUT)];
                let _woken = rustix::event::poll(&mut waited, None);
            }
            Err(_) => return false,
        }
    }
    true
}

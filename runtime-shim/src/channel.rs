//! The conversation with `sarus-entry`: packets of `sarus_entry::message`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send, sockopt,
};
use sarus_entry::{message, step};

use crate::error::{ShimError, cannot};

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    open: bool,
}

/// What the entry says.
#[derive(Debug)]
pub(crate) enum News {
    /// It waits for the word to go on.
    Ready {
        /// Its process id, as the supervisor sees it.
        pid: i32,
        /// The terminal's master, if it made a terminal.
        master: Option<OwnedFd>,
    },
    /// It could not go on.
    Failed {
        /// One of `sarus_entry::step`.
        step: u8,
        /// The error number.
        errno: i32,
    },
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, ShimError> {
        // The kernel adds the sender's process id, translated to our process namespace.
        sockopt::set_socket_passcred(&socket, true)
            .map_err(|e| cannot("ask for credentials on a socket")(e.into()))?;
        Ok(Self { socket, open: true })
    }

    /// False once the other side is gone: the command was executed, or the entry ended.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The next thing said, if there is one. Does not wait.
    pub(crate) fn hear(&mut self) -> io::Result<Option<News>> {
        if !self.open {
            return Ok(None);
        }
        let mut packet = [0_u8; 16];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut packet)];
        let size = match recvmsg(&self.socket, &mut parts, &mut control, flags) {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        let (pid, master) = attached(&mut control);
        match packet[..size] {
            [] => {
                self.open = false;
                Ok(None)
            }
            [message::READY] => Ok(pid.map(|pid| News::Ready { pid, master })),
            [message::FAILED, step, a, b, c, d] => {
                Ok(Some(News::Failed { step, errno: i32::from_ne_bytes([a, b, c, d]) }))
            }
            _ => Err(io::Error::from_raw_os_error(libc::EBADMSG)),
        }
    }

    /// Tells the entry to execute the command.
    pub(crate) fn release(&self) -> io::Result<()> {
        send(&self.socket, &[message::GO], SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// What a failure of the entry means for the user.
    pub(crate) fn explain(&self, failed: u8, errno: i32, program: &str) -> ShimError {
        let program = program.to_owned();
        let source = io::Error::from_raw_os_error(errno);
        let command = |because: String, code| ShimError::Command { program, because, code };
        match failed {
            step::NOT_FOUND => command("not found".into(), 127),
            step::NO_INTERPRETER => {
                command("the interpreter or loader that it names is not in the image".into(), 126)
            }
            step::CANNOT_EXECUTE => command(source.to_string(), 126),
            _ => ShimError::Entry { step: name(failed), source },
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn attached(control: &mut RecvAncillaryBuffer<'_>) -> (Option<i32>, Option<OwnedFd>) {
    let (mut pid, mut descriptor) = (None, None);
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(sender) => {
                pid = Some(sender.pid.as_raw_nonzero().get());
            }
            RecvAncillaryMessage::ScmRights(mut received) => descriptor = received.next(),
            _ => {}
        }
    }
    (pid, descriptor)
}

fn name(failed: u8) -> &'static str {
    match failed {
        step::TERMINAL => "make the pseudo-terminal",
        step::USER_NAMESPACE => "join the user's namespace",
        step::RESTORE => "restore descriptors and CPU mask",
        step::PRIVILEGES => "give up privileges",
        step::SECCOMP => "load the seccomp profile",
        _ => "read its block",
    }
}

//! What the builder tells the supervisor: first of what it shares with other runs, then that all is
//! made. Each report is answered before the builder goes on.
//!
//! Packets of fields divided by NUL bytes, since paths may hold anything else, with descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use sarus_sys::scratch::Scratch;

use crate::error::{ShimError, cannot};
use crate::image::{Lower, Server};
use crate::setup::Door;

/// Largest packet, in bytes: a few paths.
const SIZE_MAX: usize = 16384;

/// Most descriptors in a packet.
const DESCRIPTORS_MAX: usize = 4;

const DOOR: &[u8] = b"door";
const BUILT: &[u8] = b"built";
const FIRST: &[u8] = b"first";
const ANSWER: &[u8] = b"K";

/// A report, as the supervisor hears it.
#[derive(Debug)]
pub(crate) enum Report {
    /// Namespaces that this run shares.
    Door {
        /// The file, and the place in it, at which others meet.
        meeting: (PathBuf, u64),
        /// Descriptors to hold.
        door: Vec<OwnedFd>,
        /// The FUSE server, if there is one.
        server: Option<Server>,
        /// The directory on disk with the unpacked image, if there is one.
        scratch: Option<Scratch>,
    },
    /// The container is about to be started.
    Built {
        /// Where the run's files are, in the builder's mount namespace.
        own: PathBuf,
        /// The command's working directory.
        workdir: PathBuf,
        /// The command's variables, each closed by a NUL byte.
        environment: OwnedFd,
        /// The FUSE server, if there is one.
        server: Option<Server>,
        /// No other run used the image.
        is_first: bool,
        /// Directories on disk: with the writable layer, and with an unpacked image of the run's own.
        scratch: Vec<Scratch>,
    },
}

/// Reports what is shared, and waits until the supervisor holds it.
pub(crate) fn report_door(
    supervisor: BorrowedFd<'_>,
    (file, place): (&Path, u64),
    (door, lower): (&Door, &Lower),
) -> Result<(), ShimError> {
    let (file, place) = (file.as_os_str().as_bytes(), place.to_string());
    let server = text_of(lower.server);
    let scratch = lower.scratch.as_ref();
    let fields = [DOOR, file, place.as_bytes(), server.as_bytes(), path(scratch)];
    let mut descriptors = vec![door.outer.as_fd(), door.own.as_fd()];
    descriptors.extend(door.mounts.as_ref().map(AsFd::as_fd));
    descriptors.extend(scratch.map(AsFd::as_fd));
    tell(supervisor, &fields, &descriptors)
}

/// Reports that all is made, and waits until the supervisor has taken note.
pub(crate) fn report_built(
    supervisor: BorrowedFd<'_>,
    (own, workdir): (&Path, &Path),
    environment: BorrowedFd<'_>,
    (server, scratch, is_first): (Option<Server>, &[&Scratch], bool),
) -> Result<(), ShimError> {
    let server = text_of(server);
    let (own, workdir) = (own.as_os_str().as_bytes(), workdir.as_os_str().as_bytes());
    let first = if is_first { FIRST } else { &[] };
    let mut fields = vec![BUILT, own, workdir, server.as_bytes(), first];
    fields.extend(scratch.iter().map(|scratch| path(Some(scratch))));
    let mut descriptors = vec![environment];
    descriptors.extend(scratch.iter().map(AsFd::as_fd));
    tell(supervisor, &fields, &descriptors)
}

fn text_of(server: Option<Server>) -> String {
    let Server { pid, started } = server.unwrap_or(Server { pid: 0, started: 0 });
    format!("{pid} {started}")
}

fn path(scratch: Option<&Scratch>) -> &[u8] {
    scratch.map_or(&[], |scratch| scratch.path().as_os_str().as_bytes())
}

fn tell(
    supervisor: BorrowedFd<'_>,
    fields: &[&[u8]],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ShimError> {
    let failed = |e: Errno| cannot("report to the supervisor")(e.into());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    let packet = fields.join(&0);
    sendmsg(supervisor, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL)
        .map_err(failed)?;
    let mut answer = [0_u8; 1];
    let size = rustix::io::retry_on_intr(|| rustix::io::read(supervisor, &mut answer));
    match size.map_err(failed)? {
        0 => Err(failed(Errno::PIPE)),
        _ => Ok(()),
    }
}

/// Answers a report.
pub(crate) fn answer(builder: BorrowedFd<'_>) -> Result<(), ShimError> {
    // A builder that is gone is noticed otherwise.
    match send(builder, ANSWER, SendFlags::NOSIGNAL) {
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(error) => Err(cannot("answer the child")(error.into())),
    }
}

/// The next report, if there is one. Does not wait.
pub(crate) fn hear(builder: BorrowedFd<'_>) -> Result<Option<Report>, ShimError> {
    let failed = cannot("hear the child");
    let mut packet = vec![0_u8; SIZE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut packet)];
    let size = match recvmsg(builder, &mut parts, &mut control, flags) {
        Ok(received) => received.bytes,
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => 0,
        Err(error) => return Err(failed(error.into())),
    };
    if size == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let report = parse(&packet[..size], descriptors);
    report.map(Some).ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidData)))
}

fn parse(packet: &[u8], mut descriptors: Vec<OwnedFd>) -> Option<Report> {
    let fields: Vec<&[u8]> = packet.split(|byte| *byte == 0).collect();
    let text = |field: &[u8]| std::str::from_utf8(field).ok().map(str::to_owned);
    let path = |field: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(field.to_vec()));
    match fields.as_slice() {
        [kind, file, place, server, scratch] if *kind == DOOR => {
            let scratch = match *scratch {
                [] => None,
                field => Some(Scratch::adopt(path(field), descriptors.pop()?)),
            };
            let meeting = (path(file), text(place)?.parse().ok()?);
            let server = Server::parse(&text(server)?);
            Some(Report::Door { meeting, door: descriptors, server, scratch })
        }
        [kind, own, workdir, server, first, paths @ ..] if *kind == BUILT => {
            if descriptors.len() != paths.len() + 1 {
                return None;
            }
            let environment = descriptors.remove(0);
            let scratch = paths.iter().zip(descriptors);
            let scratch = scratch.map(|(field, lock)| Scratch::adopt(path(field), lock)).collect();
            let (own, workdir) = (path(own), path(workdir));
            let server = Server::parse(&text(server)?);
            Some(Report::Built {
                own,
                workdir,
                environment,
                server,
                is_first: *first == FIRST,
                scratch,
            })
        }
        _ => None,
    }
}

//! Those who are connected to a leader: tasks of its node, and leaders of other nodes.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::wire::{Bytes, LINE_MAX};

/// A connection.
#[derive(Debug)]
enum Stream {
    Local(UnixStream),
    Remote(TcpStream),
}

/// Whether it is known who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It was greeted with this nonce and has not answered.
    Greeted(Bytes),
    /// It is a process of the user's.
    Known,
}

/// One who is connected.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: Stream,
    buffer: Vec<u8>,
    pub(crate) trust: Trust,
    /// The tasks that it said are here: they are as long as it is.
    pub(crate) ranks: BTreeSet<u32>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Whole lines, without their ends; none yet, perhaps.
    Lines(Vec<String>),
    /// It is gone, or said nonsense.
    Gone,
}

impl Peer {
    /// A task of this node.
    pub(crate) fn local(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::new(Stream::Local(stream), Trust::Known))
    }

    /// The leader of another node.
    pub(crate) fn remote(stream: TcpStream, trust: Trust) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        // A node that is switched off says no farewell.
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        Ok(Self::new(Stream::Remote(stream), trust))
    }

    fn new(stream: Stream, trust: Trust) -> Self {
        Self { stream, buffer: Vec::new(), trust, ranks: BTreeSet::new() }
    }

    /// Reads what there is.
    pub(crate) fn hear(&mut self) -> Heard {
        let mut chunk = [0; 4096];
        let has_ended = loop {
            let read = match &mut self.stream {
                Stream::Local(stream) => stream.read(&mut chunk),
                Stream::Remote(stream) => stream.read(&mut chunk),
            };
            match read {
                Ok(0) => break true,
                Ok(size) => self.buffer.extend_from_slice(&chunk[..size]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => return Heard::Gone,
            }
            if self.buffer.len() > LINE_MAX {
                return Heard::Gone;
            }
        };
        let mut lines = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            match String::from_utf8(line) {
                Ok(line) => lines.push(line.trim_end().to_owned()),
                Err(_) => return Heard::Gone,
            }
        }
        // Its last words first: the end is read once more.
        if has_ended && lines.is_empty() { Heard::Gone } else { Heard::Lines(lines) }
    }

    /// Says a short line, for which the kernel always has room at a peer that reads. Whether it
    /// arrives is seen by the peer's end.
    pub(crate) fn say(&mut self, line: &str) -> bool {
        let said = match &mut self.stream {
            Stream::Local(stream) => stream.write_all(line.as_bytes()),
            Stream::Remote(stream) => stream.write_all(line.as_bytes()),
        };
        said.is_ok()
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Local(stream) => stream.as_fd(),
            Stream::Remote(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_lines_however_they_come() {
        let (mut other, stream) = UnixStream::pair().unwrap();
        let mut peer = Peer::local(stream).unwrap();
        assert_eq!(peer.hear(), Heard::Lines(Vec::new()));
        other.write_all(b"rank 1\nra").unwrap();
        assert_eq!(peer.hear(), Heard::Lines(vec!["rank 1".into()]));
        other.write_all(b"nk 2\n").unwrap();
        assert_eq!(peer.hear(), Heard::Lines(vec!["rank 2".into()]));
        other.write_all(b"go\n").unwrap();
        drop(other);
        assert_eq!(peer.hear(), Heard::Lines(vec!["go".into()]));
        assert_eq!(peer.hear(), Heard::Gone);
    }

    #[test]
    fn who_says_too_much_is_dropped() {
        let (mut other, stream) = UnixStream::pair().unwrap();
        let mut peer = Peer::local(stream).unwrap();
        let writer = std::thread::spawn(move || other.write_all(&vec![b'x'; 100 * LINE_MAX]));
        let mut gone = false;
        while !gone {
            gone = peer.hear() == Heard::Gone;
        }
        drop(peer);
        assert!(writer.join().unwrap().is_err());
    }
}

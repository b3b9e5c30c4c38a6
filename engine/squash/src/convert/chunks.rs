//! The channel between inflation and merging: large buffers that go round.

use std::io::{self, BufRead, Read};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{ConvertError, Progress};
use crate::decompress::Format;

/// Size of a chunk in bytes, and how many there are.
const CHUNK_SIZE: usize = 256 * 1024;
const CHUNKS: usize = 16;

/// What the inflating side says.
pub(super) enum Message {
    Layer { name: String, format: Format },
    Chunk(Chunk),
    EndOfLayer,
    EndOfLayers,
}

/// A buffer and how much of it is filled.
pub(super) struct Chunk {
    buffer: Box<[u8]>,
    length: usize,
}

/// The inflating side.
pub(super) struct Chunks {
    messages: Sender<Message>,
    empties: Receiver<Box<[u8]>>,
}

/// The merging side: the layers' tar streams, one after the other.
pub(super) struct Stream<'a> {
    messages: Receiver<Message>,
    empties: Sender<Box<[u8]>>,
    current: Option<Chunk>,
    at: usize,
    state: State,
    progress: &'a (dyn Fn(Progress) + Sync),
    /// Layers begun.
    layers: usize,
    bytes: u64,
    /// Bytes of all layers.
    total: u64,
    /// Entries merged, for reports.
    pub(super) merged: u64,
}

#[derive(PartialEq, Eq)]
enum State {
    Within,
    Between,
    Abandoned,
}

pub(super) fn channel() -> (Chunks, Receiver<Message>, Sender<Box<[u8]>>) {
    // Two more than there are chunks, for the messages between layers.
    let (messages, received) = bounded(CHUNKS + 2);
    let (recycled, empties) = bounded(CHUNKS);
    for _ in 0..CHUNKS {
        // There is room for all of them.
        if recycled.send(vec![0; CHUNK_SIZE].into()).is_err() {
            break;
        }
    }
    (Chunks { messages, empties }, received, recycled)
}

impl Chunks {
    /// False if nobody listens any more.
    pub(super) fn send(&self, message: Message) -> bool {
        self.messages.send(message).is_ok()
    }

    /// Sends what the stream yields, to its end. False if nobody listens any more.
    pub(super) fn send_all(&self, stream: &mut impl Read) -> io::Result<bool> {
        while let Ok(mut buffer) = self.empties.recv() {
            let (length, read) = fill(stream, &mut buffer);
            // What came before an error is sent, so that an earlier fault in it is found first.
            if length > 0 && !self.send(Message::Chunk(Chunk { buffer, length })) {
                return Ok(false);
            }
            if read? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads until the buffer is full or the stream at its end (true).
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> (usize, io::Result<bool>) {
    let mut length = 0;
    while length < buffer.len() {
        match stream.read(&mut buffer[length..]) {
            Ok(0) => return (length, Ok(true)),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (length, Err(error)),
        }
    }
    (length, Ok(false))
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        messages: Receiver<Message>,
        empties: Sender<Box<[u8]>>,
        progress: &'a (dyn Fn(Progress) + Sync),
    ) -> Self {
        Self {
            messages,
            empties,
            current: None,
            at: 0,
            state: State::Between,
            progress,
            layers: 0,
            bytes: 0,
            total: 0,
            merged: 0,
        }
    }

    /// Waits for the next layer, when the previous is at its end.
    pub(super) fn next_layer(&mut self) -> Result<Option<(String, Format)>, ConvertError> {
        match self.messages.recv() {
            Ok(Message::Layer { name, format }) => {
                self.state = State::Within;
                self.layers += 1;
                (self.bytes, self.merged) = (0, 0);
                Ok(Some((name, format)))
            }
            Ok(Message::EndOfLayers) => Ok(None),
            Ok(_) | Err(_) => Err(ConvertError::Abandoned),
        }
    }

    /// Whether the inflating side stopped within a layer.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state == State::Abandoned
    }

    /// Bytes of the layer so far.
    pub(super) fn tar_bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn report(&self) {
        let layer = self.layers.saturating_sub(1);
        let (bytes, total) = (self.bytes, self.total);
        (self.progress)(Progress { layer, entries: self.merged, bytes, total });
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if let Some(chunk) = self.current.take() {
            // Nobody needs it when the inflating side is done.
            drop(self.empties.try_send(chunk.buffer));
        }
        self.at = 0;
        if self.state == State::Between {
            return Ok(());
        }
        match self.messages.recv() {
            Ok(Message::Chunk(chunk)) => {
                self.bytes += chunk.length as u64;
                self.total += chunk.length as u64;
                self.current = Some(chunk);
                self.report();
            }
            Ok(Message::EndOfLayer) => self.state = State::Between,
            Ok(Message::Layer { .. } | Message::EndOfLayers) | Err(_) => {
                self.state = State::Abandoned;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let length = available.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| self.at == chunk.length) {
            self.next_chunk()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.buffer[self.at..chunk.length]))
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

//! Reads ahead in a thread of its own, so that reading and hashing take none of the time of what
//! inflates or parses.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Bytes read at once, and how many such pieces there are.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// What a thread read. Dropped, the thread ends with the piece that it reads.
pub(super) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    empties: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Complete,
    Failed,
}

impl Ahead {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// There can be no further thread.
    pub(super) fn of(mut reader: Box<dyn Read + Send>) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(CHUNKS);
        let (empties, recycled) = channel();
        let work = move || read_all(&mut reader, &sender, &recycled);
        thread::Builder::new().name("read-ahead".to_owned()).spawn(work)?;
        Ok(Self { pieces, empties, current: Vec::new(), at: 0, end: End::Open })
    }
}

/// Sends what there is, then an empty piece or the error that ended it.
fn read_all(
    reader: &mut dyn Read,
    pieces: &SyncSender<io::Result<Vec<u8>>>,
    recycled: &Receiver<Vec<u8>>,
) {
    loop {
        let mut piece = recycled.try_recv().unwrap_or_else(|_none_yet| Vec::with_capacity(CHUNK));
        piece.clear();
        let read = reader.take(CHUNK as u64).read_to_end(&mut piece);
        let is_end = piece.is_empty();
        // Nobody listens any more: the conversion failed.
        if (!is_end && pieces.send(Ok(piece)).is_err()) || (is_end && read.is_ok()) {
            break;
        }
        if let Err(error) = read {
            drop(pieces.send(Err(error)));
            return;
        }
    }
    drop(pieces.send(Ok(Vec::new())));
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() && self.end == End::Open {
            // The thread may have ended, and needs no buffer then.
            drop(self.empties.send(std::mem::take(&mut self.current)));
            self.at = 0;
            match self.pieces.recv() {
                Ok(Ok(piece)) if piece.is_empty() => self.end = End::Complete,
                Ok(Ok(piece)) => self.current = piece,
                Ok(Err(error)) => {
                    self.end = End::Failed;
                    return Err(error);
                }
                Err(_ended_without_a_word) => self.end = End::Failed,
            }
        }
        if self.end == End::Failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut left = &self.current[self.at..];
        let count = left.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_is_what_there_is() {
        let bytes: Vec<u8> = (0..3 * CHUNK + 5).map(|at| at.to_le_bytes()[0] ^ 7).collect();
        for length in [0, 1, CHUNK, bytes.len()] {
            let reader = Box::new(io::Cursor::new(bytes[..length].to_vec()));
            let mut found = Vec::new();
            Ahead::of(reader).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == bytes[..length], "{length}");
        }
    }

    #[test]
    fn an_error_comes_after_what_was_read_and_stays_one() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let reader = Box::new(io::Cursor::new(vec![1; CHUNK]).chain(Broken));
        let mut ahead = Ahead::of(reader).unwrap();
        let mut found = vec![0; CHUNK];
        ahead.read_exact(&mut found).unwrap();
        assert_eq!(ahead.read(&mut found).unwrap_err().to_string(), "broken");
        assert!(ahead.read(&mut found).is_err(), "no end of a stream that broke");
    }
}

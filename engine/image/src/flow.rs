//! A blob on its way: one thread stores it, another reads it, never beyond what is stored.
//!
//! The reader sleeps until there is more; nothing is polled.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is stored of a blob so far.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    stored: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    /// More may come.
    #[default]
    Open,
    /// All is there.
    Complete,
    /// No more will come.
    Broken,
}

impl Flow {
    /// The first `stored` bytes of `file` can be read.
    pub(crate) fn begin(&self, file: Arc<File>, stored: u64) {
        let mut state = self.lock();
        state.file = Some(file);
        state.stored = stored;
        self.changed.notify_all();
    }

    /// So many bytes can be read now.
    pub(crate) fn advance(&self, stored: u64) {
        self.lock().stored = stored;
        self.changed.notify_all();
    }

    /// All is there.
    pub(crate) fn complete(&self) {
        self.lock().end = End::Complete;
        self.changed.notify_all();
    }

    /// Nothing more will come. Without effect on a complete blob.
    pub(crate) fn give_up(&self) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = End::Broken;
        }
        self.changed.notify_all();
    }

    /// A reader from the first byte on.
    pub(crate) fn reader(&self) -> FlowReader<'_> {
        FlowReader { flow: self, position: 0 }
    }

    /// Waits until the blob is complete or given up.
    pub(crate) fn wait_for_end(&self) {
        let mut state = self.lock();
        while state.end == End::Open {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A panic in another thread ends the process; its half-written numbers are never used.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a blob while it comes. Fails when it is given up.
#[derive(Debug)]
pub(crate) struct FlowReader<'a> {
    flow: &'a Flow,
    position: u64,
}

impl FlowReader<'_> {
    /// The file and the bytes to read there; none at the blob's end.
    fn wait(&self) -> io::Result<Option<(Arc<File>, u64)>> {
        let mut state = self.flow.lock();
        loop {
            if state.end == End::Broken {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            if let Some(file) = &state.file
                && state.stored > self.position
            {
                return Ok(Some((Arc::clone(file), state.stored - self.position)));
            }
            if state.end == End::Complete {
                return Ok(None);
            }
            state = self.flow.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Read for FlowReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((file, available)) = self.wait()? else { return Ok(0) };
        let wanted = buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        let count = file.read_at(&mut buffer[..wanted], self.position)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.position += count as u64;
        Ok(count)
    }
}

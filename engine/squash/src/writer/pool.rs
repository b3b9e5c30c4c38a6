//! Blocks through a pool of compressing threads, and back in the order in which they went in.
//!
//! Bounded: at most [`Pool::limit`] blocks are under way, each with two buffers of a block's size
//! that are used again. Knows nothing of files or of the image.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::compress::BlockCompressor;
use super::error::WriteError;
use crate::settings::Settings;
use crate::timing::thread_time;

/// Blocks under way for each thread: enough that none waits while the caller is busy elsewhere.
const BACKLOG_PER_THREAD: usize = 8;

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All zeros: nothing to store.
    Hole,
    /// Compression gains nothing: stored as it is.
    Raw,
    /// Stored compressed.
    Compressed,
}

/// Whether a block of zeros may become a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeros {
    AreHoles,
    AreData,
}

struct Job {
    sequence: u64,
    zeros: Zeros,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A block that went through the pool.
pub(super) struct Done<T> {
    /// What the caller submitted it for.
    pub(super) purpose: T,
    pub(super) outcome: Outcome,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl<T> Done<T> {
    /// The bytes to store.
    pub(super) fn bytes(&self) -> &[u8] {
        match self.outcome {
            Outcome::Hole => &[],
            Outcome::Raw => &self.input,
            Outcome::Compressed => &self.output,
        }
    }
}

type Finished = (Job, io::Result<Outcome>);

struct Slot<T> {
    purpose: T,
    finished: Option<Finished>,
}

/// Threads that compress, and the blocks under way. Dropping it waits for the threads.
pub(super) struct Pool<T> {
    jobs: Option<Sender<Job>>,
    finished: Receiver<Finished>,
    threads: Vec<JoinHandle<Duration>>,
    /// Blocks under way, oldest first.
    slots: VecDeque<Slot<T>>,
    /// Sequence number of the oldest.
    oldest: u64,
    limit: usize,
    spare: Vec<Vec<u8>>,
    block_size: usize,
}

impl<T> Pool<T> {
    /// Starts the threads.
    pub(super) fn new(settings: &Settings) -> Result<Self, WriteError> {
        let (jobs, incoming) = unbounded();
        let (outgoing, finished) = unbounded();
        let threads = start(settings, &incoming, &outgoing)?;
        Ok(Self {
            jobs: Some(jobs),
            finished,
            threads,
            slots: VecDeque::new(),
            oldest: 0,
            limit: limit(settings.threads),
            spare: Vec::new(),
            block_size: settings.block_size as usize,
        })
    }

    /// An empty buffer with room for a block.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.block_size))
    }

    /// Whether a block must be taken out before the next goes in.
    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= self.limit
    }

    /// Hands a block, made in a [`Pool::buffer`], to the threads.
    pub(super) fn submit(
        &mut self,
        purpose: T,
        zeros: Zeros,
        input: Vec<u8>,
    ) -> Result<(), WriteError> {
        let output = self.buffer();
        let sequence = self.oldest + self.slots.len() as u64;
        self.slots.push_back(Slot { purpose, finished: None });
        let jobs = self.jobs.as_ref().ok_or(WriteError::ThreadEnded)?;
        jobs.send(Job { sequence, zeros, input, output }).map_err(|_closed| WriteError::ThreadEnded)
    }

    /// The oldest block, if it is finished.
    pub(super) fn try_take(&mut self) -> Result<Option<Done<T>>, WriteError> {
        while let Ok(finished) = self.finished.try_recv() {
            self.put(finished);
        }
        if self.slots.front().is_some_and(|slot| slot.finished.is_some()) {
            return self.take();
        }
        Ok(None)
    }

    /// The oldest block, waiting for it; none if there is no block under way.
    pub(super) fn take(&mut self) -> Result<Option<Done<T>>, WriteError> {
        while self.slots.front().is_some_and(|slot| slot.finished.is_none()) {
            let finished = self.finished.recv().map_err(|_closed| WriteError::ThreadEnded)?;
            self.put(finished);
        }
        let Some(Slot { purpose, finished: Some((job, outcome)) }) = self.slots.pop_front() else {
            return Ok(None);
        };
        self.oldest += 1;
        let bytes = job.input.len();
        let outcome = outcome.map_err(|source| WriteError::Compress { bytes, source })?;
        Ok(Some(Done { purpose, outcome, input: job.input, output: job.output }))
    }

    /// Takes a block's buffers back.
    pub(super) fn recycle(&mut self, done: Done<T>) {
        for mut buffer in [done.input, done.output] {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Ends the threads; the time of processors that they took.
    pub(super) fn end(&mut self) -> Duration {
        self.jobs = None;
        let ended = self.threads.drain(..).map(|thread| {
            thread.join().unwrap_or_else(|_panic| {
                log::debug!("a thread for compression has panicked");
                Duration::ZERO
            })
        });
        ended.sum()
    }

    fn put(&mut self, finished: Finished) {
        let place = usize::try_from(finished.0.sequence - self.oldest).unwrap_or(usize::MAX);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.finished = Some(finished);
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Most blocks under way.
fn limit(threads: NonZeroUsize) -> usize {
    threads.get() * BACKLOG_PER_THREAD
}

fn start(
    settings: &Settings,
    incoming: &Receiver<Job>,
    outgoing: &Sender<Finished>,
) -> Result<Vec<JoinHandle<Duration>>, WriteError> {
    (0..settings.threads.get())
        .map(|number| {
            let (incoming, outgoing) = (incoming.clone(), outgoing.clone());
            let mut compressor = BlockCompressor::new(settings.compression)
                .map_err(|source| WriteError::Compress { bytes: 0, source })?;
            std::thread::Builder::new()
                .name(format!("compress-{number}"))
                .spawn(move || work(&mut compressor, &incoming, &outgoing))
                .map_err(WriteError::Thread)
        })
        .collect()
}

/// A thread: until there are no more jobs, or nobody wants the results. Its time of processors.
fn work(
    compressor: &mut BlockCompressor,
    jobs: &Receiver<Job>,
    results: &Sender<Finished>,
) -> Duration {
    for mut job in jobs {
        let outcome = if job.zeros == Zeros::AreHoles && is_zero(&job.input) {
            Ok(Outcome::Hole)
        } else {
            compressor.compress(&job.input, &mut job.output).map(|smaller| match smaller {
                true => Outcome::Compressed,
                false => Outcome::Raw,
            })
        };
        if results.send((job, outcome)).is_err() {
            break;
        }
    }
    thread_time()
}

/// Whether there is nothing but zeros.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
        && bytes.chunks_exact(64).remainder().iter().all(|&byte| byte == 0)
}

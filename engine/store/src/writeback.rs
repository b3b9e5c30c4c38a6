//! Makes the disk write a file while it grows, instead of all of it at the end.

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Bytes of content that go into a file before the disk is asked again: few requests, and little is
/// left for the end. Content and not the file's length, which NFS does not tell before it has
/// written back what it has.
const STEP: u64 = 128 << 20;

/// Asks for the write-back of a file that grows, in a thread of its own, which starts with the first
/// [`STEP`].
#[derive(Debug, Default)]
pub(crate) struct Writeback {
    /// Bytes of content when it was last asked for.
    asked: AtomicU64,
    worker: OnceLock<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    requests: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writeback {
    /// Asks for the write-back of `file` when enough more of the content has gone into it, of which
    /// `content` bytes have now. Never waits for the disk. Without a thread nothing is asked for, and
    /// all is written at the end.
    pub(crate) fn advance(&self, file: &File, content: u64) {
        if content < self.asked.load(Ordering::Relaxed).saturating_add(STEP) {
            return;
        }
        self.asked.store(content, Ordering::Relaxed);
        if let Some(worker) = self.worker.get_or_init(|| Worker::start(file)) {
            // One that waits already covers what was written meanwhile.
            let _busy = worker.requests.try_send(());
        }
    }

    /// Waits for the write-back that goes on. To be asked before the file counts as written: the
    /// kernel reports a failure of the disk once for each open file (`fsync(2)`), and it may have been
    /// reported here.
    ///
    /// # Errors
    ///
    /// The disk did not take what was written.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(Some(worker)) = self.worker.take() else { return Ok(()) };
        drop(worker.requests);
        worker.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Writeback {
    /// The thread has the file open.
    fn drop(&mut self) {
        let _of_no_use = self.join();
    }
}

impl Worker {
    fn start(file: &File) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let (requests, received) = sync_channel(1);
        let thread = thread::Builder::new().name("write-back".to_owned());
        let thread = thread.spawn(move || synchronise(&file, &received)).ok()?;
        Some(Self { requests, thread })
    }
}

/// Ends with the last request, or with the first failure.
fn synchronise(file: &File, requests: &Receiver<()>) -> io::Result<()> {
    requests.iter().try_for_each(|()| file.sync_data())
}

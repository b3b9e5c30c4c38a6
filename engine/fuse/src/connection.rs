//! The connection to the kernel, and the threads at it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, writev};

use crate::reply::Reply;
use crate::server::Server;
use crate::worker::Worker;

/// Bytes of the longest request: far above `FUSE_MIN_READ_BUFFER`, and much of it is forgetting.
const REQUEST_MAX: usize = 32 << 10;
/// Bytes of a thread's stack: nothing here recurses.
const STACK: usize = 256 << 10;

/// Serves the connection of `device` until the kernel ends it, with `threads_max` threads at most.
///
/// The calling thread answers alone at first. Another is started whenever the last idle one gets
/// something to do, so a quiet mount has two. Idle threads sleep in the kernel.
///
/// # Errors
///
/// `EPERM` if `device` is not a connection; whatever else reading from it gives. Then requests
/// that are pending fail as soon as `device` is closed.
pub fn serve(server: &Server<'_>, device: BorrowedFd<'_>, threads_max: usize) -> io::Result<()> {
    fcntl_setfl(device, fcntl_getfl(device)? - OFlags::NONBLOCK)?;
    let crew = Crew { server, device, threads_max, started: 1.into(), idle: 0.into() };
    let mut worker = Worker::new(server).map_err(io::Error::other)?;
    let mut buffer = vec![0; REQUEST_MAX];
    // The first request is the kernel's greeting; a mount waits for its answer.
    let Some(length) = receive(device, &mut buffer)? else { return Ok(()) };
    send(device, worker.answer(&buffer[..length]));
    std::thread::scope(|scope| {
        crew.grow(scope);
        crew.work(scope, device, worker, buffer)
    })
}

struct Crew<'a> {
    server: &'a Server<'a>,
    device: BorrowedFd<'a>,
    threads_max: usize,
    started: AtomicUsize,
    /// Threads that wait for a request.
    idle: AtomicUsize,
}

impl<'a> Crew<'a> {
    /// A thread's life.
    fn work<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        device: BorrowedFd<'_>,
        mut worker: Worker<'a>,
        mut buffer: Vec<u8>,
    ) -> io::Result<()> {
        loop {
            self.idle.fetch_add(1, Ordering::Relaxed);
            let received = receive(device, &mut buffer);
            let was_last = self.idle.fetch_sub(1, Ordering::Relaxed) == 1;
            let Some(length) = received? else { return Ok(()) };
            if was_last {
                self.grow(scope);
            }
            send(device, worker.answer(&buffer[..length]));
            if self.idle.load(Ordering::Relaxed) > 0 {
                worker.read_ahead();
            }
        }
    }

    /// Starts a thread, unless there are enough. Where none can be started, those there are go on.
    fn grow<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let more = |count| (count < self.threads_max).then_some(count + 1);
        if self.started.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return;
        }
        let _fewer_threads = Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
            let own = sarus_sys::fuse::clone_connection(self.device).ok();
            let device = own.as_ref().map_or(self.device, AsFd::as_fd);
            if let Ok(worker) = Worker::new(self.server) {
                // The first thread ends with the same error, and tells it.
                let _same_error = self.work(scope, device, worker, vec![0; REQUEST_MAX]);
            }
        });
    }
}

/// The length of the next request. None when the connection has ended.
fn receive(device: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match read(device, &mut *buffer) {
            Ok(length) => return Ok(Some(length)),
            // ENOENT: the request was withdrawn before it could be read.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn send(device: BorrowedFd<'_>, reply: Option<Reply>) {
    let Some(reply) = reply else { return };
    match writev(device, &reply.slices()) {
        // ENOENT: nobody waits any more. ENODEV: the next read says so, too.
        Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
        Err(_) => {
            // Who waits must not do so for ever; if this fails, too, nothing is left to do.
            let _ended = writev(device, &reply.refused().slices());
        }
    }
}

//! Renews the leases of a pull, whatever its other threads wait for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use sarus_store::{LEASE_RENEWAL, Lease, Report};

/// A thread that renews leases until it is dropped.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    kept: Vec<Weak<Entry>>,
    stop: bool,
}

struct Entry {
    lease: Mutex<Option<Lease>>,
    report: Report,
    fetched: AtomicU64,
    total: AtomicU64,
}

/// A lease that is being renewed. Dropped, it is given back.
pub(crate) struct Held {
    /// None where there are no leases in the store.
    entry: Option<Arc<Entry>>,
}

impl Keeper {
    /// Starts the thread. Where none can be had, leases expire, and others may do the same work.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("leases".to_owned())
            .spawn(move || theirs.renew_until_stopped());
        let thread =
            spawned.inspect_err(|error| log::debug!("leases are not renewed: {error}")).ok();
        Self { shared, thread }
    }

    /// Renews a lease from now on.
    pub(crate) fn keep(&self, lease: Lease, report: Report) -> Held {
        let entry = Arc::new(Entry {
            lease: Mutex::new(Some(lease)),
            fetched: AtomicU64::new(report.fetched),
            total: AtomicU64::new(report.total),
            report,
        });
        let mut state = self.shared.lock();
        state.kept.retain(|entry| entry.strong_count() > 0);
        state.kept.push(Arc::downgrade(&entry));
        Held { entry: Some(entry) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.stopped.notify_all();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Shared {
    fn renew_until_stopped(&self) {
        let mut state = self.lock();
        while !state.stop {
            let waited = self.stopped.wait_timeout(state, LEASE_RENEWAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let entries: Vec<_> = state.kept.iter().filter_map(Weak::upgrade).collect();
            // A file server that stands still must not keep others from taking leases.
            drop(state);
            for entry in entries {
                entry.renew();
            }
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn renew(&self) {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = lease.as_ref().map(|lease| lease.renew(&self.report())) {
            log::debug!("a lease is not renewed: {error}");
        }
    }

    fn report(&self) -> Report {
        let fetched = self.fetched.load(Ordering::Relaxed);
        Report { fetched, total: self.total.load(Ordering::Relaxed), ..self.report.clone() }
    }
}

impl Held {
    /// Stands for a lease where the store has none.
    pub(crate) fn nothing() -> Self {
        Self { entry: None }
    }

    /// How far the work is, for the next renewal.
    pub(crate) fn set(&self, fetched: u64, total: u64) {
        if let Some(entry) = &self.entry {
            entry.fetched.store(fetched, Ordering::Relaxed);
            entry.total.store(total, Ordering::Relaxed);
        }
    }

    /// How far the work is: so many bytes more are there.
    pub(crate) fn add(&self, bytes: u64) {
        if let Some(entry) = &self.entry {
            entry.fetched.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Leaves the reason why the work could not be done. `attempt` replaces the lease's where it
    /// is given.
    pub(crate) fn fail(self, failed: String, attempt: Option<u32>) {
        let Some(entry) = &self.entry else { return };
        let lease = entry.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut report = Report { failed: Some(failed), ..entry.report() };
        report.attempt = attempt.unwrap_or(report.attempt);
        if let Some(lease) = lease {
            lease.fail(&report);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            let lease = entry.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(lease);
        }
    }
}

//! One pull however many ask: becoming the process that does the work, or waiting for the one
//! that does.
//!
//! Protocol: `docs/ARCHITECTURE.md`, "Two at once". What cannot be had of it (a store in which
//! another user made the leases) is done without: it saves work, and nothing depends on it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sarus_oci::Digest;
use sarus_store::{Claim, Holder, Lease, Owner, Report, Sign, Store, StoreError, Watch};

use crate::{ImageError, Other};

/// Shortest and longest time between two looks at a lease. A holder of this node that ends is
/// seen at once besides.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// So many processes try one after the other when each fails; then those who still wait share
/// the last one's failure. A thousand nodes would otherwise each wait for all others' time-outs.
pub(crate) const ATTEMPTS: u32 = 3;

/// Work that only one process should do.
pub(crate) trait Work {
    /// What the work leads to.
    type Product;
    /// The product, where somebody has made it.
    fn product(&self) -> Result<Option<Self::Product>, ImageError>;
    /// Whether it is still worth while to wait.
    fn is_wanted(&self) -> bool;
    /// Another process does the work.
    fn waiting(&self, other: &Other);
    /// That process is dead; this one may do its work.
    fn abandoned(&self, other: &Other);
}

/// What became of asking for the work.
pub(crate) enum Turn<P> {
    /// Another process did it.
    Done(P),
    /// This process does it, and says so to others while it holds the lease.
    Ours(Lease, Report),
    /// This process does it, and perhaps others do too: there are no leases in this store.
    Alone,
    /// Nobody wants it any more.
    Unwanted,
    /// The others gave up, this one's last.
    Failed(Other, String),
}

/// Asks for the work on `digest`, and waits while another process does it.
pub(crate) fn take<W: Work>(
    store: &Store,
    digest: &Digest,
    work: &W,
) -> Result<Turn<W::Product>, ImageError> {
    let mut waiter = Waiter { store, digest, work, me: Owner::current(), attempt: 1 };
    loop {
        if let Some(product) = work.product()? {
            return Ok(Turn::Done(product));
        }
        let report = Report { attempt: waiter.attempt, ..Report::default() };
        match store.claim(digest, &report) {
            Ok(Claim::Held(lease)) => {
                // Whoever held it until now may have done the work after the look above.
                store.refresh();
                return Ok(match work.product()? {
                    Some(product) => Turn::Done(product),
                    None => Turn::Ours(lease, report),
                });
            }
            Ok(Claim::Taken(holder)) => match waiter.wait(&holder) {
                Ok(None) => {}
                Ok(Some(turn)) => return Ok(turn),
                Err(error) => return Ok(alone(&error)),
            },
            Err(error) => return Ok(alone(&error)),
        }
    }
}

fn alone<P>(error: &StoreError) -> Turn<P> {
    log::debug!("others that pull the same are not waited for: {error}");
    Turn::Alone
}

struct Waiter<'a, W> {
    store: &'a Store,
    digest: &'a Digest,
    work: &'a W,
    me: Owner,
    attempt: u32,
}

impl<W: Work> Waiter<'_, W> {
    /// Waits for one holder. None when it is time to ask for the lease again.
    fn wait(&mut self, first: &Holder) -> Result<Option<Turn<W::Product>>, StoreError> {
        let mut watch = Watch::default();
        let pidfd = first.owner.as_ref().and_then(|owner| owner.pidfd(&self.me));
        let mut pause = PAUSE_MIN;
        let mut waited = false;
        let mut holder = first.clone();
        loop {
            let other = Other::of(&holder);
            match watch.look(Some(&holder), &self.me, Instant::now()) {
                Sign::Free => return Ok(None),
                Sign::Alive => {
                    self.work.waiting(&other);
                    waited = true;
                }
                Sign::Dead => {
                    holder.evict()?;
                    self.work.abandoned(&other);
                    return Ok(None);
                }
                Sign::Failed => return self.after_failure(&holder, other, waited),
            }
            self.pause(pause, pidfd.as_ref());
            pause = (pause * 3 / 2).min(PAUSE_MAX);
            if !self.work.is_wanted() {
                return Ok(Some(Turn::Unwanted));
            }
            match self.store.holder(self.digest)? {
                Some(next) if next.is_same(first) => holder = next,
                // Given back, or another's by now: perhaps the work is done.
                _ => {
                    self.store.refresh();
                    return Ok(None);
                }
            }
        }
    }

    /// Who waited for a holder that failed tries in its place, unless enough did.
    fn after_failure(
        &mut self,
        holder: &Holder,
        other: Other,
        waited: bool,
    ) -> Result<Option<Turn<W::Product>>, StoreError> {
        if waited && holder.report.attempt >= ATTEMPTS {
            let text = holder.report.failed.clone().unwrap_or_default();
            return Ok(Some(Turn::Failed(other, text)));
        }
        self.attempt = if waited { holder.report.attempt.saturating_add(1) } else { 1 };
        holder.evict()?;
        Ok(None)
    }

    /// Sleeps, at most until the holder ends. Processes sleep for different times, so that a
    /// thousand that were started at once do not ask at once for ever.
    fn pause(&self, time: Duration, pidfd: Option<&OwnedFd>) {
        let time = time * (96 + self.me.pid() % 64) / 128;
        let timeout = Timespec::try_from(time).ok();
        let mut ends: Vec<_> = pidfd.iter().map(|end| PollFd::new(*end, PollFlags::IN)).collect();
        // Interrupted or not: there is a look at the lease next.
        if let Err(error) = poll(&mut ends, timeout.as_ref()) {
            log::debug!("the wait for another process ended early: {error}");
        }
    }
}

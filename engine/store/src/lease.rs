//! Leases: who downloads a blob or converts an image just now, so that others need not.
//!
//! ```text
//! ROOT/leases/sha256-HEX/OWNER,N    HEX of a manifest or a blob; the one file is the holder's
//! ```
//!
//! A lease is taken by renaming a directory that holds the own file onto the lease's: that works
//! when there is none or an empty one, and for one of many. It is given back, and a dead holder's
//! taken away, by removing exactly that holder's file, whose name nobody else's ever has; so
//! nothing that a slow process does can take away the lease of a later one. Needs neither `flock`
//! nor hard links, only what is needed of every file system: that rename is one step.
//!
//! A holder writes its progress into its file again and again. Whether it lives is judged in
//! [`Watch`]. All this saves work only: two who hold one lease write the same content, and the
//! rename of that content decides. Protocol: `docs/ARCHITECTURE.md`, "Two at once".

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use sarus_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::disk::{create_new, list, list_if_directory, make_directory, read_small, remove_file};
use crate::layout::digest_name;
use crate::owner::age;
use crate::pending::is_occupied;
use crate::write::discard;
use crate::{Owner, Store, StoreError};

/// How often a holder renews its lease.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(2);

/// A holder whose file did not change for this time, by the clock of who waits, is taken to be
/// dead: fifteen renewals, so that a file server may stand still for a while.
pub const LEASE_EXPIRY: Duration = Duration::from_secs(30);

/// Length of a holder's file in bytes, blanks at the end included: one block of any file system,
/// written at once.
const RECORD_BYTES: usize = 2048;

/// Longest text of a failure in a record, in bytes; JSON may double them.
const FAILURE_BYTES_MAX: usize = 800;

/// Age from which a lease of another node, renewed by its holder every two seconds, is left behind.
/// Far above [`LEASE_EXPIRY`], since here two clocks are compared.
const LEASE_FOREIGN_AGE_MAX: Duration = Duration::from_secs(3600);

/// How often taking a lease is tried when others give theirs back meanwhile.
const RETRIES: usize = 16;

/// What a holder tells those who wait.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Bytes that are there.
    pub fetched: u64,
    /// Bytes to be fetched; zero when that is not known yet.
    pub total: u64,
    /// Which attempt this is: one more than that of the holder who failed before.
    pub attempt: u32,
    /// Why the holder gave up. Its file stays then, and is replaced by who comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    /// Another number with each renewal: that is what shows a waiter that the holder lives.
    renewal: u64,
    #[serde(flatten)]
    report: Report,
}

/// A lease of this process. Dropped, it is given back.
#[derive(Debug)]
#[must_use = "a lease that is dropped is given back"]
pub struct Lease {
    // Closed before it is removed: a network file system keeps the name of a file that is open.
    file: File,
    renewals: AtomicU64,
    entry: Entry,
}

/// The file of a lease, which goes with it.
#[derive(Debug)]
struct Entry {
    directory: PathBuf,
    path: PathBuf,
    /// The file stays: it says why the holder failed.
    failed: bool,
}

/// Who holds a lease, as its file shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process; none where the file's name is not one that this version writes.
    pub owner: Option<Owner>,
    /// What it told last; the default while nothing can be read.
    pub report: Report,
    directory: PathBuf,
    name: String,
    content: Vec<u8>,
}

/// What became of asking for a lease.
#[derive(Debug)]
pub enum Claim {
    /// This process holds it.
    Held(Lease),
    /// Another one does, or a dead one did.
    Taken(Holder),
}

impl Store {
    /// Asks for the lease of a manifest or blob. Does not wait, and does not judge a holder.
    ///
    /// # Errors
    ///
    /// The store is read-only, or a directory or file cannot be made; nothing is left then.
    pub fn claim(&self, digest: &Digest, report: &Report) -> Result<Claim, StoreError> {
        let leases = self.leases_directory();
        let directory = leases.join(digest_name(digest));
        // Most who ask are told no: look before a directory is made for nothing.
        if let Some(holder) = read_holder(&directory)? {
            return Ok(Claim::Taken(holder));
        }
        let aside = self.temporary("lease")?;
        make_directory(&leases, 0o777)?;
        make_directory(&aside, 0o777)?;
        let claimed = self.claim_with(&aside, &directory, report);
        if !matches!(claimed, Ok(Claim::Held(_))) {
            discard(&aside);
        }
        claimed
    }

    fn claim_with(
        &self,
        aside: &Path,
        directory: &Path,
        report: &Report,
    ) -> Result<Claim, StoreError> {
        let name = aside.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // `lease,OWNER,N` in `tmp`, `OWNER,N` here.
        let name = name.split_once(',').map_or(name, |(_, label)| label);
        let path = aside.join(name);
        let file = create_new(&path)?;
        write_record(&file, 0, report).map_err(StoreError::write(&path))?;
        for _ in 0..RETRIES {
            match std::fs::rename(aside, directory) {
                Ok(()) => return Ok(Claim::Held(Lease::new(directory, name, file))),
                Err(error) if is_occupied(&error) => {}
                Err(error) => return Err(StoreError::publish(directory)(error)),
            }
            if let Some(holder) = read_holder(directory)? {
                return Ok(Claim::Taken(holder));
            }
        }
        Err(StoreError::publish(directory)(io::Error::from(io::ErrorKind::ResourceBusy)))
    }

    /// Who holds the lease now; none when nobody does.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn holder(&self, digest: &Digest) -> Result<Option<Holder>, StoreError> {
        read_holder(&self.leases_directory().join(digest_name(digest)))
    }

    /// Whether any process that may be alive holds a lease: a pull is going on.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn is_in_use(&self) -> Result<bool, StoreError> {
        let me = Owner::current();
        let leases = self.leases_directory();
        for lease in list(&leases)? {
            let directory = leases.join(lease);
            for name in list_if_directory(&directory)? {
                if !is_left_behind(&directory.join(&name), &name, &me) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Gives back the leases of a process that is about to end.
    pub(crate) fn abandon_leases(&self, is_mine: &dyn Fn(&str) -> bool) {
        let leases = self.leases_directory();
        for lease in list(&leases).unwrap_or_default() {
            let directory = leases.join(lease);
            for name in list_if_directory(&directory).unwrap_or_default() {
                if is_mine(&name) {
                    discard(&directory.join(&name));
                    vacate(&directory);
                }
            }
        }
    }

    /// Removes the leases of the dead.
    pub(crate) fn sweep_leases(&self, observer: &Owner) -> Result<(), StoreError> {
        let leases = self.leases_directory();
        for lease in list(&leases)? {
            let directory = leases.join(lease);
            for name in list_if_directory(&directory)? {
                let path = directory.join(&name);
                if is_left_behind(&path, &name, observer) {
                    remove_file(&path)?;
                }
            }
            vacate(&directory);
        }
        Ok(())
    }

    /// Asks the server of a network file system what images there are, since a client may
    /// remember for half a minute that one was not there. Costs nothing elsewhere.
    pub fn refresh(&self) {
        force_sync(&self.images_directory());
    }
}

impl Lease {
    fn new(directory: &Path, name: &str, file: File) -> Self {
        let (directory, path) = (directory.to_owned(), directory.join(name));
        let entry = Entry { directory, path, failed: false };
        Self { file, renewals: AtomicU64::new(1), entry }
    }

    /// Shows those who wait that this process lives, and how far it is. Written by the descriptor:
    /// where the lease was taken away meanwhile, nobody else's is touched.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the lease is held until it expires.
    pub fn renew(&self, report: &Report) -> Result<(), StoreError> {
        let renewal = self.renewals.fetch_add(1, Ordering::Relaxed);
        write_record(&self.file, renewal, report).map_err(StoreError::write(&self.entry.path))
    }

    /// Ends the lease with the reason why the work could not be done. The file stays, for those
    /// who wait; who asks next, and the sweep after the process has ended, remove it.
    pub fn fail(mut self, report: &Report) {
        self.entry.failed = report.failed.is_some() && self.renew(report).is_ok();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.failed {
            return;
        }
        if let Err(error) = remove_file(&self.path) {
            log::debug!("the lease stays until it expires: {error}");
        }
        vacate(&self.directory);
    }
}

impl Holder {
    /// Whether it is the same taking of the same lease.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Takes the lease away from this holder, which is dead, and from nobody else. Nothing happens
    /// when it is gone already.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn evict(&self) -> Result<(), StoreError> {
        remove_file(&self.directory.join(&self.name))
    }
}

/// A waiter's view of a lease: tells a holder that works from one that is dead.
///
/// Clocks of nodes differ, so no time that another node wrote is looked at: a holder lives while
/// its file changes, seen by the waiter's own clock. Of a process of this node the kernel knows
/// more.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Option<(String, Vec<u8>, Instant)>,
}

/// What a waiter sees of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Nobody holds it.
    Free,
    /// The holder works, as far as can be seen.
    Alive,
    /// The holder is dead, or stands still for [`LEASE_EXPIRY`].
    Dead,
    /// The holder gave up; its report says why.
    Failed,
}

impl Watch {
    /// Judges what was read of the lease at the time `now`. `me` is the process that looks.
    pub fn look(&mut self, holder: Option<&Holder>, me: &Owner, now: Instant) -> Sign {
        let Some(holder) = holder else {
            self.seen = None;
            return Sign::Free;
        };
        if holder.report.failed.is_some() {
            return Sign::Failed;
        }
        if holder.owner.as_ref().is_some_and(|owner| owner.is_gone(me, Duration::ZERO)) {
            return Sign::Dead;
        }
        match &self.seen {
            Some((name, content, since)) if *name == holder.name && *content == holder.content => {
                let still = now.saturating_duration_since(*since);
                if still >= LEASE_EXPIRY { Sign::Dead } else { Sign::Alive }
            }
            _ => {
                self.seen = Some((holder.name.clone(), holder.content.clone(), now));
                Sign::Alive
            }
        }
    }
}

fn write_record(file: &File, renewal: u64, report: &Report) -> io::Result<()> {
    let mut report = report.clone();
    if let Some(failed) = &mut report.failed {
        let mut end = failed.len().min(FAILURE_BYTES_MAX);
        while !failed.is_char_boundary(end) {
            end -= 1;
        }
        failed.truncate(end);
    }
    let mut record = serde_json::to_vec(&Record { renewal, report })?;
    record.resize(RECORD_BYTES.max(record.len()), b' ');
    file.write_all_at(&record, 0)?;
    // Closing a descriptor makes NFS send what was written; a local file system does nothing, so
    // that no renewal waits for a disk that is busy with the image.
    file.try_clone().map(drop)
}

fn read_holder(directory: &Path) -> Result<Option<Holder>, StoreError> {
    force_sync(directory);
    for name in list_if_directory(directory)? {
        let limit = 4 * RECORD_BYTES as u64;
        let content = match read_small(&directory.join(&name), limit) {
            Ok(Some(content)) => content,
            // Given back meanwhile.
            Ok(None) => continue,
            // Something holds the lease, though it cannot be read: it expires.
            Err(error) => {
                log::debug!("a lease that cannot be read: {error}");
                Vec::new()
            }
        };
        let record = serde_json::from_slice::<Record>(&content);
        let report = record.map(|record| record.report).unwrap_or_default();
        let owner = Owner::parse(&name);
        let directory = directory.to_owned();
        return Ok(Some(Holder { owner, report, directory, name, content }));
    }
    Ok(None)
}

/// Removes the directory of a lease that nobody holds.
fn vacate(directory: &Path) {
    if let Err(error) = std::fs::remove_dir(directory)
        && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
    {
        log::debug!("`{}` stays: {error}", directory.display());
    }
}

fn is_left_behind(path: &Path, name: &str, observer: &Owner) -> bool {
    let Ok(modified) = std::fs::symlink_metadata(path).and_then(|found| found.modified()) else {
        return false;
    };
    let limit = LEASE_FOREIGN_AGE_MAX;
    match Owner::parse(name) {
        Some(owner) => owner.is_gone_after(observer, age(modified), limit),
        None => age(modified) > limit,
    }
}

/// Asks the file server for the attributes of a directory: when these differ, what the client
/// remembers of its entries is void.
fn force_sync(directory: &Path) {
    let asked =
        rustix::fs::statx(CWD, directory, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS);
    if let Err(error) = asked {
        log::trace!("`{}`: {error}", directory.display());
    }
}

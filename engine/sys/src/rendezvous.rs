//! Where a user's runs on one node find each other: locks of the kernel on an empty file.
//!
//! Whoever takes part holds a lock (`fcntl(2)`) on one byte of the file, so the kernel can be asked
//! which process does (`F_GETLK`). Nothing is written down that could be stale: a process that is
//! killed, and a node that is switched off, take no part any more. A second kind of lock
//! (`flock(2)`) keeps apart who comes and who goes.
//!
//! The file is in a directory of the user's, for nobody else, on a file system of the node.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Times that a file which others just removed is made again.
const ATTEMPTS_MAX: usize = 64;

/// How many places a file has.
const PLACES: u64 = 1 << 62;

/// A file whose bytes are places that processes take.
#[derive(Debug)]
pub struct Rendezvous {
    file: File,
    path: PathBuf,
}

/// Who may be in at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Others who come too.
    Shared,
    /// Nobody else.
    Exclusive,
}

/// Who holds a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// That process.
    Process(i32),
    /// One that has no number in the caller's PID namespace.
    Unseen,
}

/// The directories in which a user's own may be, best first: those of the node's memory, the one of
/// temporary files, and, for when somebody else took the names there, the one that a login makes.
/// Root's are where nobody else makes names; who is root in a user namespace only is no better than
/// others.
pub fn parents(uid: u32) -> Vec<PathBuf> {
    if uid == 0 && crate::namespace::is_initial_user() {
        return vec!["/run".into()];
    }
    vec!["/dev/shm".into(), "/tmp".into(), format!("/run/user/{uid}").into()]
}

/// The place of a name, the same in every process: FNV-1a, <http://www.isthe.com/chongo/tech/comp/fnv/>.
pub fn place_of(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % PLACES
}

impl Rendezvous {
    /// Opens the file `name` of the calling user; it and its directory are made when absent. Held
    /// or not, it is removed by the last who leaves.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::PermissionDenied`], with the first directory's owner, when all of that name are
    /// somebody else's; `ENOENT` when there is no place for one.
    pub fn open(name: &str) -> io::Result<Self> {
        let uid = rustix::process::getuid().as_raw();
        let mut refused = None;
        for parent in parents(uid) {
            match Self::open_at(place_in(&parent, uid, name), uid) {
                Err(error) => drop(refused.get_or_insert(error)),
                opened => return opened,
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)))
    }

    /// Opens the file that another process of the user found by [`Rendezvous::open`], wherever that
    /// would find one by now.
    ///
    /// # Errors
    ///
    /// As there, of the one directory.
    pub fn reopen(path: PathBuf) -> io::Result<Self> {
        Self::open_at(path, rustix::process::getuid().as_raw())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file at `path`, in the directory of user `uid`.
    fn open_at(path: PathBuf, uid: u32) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        for _ in 0..ATTEMPTS_MAX {
            make_own(directory, uid)?;
            let options = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
                .open(&path);
            match options {
                // The last who left removed the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let _others_have_files_in_it = std::fs::remove_dir(directory);
                    return Err(error);
                }
                Ok(file) => {
                    let found = file.metadata()?;
                    if !found.is_file() || found.uid() != uid {
                        return Err(not_own(&path, &found));
                    }
                    return Ok(Self { file, path });
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// Waits until the caller may be in. The file is the one that others find under its name: when
    /// it was removed meanwhile, a new one is made.
    ///
    /// # Errors
    ///
    /// As [`Rendezvous::open`].
    pub fn enter(&mut self, access: Access) -> io::Result<()> {
        let operation = match access {
            Access::Shared => FlockOperation::LockShared,
            Access::Exclusive => FlockOperation::LockExclusive,
        };
        for _ in 0..ATTEMPTS_MAX {
            rustix::io::retry_on_intr(|| flock(&self.file, operation))?;
            if self.is_current() {
                return Ok(());
            }
            *self = Self::reopen(self.path.clone())?;
        }
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// Lets others in.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn exit(&self) -> io::Result<()> {
        Ok(flock(&self.file, FlockOperation::Unlock)?)
    }

    /// Somebody else who holds the place, or any place.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn holder(&self, place: Option<u64>) -> io::Result<Option<Holder>> {
        let asked = range(libc::F_WRLCK, place);
        let answer = lock(&self.file, libc::F_GETLK, asked)?;
        if i32::from(answer.l_type) == libc::F_UNLCK {
            return Ok(None);
        }
        let seen = Some(answer.l_pid).filter(|pid| *pid > 0);
        Ok(Some(seen.map_or(Holder::Unseen, Holder::Process)))
    }

    /// Takes the place, which others may hold too, until the process ends or leaves. A process
    /// must have the file open once only: closing another descriptor of it would give the place
    /// away (`fcntl_locking(2)`).
    ///
    /// # Errors
    ///
    /// `EAGAIN` when somebody has it alone; `ENOLCK` where the file system has no locks.
    pub fn take(&self, place: u64) -> io::Result<()> {
        lock(&self.file, libc::F_SETLK, range(libc::F_RDLCK, Some(place))).map(drop)
    }

    /// Takes the place alone, as [`Rendezvous::take`] does. True when it was free.
    ///
    /// # Errors
    ///
    /// `ENOLCK` where the file system has no locks.
    pub fn claim(&self, place: u64) -> io::Result<bool> {
        match lock(&self.file, libc::F_SETLK, range(libc::F_WRLCK, Some(place))) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives all places of this process up, and removes the file and its directory when nobody
    /// holds one any more. True when `place` is nobody's now.
    ///
    /// # Errors
    ///
    /// None in practice; the file may be left then.
    pub fn leave(self, place: u64) -> io::Result<bool> {
        lock(&self.file, libc::F_SETLK, range(libc::F_UNLCK, None))?;
        rustix::io::retry_on_intr(|| flock(&self.file, FlockOperation::LockExclusive))?;
        if !self.is_current() {
            return Ok(true);
        }
        let was_last = self.holder(Some(place))?.is_none();
        self.remove_if_empty()?;
        Ok(was_last)
    }

    /// For whoever is in alone.
    fn remove_if_empty(&self) -> io::Result<()> {
        if self.holder(None)?.is_none() {
            std::fs::remove_file(&self.path)?;
            if let Some(directory) = self.path.parent() {
                let _others_have_files_in_it = std::fs::remove_dir(directory);
            }
        }
        Ok(())
    }

    fn is_current(&self) -> bool {
        let here = self.path.symlink_metadata();
        let mine = self.file.metadata();
        matches!((here, mine), (Ok(here), Ok(mine))
            if (here.dev(), here.ino()) == (mine.dev(), mine.ino()))
    }
}

/// Removes the calling user's files that nobody holds a place of: those of killed processes.
pub fn sweep() {
    let uid = rustix::process::getuid().as_raw();
    for parent in parents(uid) {
        let directory = directory_in(&parent, uid);
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.map_while(Result::ok) {
            let Ok(found) = Rendezvous::open_at(entry.path(), uid) else { continue };
            if flock(&found.file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && found.is_current()
            {
                let _stays_for_the_next = found.remove_if_empty();
            }
        }
        let _not_empty = std::fs::remove_dir(&directory);
    }
}

/// The directory of user `uid` below `parent`.
fn directory_in(parent: &Path, uid: u32) -> PathBuf {
    parent.join(format!("sarus-{uid}"))
}

fn place_in(parent: &Path, uid: u32, name: &str) -> PathBuf {
    directory_in(parent, uid).join(name)
}

/// Makes the directory, and checks that it is the user's and nobody else's.
fn make_own(directory: &Path, uid: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = directory.symlink_metadata()?;
    if found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(not_own(directory, &found))
    }
}

fn not_own(path: &Path, found: &std::fs::Metadata) -> io::Error {
    let (path, owner, mode) = (path.display(), found.uid(), found.mode() & 0o7777);
    let text =
        format!("`{path}` (user {owner}, mode {mode:04o}) must be a directory of yours alone");
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn range(kind: i32, place: Option<u64>) -> libc::flock {
    let start = place.and_then(|place| i64::try_from(place).ok());
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: start.unwrap_or(0),
        l_len: i64::from(start.is_some()),
        l_pid: 0,
    }
}

#[expect(unsafe_code, reason = "locks on a part of a file have no safe wrapper")]
fn lock(file: &File, operation: i32, mut range: libc::flock) -> io::Result<libc::flock> {
    // SAFETY: the structure lives until the call returns and is the one that these three
    // operations take.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), operation, &raw mut range) };
    if result == 0 { Ok(range) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Fork, exit_at_once, fork};

    fn uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    fn open_in(parent: &Path) -> io::Result<Rendezvous> {
        Rendezvous::open_at(place_in(parent, uid(), "file"), uid())
    }

    /// A process that holds a place until the pipe is closed.
    fn holder(parent: &Path, place: u64) -> (crate::process::Child, std::os::fd::OwnedFd) {
        let (done, hold) = rustix::pipe::pipe().unwrap();
        let (ready, say) = rustix::pipe::pipe().unwrap();
        match fork().unwrap() {
            Fork::Child => {
                drop((hold, ready));
                let held = open_in(parent).unwrap();
                held.take(place).unwrap();
                rustix::io::write(&say, b"x").unwrap();
                rustix::io::read(&done, &mut [0_u8; 1]).unwrap();
                exit_at_once(0)
            }
            Fork::Parent(child) => {
                rustix::io::read(&ready, &mut [0_u8; 1]).unwrap();
                (child, hold)
            }
        }
    }

    #[test]
    fn a_holder_is_known_until_it_ends_and_the_last_removes_the_file() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join(format!("sarus-{}", uid()));
        let (child, hold) = holder(parent.path(), 7);
        let pid = child.as_raw_pid();
        let mut mine = open_in(parent.path()).unwrap();
        mine.enter(Access::Shared).unwrap();
        assert_eq!(mine.holder(Some(7)).unwrap(), Some(Holder::Process(pid)));
        assert_eq!(mine.holder(Some(8)).unwrap(), None);
        assert_eq!(mine.holder(None).unwrap(), Some(Holder::Process(pid)));
        assert!(!mine.claim(7).unwrap());
        mine.take(7).unwrap();
        mine.exit().unwrap();
        assert!(!mine.leave(7).unwrap());
        assert!(directory.join("file").exists());
        drop(hold);
        child.wait().unwrap();
        let mine = open_in(parent.path()).unwrap();
        assert!(mine.claim(7).unwrap());
        assert!(mine.leave(7).unwrap());
        assert!(!directory.exists());
    }

    #[test]
    fn a_file_removed_meanwhile_is_made_again() {
        let parent = tempfile::tempdir().unwrap();
        let mut late = open_in(parent.path()).unwrap();
        open_in(parent.path()).unwrap().leave(1).unwrap();
        late.enter(Access::Exclusive).unwrap();
        assert!(late.is_current());
    }

    #[test]
    fn what_others_can_reach_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join(format!("sarus-{}", uid()));
        std::fs::DirBuilder::new().mode(0o755).create(&directory).unwrap();
        let refused = |parent: &Path| {
            let error = open_in(parent).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            error.to_string()
        };
        assert!(refused(parent.path()).contains("mode 0755"));
        std::fs::remove_dir(&directory).unwrap();
        std::os::unix::fs::symlink("/", &directory).unwrap();
        assert!(refused(parent.path()).contains("mode 0777"));
    }
}

//! Unpacks an image into a directory, for nodes without FUSE, without privilege.
//!
//! One thread walks the image and makes the entries, others fill the files. Ownership is not set:
//! everything belongs to the caller. Modes and times of directories come last, so that read-only
//! ones can be filled.

mod error;
mod files;
mod place;

use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crossbeam_channel::{Sender, bounded};
use rustix::fs::{AtFlags, FileType};

pub use error::UnpackError;

use self::files::{FileJob, Filling};
use crate::reader::{Image, ImageReader, Inode, InodeKind, InodeReference};

/// Files that are made and not yet filled: each is an open descriptor.
const OPEN_FILES: usize = 128;

/// Bytes that a small file, a directory or a long symbolic link takes on common file systems.
const ALLOCATION: u64 = 4096;

/// Longest path that is made, in bytes: the kernel's `PATH_MAX`.
const PATH_MAX: usize = 4096;

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct UnpackOptions {
    /// Threads that decompress, besides the calling one.
    pub threads: NonZeroUsize,
}

impl Default for UnpackOptions {
    /// A thread per available CPU.
    fn default() -> Self {
        Self { threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN) }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries made, the root not among them.
    pub entries: u64,
    /// Bytes in regular files, holes included.
    pub bytes: u64,
    /// Devices that this user cannot make.
    pub skipped_devices: u64,
}

/// Unpacks all of `image` into `target`, an empty directory of the caller; its mode and time
/// become those of the image's root.
///
/// Symbolic links are never followed, hard links stay hard links, holes stay holes; `user.`
/// attributes are set where the file system can. Devices that cannot be made are counted.
///
/// # Errors
///
/// [`UnpackError::NoRoom`] before anything is made. Otherwise what was made stays.
pub fn unpack(
    image: &std::fs::File,
    target: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<Unpacked, UnpackError> {
    unpack_at((image, 0), target, options)
}

/// As [`unpack`], for an image that begins at that byte of the file.
///
/// # Errors
///
/// As [`unpack`].
pub fn unpack_at(
    (image, offset): (&std::fs::File, u64),
    target: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<Unpacked, UnpackError> {
    let image = Image::open_at(image, offset).map_err(UnpackError::Image)?;
    let mut reader = ImageReader::new(&image).map_err(UnpackError::Image)?;
    let need = need(&mut reader)?;
    check_room(target, need)?;
    let filling = Filling::new(&image, need.bytes);
    let (jobs, incoming) = bounded(OPEN_FILES);
    let result = std::thread::scope(|scope| {
        let filling = &filling;
        for number in 0..options.threads.get() {
            let incoming = incoming.clone();
            std::thread::Builder::new()
                .name(format!("unpack-{number}"))
                .spawn_scoped(scope, move || filling.work(incoming))
                .map_err(UnpackError::Thread)?;
        }
        drop(incoming);
        let mut walk = Walk {
            reader: &mut reader,
            target,
            need,
            jobs,
            linked: HashMap::new(),
            seen: HashSet::new(),
            directories: Vec::new(),
            done: Unpacked::default(),
        };
        walk.run()?;
        Ok((walk.done, walk.directories))
    });
    // A closed channel is the consequence of a thread's failure, which tells more.
    if let Some(failure) = filling.failure() {
        return Err(failure);
    }
    let (done, directories) = result?;
    complete_directories(&mut reader, target, directories, need.bytes)?;
    Ok(done)
}

/// What an image takes when unpacked.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    bytes: u64,
    /// Bytes in files, holes included.
    content: u64,
    inodes: u64,
}

fn need(reader: &mut ImageReader<'_>) -> Result<Need, UnpackError> {
    let mut need = Need::default();
    reader
        .for_each_inode(|inode| {
            let bytes = match &inode.kind {
                InodeKind::File(file) => {
                    need.content = need.content.saturating_add(file.size);
                    file.size.saturating_sub(file.holes)
                }
                InodeKind::Directory(_) => ALLOCATION,
                _ => 0,
            };
            let bytes = bytes.checked_next_multiple_of(ALLOCATION).unwrap_or(u64::MAX);
            need.bytes = need.bytes.saturating_add(bytes);
            need.inodes += 1;
        })
        .map_err(UnpackError::Image)?;
    Ok(need)
}

fn check_room(target: BorrowedFd<'_>, need: Need) -> Result<(), UnpackError> {
    let (available, available_inodes) =
        place::available(target).map_err(|error| make("examine", b"/", error.into()))?;
    if need.bytes > available || need.inodes > available_inodes {
        let (needed, needed_inodes) = (need.bytes, need.inodes);
        return Err(UnpackError::NoRoom { needed, needed_inodes, available, available_inodes });
    }
    Ok(())
}

/// Modes, times and attributes of directories, deepest first.
fn complete_directories(
    reader: &mut ImageReader<'_>,
    target: BorrowedFd<'_>,
    directories: Vec<(Vec<u8>, Inode)>,
    needed: u64,
) -> Result<(), UnpackError> {
    for (path, inode) in directories.into_iter().rev() {
        let xattrs = reader
            .xattrs(&inode)
            .map_err(|source| UnpackError::Content { path: path.clone(), source })?;
        let set = |error: rustix::io::Errno| {
            made("set the attributes of", &path, error.into(), (target, needed))
        };
        let open = place::open_directory(target, &path).map_err(set)?;
        for (name, value) in xattrs {
            place::set_xattr(open.as_fd(), &name, &value);
        }
        place::complete(open.as_fd(), inode.mode, inode.mtime).map_err(set)?;
    }
    Ok(())
}

fn make(operation: &'static str, path: &[u8], source: io::Error) -> UnpackError {
    UnpackError::Make { operation, path: path.to_vec(), source }
}

/// The error of an operation in the target; a full file system is told apart.
fn made(
    operation: &'static str,
    path: &[u8],
    source: io::Error,
    (place, needed): (BorrowedFd<'_>, u64),
) -> UnpackError {
    if !matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return make(operation, path, source);
    }
    let available = place::available(place).map_or(0, |(bytes, _inodes)| bytes);
    UnpackError::Full { path: path.to_vec(), needed, available, source }
}

/// The walk through the image, by the calling thread.
struct Walk<'a, 'b> {
    reader: &'a mut ImageReader<'b>,
    target: BorrowedFd<'a>,
    need: Need,
    jobs: Sender<FileJob>,
    /// The first path of each inode that says it has several.
    linked: HashMap<InodeReference, Vec<u8>>,
    /// Directories that were met.
    seen: HashSet<InodeReference>,
    /// Directories made, parents first.
    directories: Vec<(Vec<u8>, Inode)>,
    done: Unpacked,
}

impl Walk<'_, '_> {
    fn run(&mut self) -> Result<(), UnpackError> {
        let root = self.reader.image_root();
        self.seen.insert(root);
        let root = self.reader.inode(root).map_err(UnpackError::Image)?;
        if !matches!(root.kind, InodeKind::Directory(_)) {
            return Err(UnpackError::Tree { path: b"/".to_vec(), what: "is no directory" });
        }
        let mut left = vec![(Vec::new(), root)];
        while let Some((path, inode)) = left.pop() {
            let open = place::open_directory(self.target, &path)
                .map_err(|error| self.made("open", &path, error.into()))?;
            let found = self.fill_directory(&open, &path, &inode)?;
            left.extend(found);
            self.directories.push((path, inode));
        }
        Ok(())
    }

    /// Makes all entries of a directory; returns the directories among them.
    fn fill_directory(
        &mut self,
        open: &OwnedFd,
        path: &[u8],
        inode: &Inode,
    ) -> Result<Vec<(Vec<u8>, Inode)>, UnpackError> {
        let mut found = Vec::new();
        let InodeKind::Directory(directory) = &inode.kind else { return Ok(found) };
        let mut entries = self.reader.entries(directory);
        let unreadable = |source| UnpackError::Content { path: path.to_vec(), source };
        while let Some(entry) = entries.next(self.reader).map_err(unreadable)? {
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            if path.len() > PATH_MAX {
                return Err(UnpackError::Tree { path, what: "has a path of over 4096 bytes" });
            }
            let inode = match self.reader.inode(entry.inode) {
                Ok(inode) => inode,
                Err(source) => return Err(UnpackError::Content { path, source }),
            };
            self.done.entries += 1;
            if let InodeKind::Directory(_) = inode.kind {
                if !self.seen.insert(entry.inode) {
                    return Err(UnpackError::Tree { path, what: "is a directory met before" });
                }
                place::create_directory(open.as_fd(), &entry.name)
                    .map_err(|error| self.made("make directory", &path, error.into()))?;
                found.push((path, inode));
            } else {
                self.make_entry(open.as_fd(), (&entry.name, entry.inode), path, inode)?;
            }
        }
        Ok(found)
    }

    fn make_entry(
        &mut self,
        open: BorrowedFd<'_>,
        (name, reference): (&[u8], InodeReference),
        path: Vec<u8>,
        inode: Inode,
    ) -> Result<(), UnpackError> {
        if inode.links > 1 {
            if let Some(first) = self.linked.get(&reference) {
                return self
                    .link(open, name, first)
                    .map_err(|error| self.made("link", &path, error.into()));
            }
            self.linked.insert(reference, path.clone());
        }
        if let InodeKind::File(content) = &inode.kind {
            self.done.bytes = self.done.bytes.saturating_add(content.size);
            // Else an image of a few bytes could name one file a million times.
            if self.done.bytes > self.need.content {
                return Err(UnpackError::Tree { path, what: "has more names than links" });
            }
            let file = place::create_file(open, name)
                .map_err(|error| self.made("create", &path, error.into()))?;
            let job = FileJob { file, inode, path };
            let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
            return self.jobs.send(job).map_err(|job| make("write", &job.0.path, closed()));
        }
        self.make_special(open, name, &inode)
            .map_err(|error| self.made("create", &path, error.into()))
    }

    fn link(&self, open: BorrowedFd<'_>, path: &[u8], first: &[u8]) -> rustix::io::Result<()> {
        let (parent, old) = match first.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (&first[..0], first),
        };
        let parent = place::open_directory(self.target, parent)?;
        let (old, new) = (place::name(old), place::name(path));
        match rustix::fs::linkat(&parent, old, open, new, AtFlags::empty()) {
            // The first name is a device that could not be made.
            Err(rustix::io::Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    fn make_special(
        &mut self,
        open: BorrowedFd<'_>,
        path: &[u8],
        inode: &Inode,
    ) -> rustix::io::Result<()> {
        let device = |major, minor| rustix::fs::makedev(major, minor);
        let node = match &inode.kind {
            InodeKind::Symlink(target) => {
                rustix::fs::symlinkat(place::name(target), open, place::name(path))?;
                return place::complete_at(open, path, (None, inode.mtime));
            }
            InodeKind::CharDevice { major, minor } => {
                (FileType::CharacterDevice, device(*major, *minor))
            }
            InodeKind::BlockDevice { major, minor } => {
                (FileType::BlockDevice, device(*major, *minor))
            }
            InodeKind::Socket => (FileType::Socket, 0),
            _ => (FileType::Fifo, 0),
        };
        match place::create_node(open, path, node) {
            Ok(()) => place::complete_at(open, path, (Some(inode.mode), inode.mtime)),
            Err(error) if place::is_refusal(error) => {
                log::debug!("cannot make device `{}`: {error}", path.escape_ascii());
                self.done.skipped_devices += 1;
                self.done.entries -= 1;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn made(&self, operation: &'static str, path: &[u8], source: io::Error) -> UnpackError {
        made(operation, path, source, (self.target, self.need.bytes))
    }
}

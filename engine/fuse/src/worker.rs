//! One thread's part: from a request to its answer.

use std::sync::atomic::Ordering;

use rustix::fs::FileType;
use rustix::io::Errno;
use sarus_squash::{BlockReader, Image, ImageReader, Inode, InodeKind, InodeReference, ReadError};

use crate::ahead::Ahead;
use crate::protocol::{Attributes, GetxattrIn, ROOT, Request, init, opcode, open};
use crate::reply::Reply;
use crate::server::Server;

/// Seconds for which the kernel may keep what it was told: an image never changes.
pub(crate) const FOREVER: u64 = 1 << 31;

/// Longest target of a symbolic link that the kernel takes, in bytes.
const TARGET_MAX: usize = 4095;
/// Longest name that squashfs has, in bytes.
const NAME_MAX: u32 = 256;
/// Longest list of attributes' names that the kernel takes, in bytes: `XATTR_LIST_MAX`.
const XATTR_LIST_MAX: usize = 65536;

/// Answers requests, in one thread.
#[derive(Debug)]
pub struct Worker<'a> {
    pub(crate) server: &'a Server<'a>,
    pub(crate) reader: ImageReader<'a>,
    pub(crate) blocks: BlockReader<'a>,
    /// The part of the id table that was needed until now.
    ids: Vec<Option<u32>>,
    pub(crate) ahead: Option<Ahead>,
}

/// Nothing tells the kernel, or anybody, more of a damaged image.
pub(crate) fn unreadable(_error: ReadError) -> Errno {
    Errno::IO
}

impl<'a> Worker<'a> {
    /// A worker with a decompressor and caches of its own.
    ///
    /// # Errors
    ///
    /// The decompressor could not be set up.
    pub fn new(server: &'a Server<'a>) -> Result<Self, ReadError> {
        let image: &'a Image<'a> = server.image;
        Ok(Self {
            server,
            reader: ImageReader::new(image)?,
            blocks: BlockReader::new(image)?,
            ids: vec![None; usize::from(image.superblock().ids)],
            ahead: None,
        })
    }

    /// The answer to a request. None where there is none: what is not a request, or one of the
    /// few that the kernel does not wait for.
    pub fn answer(&mut self, request: &[u8]) -> Option<Reply> {
        let request = Request::parse(request)?;
        let answer = match request.opcode {
            // Numbers stand for places in the image, so there is nothing to forget.
            opcode::FORGET | opcode::BATCH_FORGET | opcode::NOTIFY_REPLY => return None,
            opcode::INIT => self.server.greet(&request),
            opcode::DESTROY | opcode::RELEASE | opcode::RELEASEDIR => {
                Ok(Reply::new(request.unique, |_nothing| ()))
            }
            opcode::LOOKUP => self.look_up(&request),
            opcode::GETATTR => self.attributes_of(&request),
            opcode::READLINK => self.read_link(&request),
            opcode::OPEN | opcode::OPENDIR => self.open(&request),
            opcode::READ => self.read(&request),
            opcode::READDIR => self.list(&request, false),
            opcode::READDIRPLUS => self.list(&request, true),
            opcode::STATFS => Ok(self.statistics(&request)),
            opcode::GETXATTR => self.xattr(&request),
            opcode::LISTXATTR => self.xattrs(&request),
            opcode::SETATTR..=opcode::LINK
            | opcode::WRITE
            | opcode::SETXATTR
            | opcode::REMOVEXATTR
            | opcode::CREATE
            | opcode::FALLOCATE
            | opcode::RENAME2
            | opcode::TMPFILE => Err(Errno::ROFS),
            // What other file systems without any say; asked at each opening by Python, but not
            // through an overlay.
            opcode::IOCTL => Err(Errno::NOTTY),
            // Most are not asked again after this: ACCESS, FLUSH, LSEEK, INTERRUPT, STATX, …
            _ => Err(Errno::NOSYS),
        };
        Some(answer.unwrap_or_else(|error| Reply::failed(request.unique, error)))
    }

    pub(crate) fn load(&mut self, node: u64) -> Result<Inode, Errno> {
        let reference = self.server.inode(node)?;
        self.reader.inode(reference).map_err(unreadable)
    }

    fn look_up(&mut self, request: &Request<'_>) -> Result<Reply, Errno> {
        let name = { request.body }.name().ok_or(Errno::INVAL)?;
        let entry = match self.find(request.node, name)? {
            Some(reference) => Some(self.entry(reference)?),
            None => None,
        };
        let (node, attributes) = entry.unwrap_or_default();
        Ok(Reply::new(request.unique, |output| output.entry_for(FOREVER, node, &attributes)))
    }

    /// What the kernel is told of an inode that a directory names.
    pub(crate) fn entry(&mut self, reference: InodeReference) -> Result<(u64, Attributes), Errno> {
        let node = self.server.node(reference);
        if node == ROOT {
            return Err(Errno::IO);
        }
        let inode = self.reader.inode(reference).map_err(unreadable)?;
        Ok((node, self.attributes(&inode)?))
    }

    fn attributes_of(&mut self, request: &Request<'_>) -> Result<Reply, Errno> {
        let inode = self.load(request.node)?;
        let attributes = self.attributes(&inode)?;
        Ok(Reply::new(request.unique, |output| output.attributes_for(FOREVER, &attributes)))
    }

    /// The same numbers as the kernel's squashfs shows, but that extended attributes count no blocks.
    fn attributes(&mut self, inode: &Inode) -> Result<Attributes, Errno> {
        let (kind, size, blocks, device) = match &inode.kind {
            InodeKind::Directory(place) => (FileType::Directory, u64::from(place.size), 0, 0),
            InodeKind::File(place) => {
                let stored = place.size.saturating_sub(place.holes);
                (FileType::RegularFile, place.size, stored.div_ceil(512), 0)
            }
            InodeKind::Symlink(target) => (FileType::Symlink, target.len() as u64, 0, 0),
            &InodeKind::CharDevice { major, minor } => {
                (FileType::CharacterDevice, 0, 0, device(major, minor))
            }
            &InodeKind::BlockDevice { major, minor } => {
                (FileType::BlockDevice, 0, 0, device(major, minor))
            }
            InodeKind::Fifo => (FileType::Fifo, 0, 0, 0),
            InodeKind::Socket => (FileType::Socket, 0, 0, 0),
        };
        if size > i64::MAX.unsigned_abs() {
            return Err(Errno::IO);
        }
        Ok(Attributes {
            number: u64::from(inode.number),
            size,
            blocks,
            time: u64::from(inode.mtime),
            mode: kind.as_raw_mode() | u32::from(inode.mode),
            links: inode.links,
            uid: self.id(inode.owner)?,
            gid: self.id(inode.group)?,
            device,
            block_size: self.server.image.superblock().block_size,
        })
    }

    fn id(&mut self, index: u16) -> Result<u32, Errno> {
        let known = self.ids.get_mut(usize::from(index)).ok_or(Errno::IO)?;
        if let Some(id) = *known {
            return Ok(id);
        }
        let id = self.reader.id(index).map_err(unreadable)?;
        *known = Some(id);
        Ok(id)
    }

    fn read_link(&mut self, request: &Request<'_>) -> Result<Reply, Errno> {
        match self.load(request.node)?.kind {
            InodeKind::Symlink(target) if target.len() <= TARGET_MAX => {
                Ok(Reply::new(request.unique, |output| output.0.extend_from_slice(&target)))
            }
            InodeKind::Symlink(_) => Err(Errno::NAMETOOLONG),
            _ => Err(Errno::INVAL),
        }
    }

    /// A kernel that can do without is told so, and never asks again.
    fn open(&mut self, request: &Request<'_>) -> Result<Reply, Errno> {
        let unneeded = match request.opcode {
            opcode::OPEN => init::NO_OPEN_SUPPORT,
            _ => init::NO_OPENDIR_SUPPORT,
        };
        if self.server.agreed.load(Ordering::Relaxed) & unneeded != 0 {
            return Err(Errno::NOSYS);
        }
        let flags = open::KEEP_CACHE | open::CACHE_DIR | open::NOFLUSH;
        Ok(Reply::new(request.unique, |output| output.opened(flags)))
    }

    fn statistics(&self, request: &Request<'_>) -> Reply {
        let superblock = self.server.image.superblock();
        let blocks = superblock.bytes_used.div_ceil(u64::from(superblock.block_size));
        let (files, size) = (u64::from(superblock.inodes), superblock.block_size);
        Reply::new(request.unique, |output| output.statfs(blocks, files, size, NAME_MAX))
    }

    fn xattr(&mut self, request: &Request<'_>) -> Result<Reply, Errno> {
        self.has_xattrs()?;
        let asked = GetxattrIn::parse(request.body).ok_or(Errno::INVAL)?;
        let name = asked.name.ok_or(Errno::INVAL)?;
        let inode = self.load(request.node)?;
        let attributes = self.reader.xattrs(&inode).map_err(unreadable)?;
        let found = attributes.into_iter().find(|(known, _value)| known == name);
        let (_name, value) = found.ok_or(Errno::NODATA)?;
        sized(request, asked.size, &value)
    }

    fn xattrs(&mut self, request: &Request<'_>) -> Result<Reply, Errno> {
        self.has_xattrs()?;
        let asked = GetxattrIn::parse(request.body).ok_or(Errno::INVAL)?;
        let inode = self.load(request.node)?;
        let mut names = Vec::new();
        for (name, _value) in self.reader.xattrs(&inode).map_err(unreadable)? {
            if self.server.lists_trusted || !name.starts_with(b"trusted.") {
                names.extend_from_slice(&name);
                names.push(0);
            }
        }
        if names.len() > XATTR_LIST_MAX {
            return Err(Errno::TOOBIG);
        }
        sized(request, asked.size, &names)
    }

    /// Without any in the image, the kernel is told not to ask again: overlayfs would, often.
    fn has_xattrs(&self) -> Result<(), Errno> {
        let has = self.server.image.superblock().has_xattrs();
        if has { Ok(()) } else { Err(Errno::NOSYS) }
    }
}

/// Attributes' bytes, or their size where the kernel asks for no bytes.
fn sized(request: &Request<'_>, room: u32, bytes: &[u8]) -> Result<Reply, Errno> {
    if room != 0 && bytes.len() > room as usize {
        return Err(Errno::RANGE);
    }
    Ok(Reply::new(request.unique, |output| match room {
        0 => output.xattr_size(bytes.len()),
        _ => output.0.extend_from_slice(bytes),
    }))
}

/// A device number as the kernel's `new_encode_dev` has it.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

//! A squashfs image as a tar archive, in the order of the image: what another program packed goes
//! through the same conversion as a layer, and comes out as every image of ours.
//!
//! POSIX.1-2017 `pax` headers where a field of `ustar` is too short. Sockets are left out, which
//! no archive has. The same image gives the same bytes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use crate::reader::{
    ContentReader, FragmentCache, Image, ImageReader, Inode, InodeKind, InodeReference, Piece,
    ReadError,
};
use crate::tar::BLOCK_SIZE;

/// Zeros of a hole, written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Longest path that is written, in bytes: the kernel's `PATH_MAX`.
const PATH_MAX: usize = 4096;

/// Why an image could not be written as an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToTarError {
    /// The image cannot be read.
    #[error("the squashfs image cannot be read")]
    Image(#[from] ReadError),
    /// The image has a tree that no file system can have.
    #[error("`{}` in the squashfs image {what}", path.escape_ascii())]
    Tree {
        /// The path.
        path: Vec<u8>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The archive cannot be written.
    #[error("the archive cannot be written")]
    Write(#[from] io::Error),
}

/// Writes the image that begins at byte `offset` of `file` to `output`, with the owners that its
/// own table has.
///
/// # Errors
///
/// [`ToTarError`]; what was written is an archive without its end.
pub fn write_tar(file: &File, offset: u64, output: &mut dyn Write) -> Result<(), ToTarError> {
    let image = Image::open_at(file, offset)?;
    let mut walk = Walk {
        reader: ImageReader::new(&image)?,
        contents: ContentReader::new(&image, Arc::<FragmentCache>::default())?,
        output,
        names: HashMap::new(),
        seen: HashSet::new(),
    };
    let root = walk.reader.image_root();
    walk.directory(b"./".to_vec(), root)?;
    walk.output.write_all(&[0; 2 * BLOCK_SIZE])?;
    Ok(())
}

struct Walk<'a, 'o> {
    reader: ImageReader<'a>,
    contents: ContentReader<'a>,
    output: &'o mut dyn Write,
    /// The first path of each inode that says it has several.
    names: HashMap<InodeReference, Vec<u8>>,
    /// Inodes that were met.
    seen: HashSet<InodeReference>,
}

/// An entry on its way out.
struct Header<'a> {
    path: &'a [u8],
    flag: u8,
    size: u64,
    link: &'a [u8],
    device: (u32, u32),
}

impl Walk<'_, '_> {
    /// Writes a directory and all below it. Paths end in a slash.
    fn directory(&mut self, path: Vec<u8>, root: InodeReference) -> Result<(), ToTarError> {
        let mut left = vec![(path, root)];
        while let Some((path, reference)) = left.pop() {
            let inode = self.reader.inode(reference)?;
            let InodeKind::Directory(place) = &inode.kind else {
                return Err(ToTarError::Tree { path, what: "is no directory" });
            };
            if !self.seen.insert(reference) {
                return Err(ToTarError::Tree { path, what: "is a directory met before" });
            }
            let header = Header { path: &path, flag: b'5', size: 0, link: b"", device: (0, 0) };
            self.header(&header, &inode)?;
            let mut entries = self.reader.entries(place);
            while let Some(entry) = entries.next(&mut self.reader)? {
                let mut path = [path.as_slice(), &entry.name].concat();
                if path.len() > PATH_MAX {
                    return Err(ToTarError::Tree { path, what: "has a path of over 4096 bytes" });
                }
                let inode = self.reader.inode(entry.inode)?;
                if let InodeKind::Directory(_) = inode.kind {
                    path.push(b'/');
                    left.push((path, entry.inode));
                } else {
                    self.entry(path, entry.inode, &inode)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: Vec<u8>,
        reference: InodeReference,
        inode: &Inode,
    ) -> Result<(), ToTarError> {
        if let Some(first) = self.names.get(&reference).cloned() {
            let header = Header { path: &path, flag: b'1', size: 0, link: &first, device: (0, 0) };
            return self.header(&header, inode);
        }
        // Else an image of a few bytes could name one file a million times.
        if !self.seen.insert(reference) {
            return Err(ToTarError::Tree { path, what: "has more names than links" });
        }
        let mut header = Header { path: &path, flag: b'0', size: 0, link: b"", device: (0, 0) };
        match &inode.kind {
            InodeKind::File(file) => header.size = file.size,
            InodeKind::Symlink(target) => (header.flag, header.link) = (b'2', target),
            InodeKind::CharDevice { major, minor } => {
                (header.flag, header.device) = (b'3', (*major, *minor));
            }
            InodeKind::BlockDevice { major, minor } => {
                (header.flag, header.device) = (b'4', (*major, *minor));
            }
            InodeKind::Fifo => header.flag = b'6',
            InodeKind::Socket | InodeKind::Directory(_) => return Ok(()),
        }
        self.header(&header, inode)?;
        if let InodeKind::File(file) = &inode.kind {
            let output = &mut *self.output;
            self.contents.read(file, |piece| content(output, piece))?;
            pad(output, file.size)?;
        }
        if inode.links > 1 {
            self.names.insert(reference, path);
        }
        Ok(())
    }

    fn header(&mut self, header: &Header<'_>, inode: &Inode) -> Result<(), ToTarError> {
        let (uid, gid) = (self.reader.id(inode.owner)?, self.reader.id(inode.group)?);
        let mut records = Vec::new();
        if header.path.len() > 100 {
            record(&mut records, b"path", header.path);
        }
        if header.link.len() > 100 {
            record(&mut records, b"linkpath", header.link);
        }
        for (keyword, number, max) in [
            (&b"uid"[..], u64::from(uid), 0o777_7777),
            (b"gid", gid.into(), 0o777_7777),
            (b"size", header.size, 0o777_7777_7777),
        ] {
            if number > max {
                record(&mut records, keyword, number.to_string().as_bytes());
            }
        }
        if header.flag != b'1' {
            for (name, value) in self.reader.xattrs(inode)? {
                record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), &value);
            }
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            let extended = Header { path: b"pax", flag: b'x', size, link: b"", device: (0, 0) };
            self.output.write_all(&block(&extended, inode, (0, 0)))?;
            self.output.write_all(&records)?;
            pad(self.output, size)?;
        }
        self.output.write_all(&block(header, inode, (uid, gid)))?;
        Ok(())
    }
}

fn content(output: &mut dyn Write, piece: Piece<'_>) -> Result<(), ToTarError> {
    match piece {
        Piece::Data(bytes) => output.write_all(bytes)?,
        Piece::Hole(mut length) => {
            while length > 0 {
                let part = usize::try_from(length).unwrap_or(ZEROS.len()).min(ZEROS.len());
                output.write_all(&ZEROS[..part])?;
                length -= part as u64;
            }
        }
    }
    Ok(())
}

/// Zeros up to a whole block.
fn pad(output: &mut dyn Write, size: u64) -> io::Result<()> {
    let padding = usize::try_from(size.wrapping_neg() % BLOCK_SIZE as u64).unwrap_or(0);
    output.write_all(&ZEROS[..padding])
}

/// `LENGTH KEYWORD=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [&b" "[..], keyword, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// A `ustar` header. What does not fit is said in an extended header before it.
fn block(header: &Header<'_>, inode: &Inode, (uid, gid): (u32, u32)) -> [u8; BLOCK_SIZE] {
    let mut block = [0; BLOCK_SIZE];
    let text = |block: &mut [u8; BLOCK_SIZE], at: usize, text: &[u8]| {
        let length = text.len().min(100);
        block[at..at + length].copy_from_slice(&text[..length]);
    };
    let octal = |block: &mut [u8; BLOCK_SIZE], at: usize, digits: usize, number: u64| {
        let most = (1 << (3 * digits)) - 1;
        let number = format!("{:0digits$o}", number.min(most));
        block[at..at + digits].copy_from_slice(number.as_bytes());
    };
    text(&mut block, 0, header.path);
    octal(&mut block, 100, 7, inode.mode.into());
    octal(&mut block, 108, 7, uid.into());
    octal(&mut block, 116, 7, gid.into());
    octal(&mut block, 124, 11, header.size);
    octal(&mut block, 136, 11, inode.mtime.into());
    block[156] = header.flag;
    text(&mut block, 157, header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block, 329, 7, header.device.0.into());
    octal(&mut block, 337, 7, header.device.1.into());
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block, 148, 6, sum);
    block[154] = 0;
    block
}

//! Inodes and directory listings as the format has them, and the two tables that they make.

use std::collections::HashMap;

use super::contents::{Content, Contents};
use super::error::WriteError;
use super::listing::{Listing, Row, write_listing};
use super::metadata::{MetadataWriter, Place};
use super::order::Order;
use super::owners::Owners;
use super::xattrs::XattrSets;
use crate::format::{
    BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, EXTENDED, FIFO, FILE, NO_XATTR, SOCKET, SYMLINK,
    SYMLINK_MAX, encode_device,
};
use crate::settings::Compression;
use crate::tree::{Kind, Node, NodeId, Tree};

/// The inode and directory tables being made, and what they refer to. The inodes go to the file as
/// they are made, behind the contents.
pub(super) struct Inodes<'a> {
    tree: &'a Tree,
    order: &'a Order,
    contents: &'a Contents,
    pub(super) inodes: MetadataWriter,
    pub(super) directories: MetadataWriter,
    pub(super) owners: Owners,
    pub(super) xattrs: XattrSets,
    /// Where each node's inode is.
    places: Vec<Option<Place>>,
    /// Listings whose directory's inode is not yet written.
    listings: HashMap<NodeId, Listing>,
    /// The inode being made; used again.
    buffer: Vec<u8>,
}

impl<'a> Inodes<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        order: &'a Order,
        contents: &'a Contents,
        compression: Compression,
    ) -> Result<Self, WriteError> {
        // As they are: the kernel keeps eight blocks only and would decompress the others again for
        // every directory that is listed. It costs about 1 % of an image.
        let raw = Compression::None;
        Ok(Self {
            tree,
            order,
            contents,
            inodes: MetadataWriter::in_file(raw, &contents.file, contents.position)?,
            directories: MetadataWriter::new(raw)?,
            owners: Owners::default(),
            xattrs: XattrSets::new(compression)?,
            places: vec![None; tree.len()],
            listings: HashMap::new(),
            buffer: Vec::new(),
        })
    }

    /// Writes all inodes and listings; returns the root's place.
    pub(super) fn write_all(&mut self) -> Result<Place, WriteError> {
        for &(directory, _parent) in &self.order.directories {
            let Kind::Directory(entries) = &self.tree.node(directory).kind else { continue };
            for (name, child) in entries.iter() {
                if self.places[child.0 as usize].is_none() {
                    self.write(child, directory, name)?;
                }
            }
            let rows = entries.iter().map(|(name, child)| Row {
                name,
                place: self.places[child.0 as usize].unwrap_or(Place { block: 0, offset: 0 }),
                number: self.order.number_of(child),
                kind: basic_type(&self.tree.node(child).kind),
            });
            let listing = write_listing(&mut self.directories, &rows.collect::<Vec<_>>())?;
            self.listings.insert(directory, listing);
        }
        self.write(Tree::ROOT, Tree::ROOT, b"/")
    }

    /// Where each inode is, by inode number.
    pub(super) fn references(&self) -> Vec<u64> {
        let mut references = vec![0; self.order.inodes as usize];
        for (place, &number) in self.places.iter().zip(&self.order.numbers) {
            if let Some(place) = place
                && let Some(reference) = references.get_mut((number as usize).wrapping_sub(1))
            {
                *reference = place.reference();
            }
        }
        references
    }

    fn write(&mut self, id: NodeId, parent: NodeId, name: &[u8]) -> Result<Place, WriteError> {
        let node = self.tree.node(id);
        let links = self.order.links[id.0 as usize];
        let xattr = self.xattrs.number(node.metadata.xattrs.as_ref())?;
        let mut out = std::mem::take(&mut self.buffer);
        out.clear();
        match &node.kind {
            Kind::Directory(_) => self.directory(&mut out, (id, parent), links, xattr)?,
            Kind::File(content) => {
                let content =
                    self.contents.list.get(content.0 as usize).ok_or_else(|| {
                        WriteError::Dangling { path: name.to_vec(), what: "content" }
                    })?;
                self.file(&mut out, (id, content), links, xattr)?;
            }
            Kind::Symlink(target) => {
                let length = target.len();
                if length == 0 || length > SYMLINK_MAX || target.contains(&0) {
                    return Err(WriteError::Symlink { path: name.to_vec(), length });
                }
                self.base(&mut out, id, SYMLINK, xattr != NO_XATTR)?;
                put(&mut out, &[links, u32::try_from(length).unwrap_or(0)]);
                out.extend_from_slice(target);
                put_xattr(&mut out, xattr);
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let number = encode_device(*major, *minor).ok_or_else(|| WriteError::Device {
                    path: name.to_vec(),
                    major: *major,
                    minor: *minor,
                })?;
                self.base(&mut out, id, basic_type(&node.kind), xattr != NO_XATTR)?;
                put(&mut out, &[links, number]);
                put_xattr(&mut out, xattr);
            }
            Kind::Fifo | Kind::Socket => {
                self.base(&mut out, id, basic_type(&node.kind), xattr != NO_XATTR)?;
                put(&mut out, &[links]);
                put_xattr(&mut out, xattr);
            }
        }
        let place = self.inodes.place()?;
        self.inodes.append(&out)?;
        self.buffer = out;
        self.places[id.0 as usize] = Some(place);
        Ok(place)
    }

    /// What all inodes begin with.
    fn base(
        &mut self,
        out: &mut Vec<u8>,
        id: NodeId,
        kind: u16,
        is_extended: bool,
    ) -> Result<(), WriteError> {
        let Node { metadata, .. } = self.tree.node(id);
        let kind = if is_extended { kind + EXTENDED } else { kind };
        let (uid, gid) = (self.owners.index(metadata.uid)?, self.owners.index(metadata.gid)?);
        for number in [kind, metadata.mode & 0o7777, uid, gid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put(out, &[metadata.mtime, self.order.number_of(id)]);
        Ok(())
    }

    fn directory(
        &mut self,
        out: &mut Vec<u8>,
        (id, parent): (NodeId, NodeId),
        links: u32,
        xattr: u32,
    ) -> Result<(), WriteError> {
        let listing = self.listings.remove(&id).unwrap_or_default();
        // What readdir would return for `.` and `..` counts, too.
        let size = listing.size.checked_add(3).ok_or(WriteError::TooMany {
            what: "bytes in a directory",
            limit: u64::from(u32::MAX - 3),
        })?;
        let is_root = id == Tree::ROOT;
        let parent = if is_root { self.order.inodes + 1 } else { self.order.number_of(parent) };
        let offset = listing.place.offset;
        let (indexes, index) = listing.index();
        match u16::try_from(size) {
            Ok(size) if xattr == NO_XATTR && indexes == 0 => {
                self.base(out, id, DIRECTORY, false)?;
                put(out, &[listing.place.block, links]);
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                put(out, &[parent]);
            }
            _ => {
                self.base(out, id, DIRECTORY, true)?;
                put(out, &[links, size, listing.place.block, parent]);
                out.extend_from_slice(&indexes.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                put(out, &[xattr]);
                out.extend_from_slice(index);
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        out: &mut Vec<u8>,
        (id, content): (NodeId, &Content),
        links: u32,
        xattr: u32,
    ) -> Result<(), WriteError> {
        let holes = self.contents.holes(content);
        let basic = (u32::try_from(content.start), u32::try_from(content.size));
        match basic {
            (Ok(start), Ok(size)) if links == 1 && xattr == NO_XATTR && holes == 0 => {
                self.base(out, id, FILE, false)?;
                put(out, &[start, content.fragment, content.offset, size]);
            }
            _ => {
                self.base(out, id, FILE, true)?;
                for number in [content.start, content.size, holes] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                put(out, &[links, content.fragment, content.offset, xattr]);
            }
        }
        put(out, self.contents.sizes(content));
        Ok(())
    }
}

/// The basic type of an inode, which listings have.
fn basic_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => DIRECTORY,
        Kind::File(_) => FILE,
        Kind::Symlink(_) => SYMLINK,
        Kind::BlockDevice { .. } => BLOCK_DEVICE,
        Kind::CharDevice { .. } => CHAR_DEVICE,
        Kind::Fifo => FIFO,
        Kind::Socket => SOCKET,
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_xattr(out: &mut Vec<u8>, xattr: u32) {
    if xattr != NO_XATTR {
        put(out, &[xattr]);
    }
}

//! Layers merged into one [`Tree`], by the rules of extraction in order.
//!
//! Every entry changes the tree as extraction by root would change a file system; the file system
//! that OCI tools leave behind (`umoci unpack`) is the reference. Paths are resolved inside the
//! root and against the tree as it stands at that entry, so nothing about a path needs to be known
//! in advance, and nothing ever lies outside. File data goes to a [`ContentSink`] as it comes; what
//! is overwritten later stays there as content that no node refers to. Knows nothing of
//! compression and squashfs.

mod attributes;
mod error;
mod path;
mod whiteout;

use std::collections::HashSet;
use std::io::BufRead;

pub use error::{EntryError, MergeError};
pub use path::{COMPONENT_SIZE_MAX, LINKS_MAX, PATH_SIZE_MAX};

use crate::tar::{Archive, Entry, EntryType, Piece};
use crate::tree::{ContentId, Kind, Metadata, Node, NodeId, Tree, Xattrs};
use path::{Place, Step};

/// Longest target of a symbolic link in bytes: Linux's limit.
pub const TARGET_SIZE_MAX: usize = 4095;

/// Largest file in bytes, holes included: 2 TiB.
pub const FILE_SIZE_MAX: u64 = 1 << 41;

/// Most memory in bytes for all that is not file data: 1 GiB, or some five million entries.
pub const TREE_SIZE_MAX: u64 = 1 << 30;

/// Most entries in all layers of an image, whiteouts and repetitions included. Half as many fill
/// [`TREE_SIZE_MAX`], unless they are of what is there already.
pub const ENTRIES_MAX: u64 = 1 << 24;

/// Most names looked up for all entries of an image together: half a minute. A million entries
/// of ten components each need a thirtieth; links and opaque directories can be made such that each
/// entry needs hundreds of thousands.
pub const STEPS_MAX: u64 = 1 << 28;

/// What a node and its name are charged, besides the bytes of its strings.
const NODE_SIZE: u64 = 192;

/// A hole or block of data is listed by four bytes for at least this many.
const LISTED_PER_BYTE: u64 = (128 << 10) / 4;

/// Where file data goes. [`crate::Writer`] is one; tests have another.
pub trait ContentSink {
    /// Why data cannot be taken.
    type Error;

    /// Begins a file. Only one is open at a time.
    ///
    /// # Errors
    ///
    /// The sink's own.
    fn start_file(&mut self) -> Result<(), Self::Error>;

    /// Adds bytes to the open file.
    ///
    /// # Errors
    ///
    /// The sink's own.
    fn append(&mut self, data: &[u8]) -> Result<(), Self::Error>;

    /// Adds a hole to the open file.
    ///
    /// # Errors
    ///
    /// The sink's own.
    fn append_zeros(&mut self, length: u64) -> Result<(), Self::Error>;

    /// Ends the open file and says how nodes refer to its data.
    ///
    /// # Errors
    ///
    /// The sink's own.
    fn end_file(&mut self) -> Result<ContentId, Self::Error>;
}

/// A tree that grows entry by entry. After an error it is of no use.
#[derive(Debug)]
pub struct Merger<S> {
    tree: Tree,
    sink: S,
    time: u32,
    /// The layer that is being applied, counted from 1.
    layer: u32,
    /// By node: the layer that made it or, a directory, last had an entry in it. Whiteouts of the
    /// same layer spare those.
    touched: Vec<u32>,
    /// Names that the current layer gave to nodes of older layers.
    linked: HashSet<(NodeId, Box<[u8]>)>,
    xattrs: HashSet<Xattrs>,
    size: u64,
    unpacked: u64,
    entries: u64,
    steps: u64,
}

impl<S: ContentSink> Merger<S> {
    /// An empty root directory: 0755, owned by root, at time 0. `time` is that of directories which
    /// no entry describes.
    pub fn new(sink: S, time: u32) -> Self {
        let root = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: None };
        Self {
            tree: Tree::new(root),
            sink,
            time,
            layer: 0,
            touched: vec![0],
            linked: HashSet::new(),
            xattrs: HashSet::new(),
            size: 0,
            unpacked: 0,
            entries: 0,
            steps: 0,
        }
    }

    /// Begins the next layer: whiteouts from now on hide what is there now.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
        self.linked.clear();
    }

    /// Applies an entry. A file's data is read from `archive`, which stands behind the header.
    ///
    /// # Errors
    ///
    /// [`MergeError`], with the entry applied in part.
    pub fn apply<R: BufRead>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), MergeError<S::Error>> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(EntryError::Entries.into());
        }
        let components = path::clean(&entry.path)?;
        let Some((&name, above)) = components.split_last() else {
            return Ok(self.describe_root(entry)?);
        };
        let place = self.resolve(above)?;
        if let Some(hidden) = name.strip_prefix(whiteout::PREFIX) {
            return Ok(self.white_out(&place, hidden)?);
        }
        place.check_length(name)?;
        let parent = self.make_parents(place)?;
        let existing = self.child(parent, name);
        if entry.entry_type == EntryType::Directory
            && let Some(id) = existing
            && matches!(self.tree.node(id).kind, Kind::Directory(_))
        {
            self.describe(id, entry)?;
            self.touched[id.0 as usize] = self.layer;
            return Ok(());
        }
        if existing.is_some() {
            self.remove(parent, name);
        }
        let id = if entry.entry_type == EntryType::HardLink {
            let id = self.link_target(entry)?;
            if self.touched[id.0 as usize] != self.layer {
                self.linked.insert((parent, name.into()));
                self.charge(NODE_SIZE)?;
            }
            id
        } else {
            let kind = self.kind(entry, archive)?;
            let metadata = self.metadata(entry, None)?;
            self.add(Node { metadata, kind })?
        };
        Ok(self.insert(parent, name, id)?)
    }

    /// The tree, and the sink with the data.
    pub fn finish(self) -> (Tree, S) {
        (self.tree, self.sink)
    }

    /// Bytes of file data that went to the sink, holes included.
    pub fn unpacked_bytes(&self) -> u64 {
        self.unpacked
    }

    fn kind<R: BufRead>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<Kind, MergeError<S::Error>> {
        let (major, minor) = attributes::device(entry.device);
        Ok(match entry.entry_type {
            EntryType::File => Kind::File(self.content(entry, archive)?),
            EntryType::Directory => Kind::Directory(Box::default()),
            EntryType::Symlink => {
                let length = entry.link.len();
                if length == 0 || length > TARGET_SIZE_MAX {
                    return Err(EntryError::Target { length }.into());
                }
                self.charge(length as u64)?;
                Kind::Symlink(entry.link.as_slice().into())
            }
            EntryType::CharDevice => Kind::CharDevice { major, minor },
            EntryType::BlockDevice => Kind::BlockDevice { major, minor },
            EntryType::Fifo => Kind::Fifo,
            EntryType::HardLink => return Err(EntryError::Type { flag: b'1' }.into()),
            EntryType::Other(flag) => return Err(EntryError::Type { flag }.into()),
        })
    }

    fn content<R: BufRead>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<ContentId, MergeError<S::Error>> {
        if entry.size > FILE_SIZE_MAX {
            return Err(EntryError::FileSize { size: entry.size }.into());
        }
        self.charge(entry.size / LISTED_PER_BYTE)?;
        self.unpacked = self.unpacked.saturating_add(entry.size);
        self.sink.start_file().map_err(MergeError::Sink)?;
        while let Some(piece) = archive.next_piece()? {
            match piece {
                Piece::Data(data) => self.sink.append(data),
                Piece::Zeros(length) => self.sink.append_zeros(length),
            }
            .map_err(MergeError::Sink)?;
        }
        self.sink.end_file().map_err(MergeError::Sink)
    }

    /// The node that a hard link names: the last component is not followed, those before are.
    fn link_target(&mut self, entry: &Entry) -> Result<NodeId, EntryError> {
        let components = path::clean(&entry.link)?;
        let missing = || EntryError::LinkTarget { target: error::shown(&entry.link) };
        let directory = || EntryError::LinkToDirectory { target: error::shown(&entry.link) };
        let Some((&name, above)) = components.split_last() else { return Err(directory()) };
        let id = self
            .resolve(above)?
            .directory(&self.tree)
            .and_then(|parent| self.child(parent, name))
            .ok_or_else(missing)?;
        match self.tree.node(id).kind {
            Kind::Directory(_) => Err(directory()),
            _ => Ok(id),
        }
    }

    fn describe_root(&mut self, entry: &Entry) -> Result<(), EntryError> {
        if entry.entry_type != EntryType::Directory {
            return Err(EntryError::Root);
        }
        self.describe(Tree::ROOT, entry)
    }

    /// A directory entry over a directory: what it says replaces all of mode, owner, time and
    /// attributes; the content stays.
    fn describe(&mut self, id: NodeId, entry: &Entry) -> Result<(), EntryError> {
        let metadata = self.metadata(entry, Some(id))?;
        self.tree.node_mut(id).metadata = metadata;
        Ok(())
    }

    /// Makes the directories of a place that no entry named, and marks all as touched.
    fn make_parents(&mut self, place: Place) -> Result<NodeId, EntryError> {
        let mut parent = Tree::ROOT;
        for step in place.into_steps() {
            let id = match step {
                Step { node: Some(id), name } => match self.tree.node(id).kind {
                    Kind::Directory(_) => id,
                    _ => return Err(EntryError::NoDirectory { name: error::shown(&name) }),
                },
                Step { node: None, name } => {
                    let id = self.add(self.implied_directory(parent))?;
                    self.insert(parent, &name, id)?;
                    id
                }
            };
            self.touched[id.0 as usize] = self.layer;
            parent = id;
        }
        Ok(parent)
    }

    /// What `mkdir` makes below `parent`: the set-group-ID bit and its group are inherited.
    fn implied_directory(&self, parent: NodeId) -> Node {
        let Metadata { mode, gid, .. } = self.tree.node(parent).metadata;
        let inherited = mode & 0o2000;
        let metadata = Metadata {
            mode: 0o755 | inherited,
            uid: 0,
            gid: if inherited == 0 { 0 } else { gid },
            mtime: self.time,
            xattrs: None,
        };
        Node { metadata, kind: Kind::Directory(Box::default()) }
    }

    fn resolve(&mut self, components: &[&[u8]]) -> Result<Place, EntryError> {
        let place = path::resolve(&self.tree, components)?;
        self.count_steps(place.steps_taken())?;
        Ok(place)
    }

    /// Counts names that were looked up.
    fn count_steps(&mut self, steps: u64) -> Result<(), EntryError> {
        self.steps += steps;
        if self.steps > STEPS_MAX { Err(EntryError::Steps) } else { Ok(()) }
    }

    fn add(&mut self, node: Node) -> Result<NodeId, EntryError> {
        self.charge(NODE_SIZE)?;
        self.touched.push(self.layer);
        Ok(self.tree.add(node))
    }

    fn insert(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<(), EntryError> {
        self.charge(name.len() as u64)?;
        if let Kind::Directory(names) = &mut self.tree.node_mut(parent).kind {
            names.insert(name, id);
        }
        Ok(())
    }

    /// Takes a name away, and with a directory all that is below it.
    fn remove(&mut self, parent: NodeId, name: &[u8]) {
        if let Kind::Directory(names) = &mut self.tree.node_mut(parent).kind {
            names.remove(name);
        }
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        path::child(&self.tree, parent, name)
    }

    /// Counts memory that the tree keeps to the end.
    fn charge(&mut self, bytes: u64) -> Result<(), EntryError> {
        self.size += bytes;
        if self.size > TREE_SIZE_MAX { Err(EntryError::TreeSize) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    struct Nowhere;

    impl ContentSink for Nowhere {
        type Error = Infallible;

        fn start_file(&mut self) -> Result<(), Infallible> {
            Ok(())
        }

        fn append(&mut self, _data: &[u8]) -> Result<(), Infallible> {
            Ok(())
        }

        fn append_zeros(&mut self, _length: u64) -> Result<(), Infallible> {
            Ok(())
        }

        fn end_file(&mut self) -> Result<ContentId, Infallible> {
            Ok(ContentId(0))
        }
    }

    fn directory(path: &str) -> Entry {
        Entry {
            entry_type: EntryType::Directory,
            path: path.as_bytes().to_vec(),
            link: Vec::new(),
            size: 0,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    fn apply(merger: &mut Merger<Nowhere>, path: &str) -> Result<(), String> {
        let mut archive = Archive::new(&b""[..]);
        merger.apply(&directory(path), &mut archive).map_err(|error| error.to_string())
    }

    #[test]
    fn one_entry_more_than_the_limit_is_refused_though_it_adds_nothing() {
        let mut merger = Merger::new(Nowhere, 0);
        merger.begin_layer();
        merger.entries = ENTRIES_MAX - 1;
        assert_eq!(apply(&mut merger, "a"), Ok(()));
        let refused = "more than 16777216 entries in all layers".to_owned();
        assert_eq!(apply(&mut merger, "a"), Err(refused));
    }

    #[test]
    fn lookups_of_all_entries_together_are_limited() {
        let refused =
            || Err("more than 268435456 names to be looked up for all entries".to_owned());
        for (path, steps) in [("a/b/c/d", 3), ("a/.wh..wh..opq", 5)] {
            let mut merger = Merger::new(Nowhere, 0);
            merger.begin_layer();
            for made in ["a/b/c", "a/x", "a/y"] {
                assert_eq!(apply(&mut merger, made), Ok(()));
            }
            merger.steps = STEPS_MAX - steps;
            assert_eq!(apply(&mut merger, path), Ok(()), "{path}");
            assert_eq!(apply(&mut merger, path), refused(), "{path}");
        }
    }
}

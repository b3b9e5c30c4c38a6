//! The file tree of an image: what the merge of layers yields and the writer stores.
//!
//! A node is an inode; a hard link is one node with several names. Knows nothing of tar, and
//! nothing of squashfs.

mod names;

use std::sync::Arc;

pub use names::Names;

/// A node's place in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// The data of one regular file, as [`crate::Writer::end_file`] numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub u32);

/// Extended attributes, sorted by full name (`security.capability`), no name twice.
pub type Xattrs = Arc<Vec<(Box<[u8]>, Box<[u8]>)>>;

/// What every inode has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with set-user-ID, set-group-ID and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Owner, as the image has it.
    pub uid: u32,
    /// Group, as the image has it.
    pub gid: u32,
    /// Seconds since 1970; squashfs has 32 unsigned bits.
    pub mtime: u32,
    /// None where there are none.
    pub xattrs: Option<Xattrs>,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// What is in it.
    Directory(Box<Names>),
    /// A regular file.
    File(ContentId),
    /// The target, 1 to 4095 bytes... as given.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, mode, time, attributes.
    pub metadata: Metadata,
    /// Type and what belongs to it.
    pub kind: Kind,
}

/// A tree of nodes. Nodes that no directory names any more are not part of it, though they keep
/// their number.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// The root directory, always there.
    pub const ROOT: NodeId = NodeId(0);

    /// An empty root directory with the given metadata.
    pub fn new(root: Metadata) -> Self {
        Self { nodes: vec![Node { metadata: root, kind: Kind::Directory(Box::default()) }] }
    }

    /// Adds a node that no directory names yet.
    pub fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node);
        id
    }

    /// The node of that number.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The node of that number, to change it.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// The number of nodes ever added: every [`NodeId`] is below it.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the root is always there.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

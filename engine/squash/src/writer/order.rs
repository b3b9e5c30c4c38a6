//! What of a tree is part of the image, in which order, and how often it is linked.
//!
//! Does no I/O and knows nothing of the format but its limits on names.

use super::error::WriteError;
use crate::format::NAME_MAX;
use crate::tree::{Kind, NodeId, Tree};

/// The order of a tree's inodes.
///
/// Directories come after all that is in them; the inodes of a directory's entries are
/// neighbours, by name. So numbers in a listing differ little, and `ls -l` reads few blocks.
pub(super) struct Order {
    /// Inode number by node, from 1; 0 is not part of the image.
    pub(super) numbers: Vec<u32>,
    /// Names of a node; a directory's are counted as the kernel does.
    pub(super) links: Vec<u32>,
    /// Directories with their parents, deepest first; the root last, its own parent.
    pub(super) directories: Vec<(NodeId, NodeId)>,
    /// Contents that a file of the image has.
    pub(super) live: Vec<bool>,
    /// Inodes in all.
    pub(super) inodes: u32,
}

impl Order {
    /// Walks `tree`, of whose contents there are `contents`.
    pub(super) fn of(tree: &Tree, contents: usize) -> Result<Self, WriteError> {
        let mut order = Self {
            numbers: vec![0; tree.len()],
            links: vec![0; tree.len()],
            directories: parents_first(tree)?,
            live: vec![false; contents],
            inodes: 0,
        };
        order.directories.reverse();
        for place in 0..order.directories.len() {
            let (directory, _parent) = order.directories[place];
            let Kind::Directory(entries) = &tree.node(directory).kind else { continue };
            order.links[directory.0 as usize] += 2;
            for (name, child) in entries.iter() {
                order.add(tree, directory, name, child)?;
            }
        }
        order.number(Tree::ROOT)?;
        Ok(order)
    }

    /// The inode number of a node.
    pub(super) fn number_of(&self, node: NodeId) -> u32 {
        self.numbers.get(node.0 as usize).copied().unwrap_or(0)
    }

    fn number(&mut self, node: NodeId) -> Result<(), WriteError> {
        // One is left for the root's parent.
        if self.inodes >= u32::MAX - 2 {
            return Err(WriteError::TooMany { what: "inodes", limit: u64::from(u32::MAX - 2) });
        }
        self.inodes += 1;
        self.numbers[node.0 as usize] = self.inodes;
        Ok(())
    }

    fn add(
        &mut self,
        tree: &Tree,
        directory: NodeId,
        name: &[u8],
        child: NodeId,
    ) -> Result<(), WriteError> {
        if self.numbers[child.0 as usize] == 0 {
            self.number(child)?;
        }
        match &tree.node(child).kind {
            Kind::Directory(_) => self.links[directory.0 as usize] += 1,
            Kind::File(content) => {
                let live = self.live.get_mut(content.0 as usize);
                *live.ok_or_else(|| WriteError::Dangling {
                    path: name.to_vec(),
                    what: "content",
                })? = true;
                self.links[child.0 as usize] += 1;
            }
            _ => self.links[child.0 as usize] += 1,
        }
        Ok(())
    }
}

/// All directories of the tree with their parents; names are checked on the way.
fn parents_first(tree: &Tree) -> Result<Vec<(NodeId, NodeId)>, WriteError> {
    let mut found = Vec::new();
    let mut seen = vec![false; tree.len()];
    seen[Tree::ROOT.0 as usize] = true;
    let mut left = vec![(Tree::ROOT, Tree::ROOT)];
    while let Some((directory, parent)) = left.pop() {
        found.push((directory, parent));
        let Kind::Directory(entries) = &tree.node(directory).kind else { continue };
        for (name, child) in entries.iter() {
            check_name(name)?;
            if child.0 as usize >= tree.len() {
                return Err(WriteError::Dangling { path: name.to_vec(), what: "node" });
            }
            if !matches!(tree.node(child).kind, Kind::Directory(_)) {
                continue;
            }
            if std::mem::replace(&mut seen[child.0 as usize], true) {
                return Err(WriteError::DirectoryTwice { path: name.to_vec() });
            }
            left.push((child, directory));
        }
    }
    Ok(found)
}

fn check_name(name: &[u8]) -> Result<(), WriteError> {
    let is_good = !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
        && name != b"."
        && name != b"..";
    if is_good { Ok(()) } else { Err(WriteError::Name { name: name.to_vec() }) }
}

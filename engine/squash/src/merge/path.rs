//! Paths: cleaned by their text, then resolved in the tree, never leaving the root.
//!
//! Knows nothing of entries.

use super::EntryError;
use crate::tree::{Kind, NodeId, Tree};

/// Longest path in bytes, of an entry as of what it resolves to: Linux's `PATH_MAX`.
pub const PATH_SIZE_MAX: usize = 4096;

/// Longest name of a directory entry in bytes: Linux's `NAME_MAX`.
pub const COMPONENT_SIZE_MAX: usize = 255;

/// Most symbolic links followed in one path; what OCI tools allow, more than Linux's 40.
pub const LINKS_MAX: usize = 255;

/// A component of a resolved path: never a symbolic link.
#[derive(Debug)]
pub(super) struct Step {
    /// None where nothing is yet.
    pub(super) node: Option<NodeId>,
    /// Empty for directories, which need none.
    pub(super) name: Box<[u8]>,
}

/// A resolved path, from the root down. What follows a missing component, or one that is no
/// directory, is missing too.
#[derive(Debug, Default)]
pub(super) struct Place {
    steps: Vec<Step>,
    /// Length of the path up to each step.
    lengths: Vec<usize>,
    /// Names that were looked at on the way.
    taken: u64,
}

/// Splits a path by its text alone: `.` and empty components vanish, `..` takes one away and
/// cannot go above the root. No component is left for the root itself.
pub(super) fn clean(path: &[u8]) -> Result<Vec<&[u8]>, EntryError> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    let length = components.iter().map(|name| name.len() + 1).sum::<usize>().saturating_sub(1);
    if length > PATH_SIZE_MAX { Err(EntryError::PathSize { length }) } else { Ok(components) }
}

/// The node of that name, if `parent` is a directory and has it.
pub(super) fn child(tree: &Tree, parent: NodeId, name: &[u8]) -> Option<NodeId> {
    match &tree.node(parent).kind {
        Kind::Directory(names) => names.get(name),
        _ => None,
    }
}

/// Follows the components from the root, and all symbolic links, as a process would whose root
/// this is. Components that do not exist are taken as directories to be made, and `..` after
/// one takes it away.
pub(super) fn resolve(tree: &Tree, components: &[&[u8]]) -> Result<Place, EntryError> {
    let mut place = Place::default();
    let (mut links, mut taken) = (0, 0);
    // What is still to be followed for one component: rests of link targets, last first.
    let mut pending = Vec::new();
    for &component in components {
        pending.push(component);
        while let Some(rest) = pending.pop() {
            let (name, rest) = match rest.iter().position(|&byte| byte == b'/') {
                Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
                None => (rest, None),
            };
            pending.extend(rest);
            taken += 1;
            match name {
                b"" | b"." => continue,
                b".." => {
                    place.pop();
                    continue;
                }
                _ => {}
            }
            let node = place.directory(tree).and_then(|parent| child(tree, parent, name));
            if let Some(Kind::Symlink(target)) = node.map(|id| &tree.node(id).kind) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(EntryError::Links);
                }
                if target.starts_with(b"/") {
                    place = Place::default();
                }
                pending.push(target);
            } else {
                place.push(tree, node, name)?;
            }
        }
    }
    place.taken = taken;
    Ok(place)
}

impl Place {
    /// Names that were looked at to find it, `.` and `..` too: more than there are steps where
    /// there were links.
    pub(super) fn steps_taken(&self) -> u64 {
        self.taken
    }

    /// The directory that the path leads to; None if there is none.
    pub(super) fn directory(&self, tree: &Tree) -> Option<NodeId> {
        let id = self.steps.last().map_or(Some(Tree::ROOT), |step| step.node)?;
        matches!(tree.node(id).kind, Kind::Directory(_)).then_some(id)
    }

    /// Whether a name below this place makes a path that is not too long.
    pub(super) fn check_length(&self, name: &[u8]) -> Result<(), EntryError> {
        if name.len() > COMPONENT_SIZE_MAX {
            return Err(EntryError::ComponentSize { length: name.len() });
        }
        let length = self.length_with(name);
        if length > PATH_SIZE_MAX { Err(EntryError::PathSize { length }) } else { Ok(()) }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    fn push(&mut self, tree: &Tree, node: Option<NodeId>, name: &[u8]) -> Result<(), EntryError> {
        self.check_length(name)?;
        self.lengths.push(self.length_with(name));
        let is_directory = node.is_some_and(|id| matches!(tree.node(id).kind, Kind::Directory(_)));
        let name = if is_directory { Box::default() } else { name.into() };
        self.steps.push(Step { node, name });
        Ok(())
    }

    fn pop(&mut self) {
        self.steps.pop();
        self.lengths.pop();
    }

    fn length_with(&self, name: &[u8]) -> usize {
        self.lengths.last().map_or(0, |length| length + 1) + name.len()
    }
}

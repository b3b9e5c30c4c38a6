//! Why an entry cannot be applied.

use super::attributes::XATTR_LIST_MAX;
use super::{
    COMPONENT_SIZE_MAX, ENTRIES_MAX, FILE_SIZE_MAX, PATH_SIZE_MAX, STEPS_MAX, TARGET_SIZE_MAX,
    TREE_SIZE_MAX,
};
use crate::tar::TarError;

pub(super) use crate::tar::shown;

/// Why applying an entry failed: the entry, the archive around it, or where the data goes.
#[derive(Debug, thiserror::Error)]
pub enum MergeError<S> {
    /// The entry asks for what cannot be.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry's data cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The sink took no more.
    #[error("cannot store file data")]
    Sink(S),
}

/// What is wrong with an entry. The caller knows its layer and path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A path is too long.
    #[error("a path of {length} bytes, at most {PATH_SIZE_MAX} are allowed")]
    PathSize {
        /// Its length without `.`, `..` and links.
        length: usize,
    },
    /// A component of a path is too long.
    #[error("a name of {length} bytes, at most {COMPONENT_SIZE_MAX} are allowed")]
    ComponentSize {
        /// Its length.
        length: usize,
    },
    /// Too many symbolic links, probably a loop.
    #[error("more than {} symbolic links in the path", super::LINKS_MAX)]
    Links,
    /// A path leads through what is no directory.
    #[error("`{name}`, which the path leads through, is no directory")]
    NoDirectory {
        /// The component.
        name: String,
    },
    /// The root directory would become something else.
    #[error("the root directory can only be a directory")]
    Root,
    /// The target of a hard link is not there.
    #[error("it is a hard link to `{target}`, which does not exist")]
    LinkTarget {
        /// The target as given.
        target: String,
    },
    /// The target of a hard link is a directory.
    #[error("it is a hard link to `{target}`, which is a directory")]
    LinkToDirectory {
        /// The target as given.
        target: String,
    },
    /// The target of a symbolic link is empty or too long.
    #[error("the target of a symbolic link has {length} bytes, expected 1 to {TARGET_SIZE_MAX}")]
    Target {
        /// Its length.
        length: usize,
    },
    /// A whiteout that names nothing, or what is above it.
    #[error("a whiteout of {name}, expected the name of a file")]
    Whiteout {
        /// What follows `.wh.`, quoted.
        name: String,
    },
    /// The entry's type is not known.
    #[error("the type of the entry is `{}`, expected `0` to `7`", flag.escape_ascii())]
    Type {
        /// The type flag.
        flag: u8,
    },
    /// A user or group ID is outside Linux's range.
    #[error("`{field}` is {given}, expected a number below 2^32")]
    Id {
        /// `uid` or `gid`.
        field: &'static str,
        /// What is there.
        given: i64,
    },
    /// A file is too large.
    #[error("a file of {size} bytes, at most {FILE_SIZE_MAX} are allowed")]
    FileSize {
        /// Its size.
        size: u64,
    },
    /// An extended attribute is larger than Linux allows.
    #[error(
        "extended attribute `{name}` has a {part} of {length} bytes, at most {limit} are allowed"
    )]
    Xattr {
        /// The full name.
        name: String,
        /// `name` or `value`.
        part: &'static str,
        /// Length of that part.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// An entry has more attributes than Linux lists.
    #[error(
        "names of extended attributes of {length} bytes together, at most {XATTR_LIST_MAX} are \
         allowed"
    )]
    XattrList {
        /// Bytes of all names, each with a zero byte.
        length: usize,
    },
    /// The layers have too many entries.
    #[error("more than {ENTRIES_MAX} entries in all layers")]
    Entries,
    /// Paths of entries lead through too many links and directories.
    #[error("more than {STEPS_MAX} names to be looked up for all entries")]
    Steps,
    /// The image has too many entries for the memory that conversion may take.
    #[error("names and attributes of the image take more than {TREE_SIZE_MAX} bytes")]
    TreeSize,
}

//! Why an image could not be looked into.

use super::{DIRECTORIES_MAX, ENTRIES_MAX, LINKS_MAX, PATH_SIZE_MAX};
use crate::reader::ReadError;

/// Why an image could not be looked into. Paths are as a message shows them: what is not text is
/// escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrowseError {
    /// There is nothing of that name.
    #[error("there is no `{path}` in the image")]
    Missing {
        /// The path, with all symbolic links before the missing name followed.
        path: String,
    },
    /// A path leads through what is no directory.
    #[error("`{path}` in the image is no directory")]
    NotADirectory {
        /// What is no directory.
        path: String,
    },
    /// A path has too many symbolic links, probably a loop.
    #[error("more than {LINKS_MAX} symbolic links in `{path}`")]
    Links {
        /// The path as given.
        path: String,
    },
    /// The image cannot be read at some place, or is damaged there.
    #[error("cannot read `{path}` of the image")]
    Read {
        /// Where.
        path: String,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: ReadError,
    },
    /// The image is no tree.
    #[error("the image is damaged: `{path}` {fault}")]
    Tree {
        /// Where.
        path: String,
        /// What is wrong, as a predicate.
        fault: &'static str,
    },
    /// A path is longer than the kernel takes.
    #[error("a path of more than {PATH_SIZE_MAX} bytes: `{path}`")]
    PathSize {
        /// The path, cut.
        path: String,
    },
    /// More than any honest image has.
    #[error(
        "the image has more than {DIRECTORIES_MAX} directories or {ENTRIES_MAX} entries, at \
         `{path}`"
    )]
    Entries {
        /// The entry that was one too many.
        path: String,
    },
}

impl BrowseError {
    /// A failure to read the image at `path`.
    pub fn at(path: &[u8], source: ReadError) -> Self {
        Self::Read { path: shown(path), source }
    }

    pub(super) fn read(path: &[u8]) -> impl FnOnce(ReadError) -> Self {
        |source| Self::at(path, source)
    }

    pub(super) fn tree(path: &[u8], fault: &'static str) -> Self {
        Self::Tree { path: shown(path), fault }
    }

    /// Whether it is the image that is wrong, and not what was asked of it.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Missing { .. } | Self::NotADirectory { .. } | Self::Links { .. })
    }

    /// What a user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::NotADirectory { .. } => {
                Some("`sarus ls IMAGE PATH` shows what is there".to_owned())
            }
            Self::Read { source, .. } => source.hint(),
            Self::Tree { .. } => Some("fetch the image again".to_owned()),
            _ => None,
        }
    }
}

pub(super) fn shown(path: &[u8]) -> String {
    crate::tar::shown(path)
}

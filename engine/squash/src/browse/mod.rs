//! Looks into an image without mounting or unpacking it: finds paths, walks trees, compares two
//! images, checks a whole one.
//!
//! An image may be hostile, and a reader of single inodes and listings (`reader`) cannot know that
//! they make a tree. Here each directory is entered once, entries are counted, and what is kept
//! while walking is a place in the listing of each directory above, so memory is bounded by the
//! constants below and time by them and the length of the file. Paths are absolute, without
//! symbolic links in them; the root is `/`.

mod check;
mod compare;
mod content;
mod error;
mod find;
mod walk;

pub use check::{Checked, check};
pub use compare::{Aspect, Change, CompareError, CompareOptions, Difference, Subject, compare};
pub use error::BrowseError;
pub use find::{Found, Last, find};
pub use walk::{Visited, Walk};

/// Most symbolic links followed in one path; the kernel's own limit.
pub const LINKS_MAX: usize = 40;

/// Longest path in bytes: Linux's `PATH_MAX`.
pub const PATH_SIZE_MAX: usize = 4096;

/// Most directories of an image that is walked; what makes images writes far fewer.
pub const DIRECTORIES_MAX: usize = 1 << 22;

/// Most entries of an image that is walked.
pub const ENTRIES_MAX: u64 = 1 << 25;

/// `directory`, a slash, and `name`.
fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory == b"/" { [b"/", name].concat() } else { [directory, b"/", name].concat() }
}

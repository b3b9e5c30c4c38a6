//! Why the store refused or failed.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sarus_oci::Digest;

/// Why an operation on the store failed. Nothing that was there before is changed by one that
/// failed, and its temporaries are gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or directory could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A directory could not be made.
    #[error("cannot create the directory `{}`", path.display())]
    CreateDirectory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A finished file or directory could not be renamed into its place.
    #[error("cannot put `{}` in place", path.display())]
    Publish {
        /// The place.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file or directory could not be removed.
    #[error("cannot remove `{}`", path.display())]
    Remove {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the store is not what a store writes.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file is longer than any that a store writes.
    #[error("`{}` is damaged: {bytes} bytes, at most {limit} are expected", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The longest that is read.
        limit: u64,
    },
    /// A file was written by a newer version of this program.
    #[error("`{}` has format version {given}, this program reads up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        given: u32,
        /// The newest version that this build reads.
        known: u32,
    },
    /// The squashfs file does not have the length that its metadata gives.
    #[error("`{}` is damaged: {got} bytes, its metadata says {expected}", path.display())]
    Length {
        /// The squashfs file.
        path: PathBuf,
        /// Its length.
        got: u64,
        /// The length when it was written.
        expected: u64,
    },
    /// The squashfs file is not the one that was written.
    #[error("`{}` is damaged: its digest is {got}, its metadata says {expected}", path.display())]
    Digest {
        /// The squashfs file.
        path: PathBuf,
        /// Its digest.
        got: Digest,
        /// The digest when it was written.
        expected: Digest,
    },
    /// A store that is for reading only was to be changed.
    #[error("the image store `{}` is for reading only", root.display())]
    ReadOnly {
        /// The store.
        root: PathBuf,
    },
    /// Another command removed the image at this moment.
    #[error("the image `{digest}` was removed from the store at the same time")]
    Vanished {
        /// The image.
        digest: String,
    },
}

impl StoreError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, source }
            | Self::CreateDirectory { path, source }
            | Self::Write { path, source }
            | Self::Publish { path, source }
            | Self::Remove { path, source } => hint_of_errno(path, source),
            Self::Damaged { .. } | Self::TooLong { .. } | Self::Length { .. } => {
                Some("`sarus pull` of the image writes it anew".to_owned())
            }
            // A pull looks at lengths, so it keeps what is there.
            Self::Digest { .. } => Some(
                "`sarus rmi --force ID`, with the image's id from `sarus images`, removes it under all its \
                 names; then `sarus pull` or `load` writes it anew"
                    .to_owned(),
            ),
            Self::Newer { .. } => Some("use the version of sarus that wrote it".to_owned()),
            Self::ReadOnly { .. } => {
                Some("leave out `--centralized-repository` to use your own store".to_owned())
            }
            Self::Vanished { .. } => Some("run the command again".to_owned()),
        }
    }

    /// Whether the disk or the quota is full.
    pub fn is_full(&self) -> bool {
        self.io().and_then(Errno::from_io_error).is_some_and(is_full)
    }

    /// Whether a file of the store holds something that a store does not write, so that writing
    /// the image anew would help.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::TooLong { .. } | Self::Length { .. } | Self::Digest { .. }
        )
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Read { source, .. }
            | Self::CreateDirectory { source, .. }
            | Self::Write { source, .. }
            | Self::Publish { source, .. }
            | Self::Remove { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn create(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::CreateDirectory { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn publish(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Publish { path: path.to_owned(), source }
    }

    pub(crate) fn remove(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Remove { path: path.to_owned(), source }
    }
}

fn is_full(errno: Errno) -> bool {
    errno == Errno::NOSPC || errno == Errno::DQUOT
}

fn hint_of_errno(path: &Path, source: &io::Error) -> Option<String> {
    let errno = Errno::from_io_error(source)?;
    let elsewhere = "set `XDG_DATA_HOME` (or the site's `localRepositoryBaseDir`) to a place";
    let text = if errno == Errno::NOSPC {
        format!("the file system is full: `sarus prune` frees space, or {elsewhere} with more")
    } else if errno == Errno::DQUOT {
        format!("your quota is used up: `sarus prune` frees space, or {elsewhere} with more")
    } else if errno == Errno::XDEV {
        "`images`, `names`, `blobs` and `tmp` of a store must be on one file system and in one \
         quota project: move the store's directory as a whole"
            .to_owned()
    } else if errno == Errno::ROFS {
        format!("the file system is mounted read-only; {elsewhere} that you can write to")
    } else if errno == Errno::ACCESS || errno == Errno::PERM {
        format!("you have no right to do this there; {elsewhere} that is yours")
    } else if errno == Errno::NOTDIR {
        format!("a part of `{}` is a file where a directory is needed", path.display())
    } else if errno == Errno::STALE {
        "another node replaced it; run the command again".to_owned()
    } else {
        return None;
    };
    Some(text)
}

//! Why a use case on images failed.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use sarus_oci::{DocumentError, ReferenceError};
use sarus_policy::PolicyError;
use sarus_registry::RegistryError;
use sarus_squash::browse::BrowseError;
use sarus_squash::{ConvertError, OwnersError, ReadError, UnpackError};
use sarus_store::StoreError;

use crate::{LoadError, Other};

/// Why an operation on images failed. The store is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry could not be asked, or gave no image.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An archive or image file could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The signature policy cannot be used, or does not let the image in.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The image's configuration is none.
    #[error("cannot use the image `{image}`")]
    Config {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// The layers could not be converted.
    #[error("cannot convert the image `{image}`")]
    Convert {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: ConvertError,
    },
    /// Another process pulled the image for this one, and could not.
    #[error("the pull of `{image}` that was waited for, by {other}, failed")]
    Elsewhere {
        /// The image.
        image: String,
        /// Who pulled it.
        other: Other,
        /// What it said.
        #[source]
        source: Reported,
    },
    /// No further descriptor could be had.
    #[error("cannot open the image's file a second time")]
    Duplicate {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An export to a place that is no file.
    #[error("cannot export an image to standard output: a squashfs file is not written in order")]
    ExportToStream,
    /// An export to a file that is there.
    #[error("cannot export to `{}`: the file exists", path.display())]
    ExportExists {
        /// The file.
        path: PathBuf,
    },
    /// The file of an export could not be written.
    #[error("cannot write `{}`", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The image could not be copied with its own owners.
    #[error("cannot write the image to `{}`", path.display())]
    RestoreOwners {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OwnersError,
    },
    /// A name of an image is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A file given as an image could not be read.
    #[error("cannot read the image file `{}`", path.display())]
    OpenFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe or a device was given as an image.
    #[error("`{}` is no image: it is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file given as an image is none.
    #[error("`{}` cannot be used as an image", path.display())]
    NotSquashfs {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: ReadError,
    },
    /// An image file could not be unpacked.
    #[error("cannot unpack `{}` into `{}`", path.display(), directory.display())]
    Unpack {
        /// The image file.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// An image could not be looked into.
    #[error("cannot look into the image `{image}`")]
    Look {
        /// The image as the user named it.
        image: String,
        /// Why.
        #[source]
        source: BrowseError,
    },
    /// What is in an image's file is not what its metadata say.
    #[error("`{}` is damaged: it has {found}, its metadata say {expected}", path.display())]
    Unlike {
        /// The squashfs file, or its metadata.
        path: PathBuf,
        /// What there is.
        found: String,
        /// What there should be.
        expected: String,
    },
    /// The directory to unpack into cannot be opened.
    #[error("cannot open the directory `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// No store has the image.
    #[error("there is no image `{given}` in the store")]
    Missing {
        /// The image as the user named it.
        given: String,
    },
    /// An image to be removed by its id has several names.
    #[error("the image `{given}` has more than one name: {}", listed(names))]
    SeveralNames {
        /// The image as the user named it.
        given: String,
        /// Its names.
        names: Vec<String>,
    },
    /// The beginning of an id is that of several images.
    #[error("`{given}` is the beginning of more than one image's id: `{first}` and `{second}`")]
    Ambiguous {
        /// The beginning.
        given: String,
        /// One id.
        first: String,
        /// Another.
        second: String,
    },
}

/// An error as another process wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Reported(pub String);

impl ImageError {
    /// The error and its causes in one line.
    pub(crate) fn in_one_line(&self) -> String {
        let mut line = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            source = cause.source();
        }
        line
    }

    /// Whether another process, on another node, would fail in the same way.
    pub(crate) fn is_everywhere(&self) -> bool {
        match self {
            Self::Config { .. } | Self::Convert { .. } => true,
            Self::Store(error) => error.is_full(),
            _ => false,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Reference(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Policy(error) => error.hint(),
            Self::Config { source, .. } => source.hint(),
            Self::Convert { source, .. } => source.hint(),
            Self::Elsewhere { .. } => Some("run the command again to try it from here".to_owned()),
            Self::Duplicate { .. } => Some("raise the limit of open files: `ulimit -n`".to_owned()),
            Self::ExportToStream => Some("name a file".to_owned()),
            Self::ExportExists { .. } => Some("`--force` replaces it".to_owned()),
            Self::Unpack { source, .. } => source.hint(),
            Self::Look { source, .. } => source.hint(),
            Self::Unlike { .. } => Some(
                "`sarus rmi --force ID`, with the image's id from `sarus images`, removes it under all its \
                 names; then `sarus pull` or `load` writes it anew"
                    .to_owned(),
            ),
            Self::Directory { .. } => Some("make the directory first".to_owned()),
            Self::Export { .. } | Self::RestoreOwners { .. } => None,
            Self::NotAFile { .. } | Self::OpenFile { .. } => Some(
                "an image is a reference such as `debian:12`, or the path of a squashfs file"
                    .to_owned(),
            ),
            Self::NotSquashfs { .. } => {
                Some("`sarus export IMAGE FILE` and `mksquashfs` write squashfs files".to_owned())
            }
            Self::SeveralNames { .. } => {
                Some("remove them by name, or all with `sarus rmi --force`".to_owned())
            }
            Self::Ambiguous { .. } => Some("give more digits".to_owned()),
            Self::Missing { .. } => {
                Some("`sarus images` lists what is there, `sarus pull` gets more".to_owned())
            }
        }
    }
}

fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

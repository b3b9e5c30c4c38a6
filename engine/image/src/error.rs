//! Why a use case on images failed.

use std::io;
use std::path::PathBuf;

use sarus_oci::{DocumentError, ReferenceError};
use sarus_policy::PolicyError;
use sarus_registry::RegistryError;
use sarus_squash::{ConvertError, OwnersError, ReadError, UnpackError};
use sarus_store::StoreError;

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

impl ImageError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Reference(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Policy(error) => error.hint(),
            Self::Config { source, .. } => source.hint(),
            Self::Convert { source, .. } => source.hint(),
            Self::Duplicate { .. } => Some("raise the limit of open files: `ulimit -n`".to_owned()),
            Self::ExportToStream => Some("name a file".to_owned()),
            Self::ExportExists { .. } => Some("`--force` replaces it".to_owned()),
            Self::Unpack { source, .. } => source.hint(),
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

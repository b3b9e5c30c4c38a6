//! Why layers cannot be converted.

use std::convert::Infallible;
use std::error::Error;
use std::io;

use crate::merge::EntryError;
use crate::tar::TarError;
use crate::writer::WriteError;

/// Why a conversion failed. The output is then of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Whoever supplies the layers failed; its error as it is.
    #[error(transparent)]
    Layers(Box<dyn Error + Send + Sync>),
    /// A layer cannot be read or inflated.
    #[error("cannot read layer `{layer}`")]
    Read {
        /// The layer's name.
        layer: String,
        /// What the reader or the decompressor says.
        #[source]
        source: io::Error,
    },
    /// A layer is compressed in a way that is known but not read.
    #[error("layer `{layer}` is compressed with {compression}, expected gzip, zstd or none")]
    Compression {
        /// The layer's name.
        layer: String,
        /// Name of the compression.
        compression: &'static str,
    },
    /// A layer does not begin as a tar archive does.
    #[error("layer `{layer}` is no tar archive")]
    NoArchive {
        /// The layer's name.
        layer: String,
        /// What is wrong with its first header.
        source: TarError,
    },
    /// A layer is a tar archive up to some point.
    #[error("layer `{layer}` is no sound tar archive at entry {entry}, byte {offset}")]
    Archive {
        /// The layer's name.
        layer: String,
        /// The entry, counted from 1.
        entry: u64,
        /// Where in the tar stream reading stopped, in bytes.
        offset: u64,
        /// What is wrong.
        source: TarError,
    },
    /// An entry asks for what cannot be.
    #[error("cannot apply entry {entry} of layer `{layer}`, `{path}`")]
    Entry {
        /// The layer's name.
        layer: String,
        /// The entry, counted from 1.
        entry: u64,
        /// Its path as given; what is not text is escaped.
        path: String,
        /// What is wrong.
        source: EntryError,
    },
    /// A layer is longer than its compressed size accounts for.
    #[error(
        "layer `{layer}` inflates to more than {limit} bytes, the most that a layer of its size \
         may, within entry {entry}"
    )]
    Inflated {
        /// The layer's name.
        layer: String,
        /// The entry within which the limit was met, counted from 1.
        entry: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The squashfs file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The thread that reads the layers stopped; its own error says why.
    #[error("the layers were not read to their end")]
    Abandoned,
}

impl ConvertError {
    /// The same with the entry that was being merged, where it wants one.
    pub(super) fn at_entry(mut self, number: u64) -> Self {
        if let Self::Inflated { entry, .. } = &mut self {
            *entry = number;
        }
        self
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Write(error) => return error.hint(),
            Self::Compression { .. } => "rebuild the image with gzip or zstd layers",
            Self::NoArchive { .. } => {
                "the reference may name something else than a container image"
            }
            Self::Archive { .. } | Self::Entry { .. } | Self::Inflated { .. } => {
                "the image is damaged or was built wrong: rebuild it, or report it to its publisher"
            }
            Self::Layers(_) | Self::Read { .. } | Self::Abandoned => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<Infallible> for ConvertError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

//! Why an image could not be loaded.

use std::io;
use std::path::PathBuf;

use sarus_oci::{Digest, DocumentError, ReferenceError};
use sarus_squash::ToTarError;
use sarus_squash::tar::TarError;

use super::Format;
use super::sif::SifError;

/// Why an image could not be loaded. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file or directory cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The bytes cannot be read.
    #[error("cannot read `{from}`")]
    Read {
        /// The file, or standard input.
        from: String,
        /// The system's, or the decompressor's answer.
        #[source]
        source: io::Error,
    },
    /// The content is of no known kind.
    #[error("`{from}` is no image: {found}")]
    Unknown {
        /// The file, or standard input.
        from: String,
        /// What it looks like.
        found: String,
    },
    /// The content is of another kind than asked for.
    #[error("`{from}` is not of format `{expected}`: {found}")]
    Format {
        /// The file, or standard input.
        from: String,
        /// The format asked for.
        expected: Format,
        /// What it is, or lacks.
        found: String,
    },
    /// The archive's own headers are wrong.
    #[error("`{from}` is no sound tar archive at byte {offset}")]
    Tar {
        /// The file, or standard input.
        from: String,
        /// Where reading stopped, in bytes of the archive, uncompressed.
        offset: u64,
        /// What is wrong.
        #[source]
        source: TarError,
    },
    /// The archive has more members than one that holds images.
    #[error("`{from}` has more than {limit} members: too many for an archive of images")]
    Members {
        /// The file, or standard input.
        from: String,
        /// The limit.
        limit: usize,
    },
    /// A file that the archive refers to is not in it, or is no file.
    #[error("`{from}`: `{member}` {what}")]
    Member {
        /// The archive or directory.
        from: String,
        /// Its member.
        member: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A document is larger than any of its kind.
    #[error("`{from}`: `{member}` has {got} bytes, at most {limit} are read")]
    TooLarge {
        /// The archive or directory.
        from: String,
        /// Its member.
        member: String,
        /// Its length.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A document of the archive cannot be understood.
    #[error("`{from}`: cannot use `{member}`")]
    Document {
        /// The archive or directory.
        from: String,
        /// Its member.
        member: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// `manifest.json` is not what Docker writes.
    #[error("`{from}`: cannot use `manifest.json`")]
    Manifest {
        /// The archive.
        from: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The archive's parts do not fit each other.
    #[error("`{from}`: {what}")]
    Inconsistent {
        /// The archive or directory.
        from: String,
        /// What does not fit.
        what: String,
    },
    /// Bytes do not have the digest they must have.
    #[error("`{object}` is altered: expected digest `{expected}`, got `{got}`")]
    Digest {
        /// What.
        object: String,
        /// As the archive's documents say.
        expected: Digest,
        /// Of the bytes.
        got: Digest,
    },
    /// A blob has another length than its descriptor says.
    #[error("`{object}` has {got} bytes, expected {expected}")]
    Size {
        /// What.
        object: String,
        /// As the descriptor says.
        expected: u64,
        /// As the archive says.
        got: u64,
    },
    /// A compression that is known, and not read.
    #[error("`{object}` is compressed with {compression}, expected gzip, zstd or none")]
    Compression {
        /// What.
        object: String,
        /// Its compression.
        compression: &'static str,
    },
    /// A stream that must be kept until it is whole is too long.
    #[error("`{from}` has more than {limit} bytes, which is all there is room for in `{}`", directory.display())]
    SpoolFull {
        /// The stream.
        from: String,
        /// Where it was to be kept.
        directory: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// The place for a stream cannot be written.
    #[error("cannot keep `{from}` in `{}` until it is whole", directory.display())]
    Spool {
        /// The stream.
        from: String,
        /// Where it was to be kept.
        directory: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// No image of the archive has the name asked for.
    #[error("`{from}` has no image `{wanted}`; it has {}", listed(names))]
    NoSuchImage {
        /// The archive or directory.
        from: String,
        /// The name.
        wanted: String,
        /// What it has.
        names: Vec<String>,
    },
    /// One name for several images.
    #[error("`{from}` has {count} images: {}", listed(names))]
    Several {
        /// The archive or directory.
        from: String,
        /// How many.
        count: usize,
        /// Their names.
        names: Vec<String>,
    },
    /// The archive has no images at all.
    #[error("`{from}` has no image")]
    Empty {
        /// The archive or directory.
        from: String,
    },
    /// Neither the archive nor its file's name gives a name.
    #[error("`{from}` does not say what its image is called")]
    NoName {
        /// The archive, or standard input.
        from: String,
    },
    /// The archive's name for an image is none.
    #[error("`{from}` calls an image `{name}`")]
    BadName {
        /// The archive.
        from: String,
        /// The name.
        name: String,
        /// Why it is none.
        #[source]
        source: ReferenceError,
    },
    /// A name with a digest, which the image decides and not its name.
    #[error("`{name}` has a digest, which cannot be given to an image")]
    NameWithDigest {
        /// The name.
        name: String,
    },
    /// A SIF file is not usable.
    #[error("cannot use the SIF file `{from}`")]
    Sif {
        /// The file.
        from: String,
        /// Why.
        #[source]
        source: SifError,
    },
    /// A squashfs image cannot be read.
    #[error("cannot read the squashfs image in `{from}`")]
    Squashfs {
        /// The file.
        from: String,
        /// Why.
        #[source]
        source: ToTarError,
    },
    /// No program that reads the storage.
    #[error(
        "cannot read `containers-storage:{name}`: none of `skopeo`, `podman` and `buildah` is installed"
    )]
    NoTool {
        /// The image.
        name: String,
    },
    /// The program that reads the storage cannot be executed.
    #[error("cannot execute `{program}`")]
    Execute {
        /// The program.
        program: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The program that reads the storage failed.
    #[error("`{program}` cannot read `containers-storage:{name}`: {said}")]
    Tool {
        /// The program.
        program: &'static str,
        /// The image.
        name: String,
        /// Its last words, or its status.
        said: String,
    },
}

impl LoadError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown { .. } => {
                return Some(format!(
                    "expected an archive or image of format {}; `--format` says which it is where its content does not",
                    Format::EXPECTED
                ));
            }
            Self::Format { .. } => "without `--format` the content tells what it is",
            Self::Document { source, .. } => return source.hint(),
            Self::Sif { source, .. } => return source.hint(),
            Self::Tar { .. } | Self::Member { .. } | Self::Inconsistent { .. } => {
                "the archive is damaged or was not written to its end: save the image again"
            }
            Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check that you may read it, and enter the directories above it"
            }
            Self::Read { source, .. } if is_damage(source) => {
                "the archive is damaged or was not written to its end: save the image again"
            }
            Self::Digest { .. } | Self::Size { .. } => {
                "the archive is damaged: copy it again, and compare the files' checksums"
            }
            Self::Compression { .. } => "decompress it first, or pack it with gzip or zstd",
            Self::SpoolFull { .. } | Self::Spool { .. } => {
                "`--temp-dir` names another directory of this node; an uncompressed archive in a file needs no room"
            }
            Self::NoSuchImage { .. } | Self::Several { .. } => {
                "name one: `docker-archive:FILE:NAME`, `oci-archive:FILE:TAG` or `oci:DIRECTORY:TAG`"
            }
            Self::NoName { .. } => "give it a name: `sarus load FILE NAME`",
            Self::BadName { .. } => "give it another name: `sarus load FILE NAME`",
            Self::NameWithDigest { .. } => "give a name with a tag: `NAME:TAG`",
            Self::NoTool { .. } => {
                "install one of them, or save the image where it is: `podman save IMAGE | sarus load`"
            }
            Self::Tool { .. } => "`podman images` lists what the storage has",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Whether it is the content that cannot be read, and not the file.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
    ) || error.raw_os_error().is_none() && error.kind() == io::ErrorKind::Other
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none with a name".to_owned();
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

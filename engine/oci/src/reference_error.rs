//! What can be wrong with a reference, and what to do about it.

use crate::DigestError;
use crate::Reference;
use crate::grammar::{NAME_MAX, TAG_MAX};

/// Why a text is no reference. Says which part is wrong; [`ReferenceError::hint`] what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing was given, or nothing but a tag or digest.
    #[error("image reference `{given}` names no image")]
    Empty {
        /// The text as given.
        given: String,
    },
    /// The text has a scheme that is none of a registry.
    #[error("image reference `{given}` starts with `{scheme}://`; expected `docker://` or nothing")]
    Scheme {
        /// The text as given.
        given: String,
        /// What stands in front of `://`.
        scheme: String,
    },
    /// The repository has upper-case letters.
    #[error("image reference `{given}`: repository `{repository}` has upper-case letters")]
    Uppercase {
        /// The text as given.
        given: String,
        /// The repository in it.
        repository: String,
    },
    /// The registry is no host name with an optional port.
    #[error("image reference `{given}`: `{registry}` is no registry; expected HOST or HOST:PORT")]
    Registry {
        /// The text as given.
        given: String,
        /// The registry in it.
        registry: String,
    },
    /// A part between slashes breaks the grammar.
    #[error("image reference `{given}`: `{component}` cannot be a part of a repository")]
    Component {
        /// The text as given.
        given: String,
        /// The first offending part.
        component: String,
    },
    /// Registry and repository are too long.
    #[error(
        "image reference `{given}`: the name has {got} characters, at most {NAME_MAX} are allowed"
    )]
    TooLong {
        /// The text as given.
        given: String,
        /// Its length without tag and digest.
        got: usize,
    },
    /// The tag breaks the grammar or is too long.
    #[error("image reference `{given}`: `{tag}` is no tag")]
    Tag {
        /// The text as given.
        given: String,
        /// The tag in it.
        tag: String,
    },
    /// The digest breaks the grammar.
    #[error("image reference `{given}`: the part after `@` is no digest")]
    Digest {
        /// The text as given.
        given: String,
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
    /// The text is 64 hexadecimal digits: an image's id, which no registry knows.
    #[error("image reference `{given}` is an image id, not a name")]
    Id {
        /// The text as given.
        given: String,
    },
}

impl ReferenceError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Empty { .. } => {
                "name an image, for example `debian:12` or `quay.io/fedora/fedora`".to_owned()
            }
            Self::Scheme { .. } => "leave out the scheme: `REGISTRY/REPOSITORY:TAG`".to_owned(),
            Self::Uppercase { given, repository } => {
                let lower = given.replace(repository, &repository.to_lowercase());
                match Reference::parse(&lower) {
                    Ok(_) => format!("try `{lower}`"),
                    // It has more than that wrong.
                    Err(error) => error.hint()?,
                }
            }
            Self::Registry { .. } => {
                "a registry is a host name, perhaps with a port: `registry.example.org:5000`"
                    .to_owned()
            }
            Self::Component { .. } => {
                "a repository has lower-case letters, digits, and single `.`, `_` or `-` between them"
                    .to_owned()
            }
            Self::TooLong { .. } => "use a shorter name".to_owned(),
            Self::Tag { .. } => format!(
                "a tag has letters, digits, `_`, `.` and `-`, starts with none of the last two, and \
                 has at most {TAG_MAX} characters"
            ),
            Self::Digest { .. } => {
                "a digest is `sha256:` and 64 hexadecimal digits, as `sarus images --digests` shows"
                    .to_owned()
            }
            Self::Id { .. } => {
                "use the image's name; `sarus images` lists them, and `NAME@sha256:…` names a digest"
                    .to_owned()
            }
        })
    }
}

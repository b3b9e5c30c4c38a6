//! Image references in Docker's grammar: `debian`, `HOST:PORT/a/b:tag`, `quay.io/a/b@sha256:…`.
//!
//! Grammar: the distribution project's `reference` package. Besides, `docker://` in front is
//! dropped, and enroot's `REGISTRY#REPOSITORY` names the registry explicitly.
//! Knows nothing of short-name aliases and mirrors: those are configuration.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::grammar::{NAME_MAX, is_component, is_registry, is_tag};
use crate::{Digest, ReferenceError};

/// The registry of a reference that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of a reference that has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Repositories of [`DEFAULT_REGISTRY`] without a namespace live in this one.
const OFFICIAL_NAMESPACE: &str = "library";

/// A name for an image: registry, repository, and a tag, a digest or both.
///
/// Always complete: the default registry, its namespace and the default tag are filled in.
/// Compares, orders and hashes by its canonical text, whether or not it was given in short form.
#[derive(Clone)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    /// The repository as given, if no registry was.
    short: Option<String>,
}

impl Reference {
    /// Parses a reference and completes it.
    ///
    /// # Errors
    ///
    /// One variant for each kind of mistake; the text as given is in all of them.
    pub fn parse(given: &str) -> Result<Self, ReferenceError> {
        let text = without_scheme(given)?;
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest)
                    .map_err(|source| ReferenceError::Digest { given: given.to_owned(), source })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(name);
        if name.is_empty() {
            return Err(ReferenceError::Empty { given: given.to_owned() });
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { given: given.to_owned(), tag: tag.to_owned() });
        }
        let (registry, repository) = split_registry(name);
        check_name(given, registry, repository)?;
        let mut reference = Self::of(registry.unwrap_or(DEFAULT_REGISTRY), repository);
        reference.short = registry.is_none().then(|| repository.to_owned());
        reference.tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        reference.digest = digest;
        if reference.name_len() > NAME_MAX {
            let got = reference.name_len();
            return Err(ReferenceError::TooLong { given: given.to_owned(), got });
        }
        Ok(reference)
    }

    /// The registry: a host, or a host and a port. `docker.io` whichever way it was spelled.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry, without a leading slash.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if neither tag nor digest was given, none if only a digest was.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest. Where there is one it decides, and the tag is for humans.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether no registry was given, so that the site's short-name rules apply.
    pub fn is_short(&self) -> bool {
        self.short.is_some()
    }

    /// The repository as it was given, if no registry was: `debian`, not `library/debian`.
    pub fn short_name(&self) -> Option<&str> {
        self.short.as_deref()
    }

    /// Registry and repository, without tag and digest: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same image name with this digest; a tag stays.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same repository, as the user gave it, in another registry. No longer short.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Registry`] if `registry` is no host with an optional port;
    /// [`ReferenceError::TooLong`].
    pub fn with_registry(&self, registry: &str) -> Result<Self, ReferenceError> {
        let repository = self.short.as_deref().unwrap_or(&self.repository);
        self.with_name(&format!("{registry}/{repository}"), registry, repository)
    }

    /// The same tag and digest on another `REGISTRY/REPOSITORY`. No longer short.
    ///
    /// # Errors
    ///
    /// If `name` has a part that breaks the grammar, or no slash.
    pub fn renamed(&self, name: &str) -> Result<Self, ReferenceError> {
        let (registry, repository) =
            name.split_once('/').ok_or_else(|| ReferenceError::Empty { given: name.to_owned() })?;
        self.with_name(name, registry, repository)
    }

    fn with_name(
        &self,
        given: &str,
        registry: &str,
        repository: &str,
    ) -> Result<Self, ReferenceError> {
        check_name(given, Some(registry), repository)?;
        let mut renamed = Self::of(registry, repository);
        if renamed.name_len() > NAME_MAX {
            let got = renamed.name_len();
            return Err(ReferenceError::TooLong { given: given.to_owned(), got });
        }
        renamed.tag.clone_from(&self.tag);
        renamed.digest.clone_from(&self.digest);
        Ok(renamed)
    }

    /// Completes a name that was checked. Has neither tag nor digest yet.
    fn of(registry: &str, repository: &str) -> Self {
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("{OFFICIAL_NAMESPACE}/{repository}")
        } else {
            repository.to_owned()
        };
        Self { registry: registry.to_owned(), repository, tag: None, digest: None, short: None }
    }

    fn name_len(&self) -> usize {
        self.registry.len() + 1 + self.repository.len()
    }

    fn key(&self) -> (&str, &str, Option<&str>, Option<&Digest>) {
        (&self.registry, &self.repository, self.tag.as_deref(), self.digest.as_ref())
    }
}

fn without_scheme(given: &str) -> Result<&str, ReferenceError> {
    match given.split_once("://") {
        None => Ok(given),
        Some(("docker", rest)) => Ok(rest),
        Some((scheme, _)) => {
            Err(ReferenceError::Scheme { given: given.to_owned(), scheme: scheme.to_owned() })
        }
    }
}

/// A colon after the last slash starts a tag; one before it is a registry's port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    let last = name.rfind(['/', '#']).map_or(0, |slash| slash + 1);
    match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    }
}

/// Docker's rule: the part before the first slash is a registry if it could not be a namespace.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    if let Some((registry, repository)) = name.split_once('#') {
        return (Some(registry), repository);
    }
    match name.split_once('/') {
        Some((first, rest)) if looks_like_registry(first) => (Some(first), rest),
        _ => (None, name),
    }
}

fn looks_like_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
}

fn check_name(given: &str, registry: Option<&str>, repository: &str) -> Result<(), ReferenceError> {
    let owned = str::to_owned;
    if let Some(registry) = registry.filter(|registry| !is_registry(registry)) {
        return Err(ReferenceError::Registry { given: owned(given), registry: owned(registry) });
    }
    if repository.is_empty() {
        return Err(ReferenceError::Empty { given: owned(given) });
    }
    if repository.chars().any(char::is_uppercase) {
        let repository = owned(repository);
        return Err(ReferenceError::Uppercase { given: owned(given), repository });
    }
    if let Some(component) = repository.split('/').find(|component| !is_component(component)) {
        return Err(ReferenceError::Component { given: owned(given), component: owned(component) });
    }
    let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    if registry.is_none() && repository.len() == 64 && repository.bytes().all(is_hex) {
        return Err(ReferenceError::Id { given: owned(given) });
    }
    Ok(())
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Reference {}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `host#repository` names a host which `host/repository` would take for a namespace.
        let joint = if looks_like_registry(&self.registry) { '/' } else { '#' };
        write!(f, "{}{joint}{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

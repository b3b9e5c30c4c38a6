//! From a reference to the manifest and configuration of one platform.
//!
//! Specification: OCI distribution-spec, "Pulling manifests". Every document is bounded in size
//! and verified: against the digest asked for, and against the one that the registry names.

use std::io::Read as _;

use reqwest::Method;
use reqwest::header::HeaderMap;
use sarus_oci::manifest::{self, Descriptor, Document, Manifest};
use sarus_oci::{Digest, DocumentError, Hasher, ImageConfig, Platform};

use crate::client::Resolved;
use crate::error::Cause;
use crate::registries::Source;
use crate::session::{Ask, Session};
use crate::transport::Answer;
use crate::{RegistryError, failure};

/// Largest manifest or index, in bytes: what registries themselves allow.
const MANIFEST_MAX: u64 = 4 << 20;
/// Largest image configuration, in bytes.
const CONFIG_MAX: u64 = 8 << 20;
/// Deepest nesting of indexes.
const NESTING_MAX: usize = 4;
/// Header with the digest of a manifest.
const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest or index as it came, verified.
struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    content_type: Option<String>,
}

/// What the search in an index ended with.
struct Selected {
    manifest: Manifest,
    fetched: Fetched,
    config_bytes: Vec<u8>,
    platform: Platform,
}

/// See [`crate::Client::resolve`].
pub(crate) fn resolve(
    session: &Session,
    source: &Source,
    platform: &Platform,
) -> Result<Resolved, RegistryError> {
    let search = Search { session, source, platform };
    let fetched = search.fetch(&search.target(), source.reference.digest())?;
    let outermost = fetched.digest.clone();
    let selected = search.select(fetched, 0)?;
    let index_digest = (outermost != selected.fetched.digest).then_some(outermost);
    Ok(Resolved {
        reference: source.reference.clone(),
        digest: selected.fetched.digest,
        index_digest,
        platform: selected.platform,
        manifest: selected.manifest,
        manifest_bytes: selected.fetched.bytes,
        config_bytes: selected.config_bytes,
    })
}

/// See [`crate::Client::digest`].
pub(crate) fn digest(session: &Session, source: &Source) -> Result<Digest, RegistryError> {
    let platform = Platform::host();
    let search = Search { session, source, platform: &platform };
    let target = search.target();
    let wanted = source.reference.digest();
    match search.ask(Method::HEAD, &target) {
        Ok(answer) => {
            if let Some(digest) =
                wanted.cloned().or_else(|| named_digest(answer.response.headers()))
            {
                return Ok(digest);
            }
        }
        Err(RegistryError::Status { status, .. }) => log::debug!("HEAD answered {status}"),
        Err(error) => return Err(error),
    }
    Ok(search.fetch(&target, wanted)?.digest)
}

/// The bytes and the media type of what `tag` names, whatever kind of manifest it is.
pub(crate) fn document(
    session: &Session,
    source: &Source,
    tag: &str,
) -> Result<(Vec<u8>, Option<String>), RegistryError> {
    let search = Search { session, source, platform: &Platform::host() };
    let fetched = search.fetch(tag, None)?;
    Ok((fetched.bytes, fetched.content_type))
}

/// A blob of at most `limit` bytes, verified.
pub(crate) fn small_blob(
    session: &Session,
    source: &Source,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    Search { session, source, platform: &Platform::host() }.small_blob(descriptor, limit)
}

/// The look-up of one image at one place.
struct Search<'a> {
    session: &'a Session,
    source: &'a Source,
    platform: &'a Platform,
}

impl Search<'_> {
    /// The tag or digest of the reference; where there are both, the digest counts.
    fn target(&self) -> String {
        let reference = &self.source.reference;
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(sarus_oci::DEFAULT_TAG).to_owned(),
        }
    }

    fn object(&self) -> String {
        self.source.reference.to_string()
    }

    fn document_error(&self, source: DocumentError) -> RegistryError {
        RegistryError::Document { object: self.object(), source }
    }

    fn ask(&self, method: Method, target: &str) -> Result<Answer, RegistryError> {
        // What an index names is not the image.
        let object = match target == self.target() {
            true => self.object(),
            false => format!("{}/manifests/{target}", self.source.repository),
        };
        let ask = Ask {
            method,
            path: &format!("manifests/{target}"),
            accept: Some(manifest::ACCEPTED.join(", ")),
            from: 0,
            object: &object,
        };
        self.session.ask(self.source, &ask)
    }

    fn fetch(&self, target: &str, expected: Option<&Digest>) -> Result<Fetched, RegistryError> {
        let object = format!("{}/manifests/{target}", self.source.repository);
        let ask = || {
            let answer = self.ask(Method::GET, target)?;
            if failure::is_page(answer.response.headers()) {
                let content_type = "a web page".to_owned();
                return Err(RegistryError::NotApi {
                    host: answer.host,
                    object: self.object(),
                    content_type,
                });
            }
            Ok(answer)
        };
        let (answer, bytes) = whole(self.session, ask, (&object, MANIFEST_MAX))?;
        let named = named_digest(&answer.headers);
        for expected in expected.into_iter().chain(named.as_ref()) {
            verify(&answer.host, &object, expected, &bytes)?;
        }
        let digest = expected.or(named.as_ref()).cloned();
        let digest = digest.unwrap_or_else(|| Digest::sha256_of(&bytes));
        let content_type = failure::content_type(&answer.headers).map(str::to_owned);
        Ok(Fetched { bytes, digest, content_type })
    }

    /// Descends to the manifest for the platform.
    fn select(&self, fetched: Fetched, depth: usize) -> Result<Selected, RegistryError> {
        let document = Document::parse(&fetched.bytes, fetched.content_type.as_deref())
            .map_err(|source| self.document_error(source))?;
        let index = match document {
            Document::Manifest(manifest) => return self.accept(fetched, manifest),
            Document::Index(index) => index,
        };
        if depth == NESTING_MAX {
            return Err(RegistryError::Nesting { object: self.object(), limit: NESTING_MAX });
        }
        let mut available = index.platforms();
        for entry in index.candidates(self.platform) {
            let mut inner = self.fetch(&entry.digest.to_string(), Some(&entry.digest))?;
            self.verify_size(entry, inner.bytes.len() as u64)?;
            inner.content_type = Some(entry.media_type.clone());
            match self.select(inner, depth + 1) {
                Err(RegistryError::Document {
                    source: DocumentError::NoPlatform { available: more, .. },
                    ..
                }) => {
                    let new: Vec<_> =
                        more.into_iter().filter(|it| !available.contains(it)).collect();
                    available.extend(new);
                }
                outcome => return outcome,
            }
        }
        let wanted = self.platform.clone();
        Err(self.document_error(DocumentError::NoPlatform { wanted, available }))
    }

    /// Fetches the configuration of a manifest, and takes it if its platform is the one wanted.
    fn accept(&self, fetched: Fetched, manifest: Manifest) -> Result<Selected, RegistryError> {
        let config_bytes = self.small_blob(&manifest.config, CONFIG_MAX)?;
        let config =
            ImageConfig::parse(&config_bytes).map_err(|source| self.document_error(source))?;
        let platform = config.platform().unwrap_or_else(|| self.platform.clone());
        if !self.platform.accepts(&platform) {
            let (wanted, available) = (self.platform.clone(), vec![platform]);
            return Err(self.document_error(DocumentError::NoPlatform { wanted, available }));
        }
        Ok(Selected { manifest, fetched, config_bytes, platform })
    }

    /// A blob that is kept in memory.
    fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let object = format!("{}/blobs/{}", self.source.repository, descriptor.digest);
        if descriptor.size > limit {
            let host = self.source.host().to_owned();
            return Err(RegistryError::TooLarge { host, object, limit });
        }
        let ask = Ask {
            method: Method::GET,
            path: &format!("blobs/{}", descriptor.digest),
            accept: None,
            from: 0,
            object: &object,
        };
        let ask = || self.session.ask(self.source, &ask);
        let (answer, bytes) = whole(self.session, ask, (&object, limit))?;
        self.verify_size(descriptor, bytes.len() as u64)?;
        verify(&answer.host, &object, &descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    fn verify_size(&self, descriptor: &Descriptor, got: u64) -> Result<(), RegistryError> {
        if descriptor.size == got {
            return Ok(());
        }
        Err(RegistryError::Size {
            host: self.source.host().to_owned(),
            object: format!("{}@{}", self.source.repository, descriptor.digest),
            expected: descriptor.size,
            got,
        })
    }
}

/// The whole body of what `ask` asks for, asked for again while it breaks in the middle.
///
/// An error of `ask` itself is final: it has been repeated as often as is allowed.
fn whole(
    session: &Session,
    ask: impl Fn() -> Result<Answer, RegistryError>,
    (object, limit): (&str, u64),
) -> Result<(Head, Vec<u8>), RegistryError> {
    let retry = session.transport.options.retry;
    for repetition in 0..retry.times {
        match read_whole(ask()?, object, limit) {
            Err(ref error @ RegistryError::Interrupted { ref host, .. }) => {
                session.transport.wait(host.clone(), retry.wait(repetition), error.to_string());
            }
            outcome => return outcome,
        }
    }
    read_whole(ask()?, object, limit)
}

/// Who answered, and with which headers.
struct Head {
    host: String,
    headers: HeaderMap,
}

fn read_whole(answer: Answer, object: &str, limit: u64) -> Result<(Head, Vec<u8>), RegistryError> {
    let head = Head { host: answer.host.clone(), headers: answer.response.headers().clone() };
    Ok((head, read_bounded(answer, object, limit)?))
}

/// The body of an answer, if it has at most `limit` bytes.
pub(crate) fn read_bounded(
    answer: Answer,
    object: &str,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    let host = answer.host;
    let mut bytes = Vec::new();
    let read = answer.response.take(limit + 1).read_to_end(&mut bytes);
    if let Err(error) = read {
        let source = Cause(failure::innermost(&error));
        return Err(RegistryError::Interrupted { host, source });
    }
    if bytes.len() as u64 > limit {
        return Err(RegistryError::TooLarge { host, object: object.to_owned(), limit });
    }
    Ok(bytes)
}

fn named_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get(DIGEST_HEADER)?.to_str().ok()?).ok()
}

fn verify(host: &str, object: &str, expected: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
    let mut hasher = Hasher::for_digest(expected);
    hasher.update(bytes);
    let got = hasher.finish();
    if got == *expected {
        return Ok(());
    }
    let (host, object) = (host.to_owned(), object.to_owned());
    Err(RegistryError::Digest { host, object, expected: expected.clone(), got })
}

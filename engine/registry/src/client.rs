//! The client: what the rest of the engine asks of registries.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use sarus_oci::manifest::{Descriptor, Manifest};
use sarus_oci::{Digest, Hasher, Platform, Reference};

use crate::error::{Attempt, Chain};
use crate::registries::{self, Source};
use crate::session::Session;
use crate::{
    Credentials, Notice, Options, RegistryError, Signatures, blob, login, registries_file, resolve,
    signatures,
};

/// A client of all registries. Cheap to clone; clones share connections and tokens, and may be
/// used from several threads at once. All methods block.
#[derive(Clone)]
pub struct Client {
    session: Arc<Session>,
}

/// What a reference leads to on a platform. Everything in it is verified.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The complete name under which the image was found: short names are resolved. Blobs are
    /// asked for by this one.
    pub reference: Reference,
    /// Digest of the platform's manifest: of its bytes as sent.
    pub digest: Digest,
    /// Digest of the outermost index, if there was one: that is what the tag points at.
    pub index_digest: Option<Digest>,
    /// The platform of the image; what was asked for if the image does not say.
    pub platform: Platform,
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes as sent.
    pub manifest_bytes: Vec<u8>,
    /// The bytes of the image configuration, digest and size verified.
    pub config_bytes: Vec<u8>,
}

/// Where a download goes, and what is there already.
pub struct Partial<'a> {
    pub(crate) sink: &'a mut dyn Write,
    pub(crate) hasher: Hasher,
}

impl<'a> Partial<'a> {
    /// Nothing is there yet.
    pub fn new(sink: &'a mut dyn Write, descriptor: &Descriptor) -> Self {
        Self { sink, hasher: Hasher::for_digest(&descriptor.digest) }
    }

    /// The first [`Hasher::bytes`] bytes are there, and `hasher` has seen them.
    pub fn after(sink: &'a mut dyn Write, hasher: Hasher) -> Self {
        Self { sink, hasher }
    }
}

impl fmt::Debug for Partial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial").field("bytes", &self.hasher.bytes()).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads `registries.conf` and its drop-ins. Contacts nobody.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Config`] names the file and the line. Credentials and certificates are
    /// read when they are needed, and so are errors in them.
    pub fn new(options: Options) -> Result<Self, RegistryError> {
        let mut registries = registries_file::load(&options.environment)?;
        for (path, key) in std::mem::take(&mut registries.unknown) {
            (options.notify)(&Notice::UnknownKey { path, key });
        }
        Ok(Self { session: Arc::new(Session::new(options, registries)) })
    }

    /// The registry that `reference` leads to, as registries.conf has it: the first one of several that a
    /// short name may mean. Contacts nobody.
    ///
    /// # Errors
    ///
    /// A name that is blocked, or that the configuration does not allow to be guessed.
    pub fn registry_of(&self, reference: &Reference) -> Result<String, RegistryError> {
        let sources = registries::sources(&self.session.registries, reference)?;
        let first = sources.first().map_or(reference, |source| &source.reference);
        Ok(first.registry().to_owned())
    }

    /// Finds the manifest of `reference` for `platform`, and fetches its configuration.
    ///
    /// A short name, and a registry with mirrors, are looked for in several places in order.
    /// A place other than a mirror is passed over only if it says that it has no such image.
    ///
    /// # Errors
    ///
    /// That of the place, or [`RegistryError::Nowhere`] with those of all. A platform that is
    /// not there is [`RegistryError::Document`] with the platforms that are.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        self.at_any_place(reference, &reference.to_string(), |source| {
            resolve::resolve(&self.session, source, platform)
        })
    }

    /// The digest that `reference` stands for now: of an index, if that is what it points at.
    ///
    /// Transfers no document if the registry answers `HEAD` requests well, so that it does not
    /// count as a pull.
    ///
    /// # Errors
    ///
    /// As [`Client::resolve`].
    pub fn digest(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        self.at_any_place(reference, &reference.to_string(), |source| {
            resolve::digest(&self.session, source)
        })
    }

    /// A reader of a blob, from byte `from` on. Goes on where it was when the connection breaks.
    ///
    /// Verifies the size; the digest only if `from` is 0: then the last read fails if it is
    /// wrong, and what was read before must not be used. Ends for good after a failure.
    ///
    /// # Errors
    ///
    /// As [`Client::resolve`]. Errors of the reader carry one too: [`RegistryError::of_read`].
    pub fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        from: u64,
    ) -> Result<Box<dyn Read + Send>, RegistryError> {
        if from > 0 && from == descriptor.size {
            return Ok(Box::new(std::io::empty()));
        }
        let blob = blob::Blob::open(self, reference, descriptor, from)?;
        if from == 0 { Ok(Box::new(blob::Verified::new(blob))) } else { Ok(Box::new(blob)) }
    }

    /// Writes a blob into `sink` and verifies it.
    ///
    /// `progress` is called, in this thread, with the number of bytes there are so far.
    ///
    /// # Errors
    ///
    /// As [`Client::resolve`]; [`RegistryError::Digest`] or [`RegistryError::Size`] if what was
    /// written is not the blob; [`RegistryError::Sink`]. What was written before stays, and is
    /// good to go on from ([`Client::download_rest`]) except after the former two.
    pub fn download(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        self.download_rest(reference, descriptor, Partial::new(sink, descriptor), progress)
    }

    /// As [`Client::download`], for a blob whose beginning is there.
    ///
    /// # Errors
    ///
    /// As [`Client::download`]. A wrong digest may also mean that the beginning was damaged.
    pub fn download_rest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        partial: Partial<'_>,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        blob::download(self, (reference, descriptor), partial, progress)
    }

    /// The signatures beside the manifest with this digest, at the places where registries.d
    /// says `use-sigstore-attachments`. `reference` is complete, as [`Resolved`] has it. None of
    /// them is verified.
    ///
    /// # Errors
    ///
    /// As [`Client::resolve`]. That there are none is no error.
    pub fn signatures(
        &self,
        reference: &Reference,
        manifest: &Digest,
    ) -> Result<Signatures, RegistryError> {
        signatures::find(&self.session, reference, manifest)
    }

    /// Asks `registry` whether it accepts `credentials`. Stores nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unauthorized`] if it does not; else as [`Client::resolve`].
    pub fn check_login(
        &self,
        registry: &str,
        credentials: &Credentials,
    ) -> Result<(), RegistryError> {
        login::check(&self.session, registry, credentials)
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Does `action` at the first place that has what is asked for. `object` is for messages.
    pub(crate) fn at_any_place<T>(
        &self,
        reference: &Reference,
        object: &str,
        action: impl Fn(&Source) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let sources = registries::sources(&self.session.registries, reference)?;
        let mut attempts = Vec::new();
        for source in &sources {
            let error = match action(source) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if source.mirror {
                let reason = Chain(&error).to_string();
                let notice = Notice::MirrorFailed { mirror: source.place(), reason };
                (self.session.transport.options.notify)(&notice);
            }
            let last = !source.mirror && !error.is_absence();
            attempts.push(Attempt { place: source.place(), error });
            if last {
                break;
            }
        }
        match attempts.pop() {
            Some(only) if attempts.is_empty() => Err(only.error),
            last => {
                attempts.extend(last);
                Err(RegistryError::Nowhere { object: object.to_owned(), attempts })
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

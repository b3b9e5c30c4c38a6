//! Where images come from, as a pull sees it.

use std::io::Write;

use sarus_oci::manifest::Descriptor;
use sarus_oci::{Digest, Hasher, Platform, Reference};
use sarus_policy::Subject;
use sarus_registry::{Client, Partial, RegistryError, Resolved, Signatures};

/// A place that has images. All methods block, and may be called from several threads at once.
pub trait Source: Sync {
    /// What `reference` leads to on `platform`, verified.
    ///
    /// # Errors
    ///
    /// As [`Client::resolve`].
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError>;

    /// Writes the rest of a blob into `sink`, whose beginning `hasher` has seen, and verifies the
    /// whole.
    ///
    /// # Errors
    ///
    /// As [`Client::download_rest`].
    fn download(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        hasher: Hasher,
        sink: &mut dyn Write,
    ) -> Result<(), RegistryError>;

    /// The digest that `reference` stands for now.
    ///
    /// # Errors
    ///
    /// As [`Client::digest`].
    fn digest(&self, reference: &Reference) -> Result<Digest, RegistryError>;

    /// What a signature policy calls the image. A source that is no registry says so here.
    fn subject<'a>(&'a self, resolved: &'a Resolved) -> Subject<'a> {
        Subject::Registry(&resolved.reference)
    }

    /// What may be signatures of the image's manifest. A source that keeps none has none, so
    /// that a policy which asks for one lets nothing in.
    ///
    /// # Errors
    ///
    /// As [`Client::signatures`].
    fn signatures(&self, _resolved: &Resolved) -> Result<Signatures, RegistryError> {
        Ok(Signatures::default())
    }
}

impl Source for Client {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        Self::resolve(self, reference, platform)
    }

    fn download(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        hasher: Hasher,
        sink: &mut dyn Write,
    ) -> Result<(), RegistryError> {
        self.download_rest(reference, descriptor, Partial::after(sink, hasher), &|_bytes| ())
    }

    fn digest(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        Self::digest(self, reference)
    }

    fn signatures(&self, resolved: &Resolved) -> Result<Signatures, RegistryError> {
        Self::signatures(self, &resolved.reference, &resolved.digest)
    }
}

//! The stores of one user: their own, and those of others after it.

use sarus_oci::{Digest, Platform, Reference};
use sarus_store::{Image, Name, Store, Summary};

use crate::ImageError;
use crate::load::names::without_server;

/// Fewest digits of an image id that name an image.
const ID_DIGITS_MIN: usize = 4;

/// Before the digits of a digest.
const DIGEST_PREFIX: &str = "sha256:";

/// Digits of an id that lists show.
const SHOWN_DIGITS: usize = 12;

/// Digits of a whole SHA-256, which no repository may be called.
const SHA256_DIGITS: usize = 64;

/// Where images are looked up, in this order.
#[derive(Debug, Clone)]
pub struct Stores {
    stores: Vec<Store>,
}

/// An image of one of the stores, with the names that mean it.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// The store that has it.
    pub store: &'a Store,
    /// The image.
    pub image: Image,
    /// Its names in that store, sorted; possibly none.
    pub names: Vec<Name>,
}

impl Stores {
    /// The user's own store, and then others in order: the site's, a project's.
    pub fn new(own: Store, others: impl IntoIterator<Item = Store>) -> Self {
        Self { stores: std::iter::once(own).chain(others).collect() }
    }

    /// The stores in the order in which they are looked into.
    pub fn iter(&self) -> impl Iterator<Item = &Store> {
        self.stores.iter()
    }

    /// The image that `reference` means on `platform`; `load/NAME`, where nothing is called that,
    /// is NAME, as in job scripts for Sarus 1.7. Lists no directory.
    ///
    /// # Errors
    ///
    /// A store that cannot be read, or a damaged image.
    pub fn lookup(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<Image>, ImageError> {
        for store in &self.stores {
            if let Some(image) = store.lookup(reference, platform)? {
                return Ok(Some(image));
            }
        }
        match without_server(reference) {
            Some(loaded) => self.lookup(&loaded, platform),
            None => Ok(None),
        }
    }

    /// The image that a user names by reference, by digest, or by the beginning of its id (that
    /// is the digest of its configuration, as Docker shows it).
    ///
    /// # Errors
    ///
    /// [`ImageError::Missing`]; [`ImageError::Ambiguous`] for a beginning that several ids have;
    /// a store that cannot be read.
    pub fn find(&self, given: &str, platform: &Platform) -> Result<Found<'_>, ImageError> {
        let reference = Reference::parse(given);
        if let Ok(reference) = &reference {
            for store in &self.stores {
                if let Some(image) = store.lookup(reference, platform)? {
                    let names = names_of(store, &image.digest)?;
                    return Ok(Found { store, image, names });
                }
            }
        }
        match self.find_by_id(given)? {
            Some(found) => Ok(found),
            None => match (reference, id_prefix(given)) {
                (Err(error), None) => Err(error.into()),
                _ => Err(ImageError::Missing { given: given.to_owned() }),
            },
        }
    }

    /// Whether a text is an id as `sarus images` shows it, or a digest or the beginning of one that says so:
    /// more digits than an image's name is likely to be made of.
    pub fn is_id(given: &str) -> bool {
        let digits_min =
            if given.starts_with(DIGEST_PREFIX) { ID_DIGITS_MIN } else { SHOWN_DIGITS };
        id_prefix(given).is_some_and(|digits| digits.len() >= digits_min)
    }

    /// The image of that id or digest, of which no registry needs to be asked.
    ///
    /// # Errors
    ///
    /// As [`Stores::find`]; [`ImageError::Missing`] only for what can be no repository's name.
    pub fn by_id(&self, given: &str) -> Result<Option<Image>, ImageError> {
        let is_digest = given.starts_with(DIGEST_PREFIX) || given.len() == SHA256_DIGITS;
        match self.find_by_id(given)? {
            Some(found) => Ok(Some(found.image)),
            None if is_digest => Err(ImageError::Missing { given: given.to_owned() }),
            None => Ok(None),
        }
    }

    fn find_by_id(&self, given: &str) -> Result<Option<Found<'_>>, ImageError> {
        let Some(prefix) = id_prefix(given) else { return Ok(None) };
        for store in &self.stores {
            let listing = store.list()?;
            let mut matching = listing.images.iter().filter(|(digest, image)| {
                image.config_digest.hex().starts_with(prefix) || digest.hex().starts_with(prefix)
            });
            let Some((digest, image)) = matching.next() else { continue };
            if let Some((other_digest, other)) = matching.next() {
                // Images that differ in how they are packed have one configuration.
                let by_manifest = image.config_digest == other.config_digest;
                let id = |digest: &Digest, image: &Summary| match by_manifest {
                    true => digest.to_string(),
                    false => image.config_digest.to_string(),
                };
                return Err(ImageError::Ambiguous {
                    given: given.to_owned(),
                    first: id(digest, image),
                    second: id(other_digest, other),
                });
            }
            // Removed meanwhile, perhaps.
            let Some(image) = store.image(digest)? else { continue };
            let names =
                listing.names.into_iter().filter(|name| name.digest == image.digest).collect();
            return Ok(Some(Found { store, image, names }));
        }
        Ok(None)
    }
}

/// The digits of a text that may be the beginning of an id.
fn id_prefix(given: &str) -> Option<&str> {
    let digits = given.strip_prefix(DIGEST_PREFIX).unwrap_or(given);
    let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits.len() >= ID_DIGITS_MIN && is_hex).then_some(digits)
}

fn names_of(store: &Store, digest: &Digest) -> Result<Vec<Name>, ImageError> {
    let names = store.list()?.names;
    Ok(names.into_iter().filter(|name| name.digest == *digest).collect())
}

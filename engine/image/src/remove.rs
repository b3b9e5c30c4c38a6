//! Remove: a name, or an image with its only name.

use std::time::Duration;

use sarus_oci::{Digest, Platform, Reference};
use sarus_store::{Removal, Store};

use crate::{ImageError, Stores};

/// What a removal took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub names: Vec<Reference>,
    /// The image, where it lost its last name.
    pub image: Option<Digest>,
    /// What became of the image's file.
    pub removal: Removal,
}

/// How much is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The file stays for this time, for jobs that use it; an image named by its id may have one
    /// name only.
    Careful(Duration),
    /// At once, with all names.
    Forced,
}

/// Removes what a user names: a name, and with its last name the image; or an image by digest or
/// the beginning of its id.
///
/// # Errors
///
/// [`ImageError::Missing`], [`ImageError::SeveralNames`], or a store that cannot be changed.
pub fn remove(
    store: &Store,
    given: &str,
    platform: &Platform,
    extent: Extent,
) -> Result<Removed, ImageError> {
    let grace = match extent {
        Extent::Careful(grace) => grace,
        Extent::Forced => Duration::ZERO,
    };
    if let Ok(reference) = Reference::parse(given) {
        let name = store.name(&reference, platform).ok().flatten();
        if let Some(removal) = store.remove(&reference, platform, grace)? {
            let (name, digest) =
                name.map_or((reference, None), |name| (name.reference, Some(name.digest)));
            let image = digest.filter(|_| removal != Removal::NameOnly);
            return Ok(Removed { names: vec![name], image, removal });
        }
    }
    let stores = Stores::new(store.clone(), None);
    let found = stores.find(given, platform)?;
    if found.names.len() > 1 && extent != Extent::Forced {
        let names = found.names.iter().map(|name| name.reference.to_string()).collect();
        return Err(ImageError::SeveralNames { given: given.to_owned(), names });
    }
    let removal = store.remove_image(&found.image.digest, grace)?;
    let names = found.names.into_iter().map(|name| name.reference).collect();
    let image = Some(found.image.digest).filter(|_| removal != Removal::NameOnly);
    Ok(Removed { names, image, removal })
}

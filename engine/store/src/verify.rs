//! Whether an image's file is still the one that was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sarus_oci::{Digest, Hasher};

use crate::{Image, StoreError};

/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// What [`Image::verify`] could compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The digest: the file is, byte for byte, the one that was written.
    Digest,
    /// The length only: a version that stored no digest wrote the image.
    Length,
}

impl Image {
    /// Reads the squashfs file whole, and compares length and digest with the metadata.
    ///
    /// # Errors
    ///
    /// [`StoreError::Length`] and [`StoreError::Digest`], which are damage; a file that cannot be
    /// read.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let path = &self.squashfs;
        let file = File::open(path).map_err(StoreError::read(path))?;
        let got = file.metadata().map_err(StoreError::read(path))?.len();
        let expected = self.metadata.conversion.bytes;
        if got != expected {
            return Err(StoreError::Length { path: path.clone(), got, expected });
        }
        let Some(expected) = &self.metadata.conversion.squashfs_digest else {
            return Ok(Verified::Length);
        };
        let mut hasher = Hasher::for_digest(expected);
        hash(&file, &mut hasher).map_err(StoreError::read(path))?;
        let got = hasher.finish();
        if got != *expected {
            return Err(StoreError::Digest { path: path.clone(), got, expected: expected.clone() });
        }
        Ok(Verified::Digest)
    }
}

/// The SHA-256 digest of a file, wherever its position is.
pub(crate) fn digest_of(file: &File) -> io::Result<Digest> {
    let mut hasher = Hasher::new(sarus_oci::Algorithm::Sha256);
    hash(file, &mut hasher)?;
    Ok(hasher.finish())
}

fn hash(file: &File, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read_at(&mut buffer, hasher.bytes()) {
            Ok(0) => return Ok(()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

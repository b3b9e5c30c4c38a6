//! A reader that knows at its end what it was: length and digest, and whether that was expected.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use sarus_oci::{Digest, Hasher};

use super::LoadError;
use super::made::PlainLayer;

/// What a reader was, once it was read to its end.
pub(super) type Seen = Arc<OnceLock<PlainLayer>>;

/// Hashes what is read; the read that finds the end fails where the digest is another than
/// `expected`.
pub(super) struct Checked {
    inner: Box<dyn Read + Send>,
    hasher: Hasher,
    object: String,
    expected: Option<Digest>,
    seen: Seen,
}

impl Checked {
    pub(super) fn new(
        inner: Box<dyn Read + Send>,
        (object, expected): (String, Option<Digest>),
        seen: Seen,
    ) -> Self {
        let hasher = match &expected {
            Some(digest) => Hasher::for_digest(digest),
            None => Hasher::new(sarus_oci::Algorithm::Sha256),
        };
        Self { inner, hasher, object, expected, seen }
    }

    fn end(&self) -> io::Result<usize> {
        let got = self.hasher.clone().finish();
        let size = self.hasher.bytes();
        if let Some(expected) = self.expected.as_ref().filter(|expected| **expected != got) {
            let (object, expected) = (self.object.clone(), expected.clone());
            let error = LoadError::Digest { object, expected, got };
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let _seen_before = self.seen.set(PlainLayer { diff_id: got, size });
        Ok(0)
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            return self.end();
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

//! Public keys, and the signatures that they verify.
//!
//! The algorithms are those that cosign's keys have: ECDSA on P-256 (what `cosign generate-key-pair`
//! makes) and P-384, Ed25519, RSA from 2048 bits; all but Ed25519 over SHA-256. Cryptography by
//! `ring`, which TLS uses too.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use sarus_oci::Digest;
use webpki::{Error, RawPublicKeyEntity, ring};

use crate::Refusal;

/// Largest key file, in bytes.
const KEY_BYTES_MAX: u64 = 1 << 20;

static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 4] = [
    ring::ECDSA_P256_SHA256,
    ring::ECDSA_P384_SHA256,
    ring::ED25519,
    ring::RSA_PKCS1_2048_8192_SHA256,
];

/// Where a policy says that a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    Path(PathBuf),
    /// PEM text in the policy itself.
    Data(Vec<u8>),
}

/// A public key.
#[derive(Debug)]
pub(crate) struct Key {
    /// `SubjectPublicKeyInfo`, DER.
    info: SubjectPublicKeyInfoDer<'static>,
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    /// Where it came from, for messages and records.
    pub(crate) origin: String,
}

impl KeySource {
    /// For messages and records.
    fn origin(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Data(_) => "keyData".to_owned(),
        }
    }

    /// Reads the key.
    pub(crate) fn load(&self) -> Result<Key, Refusal> {
        let origin = self.origin();
        match self {
            Self::Data(pem) => Key::parse(pem, origin),
            Self::Path(path) => {
                let unreadable = |source| Refusal::KeyUnreadable { path: path.clone(), source };
                let file = File::open(path).map_err(unreadable)?;
                let mut pem = Vec::new();
                file.take(KEY_BYTES_MAX).read_to_end(&mut pem).map_err(unreadable)?;
                Key::parse(&pem, origin)
            }
        }
    }
}

impl Key {
    /// The first public key in a PEM text.
    fn parse(pem: &[u8], origin: String) -> Result<Self, Refusal> {
        let invalid = |what: &str| Refusal::Key { origin: origin.clone(), what: what.to_owned() };
        let info = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_error| invalid("holds no public key in PEM form (`BEGIN PUBLIC KEY`)"))?;
        let algorithm = algorithm(&info).ok_or_else(|| {
            invalid("is no ECDSA (P-256, P-384), Ed25519 or RSA (from 2048 bits) key")
        })?;
        Ok(Self { info, algorithm, origin })
    }

    /// Whether `signature` is one by this key over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        RawPublicKeyEntity::try_from(&self.info)
            .is_ok_and(|key| key.verify_signature(self.algorithm, message, signature).is_ok())
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`:
    /// `openssl pkey -pubin -in KEY -outform DER | sha256sum` shows the same.
    pub(crate) fn fingerprint(&self) -> Digest {
        Digest::sha256_of(&self.info)
    }
}

/// The algorithm that goes with a key: the one that can be tried.
fn algorithm(
    info: &SubjectPublicKeyInfoDer<'_>,
) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    let key = RawPublicKeyEntity::try_from(info).ok()?;
    ALGORITHMS.into_iter().find(|algorithm| {
        // A signature without bytes is never good; which error it gives tells whether the key
        // is of the algorithm.
        matches!(
            key.verify_signature(*algorithm, b"", b""),
            Err(Error::InvalidSignatureForPublicKey)
        )
    })
}

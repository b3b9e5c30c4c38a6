//! The decision: whether what is known of an image meets the requirements for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sarus_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::identity::{Match, Named};
use crate::key::{Key, KeySource};
use crate::parse::Requirement;
use crate::payload::Payload;
use crate::policy::Rule;
use crate::{PolicyError, Refusal, Subject};

/// Media type of a cosign signature's payload.
const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation with the signature over the payload, base64.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// What may be a signature, as it came: nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Media type; what is none of a signature is passed over.
    pub media_type: String,
    /// The signed bytes.
    pub payload: Vec<u8>,
    /// Annotations; one has the signature.
    pub annotations: BTreeMap<String, String>,
}

/// What is known of an image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// The bytes of the platform's manifest.
    pub manifest: &'a [u8],
    /// Its signatures.
    pub signatures: &'a [Signature],
    /// Why none, or not all, were looked for.
    pub not_sought: Option<&'a str>,
}

/// Why an image was let in. A record for people: nothing is decided by it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admission {
    /// The policy's file; none where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// The scope that spoke of the image: `default`, or `TRANSPORT:SCOPE`.
    pub scope: String,
    /// The scope's requirements, which all hold.
    pub requirements: Vec<Met>,
}

/// A requirement that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Met {
    /// Everything is let in.
    InsecureAcceptAnything,
    /// A signature by a key was verified.
    SigstoreSigned {
        /// Where the key came from: a path, or `keyData`.
        key: String,
        /// SHA-256 of the key's `SubjectPublicKeyInfo`.
        key_fingerprint: Digest,
        /// The name of the image in the signature.
        identity: String,
        /// The manifest's digest in the signature.
        manifest: Digest,
    },
}

impl Rule<'_> {
    /// Whether signatures can make a difference, so that it is worth to look for them.
    pub fn wants_signatures(&self) -> bool {
        let never =
            |it: &Requirement| matches!(it, Requirement::Reject | Requirement::Unsupported(_));
        let signed = |it: &Requirement| matches!(it, Requirement::SigstoreSigned { .. });
        self.requirements.iter().any(signed) && !self.requirements.iter().any(never)
    }

    /// Decides. Reads the keys that the requirements name.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Refused`] with the first requirement that does not hold.
    pub fn admit(
        &self,
        subject: &Subject<'_>,
        evidence: &Evidence<'_>,
    ) -> Result<Admission, PolicyError> {
        let met = |requirement| check(requirement, subject, evidence);
        let requirements = self.requirements.iter().map(met).collect::<Result<_, _>>();
        let refused = |source| PolicyError::Refused {
            image: subject.text(),
            policy: self.file.map(PathBuf::from).unwrap_or_default(),
            scope: self.scope.clone(),
            source,
        };
        Ok(Admission {
            policy: self.file.map(PathBuf::from),
            scope: self.scope.clone(),
            requirements: requirements.map_err(refused)?,
        })
    }
}

fn check(
    requirement: &Requirement,
    subject: &Subject<'_>,
    evidence: &Evidence<'_>,
) -> Result<Met, Refusal> {
    match requirement {
        Requirement::AcceptAnything => Ok(Met::InsecureAcceptAnything),
        Requirement::Reject => Err(Refusal::Reject),
        Requirement::Unsupported(what) => Err(Refusal::Unsupported { what }),
        Requirement::SigstoreSigned { keys, identity } => signed(keys, identity, subject, evidence),
    }
}

/// One good signature is enough.
fn signed(
    keys: &[KeySource],
    identity: &Match,
    subject: &Subject<'_>,
    evidence: &Evidence<'_>,
) -> Result<Met, Refusal> {
    // A key that cannot be read is told, whether or not another one would do.
    let keys = keys.iter().map(KeySource::load).collect::<Result<Vec<_>, _>>()?;
    let intended = subject.reference().map(Named::of);
    let mut reasons = Vec::new();
    for signature in evidence.signatures {
        if signature.media_type != MEDIA_TYPE {
            log::debug!("no signature, passed over: `{}`", signature.media_type);
            continue;
        }
        match verify(signature, &keys, evidence.manifest) {
            Ok((key, payload)) if identity.accepts(intended.as_ref(), &payload.reference) => {
                return Ok(Met::SigstoreSigned {
                    key: key.origin.clone(),
                    key_fingerprint: key.fingerprint(),
                    identity: payload.reference,
                    manifest: payload.digest,
                });
            }
            Ok((_, payload)) => reasons.push(format!(
                "it is one for the name `{}`, which `signedIdentity` does not accept",
                payload.reference.escape_debug()
            )),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        let reason = evidence.not_sought.map(str::to_owned);
        return Err(Refusal::Unsigned { reason });
    }
    reasons.extend(evidence.not_sought.map(str::to_owned));
    Err(Refusal::Signatures { reasons })
}

/// The key and the payload of a signature by one of `keys` over this manifest.
fn verify<'a>(
    signature: &Signature,
    keys: &'a [Key],
    manifest: &[u8],
) -> Result<(&'a Key, Payload), String> {
    let text = signature.annotations.get(ANNOTATION);
    let text = text.ok_or_else(|| format!("it lacks the annotation `{ANNOTATION}`"))?;
    let bytes = STANDARD.decode(text).map_err(|_error| "it is no base64 text".to_owned())?;
    let key = keys.iter().find(|key| key.verifies(&signature.payload, &bytes));
    let key = key.ok_or("it is not by a key of the policy, or was altered")?;
    let payload = Payload::parse(&signature.payload)
        .map_err(|fault| format!("its payload is malformed: {fault}"))?;
    if !payload.digest.matches(manifest) {
        return Err(format!("it is one for another manifest, `{}`", payload.digest));
    }
    Ok((key, payload))
}

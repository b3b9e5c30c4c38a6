//! Signatures that a registry keeps beside an image, as cosign puts them there: a manifest with
//! the tag `sha256-HEX.sig` in the same repository, each layer a payload, the signature over it
//! in the layer's annotations.
//!
//! Fetches and bounds; verifies nothing but digests (`sarus_policy` does).

use sarus_oci::manifest::Descriptor;
use sarus_oci::{Digest, DocumentError, Reference};
use sarus_policy::Signature;
use serde::Deserialize;

use crate::error::Chain;
use crate::registries::{self, Source};
use crate::session::Session;
use crate::{Notice, RegistryError, registries_d, resolve};

/// Media type of a payload. Other layers (attestations, SBOMs) are not fetched.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Media type of the manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Most bytes of a payload; one has some 250.
const PAYLOAD_MAX: u64 = 4 << 20;
/// Most signatures that are looked at.
const SIGNATURES_MAX: usize = 128;

/// What was found beside an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    /// What may be signatures; nothing in them is verified.
    pub found: Vec<Signature>,
    /// Why none, or not all, were looked for.
    pub not_sought: Option<String>,
}

/// See [`crate::Client::signatures`].
pub(crate) fn find(
    session: &Session,
    reference: &Reference,
    manifest: &Digest,
) -> Result<Signatures, RegistryError> {
    let options = &session.transport.options;
    let rules = registries_d::load(&options.environment, options.registries_d.as_deref())?;
    let tag = format!("{}.sig", manifest.to_string().replace(':', "-"));
    let mut sought = false;
    for source in registries::sources(&session.registries, reference)? {
        if !rules.uses_attachments(&reference.renamed(&source.place())?) {
            continue;
        }
        sought = true;
        match fetch(session, &source, &tag) {
            Ok(found) => return Ok(found),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) if source.mirror => {
                let reason = Chain(&error).to_string();
                let notice = Notice::MirrorFailed { mirror: source.place(), reason };
                (options.notify)(&notice);
            }
            Err(error) => return Err(error),
        }
    }
    let name = reference.name();
    let not_sought = (!sought).then(|| {
        format!("registries.d does not say `use-sigstore-attachments: true` for `{name}`")
    });
    Ok(Signatures { found: Vec::new(), not_sought })
}

/// The payloads at one place.
fn fetch(session: &Session, source: &Source, tag: &str) -> Result<Signatures, RegistryError> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        layers: Vec<Descriptor>,
    }
    let object = format!("{}:{tag}", source.place());
    let (bytes, content_type) = resolve::document(session, source, tag)?;
    let given = content_type.as_deref().unwrap_or(MANIFEST);
    if given.split(';').next().map(str::trim) != Some(MANIFEST) {
        let source = DocumentError::MediaType { media_type: given.to_owned() };
        return Err(RegistryError::Document { object, source });
    }
    let fields: Fields = serde_json::from_slice(&bytes).map_err(|error| {
        let source = DocumentError::Json { document: "the signatures", source: error };
        RegistryError::Document { object, source }
    })?;
    let mut payloads = fields.layers;
    payloads.retain(|layer| layer.media_type == PAYLOAD);
    let count = payloads.len();
    let not_sought = (count > SIGNATURES_MAX)
        .then(|| format!("of its {count} signatures the first {SIGNATURES_MAX} were looked at"));
    payloads.truncate(SIGNATURES_MAX);
    let mut found = Vec::new();
    for layer in payloads {
        let payload = resolve::small_blob(session, source, &layer, PAYLOAD_MAX)?;
        let Descriptor { media_type, annotations, .. } = layer;
        found.push(Signature { media_type, payload, annotations });
    }
    Ok(Signatures { found, not_sought })
}

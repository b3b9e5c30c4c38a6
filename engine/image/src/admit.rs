//! Whether the signature policy lets an image in.

use sarus_policy::{Admission, Evidence, Policy};
use sarus_registry::{Resolved, Signatures};

use crate::{ImageError, Source};

/// Asks the policy about what a reference led to. Signatures are fetched only where they can
/// make a difference. To be done before anything of the image is read.
pub(crate) fn admit<S: Source + ?Sized>(
    source: &S,
    resolved: &Resolved,
    policy: &Policy,
) -> Result<Admission, ImageError> {
    let subject = source.subject(resolved);
    let rule = policy.rule(&subject);
    let signatures =
        if rule.wants_signatures() { source.signatures(resolved)? } else { Signatures::default() };
    let evidence = Evidence {
        manifest: &resolved.manifest_bytes,
        signatures: &signatures.found,
        not_sought: signatures.not_sought.as_deref(),
    };
    Ok(rule.admit(&subject, &evidence)?)
}

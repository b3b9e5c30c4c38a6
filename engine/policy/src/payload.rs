//! The payload of a cosign signature: which manifest is signed, under which name.
//!
//! Specification: containers-signature(5), "JSON data format"; cosign differs in `type` and in
//! `optional`, which may be null.

use sarus_oci::Digest;

use crate::json::{Fault, Fields, Node};

/// `critical.type` of cosign's signatures.
const TYPE: &str = "cosign container image signature";

/// What was signed. Means nothing before the signature over its bytes is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Digest of the manifest.
    pub(crate) digest: Digest,
    /// Name of the image.
    pub(crate) reference: String,
}

impl Payload {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let node = Node::parse(bytes).map_err(|error| Fault::new("", error.to_string()))?;
        let mut top = Fields::of(node, "")?;
        let mut critical = Fields::of(top.need("critical")?, "critical")?;
        check_optional(top.need("optional")?)?;
        top.end()?;
        let given = critical.need_text("type")?;
        if given != TYPE {
            let what = format!("expected `{TYPE}`, got `{given}`");
            return Err(Fault::new("critical.type", what));
        }
        let mut image = Fields::of(critical.need("image")?, "critical.image")?;
        let digest = image.need_text("docker-manifest-digest")?;
        let digest = Digest::parse(&digest).map_err(|error| {
            Fault::new("critical.image.docker-manifest-digest", error.to_string())
        })?;
        image.end()?;
        let mut identity = Fields::of(critical.need("identity")?, "critical.identity")?;
        let reference = identity.need_text("docker-reference")?;
        identity.end()?;
        critical.end()?;
        Ok(Self { digest, reference })
    }
}

/// Whatever a signer adds is let pass; what has a meaning must be of the right type.
fn check_optional(node: Node) -> Result<(), Fault> {
    if node == Node::Null {
        return Ok(());
    }
    let mut fields = Fields::of(node, "optional")?;
    match fields.take("creator") {
        None | Some(Node::Text(_)) => {}
        Some(_) => return Err(Fault::new("optional.creator", "expected a text")),
    }
    match fields.take("timestamp") {
        None => Ok(()),
        Some(Node::Number(time)) if time.fract() == 0.0 => Ok(()),
        Some(_) => Err(Fault::new("optional.timestamp", "expected a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"critical": {"type": "cosign container image signature",
        "image": {"docker-manifest-digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000"},
        "identity": {"docker-reference": "a.org/b:1"}}, "optional": null}"#;

    #[test]
    fn a_payload_says_what_is_signed() {
        let payload = Payload::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(payload.reference, "a.org/b:1");
        assert_eq!(payload.digest.hex(), "0".repeat(64));
        let optional = r#"{"creator": "me", "timestamp": 1.7e9, "more": [1]}"#;
        let more = GOOD.replace("null", optional);
        assert_eq!(Payload::parse(more.as_bytes()).unwrap(), payload);
    }

    #[test]
    fn a_payload_is_parsed_strictly() {
        for (from, to, want) in [
            ("{\"critical\"", "{\"extra\": 1, \"critical\"", "unknown key `extra`"),
            (", \"optional\": null", "", "the key `optional` is missing"),
            ("null", "1", "`optional`: expected an object, got a number"),
            ("null", r#"{"timestamp": 1.5}"#, "`optional.timestamp`: expected a whole number"),
            ("null", r#"{"creator": 1}"#, "`optional.creator`: expected a text"),
            ("cosign container", "atomic container", "got `atomic container image signature`"),
            ("sha256:", "sha256:x", "`critical.image.docker-manifest-digest`"),
            ("\"image\"", "\"images\"", "`critical`: the key `image` is missing"),
            ("\"a.org/b:1\"", "\"\"", "`critical.identity.docker-reference`: the text is empty"),
            ("\"a.org/b:1\"", "null", "expected a text, got null"),
            ("\"a.org/b:1\"}", "\"a.org/b:1\", \"x\": 1}", "unknown key `x`"),
            ("\"optional\"", "\"critical\"", "the key `critical` is there twice"),
            ("\"a.org/b:1\"}", "\"a\", \"docker-reference\": \"b\"}", "is there twice"),
            ("}, \"optional\": null}", "", "EOF"),
        ] {
            let given = GOOD.replace(from, to);
            assert_ne!(given, GOOD);
            let error = Payload::parse(given.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{to:?} gives: {error}");
        }
        assert!(Payload::parse(b"\xff").is_err());
        assert!(Payload::parse(&[b'['; 1000]).is_err());
    }
}

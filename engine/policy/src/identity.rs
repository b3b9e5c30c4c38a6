//! `signedIdentity`: which name a signature must speak of.
//!
//! Specification: containers-policy.json(5), "`signedBy`", `signedIdentity`.

use sarus_oci::{Digest, Reference};

use crate::json::{Fault, Fields, Node};

/// How the name in a signature is compared with the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// `matchExact`
    Exact,
    /// `matchRepoDigestOrExact`
    RepoDigestOrExact,
    /// `matchRepository`
    Repository,
    /// `exactReference`
    ExactReference(Named),
    /// `exactRepository`
    ExactRepository(String),
    /// `remapIdentity`
    Remap { prefix: String, signed_prefix: String },
}

/// A name as signatures and policies have it: nothing is filled in but the default registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Named {
    /// Docker's grammar only; the further forms of [`Reference`] are none here.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.contains("://") || text.contains('#') {
            return None;
        }
        let reference = Reference::parse(text).ok()?;
        let name = text.split('@').next().unwrap_or_default();
        let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let tag = reference.tag().filter(|_| has_tag).map(str::to_owned);
        Some(Self { name: reference.name(), tag, digest: reference.digest().cloned() })
    }

    /// The name of the image that is pulled. Where there are a tag and a digest, the digest
    /// decides.
    pub(crate) fn of(reference: &Reference) -> Self {
        let digest = reference.digest().cloned();
        let tag = reference.tag().filter(|_| digest.is_none()).map(str::to_owned);
        Self { name: reference.name(), tag, digest }
    }

    fn is_bare(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

impl Match {
    /// Reads the value of `signedIdentity`.
    pub(crate) fn parse(node: Node, at: &str) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, at)?;
        let kind = fields.need_text("type")?;
        let parsed = match kind.as_str() {
            "matchExact" => Self::Exact,
            "matchRepoDigestOrExact" => Self::RepoDigestOrExact,
            "matchRepository" => Self::Repository,
            "exactReference" => {
                let text = fields.need_text("dockerReference")?;
                let named = Named::parse(&text).filter(|named| !named.is_bare());
                Self::ExactReference(named.ok_or_else(|| {
                    let what = format!("`{text}` is no name with a tag or a digest");
                    Fault::new(&fields.place("dockerReference"), what)
                })?)
            }
            "exactRepository" => {
                let text = fields.need_text("dockerRepository")?;
                let named = Named::parse(&text).ok_or_else(|| {
                    let what = format!("`{text}` is no name of a repository");
                    Fault::new(&fields.place("dockerRepository"), what)
                })?;
                Self::ExactRepository(named.name)
            }
            "remapIdentity" => Self::Remap {
                prefix: prefix(&mut fields, "prefix")?,
                signed_prefix: prefix(&mut fields, "signedPrefix")?,
            },
            other => {
                let what = format!("unknown kind of identity `{other}`");
                return Err(Fault::new(&fields.place("type"), what));
            }
        };
        fields.end()?;
        Ok(parsed)
    }

    /// Whether a signature for `signed` is one for the image `intended`.
    ///
    /// `intended` is none for an image that came without a name: then only a name that the
    /// policy gives itself can be matched.
    pub(crate) fn accepts(&self, intended: Option<&Named>, signed: &str) -> bool {
        let Some(signed) = Named::parse(signed) else { return false };
        match (self, intended) {
            (Self::ExactReference(wanted), _) => !signed.is_bare() && signed == *wanted,
            (Self::ExactRepository(wanted), _) => signed.name == *wanted,
            (_, None) => false,
            (Self::Exact, Some(intended)) => !signed.is_bare() && signed == *intended,
            (Self::Repository, Some(intended)) => signed.name == intended.name,
            (Self::RepoDigestOrExact, Some(intended)) => repo_digest_or_exact(intended, &signed),
            (Self::Remap { prefix, signed_prefix }, Some(intended)) => {
                let rest = intended.name.strip_prefix(prefix.as_str());
                let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
                let name = rest
                    .map_or_else(|| intended.name.clone(), |rest| format!("{signed_prefix}{rest}"));
                repo_digest_or_exact(&Named { name, ..intended.clone() }, &signed)
            }
        }
    }
}

/// An image asked for by its digest may be signed under any tag of its repository.
fn repo_digest_or_exact(intended: &Named, signed: &Named) -> bool {
    !signed.is_bare()
        && match intended.tag {
            Some(_) => signed == intended,
            None => signed.name == intended.name,
        }
}

/// A host, a namespace or a repository, in full.
fn prefix(fields: &mut Fields, key: &str) -> Result<String, Fault> {
    let text = fields.need_text(key)?;
    // In full it stays what it is when something follows.
    let longer = format!("{text}/x/y");
    match Named::parse(&longer) {
        Some(named) if named.name == longer => Ok(text),
        _ => {
            let what = format!("`{text}` is no host, namespace or repository in full");
            Err(Fault::new(&fields.place(key), what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Match, Fault> {
        Match::parse(Node::parse(json.as_bytes()).unwrap(), "id")
    }

    #[test]
    fn identities_are_compared_as_the_policy_says() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let by_digest = format!("a.org/b@{digest}");
        let both = format!("a.org/b:1@{digest}");
        let exact = r#"{"type": "matchExact"}"#;
        let default = r#"{"type": "matchRepoDigestOrExact"}"#;
        let repository = r#"{"type": "matchRepository"}"#;
        let reference = r#"{"type": "exactReference", "dockerReference": "c.org/d:2"}"#;
        let named = r#"{"type": "exactRepository", "dockerRepository": "c.org/d"}"#;
        let remap = r#"{"type": "remapIdentity", "prefix": "a.org", "signedPrefix": "up.org/x"}"#;
        for (json, image, signed, want) in [
            (exact, "a.org/b:1", "a.org/b:1", true),
            (exact, "a.org/b:1", "a.org/b:2", false),
            (exact, "a.org/b:1", "a.org/b", false),
            (exact, "a.org/b", "a.org/b", false),
            (exact, "a.org/b", "a.org/b:latest", true),
            (exact, &by_digest, "a.org/b:1", false),
            (exact, &by_digest, &by_digest, true),
            (exact, "busybox:1", "docker.io/library/busybox:1", true),
            (exact, "busybox:1", "busybox:1", true),
            (default, "a.org/b:1", "a.org/b:1", true),
            (default, "a.org/b:1", "a.org/b:2", false),
            (default, "a.org/b:1", "a.org/b", false),
            (default, "a.org/b:1", &by_digest, false),
            (default, &by_digest, "a.org/b:7", true),
            (default, &by_digest, "a.org/b", false),
            (default, &by_digest, "a.org/c:7", false),
            (default, &both, "a.org/b:7", true),
            (repository, "a.org/b:1", "a.org/b", true),
            (repository, "a.org/b:1", "a.org/b:9", true),
            (repository, "a.org/b:1", "a.org/bb:1", false),
            (reference, "a.org/b:1", "c.org/d:2", true),
            (reference, "a.org/b:1", "c.org/d:3", false),
            (reference, "a.org/b:1", "c.org/d", false),
            (named, "a.org/b:1", "c.org/d", true),
            (named, "a.org/b:1", "a.org/b:1", false),
            (remap, "a.org/b:1", "up.org/x/b:1", true),
            (remap, "a.org/b:1", "a.org/b:1", false),
            (remap, "a.org.evil/b:1", "a.org.evil/b:1", true),
            (remap, "a.org.evil/b:1", "up.org/x.evil/b:1", false),
            (remap, "a.org:5000/b:1", "up.org/x/b:1", false),
            (remap, &by_digest, "up.org/x/b:3", true),
            (exact, "a.org/b:1", "docker://a.org/b:1", false),
            (exact, "a.org/b:1", "a.org#b:1", false),
            (exact, "a.org/b:1", "", false),
        ] {
            let image_name = Named::of(&Reference::parse(image).unwrap());
            let got = rule(json).unwrap().accepts(Some(&image_name), signed);
            assert_eq!(got, want, "{json}: image {image}, signed {signed}");
        }
    }

    #[test]
    fn an_image_without_a_name_matches_only_what_the_policy_names() {
        let named = r#"{"type": "exactRepository", "dockerRepository": "c.org/d"}"#;
        assert!(rule(named).unwrap().accepts(None, "c.org/d:1"));
        assert!(!rule(r#"{"type": "matchRepository"}"#).unwrap().accepts(None, "c.org/d:1"));
    }

    #[test]
    fn identities_are_parsed_strictly() {
        for (json, want) in [
            (r#"{"type": "matchExact", "x": 1}"#, "`id`: unknown key `x`"),
            (r#"{"type": "any"}"#, "`id.type`: unknown kind of identity `any`"),
            (r#"{}"#, "`id`: the key `type` is missing"),
            (r#"null"#, "`id`: expected an object, got null"),
            (r#"{"type": "exactReference"}"#, "`id`: the key `dockerReference` is missing"),
            (
                r#"{"type": "exactReference", "dockerReference": "a.org/b"}"#,
                "`id.dockerReference`: `a.org/b` is no name with a tag or a digest",
            ),
            (
                r#"{"type": "exactRepository", "dockerRepository": "A"}"#,
                "`id.dockerRepository`: `A` is no name of a repository",
            ),
            (
                r#"{"type": "remapIdentity", "prefix": "a.org/b:1", "signedPrefix": "c"}"#,
                "`id.prefix`: `a.org/b:1` is no host, namespace or repository in full",
            ),
            (
                r#"{"type": "remapIdentity", "prefix": "busybox", "signedPrefix": "c"}"#,
                "`id.prefix`: `busybox` is no host, namespace or repository in full",
            ),
        ] {
            assert_eq!(rule(json).unwrap_err().to_string(), want, "given {json}");
        }
    }
}

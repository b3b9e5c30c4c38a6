//! What can be wrong with a policy, and why it keeps an image out.

use std::io;
use std::path::PathBuf;

/// Why a policy cannot be used, or does not let an image in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file exists and cannot be read.
    #[error("cannot read the signature policy `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no JSON, or has a key twice.
    #[error("`{}`, line {line}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The file is no policy.
    #[error("`{}`: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and which keys lead there.
        what: String,
    },
    /// The policy does not let the image in.
    #[error("the signature policy `{}` does not let `{image}` in (scope `{scope}`)", policy.display())]
    Refused {
        /// The image.
        image: String,
        /// The policy's file.
        policy: PathBuf,
        /// The scope that speaks of the image.
        scope: String,
        /// The requirement that does not hold.
        #[source]
        source: Refusal,
    },
}

/// Why a requirement does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `reject`
    #[error("the scope's requirement is `reject`")]
    Reject,
    /// A requirement that cannot be checked.
    #[error("the scope requires {what}, which is not supported")]
    Unsupported {
        /// The requirement.
        what: &'static str,
    },
    /// A key file cannot be read.
    #[error("cannot read the key `{}`", path.display())]
    KeyUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key is none.
    #[error("`{origin}` {what}")]
    Key {
        /// The file, or `keyData`.
        origin: String,
        /// What is wrong with it.
        what: String,
    },
    /// No signature was found.
    #[error("the image must be signed, and no signature was found{}", remark(reason.as_deref()))]
    Unsigned {
        /// Why none was looked for, if none was.
        reason: Option<String>,
    },
    /// No signature is good.
    #[error("the image must be signed, and its signature is not accepted: {}", reasons.join("; "))]
    Signatures {
        /// What is wrong with each.
        reasons: Vec<String>,
    },
}

fn remark(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

impl PolicyError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let Self::Refused { source, .. } = self else {
            return Some("correct the file; see containers-policy.json(5)".to_owned());
        };
        Some(match source {
            Refusal::Reject => {
                "who maintains the policy decides which images are let in".to_owned()
            }
            Refusal::Unsupported { .. } => {
                "supported are `reject`, `insecureAcceptAnything` and `sigstoreSigned` with keys"
                    .to_owned()
            }
            Refusal::Unsigned { reason: Some(_) } => {
                "put `use-sigstore-attachments: true` for it into a file of \
                 `/etc/containers/registries.d` or `~/.config/containers/registries.d`"
                    .to_owned()
            }
            Refusal::Unsigned { reason: None } => {
                "sign the platform's manifest: `cosign sign --recursive --key KEY IMAGE`".to_owned()
            }
            Refusal::Signatures { reasons } if reasons.iter().any(|it| it.contains("the name")) => {
                "cosign signs the repository without a tag: `signedIdentity` of type \
                 `matchRepository` accepts that"
                    .to_owned()
            }
            Refusal::Signatures { .. } => {
                "ask who publishes the image for the key and a signature of this very manifest"
                    .to_owned()
            }
            Refusal::KeyUnreadable { .. } | Refusal::Key { .. } => {
                "the policy's `keyPath` or `keyData` must lead to a public key in PEM form"
                    .to_owned()
            }
        })
    }
}

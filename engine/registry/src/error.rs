//! What can go wrong between the client and a registry, and what to do about it.
//!
//! Hosts are named as `HOST[:PORT]`; addresses never appear with their query, which may hold a
//! signature, and credentials never appear at all.

use std::fmt;
use std::io;
use std::time::Duration;

use sarus_oci::{Digest, DocumentError, ReferenceError};

use crate::ConfigError;

/// Why an operation on a registry failed. Nothing is left behind by a failure but what the
/// operation's own documentation names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The client's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A short name, an alias or a rewriting rule leads to no valid reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The HTTP client could not be set up.
    #[error("cannot set up the connection to `{host}`")]
    Setup {
        /// The registry or the host it redirected to.
        host: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The name of the host leads to no address.
    #[error("cannot find the host `{host}`")]
    HostUnknown {
        /// The host.
        host: String,
        /// The variable that names a proxy for it, unless it is excepted.
        proxy: Option<&'static str>,
        /// What the resolver said.
        #[source]
        source: Cause,
    },
    /// No connection came about: refused, unreachable, through a proxy that fails.
    #[error("cannot connect to `{host}`")]
    Connect {
        /// The host.
        host: String,
        /// The variable that names a proxy for it, unless it is excepted.
        proxy: Option<&'static str>,
        /// What the system said.
        #[source]
        source: Cause,
    },
    /// Nothing came for too long.
    #[error("`{host}` did not answer within {} s", limit.as_secs())]
    Timeout {
        /// The host.
        host: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The TLS handshake failed.
    #[error("cannot make a secure connection to `{host}`")]
    Tls {
        /// The host.
        host: String,
        /// Whether the certificate's issuer is not trusted, rather than anything else.
        untrusted: bool,
        /// What the TLS library said.
        #[source]
        source: Cause,
    },
    /// The server does not speak TLS.
    #[error("`{host}` does not speak HTTPS")]
    PlainHttp {
        /// The host.
        host: String,
    },
    /// The connection broke in the middle, and went on breaking when tried again.
    #[error("the connection to `{host}` broke")]
    Interrupted {
        /// The host.
        host: String,
        /// What the system said.
        #[source]
        source: Cause,
    },
    /// 401: the registry wants credentials, or refused those it got.
    #[error("`{host}` refuses access to `{object}`: {}", credentials_used(origin.as_deref()))]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository, or what else was asked for.
        object: String,
        /// Where the credentials came from; `None` if there were none.
        origin: Option<String>,
    },
    /// 403.
    #[error("`{host}` forbids access to `{object}`{}", remark(detail))]
    Forbidden {
        /// The registry.
        host: String,
        /// What was asked for.
        object: String,
        /// What the registry said, possibly nothing.
        detail: String,
    },
    /// 404.
    #[error("`{host}` has no `{object}`{}", remark(detail))]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        object: String,
        /// What the registry said, possibly nothing.
        detail: String,
    },
    /// 429, and again after the waits that are allowed.
    #[error("`{host}` limits the rate of requests{}", remark(detail))]
    RateLimited {
        /// The registry.
        host: String,
        /// When to come back, if the registry said so.
        retry_after: Option<Duration>,
        /// What the registry said, possibly nothing.
        detail: String,
    },
    /// Any other status than success.
    #[error("`{host}` answered `{status}` when asked for `{object}`{}", remark(detail))]
    Status {
        /// The registry, or the host it redirected to.
        host: String,
        /// Status code and its usual text.
        status: String,
        /// What was asked for.
        object: String,
        /// What the server said, possibly nothing.
        detail: String,
    },
    /// An answer that no registry gives: a web page, typically.
    #[error("`{host}` answered with `{content_type}` when asked for `{object}`")]
    NotApi {
        /// The server.
        host: String,
        /// What was asked for.
        object: String,
        /// What came.
        content_type: String,
    },
    /// Bytes do not have the digest they must have.
    #[error("`{object}` from `{host}` is altered: expected digest `{expected}`, got `{got}`")]
    Digest {
        /// The server.
        host: String,
        /// What was fetched.
        object: String,
        /// The digest asked for, or that the registry named.
        expected: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// There are more or fewer bytes than the descriptor says.
    #[error("`{object}` from `{host}` has the wrong size: expected {expected} bytes, got {got}")]
    Size {
        /// The server.
        host: String,
        /// What was fetched.
        object: String,
        /// Bytes by the descriptor.
        expected: u64,
        /// Bytes that came; the first that was too many is counted, not all.
        got: u64,
    },
    /// A document larger than any honest one.
    #[error("`{object}` from `{host}` is larger than {limit} bytes")]
    TooLarge {
        /// The server.
        host: String,
        /// What was fetched.
        object: String,
        /// The limit.
        limit: u64,
    },
    /// A manifest, index or configuration cannot be used.
    #[error("cannot use the image `{object}`")]
    Document {
        /// The image.
        object: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// Indexes within indexes without end.
    #[error("cannot use the image `{object}`: indexes are nested more than {limit} deep")]
    Nesting {
        /// The image.
        object: String,
        /// The deepest nesting allowed.
        limit: usize,
    },
    /// Redirections without end.
    #[error("`{host}` redirected more than {limit} times")]
    Redirects {
        /// Where it began.
        host: String,
        /// The most that are followed.
        limit: usize,
    },
    /// A redirection to nowhere.
    #[error("`{host}` redirected to an invalid address")]
    RedirectTarget {
        /// Who redirected.
        host: String,
    },
    /// A redirection from HTTPS to HTTP.
    #[error("`{host}` redirected to `{target}` without TLS")]
    RedirectToHttp {
        /// Who redirected.
        host: String,
        /// Where to.
        target: String,
    },
    /// The authentication challenge cannot be met.
    #[error("`{host}` asks for authentication in a way that is not supported: {what}")]
    Challenge {
        /// The registry.
        host: String,
        /// What it asked for.
        what: String,
    },
    /// The token server gave no token.
    #[error("the token server `{host}` gave no token")]
    Token {
        /// The token server.
        host: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// Credentials would have to travel unprotected to another host.
    #[error("`{host}` asks to send credentials to `{target}` without TLS")]
    TokenOverHttp {
        /// The registry.
        host: String,
        /// The token server it named.
        target: String,
    },
    /// The site's configuration blocks the registry.
    #[error("`{name}` is blocked by the registries configuration (`{prefix}`)")]
    Blocked {
        /// The image.
        name: String,
        /// The prefix that blocks it.
        prefix: String,
    },
    /// A short name that the configuration does not allow to be guessed.
    #[error("the short name `{name}` may mean more than one image: {}", quoted(names))]
    ShortName {
        /// The short name.
        name: String,
        /// What it may mean.
        names: Vec<String>,
    },
    /// Several places were tried, and none had it.
    #[error("cannot get `{object}` from any of {} places:{}", attempts.len(), tried(attempts))]
    Nowhere {
        /// What was asked for.
        object: String,
        /// Each place and what happened there, in the order of trying.
        attempts: Vec<Attempt>,
    },
    /// What came could not be stored.
    #[error("cannot write what was downloaded of `{digest}`")]
    Sink {
        /// The blob.
        digest: Digest,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// One place that was tried, and how it failed.
#[derive(Debug)]
pub struct Attempt {
    /// Registry and repository.
    pub place: String,
    /// What happened.
    pub error: RegistryError,
}

/// The innermost cause of a failure of a library, as text; the layers around say nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub(crate) String);

fn credentials_used(origin: Option<&str>) -> String {
    match origin {
        None => "no credentials were given".to_owned(),
        Some(origin) => format!("the credentials from {origin} were not accepted"),
    }
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn remark(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

fn tried(attempts: &[Attempt]) -> String {
    attempts.iter().fold(String::new(), |text, attempt| {
        format!("{text}\n  `{}`: {}", attempt.place, Chain(&attempt.error))
    })
}

/// An error with its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl RegistryError {
    /// The registry error that an [`io::Error`] of a blob's reader carries, if it carries one.
    pub fn of_read(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether another place may have what this one does not.
    ///
    /// A name that is refused (401, 403) counts: registries hide what is private.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Unauthorized { .. } | Self::Forbidden { .. })
    }

    /// Whether the server could not be talked to, which may pass.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Timeout { .. } | Self::Interrupted { .. })
    }
}

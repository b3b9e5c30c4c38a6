//! What a user can do about each error of the client.

use std::io;

use crate::RegistryError;

impl RegistryError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Config(error) => return error.hint(),
            Self::Reference(error) => return error.hint(),
            Self::Document { source, .. } => return source.hint(),
            Self::Token { source, .. } => return source.hint(),
            Self::Nowhere { attempts, .. } => {
                return attempts.iter().rev().find_map(|attempt| attempt.error.hint());
            }
            Self::HostUnknown { host, proxy: Some(variable), .. }
            | Self::Connect { host, proxy: Some(variable), .. } => format!(
                "`{variable}` is set: check that its proxy runs and is named rightly, or except \
                 `{host}` in `NO_PROXY`"
            ),
            Self::HostUnknown { .. } => {
                "check the registry's name; nodes without a network may need `HTTPS_PROXY`"
                    .to_owned()
            }
            Self::Connect { .. } | Self::Timeout { .. } | Self::Interrupted { .. } => {
                "check that the registry runs and that this node can reach it, or set `HTTPS_PROXY`"
                    .to_owned()
            }
            Self::Tls { host, untrusted: true, .. } => format!(
                "put the issuer's certificate into `/etc/containers/certs.d/{host}/ca.crt` or \
                 `~/.config/containers/certs.d/{host}/ca.crt`"
            ),
            Self::PlainHttp { host } => format!(
                "if HTTP is wanted, put `[[registry]]`, `location = \"{host}\"` and \
                 `insecure = true` into registries.conf"
            ),
            _ => return self.answer_hint(),
        })
    }

    /// The hints to what a server answered.
    fn answer_hint(&self) -> Option<String> {
        Some(match self {
            Self::Unauthorized { host, origin: None, .. } => format!(
                "check the name; if it is private, `sarus login {}` first",
                login_name(host)
            ),
            Self::Unauthorized { host, .. } => {
                format!("`sarus login {}` again", login_name(host))
            }
            Self::Forbidden { host, .. } => format!(
                "ask for access, or `sarus login {}` as a user who has it",
                login_name(host)
            ),
            Self::NotFound { object, .. } if is_part(object) => {
                "the registry has the image and not this part of it: it was not pushed whole, or is \
                 being deleted; push it again, or tell who keeps it"
                    .to_owned()
            }
            Self::NotFound { host, .. } => format!(
                "check the name and the tag; registries answer the same for private images: \
                 `sarus login {}`",
                login_name(host)
            ),
            Self::RateLimited { host, retry_after, .. } => {
                let when = retry_after
                    .map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs()));
                format!(
                    "try again {when}; `sarus login {}` may raise the limit, and one pull serves \
                     all ranks",
                    login_name(host)
                )
            }
            Self::NotApi { host, .. } => format!(
                "`{host}` may be a web page or a captive proxy, not a registry; check the name"
            ),
            Self::Digest { .. } | Self::Size { .. } => {
                "pull again; if it stays, the registry, a mirror or a proxy is damaged".to_owned()
            }
            Self::Status { status, .. } if status.starts_with('5') => {
                "the registry has a problem; try again later".to_owned()
            }
            Self::RedirectToHttp { .. } | Self::TokenOverHttp { .. } => {
                "this would give away data or credentials; tell the registry's administrator"
                    .to_owned()
            }
            Self::ShortName { name, .. } => format!(
                "write one of these names, or give `{name}` one meaning under `[aliases]` of \
                 registries.conf"
            ),
            Self::Blocked { .. } => {
                "the site's administrators decide this in registries.conf".to_owned()
            }
            Self::Sink { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or name another directory".to_owned()
            }
            _ => return None,
        })
    }
}

/// Whether it is what an image's documents name, by path or by digest, and not the image.
fn is_part(object: &str) -> bool {
    object.parse::<sarus_oci::Digest>().is_ok()
        || ["/manifests/sha", "/blobs/sha"].iter().any(|part| object.contains(part))
}

/// What a user calls the registry that serves `host`.
fn login_name(host: &str) -> &str {
    if host == crate::registries::DOCKER_API { sarus_oci::DEFAULT_REGISTRY } else { host }
}

//! Credentials: what they are, and finding those of a repository.
//!
//! Each file is asked for the longest prefix of the repository first and the host last; within
//! a file a registry's own helper comes before an entry, and the general helper comes last.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;

use crate::credential_program::{self, Answer};
use crate::{ConfigError, Environment, credentials_file};

/// What `credential-helpers` calls the credentials files.
const FILES: &str = "containers-auth.json";

/// A user's name and password, or a token that stands for both. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Basic { user: String, password: String },
    IdentityToken(String),
}

impl Credentials {
    /// A name and a password.
    pub fn basic(user: &str, password: &str) -> Self {
        Self(Kind::Basic { user: user.to_owned(), password: password.to_owned() })
    }

    /// An identity token, in OAuth's words a refresh token.
    pub fn identity_token(token: String) -> Self {
        Self(Kind::IdentityToken(token))
    }

    /// The user's name, if there is one.
    pub fn user(&self) -> Option<&str> {
        match &self.0 {
            Kind::Basic { user, .. } => Some(user),
            Kind::IdentityToken(_) => None,
        }
    }

    pub(crate) fn token(&self) -> Option<&str> {
        match &self.0 {
            Kind::Basic { .. } => None,
            Kind::IdentityToken(token) => Some(token),
        }
    }

    /// `base64(USER:PASSWORD)`, as headers and files have it.
    pub(crate) fn encoded(&self) -> Option<String> {
        match &self.0 {
            Kind::Basic { user, password } => Some(STANDARD.encode(format!("{user}:{password}"))),
            Kind::IdentityToken(_) => None,
        }
    }

    /// The value of an `Authorization` header, marked so that no log shows it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut header = HeaderValue::from_str(&format!("Basic {}", self.encoded()?)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Credentials, and where they were found, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) credentials: Credentials,
    pub(crate) origin: String,
}

/// Finds the credentials for `place`, a registry and a repository in it.
///
/// `helpers` are those of registries.conf, in order; the files stand among them by the name
/// [`FILES`]. Without any, the files are all there is.
pub(crate) fn find(
    environment: &Environment,
    helpers: &[String],
    place: &str,
) -> Result<Option<Found>, ConfigError> {
    let keys = keys(place);
    let host = keys.last().map_or(place, |host| *host);
    if helpers.is_empty() {
        return in_files(environment, &keys, host);
    }
    for helper in helpers {
        if helper == FILES {
            if let Some(found) = in_files(environment, &keys, host)? {
                return Ok(Some(found));
            }
        } else if let Answer::Found(credentials) =
            credential_program::get(environment, helper, host)?
        {
            return found(credentials, &helper_text(helper));
        }
    }
    Ok(None)
}

fn in_files(
    environment: &Environment,
    keys: &[&str],
    host: &str,
) -> Result<Option<Found>, ConfigError> {
    for file in credentials_file::load(environment)? {
        let origin = format!("`{}`", file.path().display());
        for key in keys {
            if let Some(helper) = file.helper(key) {
                match credential_program::get(environment, helper, key)? {
                    Answer::Found(credentials) => return found(credentials, &helper_text(helper)),
                    Answer::Nothing => {}
                    Answer::NotInstalled => return Err(not_installed(helper)),
                }
            }
            if let Some(credentials) = file.get(key)? {
                return found(credentials, &origin);
            }
        }
        if let Some(helper) = file.creds_store.as_deref().filter(|name| !name.is_empty())
            && let Answer::Found(credentials) = credential_program::get(environment, helper, host)?
        {
            return found(credentials, &helper_text(helper));
        }
    }
    Ok(None)
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of every answer above")]
fn found(credentials: Credentials, origin: &str) -> Result<Option<Found>, ConfigError> {
    log::debug!("credentials found in {origin}");
    Ok(Some(Found { credentials, origin: origin.to_owned() }))
}

fn helper_text(helper: &str) -> String {
    format!("the credential helper `{helper}`")
}

fn not_installed(helper: &str) -> ConfigError {
    let program = credential_program::name(helper);
    ConfigError::CredentialHelper { program, what: "is not installed".to_owned() }
}

/// `a.org/b/c`, `a.org/b`, `a.org`.
fn keys(place: &str) -> Vec<&str> {
    let ends = place.rmatch_indices('/').map(|(at, _)| at);
    std::iter::once(place.len()).chain(ends).map(|end| &place[..end]).collect()
}

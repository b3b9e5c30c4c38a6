//! Requests to registries: addresses of the API, challenges and tokens.
//!
//! Specification: OCI distribution-spec; the distribution project's token authentication.
//! A token is kept for the process, by registry and repository, and fetched anew once when the
//! registry no longer takes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::challenge::{self, Challenge};
use crate::credentials::{self, Credentials, Found};
use crate::error::Cause;
use crate::registries::Source;
use crate::registries_file::RegistriesFile;
use crate::transport::{Answer, Peer, Request, Transport, host_of, join};
use crate::{Options, RegistryError, failure};

/// Most bytes of a token server's answer.
const TOKEN_MAX: u64 = 1 << 20;

/// Everything a client keeps.
pub(crate) struct Session {
    pub(crate) transport: Transport,
    pub(crate) registries: RegistriesFile,
    authorizations: Mutex<Authorizations>,
}

/// By registry and repository. The inner lock is held while a token is fetched, so that threads
/// that need the same one wait for it.
type Authorizations = HashMap<(String, String), Arc<Mutex<Authorization>>>;

/// What a registry accepted last for a repository.
#[derive(Default)]
struct Authorization {
    header: Option<HeaderValue>,
    /// Where the credentials behind it came from.
    origin: Option<String>,
}

/// A request below `/v2/`, and what it is for.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Below the repository: `manifests/latest`.
    pub(crate) path: &'a str,
    pub(crate) accept: Option<String>,
    /// First byte wanted.
    pub(crate) from: u64,
    /// What is asked for, for messages.
    pub(crate) object: &'a str,
}

impl Session {
    pub(crate) fn new(options: Options, registries: RegistriesFile) -> Self {
        let transport = Transport::new(options);
        Self { transport, registries, authorizations: Mutex::default() }
    }

    /// Sends a request about a repository, authenticated as far as the registry asks for it.
    ///
    /// The answer is a success; every other one is an error.
    pub(crate) fn ask(&self, source: &Source, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let peer = peer(source);
        let base = self.transport.base(&peer, source.host())?;
        let url = join(&base, &format!("v2/{}/{}", source.repository, ask.path));
        let slot = self.slot(source);
        let known = lock(&slot).header.clone();
        let request = Request {
            accept: ask.accept.clone(),
            from: ask.from,
            authorization: known.clone(),
            ..Request::new(ask.method.clone(), url)
        };
        let mut answer = self.transport.send(&peer, &request)?;
        let mut origin = None;
        if answer.response.status() == StatusCode::UNAUTHORIZED && !answer.foreign {
            let mut authorization = lock(&slot);
            if authorization.header == known {
                *authorization = self.authorize(source, &answer, ask.object)?;
            }
            origin.clone_from(&authorization.origin);
            let header = authorization.header.clone();
            drop(authorization);
            answer = self.transport.send(&peer, &Request { authorization: header, ..request })?;
        }
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        Err(match failure::of_answer(answer, ask.object) {
            RegistryError::Unauthorized { object, .. } => unauthorized(source, object, origin),
            other => other,
        })
    }

    fn slot(&self, source: &Source) -> Arc<Mutex<Authorization>> {
        let key = (source.registry.clone(), source.repository.clone());
        Arc::clone(lock(&self.authorizations).entry(key).or_default())
    }

    /// Meets the challenge in `answer` with the credentials that are configured, if any.
    fn authorize(
        &self,
        source: &Source,
        answer: &Answer,
        object: &str,
    ) -> Result<Authorization, RegistryError> {
        let challenge = challenge_of(source.host(), answer)?;
        let environment = &self.transport.options.environment;
        let helpers = &self.registries.credential_helpers;
        let found = credentials::find(environment, helpers, &source.place())?;
        let scope = format!("repository:{}:pull", source.repository);
        let header = self.meet(&peer(source), &challenge, found.as_ref(), Some(&scope));
        let origin = found.map(|found| found.origin);
        match header {
            Ok(Some(header)) => Ok(Authorization { header: Some(header), origin }),
            Ok(None) => Err(unauthorized(source, object.to_owned(), origin)),
            Err(error) => Err(error),
        }
    }

    /// The header that meets `challenge`; `None` if the credentials are missing or refused.
    pub(crate) fn meet(
        &self,
        peer: &Peer,
        challenge: &Challenge,
        found: Option<&Found>,
        scope: Option<&str>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        match challenge {
            Challenge::Basic => Ok(found.and_then(|found| found.credentials.header())),
            Challenge::Bearer { realm, service, scope: asked } => {
                let scope = asked.as_deref().or(scope);
                let credentials = found.map(|found| &found.credentials);
                let url = self.realm(peer, realm, credentials.is_some())?;
                let request = token_request(url, service.as_deref(), scope, credentials);
                self.token(peer, &request)
            }
        }
    }

    /// The address of the token server, if what is sent there is safe.
    fn realm(&self, peer: &Peer, realm: &str, secret: bool) -> Result<Url, RegistryError> {
        let host = crate::registries::api_host(&peer.registry);
        let url = Url::parse(realm).ok().filter(Url::has_host);
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            let what = "the address of its token server is invalid".to_owned();
            return Err(RegistryError::Challenge { host: host.to_owned(), what });
        };
        let own = self.transport.base(peer, host)?;
        let same = url.host_str() == own.host_str() && own.scheme() == "http";
        if url.scheme() == "http" && !(peer.insecure && (same || !secret)) {
            let target = host_of(&url);
            return Err(RegistryError::TokenOverHttp { host: host.to_owned(), target });
        }
        Ok(url)
    }

    /// Fetches a token; `None` if the server refuses the credentials.
    fn token(&self, peer: &Peer, request: &Request) -> Result<Option<HeaderValue>, RegistryError> {
        #[derive(Deserialize)]
        struct Body {
            token: Option<String>,
            access_token: Option<String>,
        }
        let host = host_of(&request.url);
        let failed = |source| RegistryError::Token { host: host.clone(), source: Box::new(source) };
        let answer = self.transport.send(peer, request).map_err(failed)?;
        let status = answer.response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(failed(failure::of_answer(answer, "a token")));
        }
        let content_type =
            failure::content_type(answer.response.headers()).unwrap_or("no type").to_owned();
        let bytes = crate::resolve::read_bounded(answer, "a token", TOKEN_MAX).map_err(failed)?;
        let body: Option<Body> = serde_json::from_slice(&bytes).ok();
        // Servers in Go write the field that they do not use as an empty text.
        let given = |token: Option<String>| token.filter(|token| !token.is_empty());
        let token = body.and_then(|body| given(body.token).or(given(body.access_token)));
        let header = token.and_then(|token| {
            let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            header.set_sensitive(true);
            Some(header)
        });
        let object = "a token".to_owned();
        header
            .ok_or_else(|| RegistryError::NotApi { host: host.clone(), object, content_type })
            .map(Some)
            .map_err(failed)
    }
}

/// The challenge to meet.
pub(crate) fn challenge_of(host: &str, answer: &Answer) -> Result<Challenge, RegistryError> {
    let values = answer.response.headers().get_all(WWW_AUTHENTICATE);
    challenge::choose(values.iter().filter_map(|value| value.to_str().ok())).ok_or_else(|| {
        let schemes: Vec<&str> = values
            .iter()
            .filter_map(|value| value.to_str().ok()?.split_whitespace().next())
            .collect();
        let what = match schemes.as_slice() {
            [] => "it names none".to_owned(),
            schemes => format!("`{}`", schemes.join("`, `")),
        };
        RegistryError::Challenge { host: host.to_owned(), what }
    })
}

/// A name and password go along with a `GET`, an identity token is exchanged by a `POST`.
fn token_request(
    url: Url,
    service: Option<&str>,
    scope: Option<&str>,
    credentials: Option<&Credentials>,
) -> Request {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    fields.extend(service.map(|service| ("service", service)));
    fields.extend(scope.map(|scope| ("scope", scope)));
    if let Some(token) = credentials.and_then(Credentials::token) {
        fields.extend([
            ("grant_type", "refresh_token"),
            ("client_id", "sarus"),
            ("refresh_token", token),
        ]);
        let mut form = url.clone();
        form.set_query(None);
        let form = form.query_pairs_mut().extend_pairs(fields).finish().query().map(str::to_owned);
        return Request { form, ..Request::new(Method::POST, url) };
    }
    let user = credentials.and_then(Credentials::user);
    fields.extend(user.map(|user| ("account", user)));
    let mut url = url;
    url.query_pairs_mut().extend_pairs(fields);
    let authorization = credentials.and_then(Credentials::header);
    Request { authorization, ..Request::new(Method::GET, url) }
}

pub(crate) fn peer(source: &Source) -> Peer {
    Peer { registry: source.registry.clone(), insecure: source.insecure }
}

fn unauthorized(source: &Source, object: String, origin: Option<String>) -> RegistryError {
    RegistryError::Unauthorized { host: source.host().to_owned(), object, origin }
}

/// The error for a registry whose name cannot be part of an address.
pub(crate) fn invalid_host(host: &str) -> RegistryError {
    let source = Cause("it is no host name with an optional port".to_owned());
    RegistryError::Setup { host: host.to_owned(), source }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

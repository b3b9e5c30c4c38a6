//! Requests to HTTP servers: connections, redirections, repetitions.
//!
//! Knows nothing of registries' documents or tokens. An `Authorization` header goes to the
//! host, port and scheme it was meant for and nowhere else; a client certificate likewise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use crate::error::Cause;
use crate::{Notice, Options, RegistryError, certificates, failure, proxy, tls};

/// Most redirections followed in a row.
const REDIRECTS_MAX: usize = 10;

/// On whose behalf a request is made: its certificates and its permission to be insecure apply.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) registry: String,
    pub(crate) insecure: bool,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: Option<String>,
    /// First byte wanted.
    pub(crate) from: u64,
    pub(crate) authorization: Option<HeaderValue>,
    /// Fields of a form, for `POST`.
    pub(crate) form: Option<String>,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, accept: None, from: 0, authorization: None, form: None }
    }
}

/// What came back: any status, but no redirection that could be followed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Who answered.
    pub(crate) host: String,
    /// Whether that is another than the one asked first.
    pub(crate) foreign: bool,
}

/// Connections to all servers that were needed so far. Shared by threads.
pub(crate) struct Transport {
    pub(crate) options: Options,
    clients: Mutex<HashMap<(Peer, String), Client>>,
    /// For insecure registries: the address that works.
    bases: Mutex<HashMap<String, Url>>,
}

impl Transport {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, clients: Mutex::default(), bases: Mutex::default() }
    }

    /// The root address of `host`: HTTPS, unless the peer may be insecure and HTTP is what works.
    pub(crate) fn base(&self, peer: &Peer, host: &str) -> Result<Url, RegistryError> {
        let address = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|error| RegistryError::Setup {
                host: host.to_owned(),
                source: Cause(error.to_string()),
            })
        };
        let https = address("https")?;
        if !peer.insecure {
            return Ok(https);
        }
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = bases.get(host) {
            return Ok(known.clone());
        }
        let mut base = https;
        let ping = Request::new(Method::GET, join(&base, "v2/"));
        if let Err(error) = self.follow(peer, &ping) {
            log::debug!("`{host}` by HTTPS: {error}");
            let http = address("http")?;
            self.follow(peer, &Request::new(Method::GET, join(&http, "v2/")))?;
            (self.options.notify)(&Notice::PlainHttp { host: host.to_owned() });
            base = http;
        }
        bases.insert(host.to_owned(), base.clone());
        Ok(base)
    }

    /// Sends a request, and again after a wait where that may help: after a status of temporary
    /// overload or trouble and after a broken connection, a bounded number of times.
    pub(crate) fn send(&self, peer: &Peer, request: &Request) -> Result<Answer, RegistryError> {
        let mut repetition = 0;
        loop {
            let outcome = self.follow(peer, request);
            let (asked, reason) = match &outcome {
                Ok(answer) if may_pass(answer.response.status()) => {
                    let status = answer.response.status().to_string();
                    (failure::retry_after(answer.response.headers()), status)
                }
                Err(error @ RegistryError::Interrupted { .. }) => (None, error.to_string()),
                _ => return outcome,
            };
            let wait = asked.unwrap_or_else(|| self.options.retry.wait(repetition));
            if repetition == self.options.retry.times || wait > self.options.retry.longest_wait {
                return outcome;
            }
            repetition += 1;
            self.wait(host_of(&request.url), wait, reason);
        }
    }

    /// Tells the user and waits.
    pub(crate) fn wait(&self, host: String, time: Duration, reason: String) {
        (self.options.notify)(&Notice::Waiting { host, time, reason });
        self.options.sleeper.sleep(time);
    }

    /// Sends a request once and follows where it is redirected to.
    fn follow(&self, peer: &Peer, request: &Request) -> Result<Answer, RegistryError> {
        let first = &request.url;
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let foreign = url.origin() != first.origin();
            let response = self.send_once(peer, request, &url)?;
            let host = host_of(&url);
            if !is_redirect(response.status()) || request.method == Method::POST {
                return Ok(Answer { response, host, foreign });
            }
            url = target(&url, &response, peer)?;
            log::debug!("`{host}` redirects to `{}`", host_of(&url));
        }
        Err(RegistryError::Redirects { host: host_of(first), limit: REDIRECTS_MAX })
    }

    fn send_once(
        &self,
        peer: &Peer,
        request: &Request,
        url: &Url,
    ) -> Result<Response, RegistryError> {
        let host = host_of(url);
        log::debug!("{} {}://{host}{}", request.method, url.scheme(), url.path());
        let mut builder = self.client(peer, url)?.request(request.method.clone(), url.clone());
        if url.origin() == request.url.origin() {
            builder = with_secrets(builder, request);
        }
        if let Some(accept) = &request.accept {
            builder = builder.header(ACCEPT, accept);
        }
        if request.from > 0 {
            builder = builder.header(RANGE, format!("bytes={}-", request.from));
        }
        builder.send().map_err(|error| {
            let options = &self.options;
            let limit =
                if error.is_connect() { options.connect_timeout } else { options.stall_timeout };
            let mut failure = failure::of_send(&error, &host, limit);
            if let RegistryError::Connect { proxy, .. } | RegistryError::HostUnknown { proxy, .. } =
                &mut failure
            {
                *proxy = proxy::variable(&options.environment, url);
            }
            failure
        })
    }

    /// The connections to the server of `url`, made on first use.
    fn client(&self, peer: &Peer, url: &Url) -> Result<Client, RegistryError> {
        let key = (peer.clone(), url.origin().ascii_serialization());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.connect(peer, url)?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn connect(&self, peer: &Peer, url: &Url) -> Result<Client, RegistryError> {
        let environment = &self.options.environment;
        let host = host_of(url);
        let setup = |source: Cause| RegistryError::Setup { host: host.clone(), source };
        let mut builder = Client::builder()
            .user_agent(concat!("sarus/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.options.connect_timeout)
            .timeout(self.options.stall_timeout)
            .no_proxy();
        if let Some(proxy) = proxy::of(environment, url)? {
            builder = builder.proxy(proxy);
        }
        if url.scheme() == "https" {
            let mut trusted = certificates::load(environment, &peer.registry)?;
            if crate::registries::api_host(&peer.registry) != host {
                // Elsewhere the registry's authorities count, but it is not shown who we are.
                let there = certificates::load(environment, &host)?;
                trusted.authorities.extend(there.authorities);
                trusted.identity = there.identity;
            }
            let config = tls::config(trusted, !peer.insecure).map_err(&setup)?;
            builder = builder.tls_backend_preconfigured(config);
        } else {
            let config = tls::config(certificates::HostCertificates::default(), false);
            builder = builder.tls_backend_preconfigured(config.map_err(&setup)?);
        }
        builder.build().map_err(|error| setup(Cause(error.without_url().to_string())))
    }
}

/// What is for the server asked first, and for no other.
fn with_secrets(mut builder: RequestBuilder, request: &Request) -> RequestBuilder {
    if let Some(authorization) = &request.authorization {
        builder = builder.header(AUTHORIZATION, authorization.clone());
    }
    if let Some(form) = &request.form {
        let form_type = "application/x-www-form-urlencoded";
        builder = builder.header(reqwest::header::CONTENT_TYPE, form_type).body(form.clone());
    }
    builder
}

/// Where a redirection leads.
fn target(url: &Url, response: &Response, peer: &Peer) -> Result<Url, RegistryError> {
    let host = host_of(url);
    let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(mut target) = text.and_then(|text| url.join(text).ok()).filter(Url::has_host) else {
        return Err(RegistryError::RedirectTarget { host });
    };
    // Whoever is in the address there would become a credential of ours.
    let stripped = target.set_username("").and_then(|()| target.set_password(None));
    match target.scheme() {
        "https" if stripped.is_ok() => Ok(target),
        "http" if stripped.is_ok() && peer.insecure => Ok(target),
        "http" => Err(RegistryError::RedirectToHttp { host, target: host_of(&target) }),
        _ => Err(RegistryError::RedirectTarget { host }),
    }
}

/// `path` below `base`, which ends in a slash.
pub(crate) fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(path);
    url
}

/// `HOST[:PORT]`, the port only if it is not the scheme's own.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn may_pass(status: StatusCode) -> bool {
    // What a server does not do at all (501, 505) it will not do later.
    status == StatusCode::TOO_MANY_REQUESTS
        || (status.is_server_error() && !matches!(status.as_u16(), 501 | 505))
}

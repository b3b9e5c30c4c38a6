//! Credentials files: Podman's auth.json and Docker's config.json, which share a form.
//!
//! Specification: containers-auth.json(5). What is not about credentials is ignored here, and
//! kept by `login` when it writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::registries_file::bare;
use crate::{ConfigError, Credentials, Environment};

/// Key under which Docker keeps the credentials of docker.io.
pub(crate) const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What one file says.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct CredentialsFile {
    #[serde(skip)]
    path: PathBuf,
    // Programs in Go write an empty one as null.
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    /// The helper for registries that have none of their own; without `docker-credential-`.
    pub(crate) creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Parses the text of one file. `path` is for messages.
pub(crate) fn parse(text: &str, path: &Path) -> Result<CredentialsFile, ConfigError> {
    if text.trim().is_empty() {
        return Ok(CredentialsFile { path: path.to_owned(), ..CredentialsFile::default() });
    }
    // The parser's own message could quote a secret: only the line is passed on.
    let mut file: CredentialsFile = serde_json::from_str(text)
        .map_err(|error| ConfigError::AuthFile { path: path.to_owned(), line: error.line() })?;
    path.clone_into(&mut file.path);
    Ok(file)
}

/// Reads the files that apply, the most specific first; missing ones are skipped.
pub(crate) fn load(environment: &Environment) -> Result<Vec<CredentialsFile>, ConfigError> {
    let mut files = Vec::new();
    for path in paths(environment) {
        match fs_err::read_to_string(&path) {
            Ok(text) => files.push(parse(&text, &path)?),
            Err(error) if is_missing(&error) && environment.var("REGISTRY_AUTH_FILE").is_none() => {
            }
            // Where root's engine made the directory for itself, a user's is not in it.
            Err(error)
                if error.kind() == std::io::ErrorKind::PermissionDenied
                    && path.starts_with(environment.run_dir()) =>
            {
                log::debug!("no credentials: {error}");
            }
            Err(error) => return Err(ConfigError::Read { path, source: bare(&error) }),
        }
    }
    Ok(files)
}

/// A component that is no directory means the same as one that is not there.
pub(crate) fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Where credentials are looked for, in order. `REGISTRY_AUTH_FILE` excludes all others.
pub(crate) fn paths(environment: &Environment) -> Vec<PathBuf> {
    if let Some(path) = environment.var("REGISTRY_AUTH_FILE") {
        return vec![PathBuf::from(path)];
    }
    let docker = environment
        .var("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| environment.home().map(|home| home.join(".docker")));
    [
        Some(match environment.runtime_dir() {
            Some(folder) => folder.join("containers/auth.json"),
            None => environment.run_dir().join("auth.json"),
        }),
        environment.user_containers().map(|folder| folder.join("auth.json")),
        docker.map(|folder| folder.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl CredentialsFile {
    /// The name of the helper that holds the credentials of `key`.
    pub(crate) fn helper(&self, key: &str) -> Option<&str> {
        let found = self.cred_helpers.iter().flatten().find(|(given, _)| normal_key(given) == key);
        found.map(|(_, helper)| helper.as_str())
    }

    /// The credentials of `key` in the file itself.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Credentials>, ConfigError> {
        for (given, entry) in self.auths.iter().flatten() {
            let Some(entry) = entry.as_ref().filter(|_| normal_key(given) == key) else { continue };
            let invalid = || ConfigError::AuthEntry { path: self.path.clone(), key: given.clone() };
            if let Some(found) = entry.credentials().ok_or_else(invalid)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Entry {
    /// `None` if invalid, `Some(None)` if the entry is empty: a helper has them.
    fn credentials(&self) -> Option<Option<Credentials>> {
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(token) = text(&self.identitytoken) {
            return Some(Some(Credentials::identity_token(token)));
        }
        if let Some(encoded) = text(&self.auth) {
            let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
            let (user, password) = decoded.trim_end_matches('\0').split_once(':')?;
            return Some(Some(Credentials::basic(user, password)));
        }
        let pair = text(&self.username).zip(text(&self.password));
        Some(pair.map(|(user, password)| Credentials::basic(&user, &password)))
    }
}

/// A key as users and tools write it, as `HOST[:PORT][/PATH]` with Docker's names made one.
pub(crate) fn normal_key(given: &str) -> String {
    let bare = given.strip_prefix("https://").or_else(|| given.strip_prefix("http://"));
    let text = bare.unwrap_or(given).trim_end_matches('/');
    let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => sarus_oci::DEFAULT_REGISTRY,
        other => other,
    };
    match path {
        // A path after a scheme is that of the API.
        Some(path) if bare.is_none() && !matches!(path, "v1" | "v2") => format!("{host}/{path}"),
        _ => host.to_owned(),
    }
}

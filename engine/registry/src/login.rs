//! Logging in and out: asking a registry whether it accepts credentials, and keeping them.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use reqwest::{Method, StatusCode};
use sarus_oci::Reference;
use serde_json::{Map, Value};

use crate::credentials::Found;
use crate::credentials_file::{self, normal_key};
use crate::registries::{api_host, is_insecure};
use crate::registries_file::bare;
use crate::session::{Session, challenge_of, invalid_host};
use crate::transport::{Peer, Request, join};
use crate::{ConfigError, Credentials, Environment, RegistryError, failure};

/// Where credentials were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The file. Readable by its owner only.
    pub path: PathBuf,
    /// Whether it outlives the login session; `$XDG_RUNTIME_DIR` does not.
    pub persistent: bool,
}

/// See [`crate::Client::check_login`].
pub(crate) fn check(
    session: &Session,
    registry: &str,
    credentials: &Credentials,
) -> Result<(), RegistryError> {
    let registry = &registry_name(registry)?;
    let peer =
        Peer { registry: registry.clone(), insecure: is_insecure(&session.registries, registry) };
    let host = api_host(registry);
    let base = session.transport.base(&peer, host)?;
    let mut request = Request::new(Method::GET, join(&base, "v2/"));
    let answer = session.transport.send(&peer, &request)?;
    let refused = || RegistryError::Unauthorized {
        host: host.to_owned(),
        object: registry.clone(),
        origin: Some("the command line".to_owned()),
    };
    request.authorization = if answer.response.status() == StatusCode::UNAUTHORIZED {
        let found =
            Found { credentials: credentials.clone(), origin: "the command line".to_owned() };
        let challenge = challenge_of(host, &answer)?;
        Some(session.meet(&peer, &challenge, Some(&found), None)?.ok_or_else(refused)?)
    } else {
        credentials.header()
    };
    let answer = session.transport.send(&peer, &request)?;
    match answer.response.status() {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED => Err(refused()),
        _ => Err(failure::of_answer(answer, registry)),
    }
}

/// The registry a user means: without a scheme, in the form that references have.
fn registry_name(given: &str) -> Result<String, RegistryError> {
    let name = normal_key(given);
    // Any repository will do to have the registry checked.
    let reference = Reference::parse(&format!("{name}#x")).map_err(|_error| invalid_host(given))?;
    Ok(reference.registry().to_owned())
}

/// Keeps credentials for `registry` in the default file, whose other contents stay.
///
/// `REGISTRY_AUTH_FILE`, else `$XDG_RUNTIME_DIR/containers/auth.json`, else
/// `~/.config/containers/auth.json`. Written aside and renamed, mode 0600.
///
/// # Errors
///
/// [`RegistryError::Config`]; the file is as it was then.
pub fn save(
    environment: &Environment,
    registry: &str,
    credentials: &Credentials,
) -> Result<Saved, RegistryError> {
    let registry = registry_name(registry)?;
    let saved = place(environment)?;
    let mut file = read(&saved.path)?;
    let entry = match (credentials.encoded(), credentials.token()) {
        (Some(encoded), _) => [("auth", encoded)],
        (None, token) => [("identitytoken", token.unwrap_or_default().to_owned())],
    };
    let entry = entry.map(|(key, value)| (key.to_owned(), Value::String(value)));
    let auths = auths(&mut file, &saved.path)?;
    auths.retain(|key, _| normal_key(key) != registry);
    auths.insert(registry, Value::Object(entry.into_iter().collect()));
    write(&saved.path, &file)?;
    Ok(saved)
}

/// Removes the credentials for `registry` from every file that is looked at, and returns those
/// that had some. Credentials that a helper keeps stay.
///
/// # Errors
///
/// [`RegistryError::Config`]; files before the one named are changed then.
pub fn log_out(environment: &Environment, registry: &str) -> Result<Vec<PathBuf>, RegistryError> {
    let registry = registry_name(registry)?;
    let mut changed = Vec::new();
    for path in credentials_file::paths(environment) {
        if !path.exists() {
            continue;
        }
        let mut file = read(&path)?;
        let auths = auths(&mut file, &path)?;
        let before = auths.len();
        auths.retain(|key, _| normal_key(key) != registry);
        if auths.len() < before {
            write(&path, &file)?;
            changed.push(path);
        }
    }
    Ok(changed)
}

fn place(environment: &Environment) -> Result<Saved, ConfigError> {
    if let Some(path) = environment.var("REGISTRY_AUTH_FILE") {
        return Ok(Saved { path: path.into(), persistent: true });
    }
    // The variable outlives the directory in batch jobs.
    if let Some(folder) = environment.runtime_dir().filter(|folder| folder.is_dir()) {
        return Ok(Saved { path: folder.join("containers/auth.json"), persistent: false });
    }
    let folder = environment.user_containers().ok_or(ConfigError::NoPlace)?;
    Ok(Saved { path: folder.join("auth.json"), persistent: true })
}

/// The whole file as it is; empty if there is none.
fn read(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let text = match fs_err::read_to_string(path) {
        Ok(text) => text,
        Err(error) if credentials_file::is_missing(&error) => String::new(),
        Err(error) => {
            return Err(ConfigError::Read { path: path.to_owned(), source: bare(&error) });
        }
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(&text)
        .map_err(|error| ConfigError::AuthFile { path: path.to_owned(), line: error.line() })
}

fn auths<'a>(
    file: &'a mut Map<String, Value>,
    path: &Path,
) -> Result<&'a mut Map<String, Value>, ConfigError> {
    let auths = file.entry("auths").or_insert(Value::Null);
    if auths.is_null() {
        *auths = Value::Object(Map::new());
    }
    auths.as_object_mut().ok_or_else(|| ConfigError::AuthFile { path: path.to_owned(), line: 1 })
}

/// Writes aside, with mode 0600, and renames. A symbolic link stays one.
fn write(path: &Path, file: &Map<String, Value>) -> Result<(), ConfigError> {
    let path = &fs_err::canonicalize(path).unwrap_or_else(|_new| path.to_owned());
    let failed = |source: std::io::Error| ConfigError::Write { path: path.clone(), source };
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut aside = tempfile::Builder::new().prefix(".auth").tempfile_in(folder).map_err(failed)?;
    serde_json::to_writer_pretty(&mut aside, file).map_err(|error| failed(error.into()))?;
    aside.write_all(b"\n").map_err(failed)?;
    aside.as_file().sync_all().map_err(failed)?;
    aside.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

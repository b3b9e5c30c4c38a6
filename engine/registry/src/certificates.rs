//! Certificates of one registry, from `certs.d/HOST:PORT/`.
//!
//! `*.crt` are authorities to trust besides the system's; `X.cert` with `X.key` is a client's
//! certificate. Specification: containers-certs.d(5). Knows nothing of TLS itself.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::registries_file::bare;
use crate::{ConfigError, Environment};

/// What the directories of one registry hold.
#[derive(Default)]
pub(crate) struct HostCertificates {
    /// Trusted besides the system's.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// The client's own chain and key.
    pub(crate) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Reads the directories of `registry`, the user's before the system's.
pub(crate) fn load(
    environment: &Environment,
    registry: &str,
) -> Result<HostCertificates, ConfigError> {
    let mut all = HostCertificates::default();
    let roots = [
        environment.user_containers(),
        Some(environment.etc().join("containers")),
        Some(environment.etc().join("docker")),
    ];
    for root in roots.into_iter().flatten() {
        for path in files(&root.join("certs.d").join(registry))? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => all.authorities.extend(chain(&path)?),
                Some("cert") if all.identity.is_none() => {
                    all.identity = Some((chain(&path)?, key(&path.with_extension("key"))?));
                }
                Some("key") if !path.with_extension("cert").exists() => {
                    let what = "is the key of a client's certificate, which must be beside it, \
                                with the same name and `.cert` at the end";
                    return Err(ConfigError::Certificate { path, what: what.to_owned() });
                }
                _ => {}
            }
        }
    }
    Ok(all)
}

/// The files of a directory, sorted; none if it does not exist.
fn files(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable =
        |error: std::io::Error| ConfigError::Read { path: folder.to_owned(), source: bare(&error) };
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if crate::credentials_file::is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs_err::read(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), source: bare(&error) })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let refused =
        |what: &str| ConfigError::Certificate { path: path.to_owned(), what: what.to_owned() };
    let text = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| refused(&format!("holds no valid certificate: {error}")))?;
    if chain.is_empty() { Err(refused("holds no certificate in PEM form")) } else { Ok(chain) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_error| ConfigError::Certificate {
        // The parser's words could hold a part of the key.
        path: path.to_owned(),
        what: "holds no private key in PEM form".to_owned(),
    })
}

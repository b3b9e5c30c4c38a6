//! The client of registries, against servers on the loopback interface.

mod blobs;
mod configuration;
mod credentials;
mod manifests;
mod server;
mod signatures;
mod tls;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sarus_oci::{Platform, Reference};
use sarus_registry::{Client, Environment, Notice, Options, RegistryError, Resolved, Sleeper};
use server::Server;
use tempfile::TempDir;

/// A user with a home, a system with an `/etc`, and what the client told and waited.
struct User {
    folder: TempDir,
    variables: Vec<(String, String)>,
    notices: Arc<Mutex<Vec<Notice>>>,
    waits: Arc<Waits>,
}

/// Waits by writing it down.
#[derive(Default)]
struct Waits(Mutex<Vec<Duration>>);

impl Sleeper for Waits {
    fn sleep(&self, time: Duration) {
        self.0.lock().unwrap().push(time);
    }
}

impl User {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home").to_str().unwrap().to_owned();
        let path = folder.path().join("bin").to_str().unwrap().to_owned();
        let variables =
            vec![("HOME".to_owned(), home), ("PATH".to_owned(), format!("{path}:/bin"))];
        Self { folder, variables, notices: Arc::default(), waits: Arc::default() }
    }

    /// One whose `registries.conf` allows HTTP for these servers.
    fn insecure(servers: &[&Server]) -> Self {
        let user = Self::new();
        let rules: String = servers
            .iter()
            .map(|it| format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", it.host))
            .collect();
        user.write("etc/containers/registries.conf", &rules);
        user
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    fn set(&mut self, name: &str, value: impl AsRef<Path>) {
        self.variables.push((name.to_owned(), value.as_ref().to_str().unwrap().to_owned()));
    }

    fn environment(&self) -> Environment {
        Environment::new(self.variables.clone(), self.path("etc"))
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.environment());
        options.sleeper = Arc::<Waits>::clone(&self.waits);
        let notices = Arc::clone(&self.notices);
        options.notify = Arc::new(move |notice| notices.lock().unwrap().push(notice.clone()));
        options
    }

    fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }

    fn resolve(&self, reference: &str) -> Result<Resolved, RegistryError> {
        self.client().resolve(&parse(reference), &amd64())
    }

    fn refused(&self, reference: &str) -> RegistryError {
        self.resolve(reference).unwrap_err()
    }

    fn waits(&self) -> Vec<u64> {
        self.waits.0.lock().unwrap().iter().map(Duration::as_secs).collect()
    }

    fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap().iter().map(ToString::to_string).collect()
    }
}

fn parse(reference: &str) -> Reference {
    Reference::parse(reference).unwrap()
}

fn amd64() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

/// The error, its causes and its hint, as a user reads them.
fn told(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}\ncaused by: {error}");
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text = format!("{text}\nhint: {hint}");
    }
    text
}

/// Asserts that a user is told each of these.
fn assert_told(error: &RegistryError, wanted: &[&str]) {
    let text = told(error);
    for want in wanted {
        assert!(text.contains(want), "{want:?} is not in:\n{text}");
    }
}

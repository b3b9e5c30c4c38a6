//! Targets that take text: names, documents, configuration.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::path::Path;

use sarus_config::Config;
use sarus_config::hooks::{Hook, Occasion};
use sarus_config::seccomp::{Host, Profile};
use sarus_launch::{Account, ExecRequest, Record, Request, merge_group, merge_passwd};
use sarus_oci::manifest::Document;
use sarus_oci::{Digest, ImageConfig, Platform, Reference};
use sarus_registry::{Client, Environment, Options};

/// A reference, digest or platform; one that is accepted is written as it is read.
pub fn reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(reference) = Reference::parse(text) {
        let written = reference.to_string();
        let again = Reference::parse(&written);
        assert_eq!(again.as_ref().map(ToString::to_string).ok(), Some(written));
        assert!(!reference.repository().split('/').any(|part| matches!(part, "" | "." | "..")));
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = Platform::parse(text) {
        assert_eq!(Platform::parse(&platform.to_string()).ok(), Some(platform));
    }
}

/// A manifest, an index, or an image's configuration.
pub fn manifest(input: &[u8]) {
    for content_type in [None, Some("application/vnd.oci.image.index.v1+json")] {
        match Document::parse(input, content_type) {
            Ok(Document::Index(index)) => {
                let candidates = index.candidates(&Platform::host()).len();
                assert!(candidates <= index.manifests.len());
                assert_eq!(index.select(&Platform::host()).is_ok(), candidates > 0);
            }
            Ok(Document::Manifest(manifest)) => {
                assert!(manifest.layers.len() <= input.len());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Ok(config) = ImageConfig::parse(input) {
        let _any = config.platform();
    }
}

/// A site's `sarus.json`.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::parse(text, Path::new("sarus.json")) {
        Ok(parsed) => assert!(parsed.config.paths_to_check().iter().all(|path| path.is_absolute())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A hook file; one that is accepted is also asked whether it would run.
pub fn hook(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(hook) = Hook::parse(text, Path::new("hook.json")) else { return };
    assert!(hook.path.is_absolute());
    let annotations = BTreeMap::from([("com.example.key".to_owned(), "value".to_owned())]);
    let occasion =
        Occasion { annotations: &annotations, command: "/bin/sh", has_bind_mounts: true };
    assert!(!hook.decide(&occasion).reason.contains(char::is_control));
}

/// A seccomp profile.
pub fn seccomp(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for architecture in ["amd64", "arm64"] {
        let host = Host { architecture, kernel: (6, 1) };
        if let Err(error) = Profile::parse(text, Path::new("seccomp.json"), host) {
            assert!(!error.to_string().is_empty());
        }
    }
}

thread_local! {
    /// The directory of the registries' files, made once.
    static ETC: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fn put(path: &Path, content: &[u8]) {
    let mut file = File::create(path).expect("a file");
    file.write_all(content).expect("room");
}

/// `registries.conf`, and `auth.json` as `logout` reads it: the first byte says which.
pub fn registries(input: &[u8]) {
    let Some((&which, text)) = input.split_first() else { return };
    ETC.with(|etc| {
        let etc = etc.get_or_init(super::temporary_directory);
        let auth = etc.path().join("auth.json");
        let variables = [("REGISTRY_AUTH_FILE", auth.as_os_str())];
        let environment = Environment::new(variables, etc.path());
        if which.is_multiple_of(2) {
            let directory = etc.path().join("containers");
            DirBuilder::new().recursive(true).create(&directory).expect("a directory");
            put(&directory.join("registries.conf"), text);
            if let Err(error) = Client::new(Options::new(environment)) {
                assert!(!error.to_string().is_empty());
            }
        } else {
            put(&auth, text);
            let _any = sarus_registry::log_out(&environment, "registry.example.com");
        }
    });
}

/// What comes to the shim on a descriptor, and an image's `passwd` and `group`.
pub fn request(input: &[u8]) {
    if let Ok(request) = Request::parse(input) {
        assert!(request.check().is_ok(), "what is parsed is checked");
    }
    let _any = ExecRequest::parse(input);
    let _any = Record::parse(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    let account = Account {
        name: "user".to_owned(),
        uid: 1000,
        gid: 1000,
        gecos: "A User".to_owned(),
        home: "/home/user".to_owned(),
        shell: "/bin/sh".to_owned(),
    };
    if let Some(merged) = merge_passwd(text, &account) {
        let first = merged.split('\n').find(|line| line.split(':').nth(2) == Some("1000"));
        assert_eq!(first, Some("user:x:1000:1000:A User:/home/user:/bin/sh"));
        assert_eq!(merge_passwd(&merged, &account), None);
    }
    let groups = [("users".to_owned(), 1000), ("video".to_owned(), 44)];
    if let Some(merged) = merge_group(text, &groups) {
        assert!(merged.contains("video:x:44:") || text.contains("video:"));
    }
}

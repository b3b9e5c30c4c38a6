//! TLS with authorities from `certs.d`, against `openssl s_server`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sarus_registry::RegistryError;

use super::{User, assert_told};

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let done = done.expect("openssl is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A server that is stopped with the test.
struct Secure(Child, String);

impl Drop for Secure {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Serves one document as `app:latest`, with a certificate that `ca.crt` signed.
fn start(folder: &Path, options: &[&str]) -> Secure {
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=authority -days 2",
    );
    openssl(folder, "req -newkey rsa:2048 -nodes -keyout s.key -out s.csr -subj /CN=s");
    fs_err::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(
        folder,
        "x509 -req -in s.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out s.crt -days 2 -extfile ext",
    );
    fs_err::create_dir_all(folder.join("v2/app/manifests")).unwrap();
    fs_err::write(
        folder.join("v2/app/manifests/latest"),
        "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\nthis came by TLS",
    )
    .unwrap();
    let mut child = Command::new("openssl")
        .args("s_server -accept 127.0.0.1:0 -HTTP -cert s.crt -key s.key".split(' '))
        .args(options)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = lines.filter_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
    let host = lines.next().unwrap();
    // Whatever else it says is read, so that it never blocks.
    std::thread::spawn(move || lines.for_each(drop));
    Secure(child, host)
}

/// Fetches the document. It is no manifest, which is told only when it has arrived: openssl's
/// server takes no path with a colon, so there cannot be a whole image.
fn fetch(user: &User, host: &str) -> Result<(), RegistryError> {
    match user.resolve(&format!("{host}/app")) {
        Err(RegistryError::Document { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(found) => panic!("{found:?} is no image"),
    }
}

#[test]
fn an_authority_in_certs_d_is_trusted_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &[]);
    let host = &server.1;
    let user = User::new();
    let error = fetch(&user, host).unwrap_err();
    assert_told(
        &error,
        &["secure connection", "is not trusted", &format!("certs.d/{host}/ca.crt")],
    );
    let read = |name: &str| fs_err::read_to_string(folder.path().join(name)).unwrap();
    for place in ["etc/containers", "etc/docker", "home/.config/containers"] {
        let user = User::new();
        user.write(&format!("{place}/certs.d/{host}/ca.crt"), &read("ca.crt"));
        fetch(&user, host).unwrap();
    }
    // The server's own certificate is enough, as sites use self-signed ones.
    user.write(&format!("etc/containers/certs.d/{host}/own.crt"), &read("s.crt"));
    fetch(&user, host).unwrap();
    // A registry that is called insecure is spoken TLS with, whatever its certificate.
    let user = User::new();
    let rule = format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true");
    user.write("etc/containers/registries.conf", &rule);
    fetch(&user, host).unwrap();
    assert!(user.notices().is_empty(), "not by HTTP");
}

#[test]
fn a_certificate_for_another_name_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &[]);
    let host = server.1.replace("127.0.0.1", "localhost");
    let user = User::new();
    let authority = fs_err::read_to_string(folder.path().join("ca.crt")).unwrap();
    user.write(&format!("etc/containers/certs.d/{host}/ca.crt"), &authority);
    assert_told(&fetch(&user, &host).unwrap_err(), &["secure connection", "for another name"]);
}

#[test]
fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        start(folder.path(), &["-Verify", "1", "-CAfile", "ca.crt", "-verify_return_error"]);
    let host = &server.1;
    let read = |name: &str| fs_err::read_to_string(folder.path().join(name)).unwrap();
    let user = User::new();
    user.write(&format!("etc/containers/certs.d/{host}/ca.crt"), &read("ca.crt"));
    fetch(&user, host).unwrap_err();
    user.write(&format!("etc/containers/certs.d/{host}/me.cert"), &read("s.crt"));
    assert_told(&fetch(&user, host).unwrap_err(), &["cannot read", "me.key"]);
    user.write(&format!("etc/containers/certs.d/{host}/me.key"), &read("s.key"));
    fetch(&user, host).unwrap();
}

#[test]
fn files_that_are_no_certificates_are_named_and_never_quoted() {
    let user = User::new();
    for (file, text, want) in [
        ("ca.crt", "hush", "holds no certificate in PEM form"),
        (
            "ca.crt",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            "holds no valid certificate",
        ),
        ("ca.crt", "", "holds no certificate in PEM form"),
        ("me.key", "hush", "the key of a client's certificate"),
    ] {
        let path = user.write(&format!("etc/containers/certs.d/127.0.0.1:1/{file}"), text);
        let error = fetch(&user, "127.0.0.1:1").unwrap_err();
        assert_told(&error, &[path.to_str().unwrap(), want]);
        assert!(!super::told(&error).contains("hush"));
        assert!(error.hint().is_some_and(|hint| hint.contains(path.to_str().unwrap())));
        fs_err::remove_file(path).unwrap();
    }
}

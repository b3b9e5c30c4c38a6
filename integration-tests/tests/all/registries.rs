//! Ways to reach a registry: plain HTTP, TLS, passwords, tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sarus_integration_tests::{
    Access, FakeRegistry, Image, Packed, Registry, Reply, Session, Tar, Who, answer,
};

fn image() -> Packed {
    Image::new().layer(&Tar::new().file("content", "x")).pack()
}

#[test]
fn plain_http_is_spoken_only_where_registries_conf_says_so() {
    let registry = Registry::start();
    let image = image();
    let reference = registry.push("app:1", &image);
    let session = Session::new(Who::User);
    let refused = session.sarus(["pull", "--quiet", &reference]).run();
    refused.explains(125, &[registry.host(), "insecure", "registries.conf"]);
    session.trust(&[registry.host()]);
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
}

#[test]
fn a_certificate_is_trusted_when_its_authority_is_in_certs_d() {
    let registry = Registry::start();
    let image = image();
    registry.push("app:1", &image);
    let registry = registry.restart(Access::Tls);
    let reference = format!("{}/app:1", registry.host());
    let session = Session::new(Who::User);
    let refused = session.sarus(["pull", "--quiet", &reference]).run();
    refused.explains(125, &[registry.host(), "certificate", "certs.d"]);

    let authority = fs_err::read(registry.authority()).unwrap();
    let path = format!(".config/containers/certs.d/{}/ca.crt", registry.host());
    session.write(&path, authority);
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
}

#[test]
fn a_password_comes_from_auth_json_login_or_standard_input() {
    let registry = Registry::start();
    let image = image();
    registry.push("app:1", &image);
    let registry = registry.restart(Access::Basic);
    let host = registry.host();
    let reference = format!("{host}/app:1");
    let digest = format!("{}\n", image.digest());
    let start = || {
        let session = Session::new(Who::User);
        session.trust(&[host]);
        session
    };

    let session = start();
    session.sarus(["pull", &reference]).run().explains(125, &[host, "sarus login"]);
    let words = ["pull", "--quiet", "-u", "researcher", "--password-stdin", &reference];
    let output = session.sarus(words).input("open sesame\n").run();
    assert_eq!(output.ok(), digest);
    drop(session);

    // Of a short name they are for the registry that it leads to.
    let session = start();
    let alias = format!("[aliases]\nimg = \"{host}/app\"\n");
    session.write(".config/containers/registries.conf.d/alias.conf", alias);
    let words = ["pull", "--quiet", "-u", "researcher", "--password-stdin", "img:1"];
    let output = session.sarus(words).input("open sesame\n").run();
    assert_eq!(output.ok(), digest);
    drop(session);

    let session = start();
    let output = session.sarus(["pull", "--quiet", "--login", &reference]);
    assert_eq!(output.input("researcher\nopen sesame\n").run().ok(), digest);
    drop(session);

    let session = start();
    let auth = STANDARD.encode("researcher:open sesame");
    let file = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    session.write(".config/containers/auth.json", &file);
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), digest);
    drop(session);

    let session = start();
    let login = ["login", "-u", "researcher", "--password-stdin", host];
    session.sarus(login).input("wrong").run().explains(125, &[host]);
    let colon = session.sarus(["login", "-u", "a:b", "--password-stdin", host]).input("c").run();
    colon.explains(125, &["`a:b` has a colon"]);
    session.sarus(login).input("open sesame").run().ok();
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), digest);
    session.sarus(["logout", host]).run().ok();
}

#[test]
fn a_wrong_password_is_never_shown() {
    let registry = Registry::start();
    registry.push("app:1", &image());
    let registry = registry.restart(Access::Basic);
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = format!("{}/app:1", registry.host());
    let words = ["--debug", "pull", "-u", "researcher", "--password-stdin", &reference];
    let output = session.sarus(words).input("dragon\n").run();
    assert_eq!(output.code(), Some(125), "{output}");
    let encoded = STANDARD.encode("researcher:dragon");
    for secret in ["dragon", &encoded] {
        assert!(!output.stderr.contains(secret), "{output}");
    }
}

#[test]
fn a_token_is_fetched_where_the_registry_says_with_the_scope_it_names() {
    let image = image();
    let served = image.clone();
    let tokens = FakeRegistry::start(|request| {
        let asked = request.path.contains("service=tests")
            && (request.path.contains("scope=repository%3Ateam%2Fapp%3Apull")
                || request.path.contains("scope=repository:team/app:pull"));
        let known = request.headers.get("authorization").map(String::as_str)
            == Some(&format!("Basic {}", STANDARD.encode("researcher:open sesame")));
        match (asked, known) {
            (true, true) => Reply::new(200, r#"{"token": "t0ken", "expires_in": 300}"#),
            (true, false) => Reply::new(401, "{}"),
            (false, _) => Reply::new(400, "{}"),
        }
    });
    let realm = format!("http://{}/token", tokens.host());
    let leaked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&leaked);
    let registry = FakeRegistry::start(move |request| {
        let given = request.headers.get("authorization").map(String::as_str);
        if given.is_some_and(|given| given.starts_with("Basic")) {
            seen.store(true, Ordering::Relaxed);
        }
        if given == Some("Bearer t0ken") {
            return answer(&served, request);
        }
        let scope = "repository:team/app:pull";
        let challenge = format!(r#"Bearer realm="{realm}",service="tests",scope="{scope}""#);
        Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
            .header("WWW-Authenticate", challenge)
    });
    let session = Session::new(Who::User);
    session.trust(&[registry.host(), tokens.host()]);
    let auth = STANDARD.encode("researcher:open sesame");
    let file = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host());
    session.write(".config/containers/auth.json", &file);
    let reference = format!("{}/team/app:1", registry.host());
    let output = session.sarus(["--debug", "pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    assert!(!leaked.load(Ordering::Relaxed), "the registry asked for a token, not a password");
    for secret in ["t0ken", "open sesame", &auth] {
        assert!(!output.stderr.contains(secret), "{output}");
    }
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let image = image();
    let elsewhere = FakeRegistry::serve(image.clone(), |_| None);
    let target = elsewhere.host().to_owned();
    let registry = FakeRegistry::serve(image.clone(), move |request| {
        if !request.headers.contains_key("authorization") {
            return Some(
                Reply::new(401, "{}").header("WWW-Authenticate", r#"Basic realm="tests""#),
            );
        }
        let location = format!("http://{target}{}", request.path);
        let blob = request.path.contains("/blobs/");
        blob.then(|| Reply::new(307, "").header("Location", location))
    });
    let session = Session::new(Who::User);
    session.trust(&[registry.host(), elsewhere.host()]);
    let auth = STANDARD.encode("researcher:open sesame");
    let file = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host());
    session.write(".config/containers/auth.json", &file);
    let reference = format!("{}/app:1", registry.host());
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    let requests = elsewhere.requests();
    assert!(!requests.is_empty(), "the blobs came from elsewhere");
    for request in requests {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
    }
}

/// Whether a text is in the command line of any process.
fn in_process_list(text: &str) -> bool {
    let processes = fs_err::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes
        .filter_map(|process| fs_err::read(process.join("cmdline")).ok())
        .any(|words| String::from_utf8_lossy(&words).contains(text))
}

#[test]
fn a_password_is_in_no_process_list_while_it_is_used() {
    let image = image();
    let served = image.clone();
    let encoded = STANDARD.encode("researcher:frabjous day");
    let (seen, used) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (listed, asked) = (Arc::clone(&seen), Arc::clone(&used));
    let wanted = encoded.clone();
    let registry = FakeRegistry::start(move |request| {
        if in_process_list("frabjous day") || in_process_list(&wanted) {
            listed.store(true, Ordering::Relaxed);
        }
        if request.headers.get("authorization") == Some(&format!("Basic {wanted}")) {
            asked.store(true, Ordering::Relaxed);
            return answer(&served, request);
        }
        Reply::new(401, "{}").header("WWW-Authenticate", r#"Basic realm="tests""#)
    });
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let helper = "#!/bin/sh\ncat > /dev/null\n\
                  echo '{\"Username\": \"researcher\", \"Secret\": \"frabjous day\"}'\n";
    let program = session.write("tools/docker-credential-tests", helper);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(&program, mode).unwrap();
    let file = format!(r#"{{"auths": null, "credHelpers": {{"{}": "tests"}}}}"#, registry.host());
    session.write(".config/containers/auth.json", file);
    let reference = format!("{}/app:1", registry.host());
    let path = format!("{}/tools:/usr/bin:/bin", session.home().display());
    session.sarus(["pull", "--quiet", &reference]).env("PATH", path).run().ok();
    assert!(used.load(Ordering::Relaxed), "the helper's password was used");
    let login = ["login", "-u", "researcher", "--password-stdin", registry.host()];
    session.sarus(login).input("frabjous day").run().ok();
    assert!(!seen.load(Ordering::Relaxed));
}

#[test]
fn a_mirror_is_asked_first_and_the_origin_when_the_mirror_fails() {
    let image = image();
    let origin = FakeRegistry::serve(image.clone(), |_| None);
    let mirror = FakeRegistry::start(|_| Reply::new(404, r#"{"errors":[]}"#));
    let session = Session::new(Who::User);
    session.write(
        ".config/containers/registries.conf",
        format!(
            "[[registry]]\nlocation = \"{0}\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{1}\"\ninsecure = true\n",
            origin.host(),
            mirror.host()
        ),
    );
    let reference = format!("{}/app:1", origin.host());
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    assert!(!mirror.requests().is_empty(), "the mirror was asked");
}

#[test]
fn a_short_name_that_registries_conf_gives_to_another_registry_is_not_docker_io_s() {
    let image = image();
    let origin = FakeRegistry::serve(image.clone(), |_| None);
    let session = Session::new(Who::User);
    let configure = |line: &str| {
        let host = origin.host();
        let text = format!("{line}\n[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
        session.write(".config/containers/registries.conf", text);
    };
    let full = format!("{}/library/img:1", origin.host());
    let elsewhere = "docker.io/library/img:1";
    for line in [
        format!("[aliases]\nimg = \"{}/library/img\"", origin.host()),
        format!("unqualified-search-registries = [\"{}/library\"]", origin.host()),
    ] {
        configure(&line);
        let output = session.sarus(["pull", "img:1"]).run();
        assert_eq!(output.ok(), format!("{full}  {}\n", image.digest()), "{line}");
        assert!(!output.stderr.contains(elsewhere), "{output}");
        // What was pulled is found without the configuration, by both of its names and no other.
        configure("");
        for name in ["img:1", &full] {
            let found = session.sarus(["inspect", name]).run();
            assert!(found.ok().contains(&format!("\"{full}\"")), "{line}: {found}");
        }
        let other = session.sarus(["inspect", elsewhere]).run();
        other.explains(125, &[elsewhere, "sarus pull"]);
        // Docker's own image of that name is listed by the name that means it.
        session.program(["tar", "-cf", "tree.tar", "tree"]).after("mkdir -p tree/bin").run().ok();
        session.sarus(["load", "tree.tar", elsewhere]).run().ok();
        let listed = || session.sarus(["images"]).run().ok().to_owned();
        let is_listed = |name: &str| {
            let listed = listed();
            listed.lines().any(|line| line.split_whitespace().next() == Some(name))
        };
        assert!(is_listed("docker.io/library/img") && !is_listed("img"), "{}", listed());
        let removed = session.sarus(["rmi", "--force", "img:1"]).run();
        assert!(removed.ok().starts_with(&format!("Untagged: {full}\n")), "{removed}");
        assert!(is_listed("img"), "{}", listed());
        session.sarus(["rmi", "--force", "img:1"]).run().ok();
        session.sarus(["inspect", "img:1"]).run().explains(125, &["img:1"]);
    }
}

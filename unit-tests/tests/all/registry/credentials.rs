//! Challenges and tokens; where credentials are found; logging in and out.

use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sarus_registry::{Credentials, log_out, save};

use super::server::{Contents, Reply, Server, error};
use super::{User, assert_told, parse, told};

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn auth_file(host: &str, user: &str, password: &str) -> String {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{encoded}\"}}}}}}")
}

/// A registry with basic authentication for `ada` with `pw`.
fn with_password() -> Server {
    Contents::image("amd64").serve(|request, _| {
        let known = request.header("authorization") == Some(basic("ada", "pw").as_str());
        (!known).then(|| {
            Reply::new(401, error("UNAUTHORIZED", "who?"))
                .header("WWW-Authenticate", "Basic realm=\"r\"")
        })
    })
}

/// A registry with tokens: `key` is the field of the token server's answer, and each token is
/// good for as many requests as `lifetime` says.
fn with_tokens(key: &'static str, lifetime: usize) -> Server {
    let used = std::sync::Mutex::new((0, 0));
    Contents::image("amd64").serve(move |request, _| {
        let mut used = used.lock().unwrap();
        if request.path.starts_with("/token") {
            let given = request.header("authorization");
            if given.is_some_and(|it| it != basic("ada", "pw")) {
                return Some(Reply::new(401, "{}"));
            }
            *used = (used.0 + 1, 0);
            return Some(Reply::new(200, format!("{{\"{key}\":\"secret-{}\"}}", used.0)));
        }
        used.1 += 1;
        let good = request.header("authorization") == Some(&format!("Bearer secret-{}", used.0));
        let host = request.header("host").unwrap();
        (!good || used.1 > lifetime).then(|| {
            let challenge =
                format!("Bearer realm=\"http://{host}/token?x=1\",service=\"registry of tests\"");
            Reply::new(401, "").header("WWW-Authenticate", challenge)
        })
    })
}

#[test]
fn a_token_is_fetched_for_the_repository_and_used_again() {
    for key in ["token", "access_token"] {
        let server = with_tokens(key, 100);
        let user = User::insecure(&[&server]);
        user.resolve(&format!("{}/a/b", server.host)).unwrap();
        let tokens: Vec<_> =
            server.requests().into_iter().filter(|it| it.path.starts_with("/token")).collect();
        assert_eq!(tokens.len(), 1, "manifest and configuration share it");
        assert!(tokens[0].path.starts_with("/token?x=1&"));
        assert!(tokens[0].path.contains("service=registry+of+tests"));
        assert!(tokens[0].path.contains("scope=repository%3Aa%2Fb%3Apull"), "{}", tokens[0].path);
        assert_eq!(tokens[0].header("authorization"), None);
    }
}

#[test]
fn an_expired_token_is_fetched_anew() {
    let server = with_tokens("token", 1);
    let user = User::insecure(&[&server]);
    user.resolve(&format!("{}/app", server.host)).unwrap();
    assert_eq!(server.paths().iter().filter(|it| it.contains("/token")).count(), 2);
}

#[test]
fn credentials_go_to_the_token_server_and_a_wrong_password_is_told() {
    for (password, good) in [("pw", true), ("wrong-one", false)] {
        let server = with_tokens("token", 100);
        let user = User::insecure(&[&server]);
        let file = user
            .write("home/.config/containers/auth.json", &auth_file(&server.host, "ada", password));
        let found = user.resolve(&format!("{}/app", server.host));
        assert!(server.paths().iter().any(|it| it.contains("account=ada")));
        assert_eq!(found.is_ok(), good);
        if let Err(error) = found {
            assert_told(
                &error,
                &[
                    &server.host,
                    file.to_str().unwrap(),
                    "not accepted",
                    "hint: `sarus login",
                    "again",
                ],
            );
            assert!(!told(&error).contains(password));
        }
    }
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let server = with_tokens("access_token", 100);
    let user = User::insecure(&[&server]);
    user.write(
        "home/.docker/config.json",
        &format!("{{\"auths\":{{\"{}\":{{\"identitytoken\":\"refresh me\"}}}}}}", server.host),
    );
    user.resolve(&format!("{}/app", server.host)).unwrap();
    let all = server.requests();
    let post = all.iter().find(|it| it.method == "POST").unwrap();
    assert!(
        post.body.contains("grant_type=refresh_token")
            && post.body.contains("refresh_token=refresh+me")
    );
    assert!(!post.path.contains("refresh"), "no secret is in an address");
}

#[test]
fn a_token_server_that_fails_is_named() {
    for (reply, want) in [
        (Reply::new(500, ""), "answered `500"),
        (Reply::new(200, "{}").header("Content-Type", "text/x"), "answered with `text/x`"),
        (Reply::new(200, "{\"token\":\"\"}"), "answered with `no type`"),
    ] {
        let server = Server::start(move |request, _| {
            if request.path.starts_with("/token") {
                return reply.clone();
            }
            let challenge =
                format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
            Reply::new(401, "").header("WWW-Authenticate", challenge)
        });
        let user = User::insecure(&[&server]);
        assert_told(
            &user.refused(&format!("{}/app", server.host)),
            &["the token server", &server.host, want],
        );
    }
}

#[test]
fn credentials_never_go_to_another_host_without_tls() {
    let thief = Server::start(|_, _| Reply::new(200, "{\"token\":\"x\"}"));
    // The same machine by another name: neither host nor encryption protects the password.
    let realm = thief.host.replace("127.0.0.1", "localhost");
    let server = Server::start(move |_, _| {
        Reply::new(401, "")
            .header("WWW-Authenticate", format!("Bearer realm=\"http://{realm}/token\""))
    });
    let user = User::insecure(&[&server]);
    user.write("home/.docker/config.json", &auth_file(&server.host, "ada", "pw"));
    assert_told(
        &user.refused(&format!("{}/app", server.host)),
        &["without TLS", "localhost", "hint: "],
    );
    assert!(thief.all().is_empty());
}

#[test]
fn challenges_that_cannot_be_met_are_told() {
    for (header, want) in [
        (None, "it names none"),
        (Some("Negotiate"), "`Negotiate`"),
        (Some("Bearer realm=\"nowhere\""), "the address of its token server is invalid"),
    ] {
        let server = Server::start(move |_, _| {
            let reply = Reply::new(401, "");
            header.map_or_else(|| reply.clone(), |it| reply.clone().header("WWW-Authenticate", it))
        });
        let user = User::insecure(&[&server]);
        assert_told(
            &user.refused(&format!("{}/app", server.host)),
            &["not supported", want, &server.host],
        );
    }
}

#[test]
fn without_credentials_the_hint_is_to_log_in() {
    let server = with_password();
    let user = User::insecure(&[&server]);
    let error = user.refused(&format!("{}/app", server.host));
    let login = format!("`sarus login {}` first", server.host);
    assert_told(&error, &["refuses access", "no credentials were given", &login]);
}

#[test]
fn credentials_are_found_in_the_order_of_the_files() {
    let server = with_password();
    let mut user = User::insecure(&[&server]);
    let name = format!("{}/team/app", server.host);
    let (good, bad) = (auth_file(&server.host, "ada", "pw"), auth_file(&server.host, "ada", "no"));
    let found = |user: &User| user.resolve(&name).is_ok();
    // Each file that comes earlier hides the later ones.
    user.write(
        "home/.docker/config.json",
        &auth_file(&format!("https://{}/v2/", server.host), "ada", "pw"),
    );
    assert!(found(&user), "Docker's file, and its form of a key");
    user.write("home/.config/containers/auth.json", &bad);
    assert!(!found(&user), "the user's auth.json comes before Docker's file");
    user.set("XDG_RUNTIME_DIR", user.path("run"));
    user.write("run/containers/auth.json", &good);
    assert!(found(&user), "the runtime directory comes before the user's file");
    user.set("REGISTRY_AUTH_FILE", user.write("named.json", &bad));
    assert!(!found(&user), "the file that is named excludes all others");
    // The longest key wins within a file.
    let both = bad.replace(
        "}}}",
        &format!("}},\"{}/team\":{{\"username\":\"ada\",\"password\":\"pw\"}}}}}}", server.host),
    );
    user.write("named.json", &both);
    assert!(found(&user), "{both}");
    user.set("REGISTRY_AUTH_FILE", user.path("missing.json"));
    assert_told(&user.refused(&name), &["cannot read", "missing.json"]);
}

#[test]
fn without_a_runtime_directory_the_systems_place_for_it_is_looked_at() {
    use std::os::unix::fs::MetadataExt;
    let server = with_password();
    let user = User::insecure(&[&server]);
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let file = auth_file(&server.host, "ada", "pw");
    user.write(&format!("run/containers/{uid}/auth.json"), &file);
    user.resolve(&format!("{}/app", server.host)).unwrap();
}

#[test]
fn helpers_and_files_are_asked_in_the_order_of_registries_conf() {
    let server = with_password();
    let host = &server.host;
    let rule = |helpers: &str| {
        format!(
            "credential-helpers = [{helpers}]\n[[registry]]\nlocation = \"{host}\"\ninsecure = true"
        )
    };
    let user = User::new();
    user.write("home/.docker/config.json", &auth_file(host, "ada", "pw"));
    helper(&user, "bad", "cat >/dev/null; echo '{\"Username\":\"ada\",\"Secret\":\"no\"}'");
    for (helpers, want) in [
        ("\"containers-auth.json\", \"bad\"", true),
        ("\"bad\", \"containers-auth.json\"", false),
        ("\"absent\", \"containers-auth.json\"", true),
        ("\"absent\"", false),
        ("", true),
    ] {
        user.write("etc/containers/registries.conf", &rule(helpers));
        assert_eq!(user.resolve(&format!("{host}/app")).is_ok(), want, "{helpers}");
    }
}

#[test]
fn broken_credentials_files_are_named_and_never_quoted() {
    let server = with_password();
    let user = User::insecure(&[&server]);
    let host = &server.host;
    for (text, want) in [
        ("{\n\"auths\": \"hush\"}".to_owned(), "line 2: this is no valid credentials file"),
        (
            format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"hush\"}}}}}}"),
            "holds no valid credentials",
        ),
    ] {
        let file = user.write("home/.docker/config.json", &text);
        let error = user.refused(&format!("{host}/app"));
        assert_told(&error, &[file.to_str().unwrap(), want, "hint: correct or remove"]);
        assert!(!told(&error).contains("hush"));
    }
    user.write("home/.docker/config.json", " ");
    assert_told(&user.refused(&format!("{host}/app")), &["no credentials were given"]);
}

fn helper(user: &User, name: &str, script: &str) {
    let path =
        user.write(&format!("bin/docker-credential-{name}"), &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn helpers_are_asked_for_the_registry_on_their_standard_input() {
    let server = with_password();
    let host = &server.host;
    for file in [
        format!("{{\"credHelpers\":{{\"{host}\":\"tests\"}}}}"),
        format!("{{\"credsStore\":\"tests\",\"auths\":{{\"{host}\":{{}}}}}}"),
    ] {
        let user = User::insecure(&[&server]);
        let script = format!(
            "read -r key; [ \"$1 $key\" = 'get {host}' ] && echo '{{\"ServerURL\":\"x\",\"Username\":\"ada\",\"Secret\":\"pw\"}}'"
        );
        helper(&user, "tests", &script);
        user.write("home/.docker/config.json", &file);
        user.resolve(&format!("{host}/app")).unwrap();
    }
    // Those of registries.conf come last.
    let user = User::new();
    let rule = format!(
        "credential-helpers = [\"containers-auth.json\", \"tests\"]\n[[registry]]\nlocation = \"{host}\"\ninsecure = true"
    );
    user.write("etc/containers/registries.conf", &rule);
    helper(&user, "tests", "cat >/dev/null; echo '{\"Username\":\"ada\",\"Secret\":\"pw\"}'");
    user.resolve(&format!("{host}/app")).unwrap();
}

#[test]
fn a_helper_that_fails_is_named_and_one_that_has_nothing_is_passed_over() {
    let server = with_password();
    let user = User::insecure(&[&server]);
    let config = format!("{{\"credHelpers\":{{\"{}\":\"tests\"}}}}", server.host);
    user.write("home/.docker/config.json", &config);
    let name = format!("{}/app", server.host);
    assert_told(
        &user.refused(&name),
        &["`docker-credential-tests` is not installed", "hint: install"],
    );
    for (script, want) in [
        ("exit 3", "failed with exit status: 3"),
        ("echo hush", "gave no valid answer"),
        ("echo 'credentials not found in native keychain'; exit 1", "no credentials were given"),
        ("echo '{\"Username\":\"\",\"Secret\":\"\"}'", "no credentials were given"),
    ] {
        helper(&user, "tests", script);
        let error = user.refused(&name);
        assert_told(&error, &[want]);
        assert!(!told(&error).contains("hush"));
    }
    user.write("home/.docker/config.json", &config.replace("tests", "../tests"));
    assert_told(&user.refused(&name), &["has a slash in its name"]);
    // A general helper copied from a desktop is none of a compute node's business.
    user.write("home/.docker/config.json", "{\"credsStore\":\"desktop\"}");
    assert_told(&user.refused(&name), &["no credentials were given"]);
}

#[test]
fn login_asks_the_registry() {
    for server in [with_password(), with_tokens("token", 100)] {
        let user = User::insecure(&[&server]);
        let check = |password: &str| {
            user.client().check_login(&server.host, &Credentials::basic("ada", password))
        };
        check("pw").unwrap();
        let error = check("hush").unwrap_err();
        assert_told(&error, &[&server.host, "not accepted"]);
        assert!(!told(&error).contains("hush"));
    }
    let server = Server::start(|_, _| Reply::new(404, ""));
    let user = User::insecure(&[&server]);
    let nobody = Credentials::basic("a", "b");
    assert_told(
        &user.client().check_login(&server.host, &nobody).unwrap_err(),
        &["has no", &server.host],
    );
    assert_told(&user.client().check_login("a b", &nobody).unwrap_err(), &["`a b`"]);
    assert!(
        !format!("{nobody:?} {:?}", user.client()).contains('b'.to_string().repeat(2).as_str())
    );
}

#[test]
fn what_login_writes_is_for_its_owner_only_and_is_used_and_logged_out_of() {
    let server = with_password();
    let mut user = User::insecure(&[&server]);
    let ada = Credentials::basic("ada", "pw");
    let saved = save(&user.environment(), &server.host, &ada).unwrap();
    assert_eq!(
        (saved.path.clone(), saved.persistent),
        (user.path("home/.config/containers/auth.json"), true)
    );
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&saved.path), mode(saved.path.parent().unwrap())), (0o600, 0o700));
    user.resolve(&format!("{}/app", server.host)).unwrap();

    // What else the file holds stays, and rights that were too wide do not.
    fs_err::write(
        &saved.path,
        "{\"auths\":{\"other.org\":{\"auth\":\"eDp5\"}},\"credsStore\":\"kept\"}",
    )
    .unwrap();
    std::fs::set_permissions(&saved.path, PermissionsExt::from_mode(0o644)).unwrap();
    save(&user.environment(), &format!("https://{}", server.host), &ada).unwrap();
    let text = fs_err::read_to_string(&saved.path).unwrap();
    assert!(
        text.contains("other.org") && text.contains("\"kept\"") && mode(&saved.path) == 0o600,
        "{text}"
    );
    let left: Vec<_> = std::fs::read_dir(saved.path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left");

    assert_eq!(
        log_out(&user.environment(), &server.host).unwrap(),
        std::slice::from_ref(&saved.path)
    );
    let text = fs_err::read_to_string(&saved.path).unwrap();
    assert!(text.contains("other.org") && !text.contains(&server.host), "{text}");
    assert!(log_out(&user.environment(), &server.host).unwrap().is_empty());
    assert_told(&user.refused(&format!("{}/app", server.host)), &["no credentials were given"]);

    // A runtime directory that is there is preferred; one that is gone is not made.
    user.set("XDG_RUNTIME_DIR", user.path("run"));
    assert!(save(&user.environment(), "a.org", &ada).unwrap().persistent);
    fs_err::create_dir(user.path("run")).unwrap();
    let saved =
        save(&user.environment(), "a.org", &Credentials::identity_token("t".to_owned())).unwrap();
    assert_eq!(
        (saved.path.clone(), saved.persistent),
        (user.path("run/containers/auth.json"), false)
    );
    assert!(fs_err::read_to_string(saved.path).unwrap().contains("identitytoken"));
}

#[test]
fn login_tells_where_it_cannot_keep_credentials_and_changes_nothing() {
    let nowhere = sarus_registry::Environment::new([("X", "y")], "/nonexistent");
    let ada = Credentials::basic("ada", "pw");
    assert_told(
        &save(&nowhere, "a.org", &ada).unwrap_err(),
        &["no place to keep credentials", "REGISTRY_AUTH_FILE"],
    );
    let mut user = User::new();
    for text in ["{\"auths\":[]}", "not json"] {
        let file = user.write("home/.config/containers/auth.json", text);
        let error = save(&user.environment(), "a.org", &ada).unwrap_err();
        assert_told(&error, &["no valid credentials file", file.to_str().unwrap()]);
        assert_eq!(fs_err::read_to_string(file).unwrap(), text);
    }
    user.set("REGISTRY_AUTH_FILE", user.write("file", "").join("auth.json"));
    assert_told(
        &save(&user.environment(), "a.org", &ada).unwrap_err(),
        &["cannot write", "auth.json"],
    );
    assert!(parse("a.org/x").registry() == "a.org");
}

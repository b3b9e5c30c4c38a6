//! From a reference to a manifest: kinds of documents, platforms, statuses, repetitions.

use sarus_oci::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use sarus_registry::RegistryError;
use serde_json::json;

use super::server::{Contents, Reply, Server, error, nest};
use super::{User, amd64, assert_told, parse, told};

#[test]
fn an_image_is_resolved_with_the_digest_of_its_bytes_as_sent() {
    let contents = Contents::image("amd64");
    let want = contents.digest_of("latest");
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    let found = user.resolve(&format!("{}/app", server.host)).unwrap();
    assert_eq!(found.digest, want);
    assert!(want.matches(&found.manifest_bytes));
    assert!(found.manifest_bytes.ends_with(b"}\n"), "bytes are kept as sent");
    assert!(found.manifest.config.digest.matches(&found.config_bytes));
    assert_eq!((found.index_digest, found.platform), (None, amd64()));
    assert_eq!(found.reference.to_string(), format!("{}/app:latest", server.host));
    assert_eq!(user.notices(), [format!("using `{}` over HTTP, without encryption", server.host)]);
    let accept = server.requests()[0].header("accept").unwrap().to_owned();
    for media_type in [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST] {
        assert!(accept.contains(media_type), "{media_type} is not in {accept}");
    }
}

#[test]
fn a_digest_is_asked_for_even_when_there_is_a_tag_and_the_newest_tag_is_not() {
    let contents = Contents::image("amd64");
    let digest = contents.digest_of("latest");
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    let found = user.resolve(&format!("{}/a/b:gone@{digest}", server.host)).unwrap();
    assert_eq!(found.digest, digest);
    assert_eq!(server.paths()[0], format!("GET /v2/a/b/manifests/{digest}"));
}

#[test]
fn the_platform_is_chosen_in_indexes_also_nested_and_mixed() {
    let mut contents = Contents::default();
    let arm = contents.add_image("arm64", OCI_MANIFEST);
    let amd = contents.add_image("amd64", DOCKER_MANIFEST);
    let flat = contents.index(DOCKER_INDEX, &[arm, amd.clone()]);
    let mut nested = flat.clone();
    for tag in ["flat", "one", "two", "three", "four", "five"] {
        contents.tag(tag, &nested);
        nested = nest(&mut contents, &nested);
    }
    let outermost = contents.digest_of("two");
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    for tag in ["flat", "one", "two", "three"] {
        let found = user.resolve(&format!("{}/app:{tag}", server.host)).unwrap();
        assert_eq!(found.digest.to_string(), amd["digest"].as_str().unwrap(), "{tag}");
        assert_eq!(found.platform, amd64());
        if tag == "two" {
            assert_eq!(found.index_digest.as_ref(), Some(&outermost));
        }
    }
    let error = user.refused(&format!("{}/app:five", server.host));
    assert_told(&error, &[&format!("{}/app:five", server.host), "nested more than 4 deep"]);
}

#[test]
fn a_missing_platform_is_told_with_those_that_are_there() {
    let mut contents = Contents::default();
    let arm = contents.add_image("arm64", OCI_MANIFEST);
    contents.tag("single", &arm);
    let s390x = contents.add_image("s390x", OCI_MANIFEST);
    let inner = contents.index(OCI_INDEX, &[s390x]);
    let index = contents.index(OCI_INDEX, &[arm, inner]);
    contents.tag("index", &index);
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    let error = user.refused(&format!("{}/app:index", server.host));
    assert_told(
        &error,
        &["`linux/amd64`", "`linux/arm64`", "`linux/s390x`", "hint: ", "--platform"],
    );
    // A manifest without an index says its platform in the configuration.
    let error = user.refused(&format!("{}/app:single", server.host));
    assert_told(&error, &["`linux/amd64`", "`linux/arm64`"]);
}

#[test]
fn each_status_is_told_with_registry_object_and_what_to_do() {
    for (status, body, wanted) in [
        (
            404,
            error("MANIFEST_UNKNOWN", "no such tag"),
            ["has no `", "no such tag", "check the name and the tag"],
        ),
        (
            403,
            error("DENIED", "not yours"),
            ["forbids access to `", "DENIED: not yours", "hint: ask for access"],
        ),
        (400, "plain\nwords".to_owned(), ["answered `400", "(plain)", "app:latest"]),
        (500, "{\"message\":\"oh\"}".to_owned(), ["answered `500", "(oh)", "try again later"]),
        (
            429,
            error("TOOMANYREQUESTS", ""),
            ["limits the rate", "TOOMANYREQUESTS", "hint: try again later"],
        ),
    ] {
        let server = Server::start(move |_, _| Reply::new(status, &body));
        let user = User::insecure(&[&server]);
        let error = user.refused(&format!("{}/app", server.host));
        assert_told(&error, &wanted);
        assert_told(&error, &[&format!("`{}`", server.host)]);
    }
}

#[test]
fn a_part_that_an_image_lacks_is_told_as_that() {
    let mut contents = Contents::default();
    let amd = contents.add_image("amd64", OCI_MANIFEST);
    let index = contents.index(OCI_INDEX, std::slice::from_ref(&amd));
    contents.tag("latest", &index);
    contents.tag("single", &amd);
    let digest = amd["digest"].as_str().unwrap().to_owned();
    let is_part = move |path: &str| path.contains("/blobs/") || path.ends_with(&digest);
    let gone = Reply::new(404, error("MANIFEST_UNKNOWN", "unknown"));
    let server = contents.serve(move |request, _| is_part(&request.path).then(|| gone.clone()));
    let user = User::insecure(&[&server]);
    for (tag, part) in [("latest", "app/manifests/sha256:"), ("single", "app/blobs/sha256:")] {
        let error = user.refused(&format!("{}/app:{tag}", server.host));
        assert_told(&error, &[part, "not this part of it", "push it again"]);
    }
}

#[test]
fn a_web_page_is_never_quoted_as_an_error_or_taken_for_a_manifest() {
    for status in [200, 404, 503] {
        let server = Server::start(move |_, _| {
            Reply::new(status, "<html>Please log in</html>")
                .header("Content-Type", "text/html; charset=utf-8")
        });
        let user = User::insecure(&[&server]);
        let error = user.refused(&format!("{}/app", server.host));
        assert!(!told(&error).contains("<html>"), "{}", told(&error));
        if status == 200 {
            assert_told(&error, &["web page", "hint: ", "not a registry; check the name"]);
        }
    }
}

#[test]
fn overload_is_waited_for_a_bounded_number_of_times() {
    for status in [429, 500, 502, 503, 504] {
        let contents = Contents::image("amd64");
        let server = contents.serve(move |request, before| {
            (request.path.contains("manifests") && before < 2).then(|| Reply::new(status, ""))
        });
        let user = User::insecure(&[&server]);
        user.resolve(&format!("{}/app", server.host)).unwrap();
        assert_eq!(user.waits(), [1, 2], "after {status}");
        assert!(
            user.notices()
                .iter()
                .any(|it| it.contains("again in 1 s") && it.contains(&status.to_string()))
        );

        let server = Server::start(move |_, _| Reply::new(status, ""));
        let user = User::insecure(&[&server]);
        user.refused(&format!("{}/app", server.host));
        assert_eq!(user.waits(), [1, 2, 4, 8], "after {status}");
        assert_eq!(server.requests().len(), 5);
    }
    let server = Server::start(|_, _| Reply::new(501, ""));
    let user = User::insecure(&[&server]);
    user.refused(&format!("{}/app", server.host));
    assert_eq!(server.requests().len(), 1, "what a server cannot do it will not do later");
}

#[test]
fn retry_after_is_obeyed_unless_it_is_too_long() {
    let contents = Contents::image("amd64");
    let server = contents.clone().serve(|request, before| {
        let busy = Reply::new(429, "").header("Retry-After", "7");
        (request.path.contains("manifests") && before == 0).then_some(busy)
    });
    let user = User::insecure(&[&server]);
    user.resolve(&format!("{}/app", server.host)).unwrap();
    assert_eq!(user.waits(), [7]);

    let server = contents.serve(|request, before| {
        let busy = Reply::new(503, "")
            .header("Date", "Sat, 28 Feb 2032 23:59:50 GMT")
            .header("Retry-After", "Sun, 29 Feb 2032 00:00:02 GMT");
        (request.path.contains("manifests") && before == 0).then_some(busy)
    });
    let user = User::insecure(&[&server]);
    user.resolve(&format!("{}/app", server.host)).unwrap();
    assert_eq!(user.waits(), [12], "a date is one by the server's clock");

    let server = Server::start(|_, _| Reply::new(429, "").header("Retry-After", "3600"));
    let user = User::insecure(&[&server]);
    let error = user.refused(&format!("{}/app", server.host));
    assert!(user.waits().is_empty());
    assert_told(&error, &["limits the rate", "try again in 3600 s", "sarus login"]);
}

#[test]
fn a_connection_that_always_breaks_is_given_up_after_bounded_tries() {
    let server =
        Server::start(
            |request, _| {
                if request.path == "/v2/" { Reply::new(200, "") } else { Reply::hang_up() }
            },
        );
    let user = User::insecure(&[&server]);
    let error = user.refused(&format!("{}/app", server.host));
    assert!(matches!(error, RegistryError::Interrupted { .. }), "{error:?}");
    assert_told(&error, &["broke", &server.host, "hint: check that the registry runs"]);
    assert_eq!(server.requests().len(), 5, "one try and four repetitions");
    assert_eq!(user.waits(), [1, 2, 4, 8]);
}

#[test]
fn a_document_that_ends_too_early_is_fetched_again_a_bounded_number_of_times() {
    let contents = Contents::image("amd64");
    let sound = contents.clone();
    let server = contents.serve(move |request, before| {
        let early = request.path.contains("manifests") && before < 2;
        early.then(|| sound.answer(request).cut(20))
    });
    let user = User::insecure(&[&server]);
    user.resolve(&format!("{}/app", server.host)).unwrap();
    assert_eq!(user.waits(), [1, 2]);

    let contents = Contents::image("amd64");
    let sound = contents.clone();
    let server = contents.serve(move |request, _| {
        request.path.contains("manifests").then(|| sound.answer(request).cut(20))
    });
    let user = User::insecure(&[&server]);
    assert_told(&user.refused(&format!("{}/app", server.host)), &["broke", &server.host]);
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn no_server_is_told_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let user = User::new();
    let error = user.refused(&format!("{port}/app"));
    assert_told(&error, &[&format!("cannot connect to `{port}`"), "refused", "hint: check that"]);
    assert!(user.waits().is_empty());
    user.write(
        "etc/containers/registries.conf",
        &format!("[[registry]]\nlocation = \"{port}\"\ninsecure = true"),
    );
    assert_told(&user.refused(&format!("{port}/app")), &["cannot connect to", "refused"]);
}

#[test]
fn a_host_that_does_not_exist_is_told_by_name() {
    let error = User::new().refused("nowhere.invalid/app");
    assert_told(
        &error,
        &["cannot find the host `nowhere.invalid`", "hint: check the registry's name"],
    );
}

#[test]
fn a_proxy_that_does_not_run_or_exist_is_what_the_hint_speaks_of() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for proxy in [format!("http://u:secret@{port}"), "http://u:secret@proxy.invalid:1".to_owned()] {
        let mut user = User::new();
        user.set("https_proxy", &proxy);
        let error = user.refused("registry.invalid/app");
        assert_told(&error, &["`https_proxy` is set", "`registry.invalid` in `NO_PROXY`"]);
        assert!(!told(&error).contains("secret"));
    }
}

#[test]
fn a_silent_server_is_given_up_after_the_limit() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let user = User::new();
    let mut options = user.options();
    options.stall_timeout = std::time::Duration::from_millis(200);
    let client = sarus_registry::Client::new(options).unwrap();
    let host = silent.local_addr().unwrap();
    let error = client.resolve(&parse(&format!("{host}/app")), &amd64()).unwrap_err();
    assert_told(&error, &[&format!("`{host}` did not answer within"), "hint: "]);
}

#[test]
fn http_is_not_spoken_unless_configured_and_the_hint_says_how() {
    let server = Contents::image("amd64").serve(|_, _| None);
    let error = User::new().refused(&format!("{}/app", server.host));
    assert_told(
        &error,
        &["does not speak HTTPS", &format!("location = \"{}\"", server.host), "insecure = true"],
    );
    assert!(server.all().is_empty(), "nothing was asked for by HTTP");
}

#[test]
fn altered_documents_are_refused() {
    let contents = Contents::image("amd64");
    let good = contents.digest_of("latest");
    let altered = br#"{"schemaVersion":2}"#;
    let server =
        Server::start(move |_, _| Reply::new(200, altered).header("Content-Type", OCI_MANIFEST));
    let user = User::insecure(&[&server]);
    let error = user.refused(&format!("{}/app@{good}", server.host));
    assert_told(&error, &["is altered", &good.to_string(), "hint: pull again"]);

    // The registry's own word about a tag counts as well.
    let named = good.to_string();
    let server = Server::start(move |_, _| {
        Reply::new(200, altered)
            .header("Content-Type", OCI_MANIFEST)
            .header("Docker-Content-Digest", named.clone())
    });
    let user = User::insecure(&[&server]);
    assert_told(&user.refused(&format!("{}/app", server.host)), &["is altered"]);
}

#[test]
fn a_wrong_size_or_digest_of_what_a_document_names_is_refused() {
    for (key, value, want) in [
        ("size", json!(3), "has the wrong size: expected 3 bytes"),
        ("digest", json!(format!("sha256:{}", "0".repeat(64))), "has no `"),
    ] {
        let mut contents = Contents::default();
        let mut entry = contents.add_image("amd64", OCI_MANIFEST);
        entry[key] = value;
        let index = contents.index(OCI_INDEX, &[entry]);
        contents.tag("latest", &index);
        let server = contents.serve(|_, _| None);
        let user = User::insecure(&[&server]);
        assert_told(&user.refused(&format!("{}/app", server.host)), &[want, &server.host]);
    }
    // The configuration: altered bytes of the same length, and of another.
    for (alter, want) in [(b"x".to_vec(), "wrong size"), (vec![], "is altered")] {
        let contents = Contents::image("amd64");
        let sound = contents.clone();
        let layer = Contents::layer_descriptor().digest.to_string();
        let server = contents.serve(move |request, _| {
            let digest = request.path.rsplit_once("/blobs/")?.1;
            let mut bytes = sound.blobs[digest].clone();
            assert_ne!(digest, layer, "layers are not fetched here");
            bytes[0] = b'[';
            bytes.extend(&alter);
            Some(Reply::new(200, bytes))
        });
        let user = User::insecure(&[&server]);
        assert_told(&user.refused(&format!("{}/app", server.host)), &[want]);
    }
}

#[test]
fn what_is_no_image_manifest_is_refused() {
    for (media_type, text, want) in [
        (OCI_MANIFEST, "not json", "cannot be read"),
        (OCI_MANIFEST, "{\"schemaVersion\":1}", "schema"),
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "{\"schemaVersion\":1}",
            "schema 1",
        ),
        ("application/json", "{\"schemaVersion\":2}", "cannot use the image"),
    ] {
        let server =
            Server::start(move |_, _| Reply::new(200, text).header("Content-Type", media_type));
        let user = User::insecure(&[&server]);
        let error = user.refused(&format!("{}/app", server.host));
        assert_told(&error, &[want, &format!("cannot use the image `{}/app:latest`", server.host)]);
    }
}

#[test]
fn documents_are_bounded_in_size() {
    let server = Server::start(|_, _| {
        Reply::new(200, vec![b' '; (4 << 20) + 1]).header("Content-Type", OCI_MANIFEST)
    });
    let user = User::insecure(&[&server]);
    assert_told(&user.refused(&format!("{}/app", server.host)), &["is larger than 4194304 bytes"]);

    let mut contents = Contents::default();
    let config = json!({
        "mediaType": sarus_oci::manifest::OCI_CONFIG, "size": 9 << 20,
        "digest": format!("sha256:{}", "1".repeat(64)),
    });
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [] });
    let manifest = contents.document(OCI_MANIFEST, manifest.to_string().as_bytes());
    contents.tag("latest", &manifest);
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    assert_told(&user.refused(&format!("{}/app", server.host)), &["is larger than 8388608 bytes"]);
    assert_eq!(server.requests().len(), 1, "it is not even asked for");
}

#[test]
fn the_digest_of_a_tag_needs_no_document() {
    let contents = Contents::image("amd64");
    let want = contents.digest_of("latest");
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    let ask = |name: &str| user.client().digest(&parse(&format!("{}/{name}", server.host)));
    assert_eq!(ask("app").unwrap(), want);
    assert_eq!(ask(&format!("app@{want}")).unwrap(), want);
    assert!(server.paths().iter().all(|path| path.starts_with("HEAD ")), "{:?}", server.paths());
    assert_told(&ask("app:gone").unwrap_err(), &["has no `"]);
}

#[test]
fn the_digest_is_found_where_head_requests_fail_or_say_nothing() {
    for status in [200, 405] {
        let contents = Contents::image("amd64");
        let want = contents.digest_of("latest");
        let server = contents
            .serve(move |request, _| (request.method == "HEAD").then(|| Reply::new(status, "")));
        let user = User::insecure(&[&server]);
        for name in ["app".to_owned(), format!("app@{want}")] {
            let reference = parse(&format!("{}/{name}", server.host));
            assert_eq!(user.client().digest(&reference).unwrap(), want, "{status}");
        }
    }
}

#[test]
fn redirections_are_followed_a_bounded_number_of_times() {
    let server = Server::start(|request, _| {
        if request.path == "/v2/" {
            return Reply::new(200, "");
        }
        Reply::new(307, "").header("Location", request.path.clone())
    });
    let user = User::insecure(&[&server]);
    assert_told(&user.refused(&format!("{}/app", server.host)), &["redirected more than 10 times"]);
    for (location, want) in [("ftp://x/", "invalid address"), ("http://[", "invalid address")] {
        let server = Server::start(move |request, _| {
            if request.path == "/v2/" {
                return Reply::new(200, "");
            }
            Reply::new(302, "").header("Location", location)
        });
        let user = User::insecure(&[&server]);
        assert_told(&user.refused(&format!("{}/app", server.host)), &[want, &server.host]);
    }
}

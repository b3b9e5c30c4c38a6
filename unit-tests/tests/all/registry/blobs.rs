//! Blobs: verified, resumed, redirected without credentials.

use std::io::{Read, Write};

use sarus_oci::Hasher;
use sarus_registry::{Partial, RegistryError};

use super::server::{Contents, Reply, Server};
use super::{User, assert_told, parse};

fn download(user: &User, server: &Server) -> (Result<(), RegistryError>, Vec<u8>) {
    let mut bytes = Vec::new();
    let reference = parse(&format!("{}/app", server.host));
    let descriptor = Contents::layer_descriptor();
    let done = user.client().download(&reference, &descriptor, &mut bytes, &|_| ());
    (done, bytes)
}

fn serve_blob(answer: impl Fn(Reply, &[u8], usize) -> Reply + Send + Sync + 'static) -> Server {
    let contents = Contents::image("amd64");
    let sound = contents.clone();
    contents.serve(move |request, before| {
        request
            .path
            .contains("/blobs/")
            .then(|| answer(sound.answer(request), &Contents::layer(), before))
    })
}

#[test]
fn a_blob_arrives_whole_and_progress_counts_up_to_its_size() {
    let server = serve_blob(|reply, _, _| reply);
    let user = User::insecure(&[&server]);
    let (mut bytes, last) = (Vec::new(), std::cell::Cell::new(0));
    let reference = parse(&format!("{}/app", server.host));
    let progress = |count| assert!(last.replace(count) < count);
    user.client()
        .download(&reference, &Contents::layer_descriptor(), &mut bytes, &progress)
        .unwrap();
    assert_eq!((bytes.len() as u64, bytes), (last.get(), Contents::layer()));
}

#[test]
fn a_broken_download_goes_on_where_it_was_with_or_without_ranges() {
    for ranges in [true, false] {
        let server = serve_blob(move |reply, all, before| {
            let reply = if ranges { reply } else { Reply::new(200, all) };
            if before < 2 { reply.cut(100_000 * (before + 1)) } else { reply }
        });
        let user = User::insecure(&[&server]);
        let (done, bytes) = download(&user, &server);
        done.unwrap();
        assert_eq!(bytes, Contents::layer());
        let asked: Vec<_> =
            server.requests().iter().map(|it| it.header("range").map(str::to_owned)).collect();
        assert_eq!((asked.len(), asked[0].as_deref()), (3, None));
        assert_eq!(asked[1].as_deref(), Some("bytes=100000-"));
        assert!(user.notices().iter().any(|it| it.contains("goes on after 100000 bytes")));
    }
}

#[test]
fn a_server_that_refuses_ranges_is_asked_for_the_whole() {
    let contents = Contents::image("amd64");
    let sound = contents.clone();
    let server = contents.serve(move |request, before| match request.header("range") {
        Some(_) => Some(Reply::new(416, "")),
        None if before == 0 && request.path.contains("/blobs/") => {
            Some(sound.answer(request).cut(100_000))
        }
        None => None,
    });
    let user = User::insecure(&[&server]);
    let (done, bytes) = download(&user, &server);
    done.unwrap();
    assert_eq!(bytes, Contents::layer());
    let asked: Vec<_> = server.requests().iter().map(|it| it.header("range").is_some()).collect();
    assert_eq!(asked, [false, true, false]);
}

#[test]
fn a_download_that_creeps_is_given_up() {
    let server = serve_blob(|_, all, before| Reply::new(200, all).cut(before + 1));
    let user = User::insecure(&[&server]);
    let (done, _) = download(&user, &server);
    assert_told(&done.unwrap_err(), &["broke", &server.host]);
    assert_eq!((server.requests().len(), user.waits()), (5, vec![1, 2, 4, 8]));
}

#[test]
fn a_download_that_brings_nothing_new_is_given_up() {
    let server =
        serve_blob(|reply, _, before| if before == 0 { reply.cut(1000) } else { reply.cut(0) });
    let user = User::insecure(&[&server]);
    let (done, bytes) = download(&user, &server);
    assert_told(&done.unwrap_err(), &["broke", &server.host, "hint: "]);
    assert_eq!(bytes, Contents::layer()[..1000]);
    assert_eq!((server.requests().len(), user.waits()), (5, vec![1, 2, 4, 8]));

    // When there is no answer either, the repetitions of the request itself are all there are.
    let server =
        serve_blob(|reply, _, before| if before == 0 { reply.cut(1000) } else { Reply::hang_up() });
    let user = User::insecure(&[&server]);
    let (done, _) = download(&user, &server);
    assert_told(&done.unwrap_err(), &["broke", &server.host]);
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn altered_short_and_long_blobs_are_refused() {
    let alter: [(&str, fn(&mut Vec<u8>)); 3] = [
        ("is altered: expected digest `sha256:", |bytes| bytes[7] ^= 1),
        ("has the wrong size: expected 400000 bytes, got 399999", |bytes| bytes.truncate(399_999)),
        ("has the wrong size: expected 400000 bytes, got 400001", |bytes| bytes.push(0)),
    ];
    for (want, alter) in alter {
        let server = serve_blob(move |_, all, _| {
            let mut bytes = all.to_vec();
            alter(&mut bytes);
            Reply::new(200, bytes)
        });
        let user = User::insecure(&[&server]);
        assert_told(
            &download(&user, &server).0.unwrap_err(),
            &[want, &server.host, "hint: pull again"],
        );

        let reference = parse(&format!("{}/app", server.host));
        let opened = user.client().blob(&reference, &Contents::layer_descriptor(), 0);
        let error = match opened {
            Err(error) => error,
            Ok(mut reader) => {
                let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
                assert!(reader.read(&mut [0]).is_err(), "it stays failed");
                assert_told(RegistryError::of_read(&error).unwrap(), &[want]);
                continue;
            }
        };
        assert_told(&error, &[want]);
    }
}

#[test]
fn a_chunked_blob_without_its_end_mark_is_whole_when_all_bytes_came() {
    for (end, sound) in [("0\r\n\r\n", true), ("", true), ("1\r\nx\r\n0\r\n\r\n", false)] {
        let server = serve_blob(move |_, all, _| {
            let mut body = format!("{:x}\r\n", all.len()).into_bytes();
            body.extend_from_slice(all);
            body.extend_from_slice(b"\r\n");
            body.extend_from_slice(end.as_bytes());
            Reply::new(200, body).header("Transfer-Encoding", "chunked")
        });
        let user = User::insecure(&[&server]);
        let (done, bytes) = download(&user, &server);
        assert_eq!(done.is_ok(), sound, "{end:?}: {done:?}");
        assert!(!sound || bytes == Contents::layer());
        assert!(user.waits().is_empty());
    }
}

#[test]
fn a_download_is_continued_from_what_is_there() {
    let server = serve_blob(|reply, _, _| reply);
    let user = User::insecure(&[&server]);
    let reference = parse(&format!("{}/app", server.host));
    let (all, descriptor) = (Contents::layer(), Contents::layer_descriptor());
    for from in [1, 300_000, 400_000] {
        let (mut rest, mut hasher) = (Vec::new(), Hasher::for_digest(&descriptor.digest));
        hasher.update(&all[..from]);
        let partial = Partial::after(&mut rest, hasher);
        user.client().download_rest(&reference, &descriptor, partial, &|_| ()).unwrap();
        assert_eq!(rest, all[from..], "from {from}");
        let mut rest = Vec::new();
        user.client()
            .blob(&reference, &descriptor, from as u64)
            .unwrap()
            .read_to_end(&mut rest)
            .unwrap();
        assert_eq!(rest, all[from..], "from {from}");
    }
    for damaged in [vec![0; 300_000], vec![0; 400_000], vec![0; 400_001]] {
        let mut hasher = Hasher::for_digest(&descriptor.digest);
        hasher.update(&damaged);
        let mut rest = Vec::new();
        let partial = Partial::after(&mut rest, hasher);
        let error =
            user.client().download_rest(&reference, &descriptor, partial, &|_| ()).unwrap_err();
        let want = if damaged.len() > all.len() { "wrong size" } else { "is altered" };
        assert_told(&error, &[want]);
    }
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let server = serve_blob(|reply, all, before| match before {
        0 => reply.cut(1000),
        _ => Reply::new(206, &all[500..]).header("Content-Range", "bytes 500-399999/400000"),
    });
    let user = User::insecure(&[&server]);
    assert_told(&download(&user, &server).0.unwrap_err(), &["206", "another range"]);
}

#[test]
fn a_full_disk_is_told_as_such() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let server = serve_blob(|reply, _, _| reply);
    let user = User::insecure(&[&server]);
    let reference = parse(&format!("{}/app", server.host));
    let done =
        user.client().download(&reference, &Contents::layer_descriptor(), &mut Full, &|_| ());
    assert_told(&done.unwrap_err(), &["cannot write what was downloaded", "free some space"]);
}

#[test]
fn a_redirected_blob_is_fetched_without_credentials() {
    let storage = Server::start(|_, _| Reply::new(200, Contents::layer()));
    let target = format!("http://u:p@{}/bucket?signature=secret", storage.host);
    let server = Server::start(move |request, _| match request.header("authorization") {
        None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) => Reply::new(307, "").header("Location", target.clone()),
    });
    let user = User::insecure(&[&server]);
    user.write(
        "home/.docker/config.json",
        &format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dTpw\"}}}}}}", server.host),
    );
    let (done, bytes) = download(&user, &server);
    done.unwrap();
    assert_eq!(bytes, Contents::layer());
    assert!(server.requests().iter().any(|it| it.header("authorization") == Some("Basic dTpw")));
    assert!(storage.all().iter().all(|it| it.header("authorization").is_none()));
}

#[test]
fn a_layer_that_the_registry_lacks_is_told_as_a_part() {
    let server = Server::start(|request, _| {
        let status = if request.path == "/v2/" { 200 } else { 404 };
        Reply::new(status, "")
    });
    let user = User::insecure(&[&server]);
    let error = download(&user, &server).0.unwrap_err();
    assert_told(&error, &["sha256:", "not this part of it", "push it again"]);
}

#[test]
fn a_refusal_of_the_storage_is_not_taken_for_one_of_the_registry() {
    for status in [401, 403, 404] {
        let storage = Server::start(move |_, _| Reply::new(status, ""));
        let target = format!("http://{}/bucket?signature=secret", storage.host);
        let server = Server::start(move |request, _| {
            if request.path == "/v2/" {
                Reply::new(200, "")
            } else {
                Reply::new(307, "").header("Location", target.clone())
            }
        });
        let user = User::insecure(&[&server]);
        let error = download(&user, &server).0.unwrap_err();
        assert_told(&error, &[&storage.host, &status.to_string()]);
        let text = super::told(&error);
        assert!(!text.contains("sarus login") && !text.contains("secret"), "{text}");
    }
}

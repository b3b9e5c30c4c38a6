//! References, digests, platforms, manifests and image configurations.

use proptest::prelude::*;
use sarus_oci::manifest::{self, Document, Packing};
use sarus_oci::{Algorithm, Digest, DocumentError, Hasher, ImageConfig, Platform, Reference};

const ZEROS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn zeros() -> Digest {
    Digest::parse(ZEROS).unwrap()
}

#[test]
fn a_reference_is_completed_as_docker_does() {
    let digest = format!("@{ZEROS}");
    for (given, want) in [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("library/debian", "docker.io/library/debian:latest"),
        ("a/b", "docker.io/a/b:latest"),
        ("a/b/c:1", "docker.io/a/b/c:1"),
        ("docker.io/debian", "docker.io/library/debian:latest"),
        ("index.docker.io/debian", "docker.io/library/debian:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        ("docker://debian", "docker.io/library/debian:latest"),
        ("docker://quay.io/a/b:1", "quay.io/a/b:1"),
        ("quay.io/a", "quay.io/a:latest"),
        ("127.0.0.1:5000/name", "127.0.0.1:5000/name:latest"),
        ("127.0.0.1:5000/name:1", "127.0.0.1:5000/name:1"),
        ("localhost/name", "localhost/name:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("Host/a", "Host/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("[2001:db8::1]/a", "[2001:db8::1]/a:latest"),
        ("nvcr.io#nvidia/pytorch:23.01-py3", "nvcr.io/nvidia/pytorch:23.01-py3"),
        ("docker://login#a/b", "login#a/b:latest"),
        ("docker.io#debian", "docker.io/library/debian:latest"),
        ("localhost:5000#a", "localhost:5000/a:latest"),
        ("a__b/c-d/e.f/g_h/i---j", "docker.io/a__b/c-d/e.f/g_h/i---j:latest"),
        ("a:_A.b-C", "docker.io/library/a:_A.b-C"),
    ] {
        assert_eq!(Reference::parse(given).unwrap().to_string(), want, "given {given:?}");
        let with = format!("{given}{digest}");
        let explicit = given.rfind(':') > given.rfind(['/', '#', ']']);
        let name = want.strip_suffix(":latest").filter(|_| !explicit).unwrap_or(want);
        assert_eq!(Reference::parse(&with).unwrap().to_string(), format!("{name}{digest}"));
    }
}

#[test]
fn a_reference_that_breaks_the_grammar_is_refused_with_what_to_do() {
    let long = "a/".repeat(130) + "a";
    let hex = "0".repeat(64);
    let tag = format!("a:{}", "t".repeat(129));
    for (given, want, hint) in [
        ("", "image reference `` names no image", "debian:12"),
        (":1", "image reference `:1` names no image", "debian:12"),
        ("docker://", "image reference `docker://` names no image", "debian:12"),
        ("quay.io/", "image reference `quay.io/` names no image", "debian:12"),
        (
            "https://quay.io/a",
            "image reference `https://quay.io/a` starts with `https://`; expected `docker://` or nothing",
            "leave out the scheme",
        ),
        (
            "Debian:12",
            "image reference `Debian:12`: repository `Debian` has upper-case letters",
            "try `debian:12`",
        ),
        (
            "quay.io/A/b",
            "image reference `quay.io/A/b`: repository `A/b` has upper-case letters",
            "try `quay.io/a/b`",
        ),
        (
            "-x.org/a",
            "image reference `-x.org/a`: `-x.org` is no registry; expected HOST or HOST:PORT",
            "host name",
        ),
        (
            "a.org:x/b",
            "image reference `a.org:x/b`: `a.org:x` is no registry; expected HOST or HOST:PORT",
            "host name",
        ),
        (
            "a..b/c",
            "image reference `a..b/c`: `a..b` is no registry; expected HOST or HOST:PORT",
            "host name",
        ),
        ("[x]/a", "image reference `[x]/a`: `[x]` cannot be a part of a repository", "lower-case"),
        (
            "[::g]:1/a",
            "image reference `[::g]:1/a`: `[::g]:1` is no registry; expected HOST or HOST:PORT",
            "host name",
        ),
        (
            "user@nvcr.io#a",
            "image reference `user@nvcr.io#a`: the part after `@` is no digest",
            "sha256",
        ),
        ("a//b", "image reference `a//b`: `` cannot be a part of a repository", "lower-case"),
        ("a/b_", "image reference `a/b_`: `b_` cannot be a part of a repository", "lower-case"),
        (
            "a/b___c",
            "image reference `a/b___c`: `b___c` cannot be a part of a repository",
            "lower-case",
        ),
        (
            "a/b..c",
            "image reference `a/b..c`: `b..c` cannot be a part of a repository",
            "lower-case",
        ),
        ("a/.", "image reference `a/.`: `.` cannot be a part of a repository", "lower-case"),
        ("a/../b", "image reference `a/../b`: `..` cannot be a part of a repository", "lower-case"),
        ("a b", "image reference `a b`: `a b` cannot be a part of a repository", "lower-case"),
        ("café", "image reference `café`: `café` cannot be a part of a repository", "lower-case"),
        ("a:", "image reference `a:`: `` is no tag", "128 characters"),
        ("a:-b", "image reference `a:-b`: `-b` is no tag", "128 characters"),
        ("a:b c", "image reference `a:b c`: `b c` is no tag", "128 characters"),
        ("a:b:c", "image reference `a:b:c`: `b:c` is no tag", "128 characters"),
        (
            "a@sha256:12",
            "image reference `a@sha256:12`: the part after `@` is no digest",
            "64 hexadecimal",
        ),
        ("a@", "image reference `a@`: the part after `@` is no digest", "64 hexadecimal"),
    ] {
        let error = Reference::parse(given).unwrap_err();
        assert_eq!(error.to_string(), want);
        let said = error.hint().unwrap();
        assert!(said.contains(hint), "given {given:?}: {said}");
    }
    // What is proposed would be taken.
    let hint = Reference::parse("Bad Name!").unwrap_err().hint().unwrap();
    assert!(!hint.contains("bad name!"), "{hint}");
    for (given, want) in [
        (&long, "the name has 271 characters, at most 255 are allowed"),
        (&hex, "is an image id, not a name"),
        (&tag, "is no tag"),
    ] {
        let error = Reference::parse(given).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_reference_knows_its_parts_and_whether_it_was_short() {
    let short = Reference::parse("debian").unwrap();
    let full = Reference::parse("docker.io/library/debian:latest").unwrap();
    assert_eq!(short, full);
    assert_eq!(short.cmp(&full), std::cmp::Ordering::Equal);
    assert!(short.is_short());
    assert!(!full.is_short());
    assert_eq!(short.short_name(), Some("debian"));
    assert_eq!(short.registry(), "docker.io");
    assert_eq!(short.repository(), "library/debian");
    assert_eq!(short.name(), "docker.io/library/debian");
    assert_eq!(short.tag(), Some("latest"));
    assert_eq!(short.digest(), None);
    let pinned = short.with_digest(zeros());
    assert_eq!(pinned.to_string(), format!("docker.io/library/debian:latest@{ZEROS}"));
    assert_eq!(pinned.digest(), Some(&zeros()));
    let moved = pinned.with_registry("quay.io:443").unwrap();
    assert_eq!(moved.to_string(), format!("quay.io:443/debian:latest@{ZEROS}"));
    assert!(!moved.is_short());
    assert_eq!(moved.with_registry("docker.io").unwrap().repository(), "library/debian");
    assert_eq!(short.renamed("a.org/x/y").unwrap().to_string(), "a.org/x/y:latest");
    for registry in ["", "a b", "http://x"] {
        assert!(short.with_registry(registry).is_err(), "given {registry:?}");
    }
    assert!(short.renamed("x").is_err());
    assert!(short.renamed(&format!("a.org/{}", "x".repeat(300))).is_err());
    assert_eq!(format!("{short:?}"), "Reference(docker.io/library/debian:latest)");
}

#[test]
fn names_travel_through_json_as_text() {
    let reference: Reference = serde_json::from_str("\"debian:12\"").unwrap();
    assert_eq!(serde_json::to_string(&reference).unwrap(), "\"docker.io/library/debian:12\"");
    assert!(serde_json::from_str::<Reference>("\"A\"").is_err());
    let digest: Digest = serde_json::from_str(&format!("\"{ZEROS}\"")).unwrap();
    assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{ZEROS}\""));
    assert!(serde_json::from_str::<Digest>("\"sha256:1\"").is_err());
    let platform: Platform = serde_json::from_str("\"linux/aarch64\"").unwrap();
    assert_eq!(serde_json::to_string(&platform).unwrap(), "\"linux/arm64\"");
    assert!(serde_json::from_str::<Platform>("\"linux\"").is_err());
}

#[test]
fn a_digest_is_parsed_strictly() {
    let hex64 = "a".repeat(64);
    let hex128 = "b".repeat(128);
    for (given, want) in [
        (format!("sha256:{hex64}"), "ok"),
        (format!("sha512:{hex128}"), "ok"),
        (hex64.clone(), "is no digest: expected `sha256:` and 64 hexadecimal digits"),
        (
            format!("md5:{hex64}"),
            "`md5` is no known digest algorithm: expected `sha256` or `sha512`",
        ),
        (format!("sha512:{hex64}"), "a sha512 digest has 128 hexadecimal digits, got 64"),
        ("sha256:".to_owned(), "a sha256 digest has 64 hexadecimal digits, got 0"),
        (format!("sha256:{}", "A".repeat(64)), "`A` is no lower-case hexadecimal digit"),
        (format!("sha256:{}/", "a".repeat(63)), "`/` is no lower-case hexadecimal digit"),
    ] {
        match Digest::parse(&given) {
            Ok(digest) => {
                assert_eq!(want, "ok", "given {given}");
                assert_eq!(digest.to_string(), given);
                assert_eq!(format!("{}:{}", digest.algorithm().as_str(), digest.hex()), given);
            }
            Err(error) => assert!(error.to_string().ends_with(want), "{error}"),
        }
    }
}

#[test]
fn digests_are_those_of_the_standard() {
    let sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                  2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    assert_eq!(Digest::sha256_of(b"abc").to_string(), sha256);
    for (text, algorithm) in [(sha256, Algorithm::Sha256), (sha512, Algorithm::Sha512)] {
        let digest: Digest = text.parse().unwrap();
        assert!(digest.matches(b"abc"));
        assert!(!digest.matches(b"abd"));
        let mut hasher = Hasher::new(algorithm);
        std::io::copy(&mut &b"ab"[..], &mut hasher).unwrap();
        hasher.update(b"c");
        assert_eq!(hasher.bytes(), 3);
        assert_eq!(hasher.finish(), digest);
    }
}

#[test]
fn a_platform_has_one_normal_form() {
    for (given, want) in [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i686", "linux/386"),
        ("linux/ppc64le", "linux/ppc64le"),
        ("linux/riscv64", "linux/riscv64"),
    ] {
        assert_eq!(given.parse::<Platform>().unwrap().to_string(), want, "given {given}");
    }
    for given in ["", "linux", "linux/", "/amd64", "linux/amd64/v2/x", "linux/a b", "linux/amd64/"]
    {
        let error = Platform::parse(given).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{given}` is no platform")), "{error}");
    }
    let host = Platform::host();
    assert_eq!(host.os(), std::env::consts::OS);
    assert_eq!(host, host.to_string().parse().unwrap());
}

#[test]
fn older_variants_run_and_other_architectures_do_not() {
    for (host, image, want) in [
        ("linux/amd64", "linux/amd64", Some(0)),
        ("linux/amd64", "linux/amd64/v2", None),
        ("linux/amd64/v3", "linux/amd64", Some(200)),
        ("linux/amd64/v3", "linux/amd64/v2", Some(100)),
        ("linux/amd64/v3", "linux/amd64/v4", None),
        ("linux/amd64", "linux/386", None),
        ("linux/amd64", "windows/amd64", None),
        ("linux/arm64", "linux/arm64/v8", Some(0)),
        ("linux/arm64", "linux/arm/v7", None),
        ("linux/arm64/v9", "linux/arm64", Some(100)),
        ("linux/arm64/v8.2", "linux/arm64/v8.1", Some(1)),
        ("linux/arm", "linux/arm/v6", Some(100)),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/arm/v6", "linux/arm/odd", None),
        ("linux/ppc64le", "linux/ppc64le/power9", None),
        ("linux/ppc64le/power9", "linux/ppc64le/power9", Some(0)),
    ] {
        let (host, image): (Platform, Platform) = (host.parse().unwrap(), image.parse().unwrap());
        assert_eq!(host.distance(&image), want, "{image} on {host}");
        assert_eq!(host.accepts(&image), want.is_some());
    }
}

fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{ZEROS}","size":1}}"#)
}

const CONFIG: &str = manifest::OCI_CONFIG;
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[test]
fn a_manifest_is_told_from_an_index_by_what_it_says_then_how_it_came_then_its_fields() {
    let fields = format!(r#""config":{},"layers":[{}]"#, descriptor(CONFIG), descriptor(LAYER));
    let docker_fields = format!(
        r#""config":{},"layers":[{}]"#,
        descriptor(manifest::DOCKER_CONFIG),
        descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip")
    );
    let entries = r#""manifests":[]"#;
    let said = |media_type: &str| format!(r#","mediaType":"{media_type}""#);
    for (text, content_type, want) in [
        (format!(r#"{{"schemaVersion":2,{fields}}}"#), None, "manifest"),
        (format!("\n {{\n\t\"schemaVersion\" : 2 ,\n{fields}\n}}\n\n"), None, "manifest"),
        (format!(r#"{{"schemaVersion":2,{fields}}}"#), Some(manifest::OCI_MANIFEST), "manifest"),
        (format!(r#"{{"schemaVersion":2,{fields}}}"#), Some(manifest::DOCKER_MANIFEST), "manifest"),
        (format!(r#"{{"schemaVersion":2,{fields}}}"#), Some("application/json"), "manifest"),
        (
            format!(r#"{{"schemaVersion":2,{docker_fields}{}}}"#, said(manifest::OCI_MANIFEST)),
            Some("text/plain; charset=utf-8"),
            "manifest",
        ),
        (
            format!(r#"{{"schemaVersion":2,{fields}{}}}"#, said(manifest::DOCKER_MANIFEST)),
            Some(manifest::OCI_INDEX),
            "manifest",
        ),
        (format!(r#"{{"schemaVersion":2,{entries}}}"#), None, "index"),
        (format!(r#"{{"schemaVersion":2,{entries}}}"#), Some(manifest::DOCKER_INDEX), "index"),
        (format!(r#"{{"schemaVersion":2,{entries}{}}}"#, said(manifest::OCI_INDEX)), None, "index"),
        (
            format!(r#"{{"schemaVersion":2,{fields},{entries}}}"#),
            Some(manifest::OCI_INDEX),
            "the document is a manifest and an index at the same time",
        ),
        (
            r#"{"schemaVersion":2}"#.to_owned(),
            None,
            "the document is neither a manifest nor an index",
        ),
        (
            format!(r#"{{"schemaVersion":2,{fields}}}"#),
            Some(manifest::OCI_INDEX),
            "the image index cannot be read",
        ),
        (
            format!(r#"{{"schemaVersion":2,{fields}{}}}"#, said("application/x-odd")),
            None,
            "`application/x-odd` is no media type of an image manifest or index",
        ),
        (
            r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
            None,
            "the manifest is of Docker's schema 1, which is obsolete and not supported",
        ),
        (
            r#"{"schemaVersion":1}"#.to_owned(),
            Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            "the manifest is of Docker's schema 1, which is obsolete and not supported",
        ),
        (
            r#"{"schemaVersion":1,"name":"x"}"#.to_owned(),
            None,
            "the manifest is of Docker's schema 1, which is obsolete and not supported",
        ),
        (
            format!(r#"{{"schemaVersion":3,{fields}}}"#),
            None,
            "the manifest has `schemaVersion` 3, expected 2",
        ),
        (format!("{{{fields}}}"), None, "the manifest has `schemaVersion` missing, expected 2"),
        ("<html>".to_owned(), None, "the manifest cannot be read"),
        ("[]".to_owned(), None, "the manifest cannot be read"),
        (String::new(), None, "the manifest cannot be read"),
        (
            format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#,
                descriptor("application/vnd.cncf.helm.config.v1+json")
            ),
            None,
            "the manifest is that of an artifact of type `application/vnd.cncf.helm.config.v1+json`, not of a container image",
        ),
        (
            format!(
                r#"{{"schemaVersion":2,"artifactType":"application/x-model","config":{},"layers":[]}}"#,
                descriptor("application/vnd.oci.empty.v1+json")
            ),
            None,
            "the manifest is that of an artifact of type `application/x-model`, not of a container image",
        ),
        (
            format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
                descriptor(CONFIG),
                descriptor("application/vnd.in-toto+json")
            ),
            None,
            &format!(
                "layer `{ZEROS}` has media type `application/vnd.in-toto+json`, which is not supported"
            ),
        ),
    ] {
        let got = match Document::parse(text.as_bytes(), content_type) {
            Ok(Document::Manifest(manifest)) => {
                assert_eq!(manifest.layers.len(), 1);
                assert_eq!((manifest.config.size, &manifest.config.digest), (1, &zeros()));
                "manifest".to_owned()
            }
            Ok(Document::Index(_)) => "index".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want, "given {text} as {content_type:?}");
    }
}

#[test]
fn descriptors_with_impossible_values_are_refused() {
    for (bad, want) in [
        (r#"{"mediaType":"x","digest":"sha256:1","size":1}"#, "hexadecimal digits, got 1"),
        (&format!(r#"{{"mediaType":"x","digest":"{ZEROS}","size":-1}}"#), "invalid value"),
        (&format!(r#"{{"mediaType":"x","digest":"{ZEROS}"}}"#), "missing field `size`"),
        (&format!(r#"{{"digest":"{ZEROS}","size":1}}"#), "missing field `mediaType`"),
    ] {
        let text = format!(r#"{{"schemaVersion":2,"config":{bad},"layers":[]}}"#);
        let error = Document::parse(text.as_bytes(), None).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(want), "{cause}");
    }
}

#[test]
fn layers_of_all_known_packings_are_accepted() {
    for (media_type, want) in [
        ("application/vnd.oci.image.layer.v1.tar", Some(Packing::Plain)),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Packing::Gzip)),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Packing::Zstd)),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Packing::Gzip)),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Packing::Gzip)),
        ("application/vnd.docker.image.rootfs.diff.tar", Some(Packing::Plain)),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(Packing::Zstd)),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Packing::Gzip)),
        ("application/vnd.oci.image.layer.v1.tar+gzip; x=y", Some(Packing::Gzip)),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
        ("text/plain", None),
    ] {
        assert_eq!(manifest::packing(media_type), want, "given {media_type}");
    }
}

fn index(entries: &[&str]) -> manifest::Index {
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    match Document::parse(text.as_bytes(), None).unwrap() {
        Document::Index(index) => index,
        Document::Manifest(_) => unreachable!("{text}"),
    }
}

fn entry(number: u8, platform: &str) -> String {
    let digest = Digest::sha256_of(&[number]);
    format!(
        r#"{{"mediaType":"{}","digest":"{digest}","size":1{platform}}}"#,
        manifest::OCI_MANIFEST
    )
}

#[test]
fn the_nearest_platform_of_an_index_is_selected() {
    let on = |architecture: &str, variant: &str| {
        format!(
            r#","platform":{{"os":"linux","architecture":"{architecture}","variant":"{variant}"}}"#
        )
    };
    let entries = [
        entry(0, r#","platform":{"os":"unknown","architecture":"unknown"}"#),
        entry(1, &on("amd64", "v2")),
        entry(2, &on("amd64", "")),
        entry(3, &on("arm", "v6")),
        entry(4, &on("arm", "v7")),
        entry(5, &on("arm64", "v8")),
        entry(6, r#","platform":{"os":"windows","architecture":"amd64","os.version":"10.0"}"#),
        entry(7, &on("amd64", "")),
        entry(
            8,
            &format!(
                r#"{},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}"#,
                on("s390x", "")
            ),
        ),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let index = index(&entries);
    for (wanted, number) in [
        ("linux/amd64", 2),
        ("linux/amd64/v3", 1),
        ("linux/arm", 4),
        ("linux/arm/v6", 3),
        ("linux/arm64", 5),
        ("windows/amd64", 6),
    ] {
        let selected = index.select(&wanted.parse().unwrap()).unwrap();
        assert_eq!(selected.digest, Digest::sha256_of(&[number]), "wanted {wanted}");
    }
    let error = index.select(&"linux/s390x".parse().unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no image for platform `linux/s390x`; available: `linux/amd64/v2`, `linux/amd64`, \
         `linux/arm/v6`, `linux/arm/v7`, `linux/arm64`, `windows/amd64`"
    );
    assert!(error.hint().unwrap().contains("--platform linux/amd64/v2"));
}

#[test]
fn entries_without_a_platform_come_last() {
    let amd64 = r#","platform":{"os":"linux","architecture":"amd64"},"annotations":null"#;
    let entries = [
        entry(1, ""),
        entry(2, amd64),
        entry(3, r#","platform":null"#),
        entry(4, r#","platform":{}"#),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let index = index(&entries);
    let candidates = index.candidates(&"linux/amd64".parse().unwrap());
    let numbers: Vec<_> = [2, 1, 3, 4].map(|number| Digest::sha256_of(&[number])).into();
    assert_eq!(candidates.iter().map(|it| it.digest.clone()).collect::<Vec<_>>(), numbers);
    let empty = self::index(&[]).select(&"linux/amd64".parse().unwrap()).unwrap_err();
    assert_eq!(empty.to_string(), "no image for platform `linux/amd64`; available: none");
    assert_eq!(empty.hint(), None);
}

#[test]
fn errors_of_documents_say_what_to_do() {
    let digest = zeros();
    let encrypted = "application/vnd.oci.image.layer.v1.tar+encrypted".to_owned();
    for (error, want) in [
        (DocumentError::Schema1, "push the image again"),
        (DocumentError::Artifact { artifact_type: "x".to_owned() }, "name a container image"),
        (DocumentError::Layer { digest: digest.clone(), media_type: encrypted }, "decrypt"),
    ] {
        let hint = error.hint().unwrap();
        assert!(hint.contains(want), "{hint}");
    }
    assert_eq!(DocumentError::Layer { digest, media_type: String::new() }.hint(), None);
}

#[test]
fn a_descriptor_survives_json() {
    let on =
        r#","platform":{"os":"linux","architecture":"arm","variant":"v7"},"annotations":{"a":"b"}"#;
    let entries = index(&[&entry(1, on), &entry(2, "")]).manifests;
    for descriptor in entries {
        let text = serde_json::to_string(&descriptor).unwrap();
        let again: manifest::Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(again, descriptor, "{text}");
    }
}

#[test]
fn an_image_configuration_may_lack_anything() {
    for text in [
        "{}",
        r#"{"config":null,"rootfs":null,"history":null,"created":null,"architecture":null}"#,
        r#"{"config":{"Env":null,"Cmd":null,"Entrypoint":null,"Labels":null,"Volumes":null,
            "ExposedPorts":null,"User":null,"WorkingDir":null,"StopSignal":null},
            "rootfs":{"type":"layers","diff_ids":null},"history":[],"odd":{"x":[1]}}"#,
    ] {
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap(), ImageConfig::default(), "{text}");
    }
    assert_eq!(ImageConfig::default().platform(), None);
}

#[test]
fn an_image_configuration_is_read_in_full() {
    let text = format!(
        r#"{{"created":"2024-01-01T00:00:00Z","author":"me","architecture":"arm64","os":"linux",
        "variant":"v8","config":{{"User":"1000:100","Env":["A=1","B=2=3"],"Entrypoint":["/e"],
        "Cmd":[],"WorkingDir":"/w","Labels":{{"l":"v"}},"StopSignal":"SIGINT",
        "Volumes":{{"/v2":{{}},"/v1":{{}}}},"ExposedPorts":{{"80/tcp":{{}}}},"ArgsEscaped":true}},
        "rootfs":{{"type":"layers","diff_ids":["{ZEROS}"]}},
        "history":[{{"created_by":"RUN x","empty_layer":true}},{{"comment":"c","empty_layer":null}}]}}"#
    );
    let config = ImageConfig::parse(text.as_bytes()).unwrap();
    assert_eq!(config.platform().unwrap().to_string(), "linux/arm64");
    assert_eq!(config.config.env, ["A=1", "B=2=3"]);
    assert_eq!(config.config.entrypoint, Some(vec!["/e".to_owned()]));
    assert_eq!(config.config.cmd, Some(vec![]));
    assert_eq!(config.config.user.as_deref(), Some("1000:100"));
    assert_eq!(config.config.working_dir.as_deref(), Some("/w"));
    assert_eq!(config.config.labels["l"], "v");
    assert_eq!(config.config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.config.volumes, ["/v1", "/v2"]);
    assert_eq!(config.config.exposed_ports, ["80/tcp"]);
    assert_eq!(config.diff_ids, [zeros()]);
    assert_eq!(config.history.len(), 2);
    assert!(config.history[0].empty_layer);
    let again = ImageConfig::parse(&serde_json::to_vec(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    for bad in ["[]", "{", r#"{"config":{"Env":"A=1"}}"#, r#"{"rootfs":{"diff_ids":["x"]}}"#] {
        let error = ImageConfig::parse(bad.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "image configuration cannot be read", "given {bad}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_what_is_parsed_is_stable(text in "\\PC{0,40}|[a-z0-9:/@#._-]{0,40}") {
        if let Ok(reference) = Reference::parse(&text) {
            let again = Reference::parse(&reference.to_string()).unwrap();
            prop_assert_eq!(&again, &reference);
            prop_assert_eq!(again.to_string(), reference.to_string());
        }
        drop(Document::parse(text.as_bytes(), Some(&text)));
        drop(Platform::parse(&text));
    }
}

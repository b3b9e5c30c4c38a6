//! Signatures beside an image: where they are looked for, and what comes of it.

use std::fmt::Write as _;

use sarus_registry::{RegistryError, Signatures};
use serde_json::json;

use super::server::{Contents, Server};
use super::{User, assert_told, parse};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with an image and what is attached to it: two signatures and something else.
fn signed(media_type: &str) -> (Contents, String) {
    signed_by(media_type, &["one", "two"])
}

fn signed_by(media_type: &str, payloads: &[&str]) -> (Contents, String) {
    let mut contents = Contents::image("amd64");
    let mut layers = vec![contents.blob("application/vnd.dsse.envelope.v1+json", b"other")];
    for payload in payloads {
        let mut layer = contents.blob(PAYLOAD, payload.as_bytes());
        layer["annotations"] = json!({ "key": payload });
        layers.push(layer);
    }
    let config = contents.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let document = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let document = contents.document(media_type, document.to_string().as_bytes());
    let tag = format!("sha256-{}.sig", contents.digest_of("latest").hex());
    contents.tag(&tag, &document);
    (contents, tag)
}

/// What is found beside `app` there.
fn find(user: &User, server: &Server) -> Result<Signatures, RegistryError> {
    let reference = parse(&format!("{}/app:latest", server.host));
    let digest = Contents::image("amd64").digest_of("latest");
    user.client().signatures(&reference, &digest)
}

fn attach(user: &User, servers: &[&Server]) {
    let mut text = "docker:\n".to_owned();
    for server in servers {
        writeln!(text, "  {}:\n    use-sigstore-attachments: true", server.host).unwrap();
    }
    user.write("etc/containers/registries.d/tests.yaml", &text);
}

#[test]
fn signatures_are_looked_for_where_registries_d_says_so() {
    let (contents, tag) = signed(MANIFEST);
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    let found = find(&user, &server).unwrap();
    assert!(found.found.is_empty());
    assert!(found.not_sought.unwrap().contains(&format!("{}/app", server.host)));
    assert!(server.requests().is_empty(), "nobody was asked");

    attach(&user, &[&server]);
    let Signatures { found, not_sought } = find(&user, &server).unwrap();
    assert_eq!(not_sought, None);
    let payloads: Vec<_> =
        found.iter().map(|it| (&it.payload[..], &it.annotations["key"])).collect();
    assert_eq!(payloads, [(&b"one"[..], &"one".to_owned()), (b"two", &"two".to_owned())]);
    assert_eq!(server.paths()[0], format!("GET /v2/app/manifests/{tag}"));
    assert_eq!(server.paths().len(), 3, "other attachments are not fetched");

    // A user's directory takes the place of the system's.
    user.write("home/.config/containers/registries.d/mine.yaml", "docker: {}\n");
    assert!(find(&user, &server).unwrap().not_sought.is_some());
    user.write("home/.config/containers/registries.d/mine.yaml", "docker: [\n");
    assert_told(&find(&user, &server).unwrap_err(), &["mine.yaml"]);
}

#[test]
fn signatures_that_are_too_many_to_look_at_are_told() {
    let (contents, _) = signed_by(MANIFEST, &["one"; 130]);
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    attach(&user, &[&server]);
    let Signatures { found, not_sought } = find(&user, &server).unwrap();
    assert_eq!(found.len(), 128);
    let told = not_sought.unwrap();
    assert!(told.contains("130") && told.contains("128"), "{told}");
}

#[test]
fn an_image_without_signatures_has_none_and_a_broken_one_is_an_error() {
    let server = Contents::image("amd64").serve(|_, _| None);
    let user = User::insecure(&[&server]);
    attach(&user, &[&server]);
    assert_eq!(find(&user, &server).unwrap(), Signatures::default());

    let (contents, _) = signed("application/vnd.oci.image.index.v1+json");
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    attach(&user, &[&server]);
    assert_told(&find(&user, &server).unwrap_err(), &["cannot use the image", "image.index"]);

    let (mut contents, _) = signed(MANIFEST);
    contents.blobs.values_mut().for_each(|bytes| bytes.reverse());
    let server = contents.serve(|_, _| None);
    let user = User::insecure(&[&server]);
    attach(&user, &[&server]);
    assert_told(&find(&user, &server).unwrap_err(), &["is altered"]);
}

#[test]
fn a_mirror_without_the_signatures_is_passed_over() {
    let (contents, _) = signed(MANIFEST);
    let origin = contents.serve(|_, _| None);
    let mirror = Contents::image("amd64").serve(|_, _| None);
    let user = User::new();
    let rule = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        origin.host, mirror.host
    );
    user.write("etc/containers/registries.conf", &rule);
    attach(&user, &[&origin, &mirror]);
    assert_eq!(find(&user, &origin).unwrap().found.len(), 2);
    assert!(!mirror.requests().is_empty());
    // Where only the mirror is to be asked, the origin is not.
    attach(&user, &[&mirror]);
    let before = origin.requests().len();
    assert_eq!(find(&user, &origin).unwrap(), Signatures::default());
    assert_eq!(origin.requests().len(), before);
}

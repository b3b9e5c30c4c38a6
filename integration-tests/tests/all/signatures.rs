//! The signature policy: what `sarus pull` lets in and keeps out, on the signatures that a
//! registry keeps as cosign puts them there. Each verdict is compared with skopeo's, by the same
//! files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sarus_integration_tests::{
    FakeRegistry, Image, Packed, Registry, Reply, Session, Tar, Who, sha256,
};
use serde_json::{Value, json};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn image(content: &str) -> Packed {
    Image::new().layer(&Tar::new().file("content", content)).pack()
}

/// A payload, and the signature over it in base64.
type Signed = (Vec<u8>, String);

/// A key pair as cosign makes it, without its password.
struct Signer {
    directory: PathBuf,
}

impl Signer {
    fn new(session: &Session, name: &str) -> Self {
        let directory = session.directory().join(name);
        fs_err::create_dir(&directory).unwrap();
        let signer = Self { directory };
        signer.openssl(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            "key",
        ]);
        signer.openssl(&["pkey", "-in", "key", "-pubout", "-out", "cosign.pub"]);
        signer
    }

    fn openssl(&self, words: &[&str]) -> Vec<u8> {
        let mut command = Command::new("openssl");
        command.args(words).current_dir(&self.directory).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn public(&self) -> PathBuf {
        self.directory.join("cosign.pub")
    }

    fn fingerprint(&self) -> String {
        sha256(&self.openssl(&["pkey", "-pubin", "-in", "cosign.pub", "-outform", "DER"]))
    }

    /// A payload with the signature over it.
    fn sign(&self, payload: &[u8]) -> Signed {
        fs_err::write(self.directory.join("payload"), payload).unwrap();
        let signature = self.openssl(&["dgst", "-sha256", "-sign", "key", "payload"]);
        (payload.to_vec(), STANDARD.encode(signature))
    }
}

fn payload(name: &str, digest: &str) -> Vec<u8> {
    let critical = json!({
        "identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    });
    json!({"critical": critical, "optional": null}).to_string().into_bytes()
}

/// The manifest that holds signatures, and its blobs.
fn attached(signatures: &[Signed]) -> Packed {
    let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut describe = |media_type: &str, bytes: &[u8]| {
        blobs.insert(sha256(bytes), bytes.to_vec());
        json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
    };
    let mut layers = Vec::new();
    for (payload, signature) in signatures {
        let mut layer = describe(PAYLOAD, payload);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
        layers.push(layer);
    }
    let config = describe("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    Packed { blobs, manifests: vec![(MANIFEST.to_owned(), manifest.to_string().into_bytes())] }
}

fn signature_tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// A policy that asks for signatures by this key in the registries of the loopback interface.
fn policy(key: &Path, identity: Option<Value>) -> String {
    let mut requirement = json!({"type": "sigstoreSigned", "keyPath": key});
    if let Some(identity) = identity {
        requirement["signedIdentity"] = identity;
    }
    json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {"": [requirement]}},
    })
    .to_string()
}

fn attach(session: &Session, host: &str) {
    let text = format!("docker:\n  {host}:\n    use-sigstore-attachments: true\n");
    session.write(".config/containers/registries.d/tests.yaml", text);
}

/// Asserts that skopeo, by the same files, comes to the same verdict. Debian builds one that
/// reads policies and finds signatures, and verifies none.
fn assert_skopeo(session: &Session, reference: &str, accepts: bool) {
    let target = session.home().join("copied");
    let output = session
        .program(["skopeo", "copy", "--quiet", "--src-tls-verify=false"])
        .args([format!("docker://{reference}"), format!("dir:{}", target.display())])
        .env("XDG_RUNTIME_DIR", session.home())
        .run();
    if target.exists() {
        fs_err::remove_dir_all(target).unwrap();
    }
    if !output.stderr.contains("sigstore disabled") {
        assert_eq!(output.code() == Some(0), accepts, "skopeo and {reference}: {output}");
    }
}

#[test]
fn a_signed_image_is_let_in_and_the_decision_is_shown() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    attach(&session, registry.host());
    let signer = Signer::new(&session, "ours");
    let image = image("signed");
    let reference = registry.push("team/app:1", &image);
    let signature = signer.sign(&payload(&reference, &image.digest()));
    registry.push(&format!("team/app:{}", signature_tag(&image.digest())), &attached(&[signature]));
    let file = session.write(".config/containers/policy.json", policy(&signer.public(), None));

    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    let shown = session.sarus(["inspect", &reference]).run();
    let shown: Value = serde_json::from_str(shown.ok()).unwrap();
    let want = json!([{
        "name": reference, "policy": file, "scope": "docker:",
        "requirements": [{
            "type": "sigstoreSigned", "key": signer.public(),
            "keyFingerprint": signer.fingerprint(), "identity": reference,
            "manifest": image.digest(),
        }],
    }]);
    assert_eq!(shown[0]["admissions"], want);
    assert_skopeo(&session, &reference, true);

    // What is in the store already is not let in by that.
    session.write(".config/containers/policy.json", r#"{"default": [{"type": "reject"}]}"#);
    let refused = session.sarus(["pull", "--quiet", &reference]).run();
    refused.explains(125, &["policy.json", &reference, "reject"]);
    assert_skopeo(&session, &reference, false);
}

/// How an image is signed, and what comes of it.
struct Case {
    name: &'static str,
    /// Signatures for an image, given its reference and digest.
    sign: fn(&Signers, &str, &str) -> Vec<Signed>,
    identity: Option<Value>,
    /// What the refusal says; none if the image is let in.
    refused: Option<&'static str>,
}

struct Signers {
    ours: Signer,
    other: Signer,
}

fn cases() -> Vec<Case> {
    let case = |name, refused, sign| Case { name, sign, identity: None, refused };
    vec![
        case("good", None, |by, name, digest| vec![by.ours.sign(&payload(name, digest))]),
        case("none", Some("no signature was found"), |_, _, _| Vec::new()),
        case("otherkey", Some("not by a key"), |by, name, digest| {
            vec![by.other.sign(&payload(name, digest))]
        }),
        case("second", None, |by, name, digest| {
            let payload = payload(name, digest);
            vec![by.other.sign(&payload), by.ours.sign(&payload)]
        }),
        case("otherimage", Some("another manifest"), |by, name, _| {
            vec![by.ours.sign(&payload(name, &sha256(b"another image")))]
        }),
        case("othertag", Some("`signedIdentity` does not accept"), |by, name, digest| {
            vec![by.ours.sign(&payload(&format!("{name}2"), digest))]
        }),
        case("notag", Some("`signedIdentity` does not accept"), |by, name, digest| {
            vec![by.ours.sign(&payload(name.rsplit_once(':').unwrap().0, digest))]
        }),
        Case {
            identity: Some(json!({"type": "matchRepository"})),
            ..case("repository", None, |by, name, digest| {
                vec![by.ours.sign(&payload(name.rsplit_once(':').unwrap().0, digest))]
            })
        },
        Case {
            identity: Some(json!({"type": "exactRepository", "dockerRepository": "up.org/app"})),
            ..case("upstream", None, |by, _, digest| {
                vec![by.ours.sign(&payload("up.org/app:7", digest))]
            })
        },
        Case {
            identity: Some(json!({"type": "exactReference", "dockerReference": "up.org/app:7"})),
            ..case("exact", Some("`signedIdentity`"), |by, _, digest| {
                vec![by.ours.sign(&payload("up.org/app:8", digest))]
            })
        },
        case("malformed", Some("its payload is malformed"), |by, name, digest| {
            let text = String::from_utf8(payload(name, digest)).unwrap();
            vec![by.ours.sign(text.replacen('{', "{\"more\": 1, ", 1).as_bytes())]
        }),
        case("twice", Some("is there twice"), |by, name, digest| {
            let text = String::from_utf8(payload(name, digest)).unwrap();
            vec![by.ours.sign(text.replacen('{', "{\"optional\": {}, ", 1).as_bytes())]
        }),
        case("tampered", Some("was altered"), |by, name, digest| {
            let (mut payload, signature) = by.ours.sign(&payload(name, digest));
            payload.push(b'\n');
            vec![(payload, signature)]
        }),
        case("garbage", Some("not by a key"), |by, name, digest| {
            vec![(by.ours.sign(&payload(name, digest)).0, STANDARD.encode("signature"))]
        }),
        case("nobase64", Some("no base64"), |by, name, digest| {
            vec![(by.ours.sign(&payload(name, digest)).0, "?".to_owned())]
        }),
    ]
}

#[test]
fn signatures_are_accepted_and_refused_as_skopeo_does() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    attach(&session, registry.host());
    let by = Signers { ours: Signer::new(&session, "ours"), other: Signer::new(&session, "other") };
    for Case { name, sign, identity, refused } in cases() {
        let image = image(name);
        let reference = registry.push(&format!("{name}:1"), &image);
        let signatures = sign(&by, &reference, &image.digest());
        if !signatures.is_empty() {
            let tag = format!("{name}:{}", signature_tag(&image.digest()));
            registry.push(&tag, &attached(&signatures));
        }
        let policy = policy(&by.ours.public(), identity);
        session.write(".config/containers/policy.json", policy);
        let output = session.sarus(["pull", "--quiet", &reference]).run();
        match refused {
            None => assert_eq!(output.ok(), format!("{}\n", image.digest()), "{name}"),
            Some(reason) => output.explains(125, &[&reference, "policy.json", reason, "docker:"]),
        }
        assert_skopeo(&session, &reference, refused.is_none());
    }
    let listed = session.sarus(["images", "--format", "json"]).run();
    let listed: Vec<Value> = serde_json::from_str(listed.ok()).unwrap();
    assert_eq!(listed.len(), 4, "what was refused is not in the store: {listed:?}");
}

#[test]
fn of_an_index_the_platforms_manifest_must_be_signed() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    attach(&session, registry.host());
    let signer = Signer::new(&session, "ours");
    let image = image("indexed");
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let index = Packed::index(sarus_integration_tests::Dialect::Oci, &[(Some(host), &image)]);
    let reference = registry.push("app:1", &index);
    session.write(".config/containers/policy.json", policy(&signer.public(), None));
    let sign = |digest: &str| {
        let signature = signer.sign(&payload(&reference, digest));
        registry.push(&format!("app:{}", signature_tag(digest)), &attached(&[signature]));
    };
    sign(&index.digest());
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    output.explains(125, &["no signature was found", "--recursive"]);
    assert_skopeo(&session, &reference, false);
    sign(&image.digest());
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    assert_skopeo(&session, &reference, true);
}

#[test]
fn signatures_are_looked_for_only_where_registries_d_says_so() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let signer = Signer::new(&session, "ours");
    let image = image("x");
    let reference = registry.push("app:1", &image);
    let signature = signer.sign(&payload(&reference, &image.digest()));
    registry.push(&format!("app:{}", signature_tag(&image.digest())), &attached(&[signature]));
    session.write(".config/containers/policy.json", policy(&signer.public(), None));
    let refused = session.sarus(["pull", "--quiet", &reference]).run();
    refused.explains(125, &["no signature was found", "use-sigstore-attachments", "registries.d"]);
    assert_skopeo(&session, &reference, false);
    attach(&session, registry.host());
    session.sarus(["pull", "--quiet", &reference]).run().ok();
    assert_skopeo(&session, &reference, true);
}

#[test]
fn nothing_of_a_layer_is_fetched_before_the_policy_lets_the_image_in() {
    let image = image("x");
    let session = Session::new(Who::User);
    let (ours, other) = (Signer::new(&session, "ours"), Signer::new(&session, "other"));
    let signature = other.sign(&payload("localhost/app:1", &image.digest()));
    let signatures = attached(&[signature]);
    let tag = signature_tag(&image.digest());
    let served = signatures.clone();
    let registry = FakeRegistry::serve(image.clone(), move |request| {
        if request.path.ends_with(&tag) {
            let (media_type, bytes) = served.top();
            return Some(Reply::new(200, bytes).header("Content-Type", media_type));
        }
        let digest = request.path.rsplit('/').next().unwrap();
        served.blobs.get(digest).map(|blob| Reply::new(200, blob))
    });
    session.trust(&[registry.host()]);
    attach(&session, registry.host());
    session.write(".config/containers/policy.json", policy(&ours.public(), None));
    let reference = format!("{}/app:1", registry.host());
    let refused = session.sarus(["pull", "--quiet", &reference]).run();
    refused.explains(125, &["not by a key"]);
    let asked = |digest: &str| registry.requests().iter().any(|it| it.path.ends_with(digest));
    assert!(signatures.blobs.keys().any(|digest| asked(digest)), "the signature was looked at");
    assert!(!asked(&image.layer_digests()[0]), "a layer was fetched");
    assert!(!session.home().join(".local/share/sarus").exists(), "the store is untouched");
}

#[test]
fn a_broken_policy_lets_nothing_in() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("app:1", &image("x"));
    for (text, want) in [
        ("{", "line 1"),
        (r#"{"default": [{"type": "insecureAcceptAnything", "more": 1}]}"#, "unknown key `more`"),
        (r#"{"default": [{"type": "insecureAcceptAnything"}], "transport": {}}"#, "`transport`"),
    ] {
        session.write(".config/containers/policy.json", text);
        let refused = session.sarus(["pull", "--quiet", &reference]).run();
        refused.explains(125, &["policy.json", want, "containers-policy.json(5)"]);
        assert_skopeo(&session, &reference, false);
    }
}

#[test]
fn scopes_and_requirements_are_read_as_skopeo_reads_them() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("team/app:1", &image("x"));
    let (accept, reject) = (r#"[{"type": "insecureAcceptAnything"}]"#, r#"[{"type": "reject"}]"#);
    let host = registry.host();
    let docker = |default: &str, scope: &str, requirement: &str| {
        format!(
            r#"{{"default": {default}, "transports": {{"docker": {{"{scope}": {requirement}}}}}}}"#
        )
    };
    let gpg = r#"[{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nonexistent"}]"#;
    for (policy, accepts) in [
        (format!("{{\"default\": {reject}}}"), false),
        (docker(reject, host, accept), true),
        (docker(accept, &format!("{host}/team"), reject), false),
        (docker(accept, &format!("{host}/tea"), reject), true),
        (docker(accept, &format!("{host}/team/app:1"), reject), false),
        (docker(accept, &format!("{host}/team/app:2"), reject), true),
        (docker(accept, "*.0.0.1", reject), false),
        (docker(accept, "", reject), false),
        (docker(accept, "", gpg), false),
        (docker(accept, "", "[]"), false),
        (docker(accept, "", r#"[{"type": "insecureAcceptAnything"}, {"type": "reject"}]"#), false),
        (docker(accept, "", accept).replace("docker", "unknown"), true),
        (docker(accept, "relative/path", accept).replace("docker", "oci"), false),
        (docker(accept, "/x", accept).replace("docker", "docker-archive"), false),
        (format!("{{\"default\": {reject}, \"default\": {accept}}}"), false),
    ] {
        session.write(".config/containers/policy.json", &policy);
        let output = session.sarus(["pull", "--quiet", &reference]).run();
        assert_eq!(output.code(), Some(if accepts { 0 } else { 125 }), "{policy}: {output}");
        assert_skopeo(&session, &reference, accepts);
    }
}

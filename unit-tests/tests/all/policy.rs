//! The signature policy: its grammar, which rule counts, and which signatures are good.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sarus_config::{Config, ContainersPolicy};
use sarus_image::policy::{
    Admission, Evidence, Met, Policy, PolicyError, Signature, Subject, Transport,
};
use sarus_image::registry::Environment;
use sarus_oci::{Digest, Reference};
use tempfile::TempDir;

const MANIFEST: &[u8] = b"{\"a\": \"manifest\"}";
const NAME: &str = "a.org/team/app:1";

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text.as_bytes(), Path::new("/p/policy.json"))
}

/// An error with its causes and its hint.
fn told(error: &PolicyError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}\n{error}");
        cause = error.source();
    }
    format!("{text}\n{}", error.hint().unwrap_or_default())
}

#[test]
fn a_policy_is_parsed_strictly() {
    let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
    let with = |requirement: &str| format!("{{\"default\": [{requirement}]}}");
    let transports = |text: &str| format!("{{\"default\": {accept}, \"transports\": {text}}}");
    for (text, want) in [
        ("", "line 1: EOF"),
        ("{}", "the key `default` is missing"),
        ("[]", "expected an object, got a list"),
        (r#"{"default": []}"#, "`default`: the list of requirements is empty"),
        (r#"{"default": null}"#, "`default`: expected a list, got null"),
        (r#"{"default": {}}"#, "`default`: expected a list"),
        (
            &format!("{{\"default\": {accept},\n\"default\": {accept}}}"),
            "line 2: the key `default` is there twice",
        ),
        (&format!("{{\"default\": {accept}, \"Transports\": {{}}}}"), "unknown key `Transports`"),
        (&format!("{{\"default\": {accept}}} x"), "trailing characters"),
        (&transports("[]"), "`transports`: expected an object"),
        (&transports(r#"{"docker": []}"#), "`transports.docker`: expected an object"),
        (
            &transports(r#"{"docker": {"a.org": []}}"#),
            "`transports.docker.\"a.org\"`: the list of requirements is empty",
        ),
        (
            &transports(&format!("{{\"docker\": {{\"a\": {accept}, \"a\": {accept}}}}}")),
            "the key `a` is there twice",
        ),
        (
            &transports(&format!("{{\"oci\": {{\"rel/path\": {accept}}}}}")),
            "a scope must be an absolute path",
        ),
        (
            &transports(&format!("{{\"oci\": {{\"/\": {accept}}}}}")),
            "the scope for all paths is the empty one",
        ),
        (
            &transports(&format!("{{\"dir\": {{\"/a/../b\": {accept}}}}}")),
            "not in its shortest form",
        ),
        (
            &transports(&format!("{{\"docker-archive\": {{\"/a\": {accept}}}}}")),
            "has no scope but the empty one",
        ),
        (&with("1"), "`default[0]`: expected an object, got a number"),
        (&with("{}"), "`default[0]`: the key `type` is missing"),
        (&with(r#"{"type": "accept"}"#), "`default[0].type`: unknown type of requirement `accept`"),
        (&with(r#"{"type": "reject", "x": 1}"#), "`default[0]`: unknown key `x`"),
        (&with(r#"{"type": "insecureAcceptAnything", "keyPath": "/k"}"#), "unknown key `keyPath`"),
        (&with(r#"{"type": "sigstoreSigned"}"#), "exactly one of `keyPath`"),
        (
            &with(r#"{"type": "sigstoreSigned", "keyPath": ""}"#),
            "`default[0].keyPath`: the text is empty",
        ),
        (&with(r#"{"type": "sigstoreSigned", "keyPath": 1}"#), "expected a text, got a number"),
        (
            &with(r#"{"type": "sigstoreSigned", "keyPath": "/k", "keyData": "eA=="}"#),
            "exactly one of",
        ),
        (
            &with(r#"{"type": "sigstoreSigned", "keyPaths": []}"#),
            "`default[0].keyPaths`: the list is empty",
        ),
        (
            &with(r#"{"type": "sigstoreSigned", "keyData": "?"}"#),
            "`default[0].keyData`: this is no base64 text",
        ),
        (
            &with(r#"{"type": "sigstoreSigned", "keyDatas": ["eA==", "?"]}"#),
            "`default[0].keyDatas[1]`",
        ),
        (&with(r#"{"type": "sigstoreSigned", "keypath": "/k"}"#), "exactly one of `keyPath`"),
        (
            &with(r#"{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": null}"#),
            "`default[0].signedIdentity`: expected an object",
        ),
        (
            &with(
                r#"{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "x"}}"#,
            ),
            "unknown kind of identity `x`",
        ),
        (
            &with(r#"{"type": "sigstoreSigned", "fulcio": {"x": "y"}}"#),
            "`default[0].fulcio`: unknown key `x`",
        ),
        (&with(r#"{"type": "signedBy", "keyType": "GPGKeys"}"#), "exactly one of `keyPath`"),
        (
            &with(r#"{"type": "signedBy", "keyType": "x", "keyPath": "/k"}"#),
            "unknown type of key `x`",
        ),
        (&with(r#"{"type": "signedBaseLayer"}"#), "the key `baseLayerIdentity` is missing"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(want), "{text}\ngives: {error}\nnot: {want}");
        assert!(error.contains("/p/policy.json"), "{error}");
    }
}

#[test]
fn what_is_not_supported_is_read_and_keeps_out_only_the_images_it_speaks_of() {
    let key = r#""keyPath": "/k""#;
    for requirement in [
        format!(r#"{{"type": "signedBy", "keyType": "GPGKeys", {key}}}"#),
        r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "/b"]}"#.to_owned(),
        r#"{"type": "sigstoreSigned", "fulcio": {"caPath": "/c", "oidcIssuer": "i", "subjectEmail": "e"}, "rekorPublicKeyPath": "/r"}"#.to_owned(),
        r#"{"type": "sigstoreSigned", "pki": {"caRootsPath": "/c", "subjectEmail": "e"}}"#.to_owned(),
        format!(r#"{{"type": "sigstoreSigned", {key}, "rekorPublicKeyData": "eA=="}}"#),
        r#"{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}"#.to_owned(),
    ] {
        let policy = parse(&format!(
            r#"{{"default": [{{"type": "insecureAcceptAnything"}}],
                 "transports": {{"docker": {{"a.org": [{requirement}]}}, "unknown": {{"x y": [{requirement}]}}}}}}"#
        ))
        .unwrap();
        let ours = Reference::parse(NAME).unwrap();
        let subject = Subject::Registry(&ours);
        let rule = policy.rule(&subject);
        assert!(!rule.wants_signatures());
        let error = rule.admit(&subject, &Evidence::default()).unwrap_err();
        let text = told(&error);
        for want in [NAME, "docker:a.org", "which is not supported", "/p/policy.json"] {
            assert!(text.contains(want), "{text}");
        }
        let other = Reference::parse("b.org/x").unwrap();
        let subject = Subject::Registry(&other);
        policy.rule(&subject).admit(&subject, &Evidence::default()).unwrap();
    }
}

#[test]
fn the_most_specific_scope_counts_and_all_its_requirements_must_hold() {
    let policy = parse(
        r#"{"default": [{"type": "reject"}],
            "transports": {
                "docker": {
                    "": [{"type": "reject"}],
                    "*.org": [{"type": "insecureAcceptAnything"}],
                    "*.b.org": [{"type": "reject"}],
                    "a.org:5000": [{"type": "reject"}],
                    "a.org/team": [{"type": "reject"}],
                    "a.org/team/app": [{"type": "insecureAcceptAnything"}],
                    "a.org/team/app:bad": [{"type": "insecureAcceptAnything"}, {"type": "reject"}]
                },
                "oci": {"/data/good": [{"type": "insecureAcceptAnything"}]},
                "docker-archive": {"": [{"type": "insecureAcceptAnything"}]},
                "containers-storage": {"[overlay@/s]a.org": [{"type": "insecureAcceptAnything"}]}
            }}"#,
    )
    .unwrap();
    let scope =
        |subject: &Subject<'_>| match policy.rule(subject).admit(subject, &Evidence::default()) {
            Ok(Admission { scope, requirements, .. }) => {
                assert_eq!(requirements, [Met::InsecureAcceptAnything]);
                format!("in by {scope}")
            }
            Err(PolicyError::Refused { scope, .. }) => format!("out by {scope}"),
            Err(error) => panic!("{error}"),
        };
    for (name, want) in [
        ("a.org/x", "in by docker:*.org"),
        ("a.org:5000/x", "out by docker:a.org:5000"),
        ("a.org:5001/x", "in by docker:*.org"),
        ("x.b.org/x", "out by docker:*.b.org"),
        ("a.org/team/y", "out by docker:a.org/team"),
        ("a.org/teams/y", "in by docker:*.org"),
        ("a.org/team/app:1", "in by docker:a.org/team/app"),
        ("a.org/team/app:bad", "out by docker:a.org/team/app:bad"),
        ("a.org/team/app/more", "in by docker:a.org/team/app"),
        ("debian", "out by docker:"),
    ] {
        let reference = Reference::parse(name).unwrap();
        assert_eq!(scope(&Subject::Registry(&reference)), want, "{name}");
    }
    let at = |transport, path: &'static str| Subject::File(transport, Some(Path::new(path)));
    for (subject, want) in [
        (at(Transport::Oci, "/data/good"), "in by oci:/data/good"),
        (at(Transport::Oci, "/data/good/x/y"), "in by oci:/data/good"),
        (at(Transport::Oci, "/data/goods"), "out by default"),
        (Subject::File(Transport::Oci, None), "out by default"),
        (at(Transport::OciArchive, "/data/good"), "out by default"),
        (at(Transport::DockerArchive, "/data/bad"), "in by docker-archive:"),
    ] {
        assert_eq!(scope(&subject), want, "{subject:?}");
    }
    let reference = &Reference::parse("a.org/x").unwrap();
    let storage = Some(("overlay", Path::new("/s")));
    let known = Subject::ContainersStorage { storage, reference };
    assert_eq!(scope(&known), "in by containers-storage:[overlay@/s]a.org");
    let unknown = Subject::ContainersStorage { storage: None, reference };
    assert_eq!(scope(&unknown), "out by default");
}

#[test]
fn the_first_file_that_exists_counts_even_if_it_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (user, system) = (path("user.json"), path("system.json"));
    let files = [user.clone(), path("user.json/x"), system.clone()];
    let reference = Reference::parse("x").unwrap();
    let subject = Subject::Registry(&reference);
    let verdict = || {
        let policy = Policy::first_of(&files).map_err(|error| error.to_string())?;
        let policy = policy.unwrap_or_else(Policy::accept_anything);
        let outcome = policy.rule(&subject).admit(&subject, &Evidence::default());
        outcome.map(|admission| admission.policy).map_err(|error| error.to_string())
    };
    assert_eq!(verdict(), Ok(None), "no file: everything is let in");
    fs_err::write(&system, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    assert!(verdict().unwrap_err().contains("system.json` does not let"));
    fs_err::write(&user, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
    assert_eq!(verdict(), Ok(Some(user.clone())));
    fs_err::write(&user, "{").unwrap();
    assert!(verdict().unwrap_err().contains("user.json`, line 1"));
    fs_err::write(&user, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(verdict().unwrap_err().contains("cannot read"));
    fs_err::remove_file(&user).unwrap();
    std::os::unix::fs::symlink("nowhere", &user).unwrap();
    assert!(verdict().unwrap_err().contains("cannot read"), "a link to nowhere is no absence");
}

#[test]
fn the_users_policy_counts_before_the_sites_unless_that_is_enforced() {
    let reference = Reference::parse("x").unwrap();
    let subject = Subject::Registry(&reference);
    let (accept, reject) = ("insecureAcceptAnything", "reject");
    for (user, site, system, enforce, want) in [
        (
            Some(accept),
            Some(reject),
            Some(reject),
            false,
            Some("home/.config/containers/policy.json"),
        ),
        (Some(accept), Some(reject), None, true, None),
        (Some(reject), Some(accept), None, true, Some("site.json")),
        (None, Some(accept), Some(reject), false, Some("site.json")),
        (None, Some("absent"), Some(accept), false, None),
        (Some(accept), Some("absent"), None, true, None),
        (None, None, Some(accept), false, Some("etc/containers/policy.json")),
        (None, None, Some(reject), false, None),
        (None, None, None, false, Some("")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, kind: Option<&str>| {
            let path = folder.path().join(path);
            if let Some(kind) = kind.filter(|kind| *kind != "absent") {
                fs_err::create_dir_all(path.parent().unwrap()).unwrap();
                let text = format!("{{\"default\": [{{\"type\": \"{kind}\"}}]}}");
                fs_err::write(&path, text).unwrap();
            }
            path
        };
        write("home/.config/containers/policy.json", user);
        write("etc/containers/policy.json", system);
        let path = write("site.json", site);
        let config = Config {
            containers_policy: site.map(|_| ContainersPolicy { path, enforce }),
            ..Config::default()
        };
        // A file in the home counts wherever else the user keeps configurations.
        let variables = [("HOME", folder.path().join("home")), ("XDG_CONFIG_HOME", "/none".into())];
        let environment = Environment::new(variables, folder.path().join("etc"));
        let got = sarus_cli::policy::load(&config, &environment)
            .ok()
            .and_then(|policy| policy.rule(&subject).admit(&subject, &Evidence::default()).ok());
        let got = got.map(|admission| admission.policy);
        let want =
            want.map(|it| Some(it).filter(|it| !it.is_empty()).map(|it| folder.path().join(it)));
        assert_eq!(got, want, "{user:?} {site:?} {system:?} {enforce}");
    }
}

/// A key pair made by OpenSSL.
struct Pair {
    folder: TempDir,
    /// How OpenSSL signs with it.
    sign: &'static [&'static str],
}

const DIGEST: &[&str] = &["dgst", "-sha256", "-sign", "private.pem", "payload"];
const RAW: &[&str] = &["pkeyutl", "-sign", "-rawin", "-inkey", "private.pem", "-in", "payload"];

impl Pair {
    fn new(algorithm: &[&str], sign: &'static [&'static str]) -> Self {
        let pair = Self { folder: tempfile::tempdir().unwrap(), sign };
        pair.openssl(&[&["genpkey", "-out", "private.pem", "-algorithm"], algorithm].concat());
        pair.openssl(&["pkey", "-in", "private.pem", "-pubout", "-out", "public.pem"]);
        pair
    }

    fn p256() -> Self {
        Self::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], DIGEST)
    }

    fn openssl(&self, words: &[&str]) -> Vec<u8> {
        let output = Command::new("openssl")
            .args(words)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn public(&self) -> PathBuf {
        self.folder.path().join("public.pem")
    }

    /// A signature over a payload, as a registry gives it.
    fn sign(&self, payload: &[u8]) -> Signature {
        fs_err::write(self.folder.path().join("payload"), payload).unwrap();
        let signature = STANDARD.encode(self.openssl(self.sign));
        let annotation = ("dev.cosignproject.cosign/signature".to_owned(), signature);
        Signature {
            media_type: "application/vnd.dev.cosign.simplesigning.v1+json".to_owned(),
            payload: payload.to_vec(),
            annotations: [annotation].into(),
        }
    }
}

fn payload(name: &str, manifest: &[u8]) -> Vec<u8> {
    let digest = Digest::sha256_of(manifest);
    format!(
        r#"{{"critical": {{"identity": {{"docker-reference": "{name}"}}, "image": {{"docker-manifest-digest": "{digest}"}}, "type": "cosign container image signature"}}, "optional": null}}"#
    )
    .into_bytes()
}

fn signed_policy(keys: &str) -> Policy {
    let text = format!(r#"{{"default": [{{"type": "sigstoreSigned", {keys}}}]}}"#);
    parse(&text).unwrap()
}

fn by_path(key: &Path) -> Policy {
    signed_policy(&format!("\"keyPath\": \"{}\"", key.display()))
}

fn admit(policy: &Policy, signatures: &[Signature]) -> Result<Admission, String> {
    let reference = Reference::parse(NAME).unwrap();
    let subject = Subject::Registry(&reference);
    let rule = policy.rule(&subject);
    assert!(rule.wants_signatures());
    let evidence = Evidence { manifest: MANIFEST, signatures, not_sought: None };
    rule.admit(&subject, &evidence).map_err(|error| told(&error))
}

#[test]
fn signatures_by_each_kind_of_key_are_verified_and_the_key_is_recorded() {
    for (algorithm, sign) in [
        (&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], DIGEST),
        (&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], DIGEST),
        (&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], DIGEST),
        (&["ED25519"], RAW),
    ] {
        let pair = Pair::new(algorithm, sign);
        let signature = pair.sign(&payload(NAME, MANIFEST));
        let admission = admit(&by_path(&pair.public()), std::slice::from_ref(&signature)).unwrap();
        let der = pair.openssl(&["pkey", "-pubin", "-in", "public.pem", "-outform", "DER"]);
        let want = Met::SigstoreSigned {
            key: pair.public().display().to_string(),
            key_fingerprint: Digest::sha256_of(&der),
            identity: NAME.to_owned(),
            manifest: Digest::sha256_of(MANIFEST),
        };
        assert_eq!(admission.requirements, [want], "{algorithm:?}");
        assert_eq!(admission.scope, "default");
        let mut altered = signature;
        altered.payload.push(b' ');
        let error = admit(&by_path(&pair.public()), &[altered]).unwrap_err();
        assert!(error.contains("not by a key of the policy, or was altered"), "{error}");
    }
}

#[test]
fn one_good_signature_by_any_of_the_keys_is_enough() {
    let (ours, other) = (Pair::p256(), Pair::p256());
    let good = ours.sign(&payload(NAME, MANIFEST));
    let bad = other.sign(&payload(NAME, b"another manifest"));
    let both = [bad.clone(), good];
    let paths = |name| {
        let (one, two) = (other.public(), ours.public());
        format!("\"{name}\": [\"{}\", \"{}\"]", one.display(), two.display())
    };
    admit(&signed_policy(&paths("keyPaths")), &both).unwrap();
    let data = |pair: &Pair| STANDARD.encode(fs_err::read(pair.public()).unwrap());
    let datas = format!("\"keyDatas\": [\"{}\", \"{}\"]", data(&other), data(&ours));
    let admission = admit(&signed_policy(&datas), &both).unwrap();
    assert!(
        matches!(&admission.requirements[..], [Met::SigstoreSigned { key, .. }] if key == "keyData")
    );
    let one = format!("\"keyData\": \"{}\"", data(&other));
    let error = admit(&signed_policy(&one), &both).unwrap_err();
    assert!(error.contains("another manifest") && error.contains("not by a key"), "{error}");
}

#[test]
fn what_is_wrong_with_a_signature_is_told() {
    let pair = Pair::p256();
    let policy = by_path(&pair.public());
    let good = || pair.sign(&payload(NAME, MANIFEST));
    let edit = |edit: &dyn Fn(&mut Signature)| {
        let mut signature = good();
        edit(&mut signature);
        signature
    };
    let key = "dev.cosignproject.cosign/signature";
    for (signatures, want) in [
        (vec![], "no signature was found"),
        (
            vec![edit(&|it| it.media_type = "application/vnd.dsse.envelope.v1+json".into())],
            "no signature was found",
        ),
        (vec![edit(&|it| it.annotations.clear())], "lacks the annotation"),
        (vec![edit(&|it| drop(it.annotations.insert(key.into(), "?".into())))], "no base64"),
        (vec![edit(&|it| drop(it.annotations.insert(key.into(), "AAAA".into())))], "not by a key"),
        (vec![pair.sign(b"{}")], "its payload is malformed: the key `critical` is missing"),
        (vec![pair.sign(b"\xff")], "its payload is malformed"),
        (vec![pair.sign(&payload(NAME, b"x"))], "it is one for another manifest, `sha256:"),
        (
            vec![pair.sign(&payload("a.org/team/app:2", MANIFEST))],
            "for the name `a.org/team/app:2`",
        ),
        (vec![pair.sign(&payload("a.org/team/app", MANIFEST))], "`matchRepository`"),
        (vec![Pair::p256().sign(&payload(NAME, MANIFEST))], "not by a key of the policy"),
    ] {
        let error = admit(&policy, &signatures).unwrap_err();
        assert!(error.contains(want), "{want}: {error}");
    }
    let repository = signed_policy(&format!(
        r#""keyPath": "{}", "signedIdentity": {{"type": "matchRepository"}}"#,
        pair.public().display()
    ));
    admit(&repository, &[pair.sign(&payload("a.org/team/app", MANIFEST))]).unwrap();
}

#[test]
fn a_key_that_cannot_be_used_lets_nothing_in() {
    let pair = Pair::p256();
    let good = [pair.sign(&payload(NAME, MANIFEST))];
    let broken = pair.folder.path().join("broken.pem");
    let absent = pair.folder.path().join("absent.pem");
    let p521 = Pair::new(&["EC", "-pkeyopt", "ec_paramgen_curve:P-521"], DIGEST);
    fs_err::write(&broken, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
    let private = pair.folder.path().join("private.pem");
    for (path, want) in [
        (&absent, "cannot read the key"),
        (&broken, "is no ECDSA"),
        (&private, "holds no public key in PEM form"),
        (&p521.public(), "is no ECDSA"),
    ] {
        let error = admit(&by_path(path), &good).unwrap_err();
        assert!(error.contains(want) && error.contains(path.to_str().unwrap()), "{error}");
    }
    let with_good =
        format!(r#""keyPaths": ["{}", "{}"]"#, pair.public().display(), absent.display());
    let error = admit(&signed_policy(&with_good), &good).unwrap_err();
    assert!(error.contains("cannot read the key"), "{error}");
}

#[test]
fn an_archive_has_no_signatures_so_that_a_policy_which_asks_for_one_keeps_it_out() {
    let pair = Pair::p256();
    let policy = by_path(&pair.public());
    let subject = Subject::File(Transport::OciArchive, Some(Path::new("/data/a.tar")));
    let error = policy.rule(&subject).admit(&subject, &Evidence::default()).unwrap_err();
    let text = told(&error);
    assert!(
        text.contains("`oci-archive:/data/a.tar`") && text.contains("no signature was found"),
        "{text}"
    );
}

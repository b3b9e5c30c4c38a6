//! `sarus pull`: what is fetched, and that the store is right afterwards, whatever happens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use sarus_integration_tests::{
    Dialect, FakeRegistry, Image, Packed, Packing, Registry, Reply, Session, Tar, Who, answer,
    sha256,
};

/// An image with one file, whose content tells images apart.
fn image(content: &str) -> Packed {
    Image::new().layer(&Tar::new().file("content", content)).pack()
}

/// The one file of an image in the store.
fn content(session: &Session, reference: &str) -> String {
    let file = session.home().join("exported");
    session.sarus(["export", "--force", reference]).args([&file]).run().ok();
    let shown = session.program(["unsquashfs", "-cat"]).args([&file]).args(["content"]).run();
    shown.ok().to_owned()
}

/// Paths below a directory with their hashes.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs_err::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let content = fs_err::read(&path).unwrap();
                found.insert(path.display().to_string(), sha256(&content));
            }
        }
    }
    found
}

/// The squashfs files among them.
fn squashfs(session: &Session) -> BTreeMap<String, String> {
    let mut found = files(&session.home().join(".local/share/sarus"));
    found.retain(|path, _| fs_err::read(path).unwrap().starts_with(b"hsqs"));
    found
}

#[test]
fn a_pull_says_where_its_time_went() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("app:1", &image("content"));
    let table = session.sarus(["pull", "--timing", &reference]).run();
    for phase in ["PHASE", "resolve", "download", "inflate", "merge", "compress", "store", "total"]
    {
        assert!(table.stderr.contains(phase), "no {phase}: {table}");
    }
    assert!(table.ok().contains("sha256:"), "{table}");
    session.sarus(["rmi", "--force", &reference]).run().ok();
    let report = session.sarus(["pull", "--quiet", "--timing=json", &reference]).run();
    let report: serde_json::Value = serde_json::from_str(report.ok()).unwrap();
    let phase = |name| report["phases"].as_array().unwrap().iter().find(|p| p["name"] == name);
    let cpu: f64 = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["cpuSeconds"].as_f64().unwrap())
        .sum();
    assert!(cpu > 0.0 && report["seconds"].as_f64().unwrap() > 0.0, "{report}");
    assert!(
        phase("inflate").unwrap()["bytes"].as_u64().unwrap() >= 1536,
        "a tar archive: {report}"
    );
    assert_eq!(phase("merge").unwrap()["bytes"], "content".len(), "{report}");
    let again = session.sarus(["pull", "--timing=json", &reference]).run();
    let again: serde_json::Value = serde_json::from_str(again.ok()).unwrap();
    assert_eq!(
        (again["upToDate"].as_bool(), again["phases"].as_array().unwrap().len()),
        (Some(true), 1),
        "{again}"
    );
}

#[test]
fn a_load_says_where_its_time_went() {
    let session = Session::new(Who::User);
    let layout = session.directory().join("layout");
    image("content").write_layout(&layout);
    let words = |words: &[&str]| session.sarus(words).args([&layout]).args(["app:1"]).run();
    let table = words(&["load", "--timing"]);
    for phase in ["PHASE", "inflate", "merge", "compress", "store", "total"] {
        assert!(table.stderr.contains(phase), "no {phase}: {table}");
    }
    assert!(table.ok().contains("app:1  sha256:"), "{table}");
    session.sarus(["rmi", "--force", "app:1"]).run().ok();
    for up_to_date in [false, true] {
        let report = words(&["load", "--timing=json"]);
        let report: serde_json::Value = serde_json::from_str(report.ok()).unwrap();
        assert_eq!(report["reference"], "docker.io/library/app:1");
        assert_eq!(report["upToDate"], up_to_date, "{report}");
        let phases = report["phases"].as_array().unwrap();
        assert_eq!(phases.is_empty(), up_to_date, "{report}");
        let merged = phases.iter().find(|phase| phase["name"] == "merge");
        assert!(merged.is_none_or(|phase| phase["bytes"] == "content".len()), "{report}");
    }
}

#[test]
fn a_tag_a_digest_and_both_name_an_image() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let (old, new) = (image("old"), image("new"));
    registry.push("team/app:1", &old);
    registry.push("team/app:1", &new);
    let host = registry.host();
    let (old, new) = (old.digest(), new.digest());
    // With both, the digest counts, whatever the tag names now.
    let cases = [
        (format!("{host}/team/app:1"), &new, "new"),
        (format!("{host}/team/app@{old}"), &old, "old"),
        (format!("{host}/team/app:1@{old}"), &old, "old"),
    ];
    for (reference, digest, holds) in cases {
        let output = session.sarus(["pull", "--quiet", &reference]).run();
        assert_eq!(output.ok(), format!("{digest}\n"), "{reference}");
        assert_eq!(output.stderr, "", "{reference}");
        assert_eq!(content(&session, &reference), holds, "{reference}");
    }
}

#[test]
fn a_name_without_a_namespace_and_the_tag_latest_are_found() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let image = image("x");
    registry.push("app:latest", &image);
    let reference = format!("{}/app", registry.host());
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
}

#[test]
fn a_second_pull_finds_the_image_up_to_date_and_fetches_no_layer() {
    let image = image("x");
    let registry = FakeRegistry::serve(image.clone(), |_| None);
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = format!("{}/app:1", registry.host());
    session.sarus(["pull", &reference]).run().ok();
    let layer = image.layer_digests().remove(0);
    let fetches = |registry: &FakeRegistry| {
        registry.requests().iter().filter(|request| request.path.ends_with(&layer)).count()
    };
    assert_eq!(fetches(&registry), 1);
    // A name's file says when it was last given.
    let content = || {
        let mut all = files(session.home());
        all.retain(|path, _| !path.contains("/names/"));
        all
    };
    let before = content();
    let output = session.sarus(["pull", &reference]).run();
    output.ok();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("up to date"), "{output}");
    assert_eq!(fetches(&registry), 1, "the layer was fetched again");
    assert_eq!(content(), before, "the store changed");
}

#[test]
fn the_digest_is_that_of_the_bytes_as_sent() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    for (name, change) in [
        ("newline", (|bytes| [bytes, b"\n".to_vec()].concat()) as fn(Vec<u8>) -> Vec<u8>),
        ("indented", |bytes| [b"  ".to_vec(), bytes, b"\n\n ".to_vec()].concat()),
    ] {
        let image = image(name).edit(change);
        let reference = registry.push(&format!("{name}:1"), &image);
        let output = session.sarus(["pull", "--quiet", &reference]).run();
        assert_eq!(output.ok(), format!("{}\n", image.digest()), "{name}");
        let by_digest = format!("{}/{name}@{}", registry.host(), image.digest());
        session.sarus(["pull", "--quiet", &by_digest]).run().ok();
    }
}

#[test]
fn every_packing_and_mixed_media_types_are_read() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let layer = |name: &str| Tar::new().file(name, name);
    let mixed = Image::new()
        .packed_layer(&layer("a"), Packing::Gzip, Dialect::Docker)
        .packed_layer(&layer("b"), Packing::Zstd, Dialect::Oci)
        .packed_layer(&layer("c"), Packing::Plain, Dialect::Oci)
        .packed_layer(&layer("d"), Packing::Gzip, Dialect::Oci)
        .packed_layer(&Tar::new().file("content", "mixed"), Packing::Plain, Dialect::Docker);
    for dialect in [Dialect::Oci, Dialect::Docker] {
        let image = mixed.clone().dialect(dialect).pack();
        let reference = registry.push("mixed:1", &image);
        let output = session.sarus(["pull", "--quiet", &reference]).run();
        assert_eq!(output.ok(), format!("{}\n", image.digest()), "{dialect:?}");
        assert_eq!(content(&session, &reference), "mixed", "{dialect:?}");
    }
}

#[test]
fn the_platform_is_chosen_from_an_index_also_from_a_nested_one() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let make = |architecture: &str| {
        let layer = Tar::new().file("content", architecture);
        Image::new().architecture(architecture).layer(&layer).pack()
    };
    let (ours, other) = (make(host), make("s390x"));
    let flat = Packed::index(Dialect::Docker, &[(Some("s390x"), &other), (Some(host), &ours)]);
    let inner = Packed::index(Dialect::Oci, &[(Some(host), &ours)]);
    let nested = Packed::index(Dialect::Oci, &[(Some("s390x"), &other), (None, &inner)]);
    for (name, index) in [("flat", &flat), ("nested", &nested)] {
        let reference = registry.push(&format!("{name}:1"), index);
        let output = session.sarus(["pull", "--quiet", &reference]).run();
        assert_eq!(output.ok(), format!("{}\n", ours.digest()), "the platform's manifest: {name}");
        assert_eq!(content(&session, &reference), host, "{name}");
        let other_one = ["pull", "--quiet", "--platform", "linux/s390x", &reference];
        let output = session.sarus(other_one).run();
        assert_eq!(output.ok(), format!("{}\n", other.digest()), "{name}");
    }
}

#[test]
fn two_pulls_give_identical_bytes() {
    let registry = Registry::start();
    let tar = (0..300).fold(Tar::new(), |tar, n| {
        tar.file(format!("dir{}/file{n}", n % 7), format!("{n}").repeat(n * 37)).mtime(n as u64)
    });
    let image = Image::busybox().layer(&tar).pack();
    let reference = registry.push("app:1", &image);
    let written: Vec<Vec<String>> = (0..2)
        .map(|_| {
            let session = Session::new(Who::User);
            session.trust(&[registry.host()]);
            session.sarus(["pull", "--quiet", &reference]).run().ok();
            let exported = session.home().join("image.squashfs");
            session.sarus(["export", &reference]).args([&exported]).run().ok();
            let mut hashes: Vec<String> = squashfs(&session).into_values().collect();
            hashes.push(sha256(&fs_err::read(exported).unwrap()));
            hashes
        })
        .collect();
    assert_eq!(written[0].len(), 2, "one in the store, one exported");
    assert_eq!(written[0], written[1]);
}

#[test]
fn two_pulls_at_once_both_succeed_and_leave_one_image() {
    let image = Image::busybox().pack();
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("app:1", &image);
    let pulls: Vec<_> =
        (0..4).map(|_| session.sarus(["pull", "--quiet", &reference]).start()).collect();
    for pull in pulls {
        let output = pull.finish();
        assert_eq!(output.ok(), format!("{}\n", image.digest()));
    }
    assert_eq!(squashfs(&session).len(), 1);
}

#[test]
fn a_killed_pull_leaves_a_store_that_works_and_is_cleaned() {
    let image = Image::busybox().layer(&Tar::new().file("content", "x")).pack();
    let digests = image.layer_digests();
    let registry = Registry::start();
    let reference_before = registry.push("before:1", &self::image("before"));
    let (slow, held) = FakeRegistry::holding(image.clone(), &digests[1]);
    let session = Session::new(Who::User);
    session.trust(&[slow.host(), registry.host()]);
    session.sarus(["pull", "--quiet", &reference_before]).run().ok();

    let reference = format!("{}/app:1", slow.host());
    let pull = session.sarus(["pull", "--quiet", &reference]).start();
    held.wait_until_asked();
    pull.signal(Signal::KILL);
    assert_eq!(pull.finish().code(), None, "killed");
    drop(held);
    assert_eq!(content(&session, &reference_before), "before", "what was there still works");

    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    assert_eq!(content(&session, &reference), "x");

    // But for the caches, the store is as if nothing had been killed.
    let clean = Session::new(Who::User);
    clean.trust(&[slow.host(), registry.host()]);
    clean.sarus(["pull", "--quiet", &reference_before]).run().ok();
    clean.sarus(["pull", "--quiet", &reference]).run().ok();
    let count = |session: &Session| files(&session.home().join(".local/share/sarus")).len();
    assert_eq!(count(&session), count(&clean), "{:?}", files(&session.home().join(".local")));
}

#[test]
fn pull_says_in_plain_lines_what_it_does_when_there_is_no_terminal() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("app:1", &Image::busybox().pack());
    let output = session.sarus(["pull", &reference]).run();
    output.ok();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(&reference), "{output}");
    assert!(!said.contains('\u{1b}') && !said.contains('\r'), "no steering of terminals: {output}");
}

#[test]
fn a_download_that_breaks_off_is_resumed() {
    let image = Image::busybox().pack();
    let layer = image.layer_digests().remove(0);
    let size = image.blobs[&layer].len();
    let served = image.clone();
    let asked = Arc::new(AtomicUsize::new(0));
    let registry = FakeRegistry::serve(image.clone(), move |request| {
        let first = request.path.ends_with(&layer) && asked.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| answer(&served, request).cut_at(size / 2))
    });
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let output = session.sarus(["pull", "--quiet", &format!("{}/app:1", registry.host())]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    let resumed = registry.requests().iter().any(|request| {
        request.headers.get("range").is_some_and(|range| !range.starts_with("bytes=0-"))
    });
    assert!(resumed, "the second half only: {:?}", registry.requests());
}

#[test]
fn a_reply_that_is_late_for_a_moment_is_asked_for_again() {
    let image = image("x");
    let asked = Arc::new(AtomicUsize::new(0));
    let registry = FakeRegistry::serve(image.clone(), move |request| {
        let first =
            request.path.contains("/manifests/") && asked.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| Reply::new(503, "busy").header("Retry-After", "0"))
    });
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let output = session.sarus(["pull", "--quiet", &format!("{}/app:1", registry.host())]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
}

#[test]
fn a_descriptor_with_a_wrong_size_is_refused_and_costs_the_cache_nothing() {
    let image = Image::busybox().pack();
    let layer = image.layer_digests().remove(0);
    let size = image.blobs[&layer].len();
    let registry = FakeRegistry::serve(image.clone(), |_| None);
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    session.sarus(["pull", "--quiet", &format!("{}/app:1", registry.host())]).run().ok();
    let listed = session.sarus(["images", "--format", "json"]).run().ok().to_owned();
    for (part, wrong) in
        [("layer", 0), ("layer", 1), ("layer", size - 1), ("layer", size + 1), ("config", 0)]
    {
        let mut altered = image.clone();
        let bytes = &mut altered.manifests[0].1;
        let mut manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let descriptor =
            if part == "layer" { &mut manifest["layers"][0] } else { &mut manifest["config"] };
        descriptor["size"] = wrong.into();
        *bytes = manifest.to_string().into_bytes();
        let liar = FakeRegistry::serve(altered, |_| None);
        session.trust(&[liar.host()]);
        let output = session.sarus(["pull", &format!("{}/app:1", liar.host())]).run();
        output.explains(125, &["wrong size"]);
        assert_eq!(session.sarus(["images", "--format", "json"]).run().ok(), listed);
    }
    let blobs = session.home().join(".local/share/sarus/blobs");
    let whole = fs_err::read(blobs.join(layer.replace(':', "-"))).unwrap();
    assert_eq!(sha256(&whole), layer);
}

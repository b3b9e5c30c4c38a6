//! One pull however many ask: one download and one conversion, and somebody takes over.

use rustix::process::Signal;
use sarus_integration_tests::{
    FakeRegistry, Image, Invocation, Packed, Registry, Running, Session, Tar, Who,
};

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An image with one layer for each seed.
pub(crate) fn image(seeds: &[u64]) -> Packed {
    image_on(Image::new(), seeds)
}

/// An image with one more layer for each seed.
pub(crate) fn image_on(base: Image, seeds: &[u64]) -> Packed {
    let layers =
        seeds.iter().map(|seed| Tar::new().file(format!("content{seed}"), noise(*seed, 200_000)));
    layers.fold(base, |image, layer| image.layer(&layer)).pack()
}

/// The first line but for the remark that the registry is asked without encryption.
fn line_without_notes(command: &Running) -> String {
    let line = command.line();
    if line.contains("without encryption") { command.line() } else { line }
}

/// How often a blob was asked for.
fn fetches(registry: &FakeRegistry, digest: &str) -> usize {
    registry.requests().iter().filter(|request| request.path.ends_with(digest)).count()
}

fn sorted(mut digests: Vec<String>) -> Vec<String> {
    digests.sort();
    digests
}

/// Sixteen pulls of an image at once, each made ready by `place`: all get it, and the registry sends
/// each layer once.
fn pull_by_sixteen(who: Who, place: impl Fn(usize, Invocation) -> Invocation) {
    let registry = Registry::start();
    let session = Session::new(who);
    session.trust(&[registry.host()]);
    let image = image(&[1, 2, 3]);
    let reference = registry.push("app:1", &image);
    let pull = |number| place(number, session.sarus(["pull", "--quiet", &reference])).start();
    let pulls: Vec<_> = (0..16).map(pull).collect();
    for pull in pulls {
        assert_eq!(pull.finish().ok(), format!("{}\n", image.digest()));
    }
    // Each asks for itself what the name leads to, which has the configuration too.
    let mut layers = registry.sent_blobs();
    layers.retain(|digest| image.layer_digests().contains(digest));
    assert_eq!(sorted(layers), sorted(image.layer_digests()));
}

#[test]
fn sixteen_pulls_at_once_fetch_each_blob_once() {
    pull_by_sixteen(Who::User, |_, pull| pull);
}

#[test]
fn images_that_share_a_layer_and_are_pulled_at_once_fetch_it_once() {
    let (first, second) = (image(&[1]), image(&[2, 1]));
    let (shared, other) = (first.layer_digests().remove(0), second.layer_digests().remove(0));
    // The layer comes when the second image's pull is under way.
    let (slow, held) = FakeRegistry::holding(first.clone(), &shared);
    let (quick, others) = FakeRegistry::holding(second.clone(), &other);
    let session = Session::new(Who::User);
    session.trust(&[slow.host(), quick.host()]);
    let pull = |registry: &FakeRegistry| {
        session.sarus(["pull", "--quiet", &format!("{}/app:1", registry.host())]).start()
    };
    let pull_first = pull(&slow);
    held.wait_until_asked();
    let pull_second = pull(&quick);
    others.wait_until_asked();
    drop((others, held));
    assert_eq!(pull_first.finish().ok(), format!("{}\n", first.digest()));
    assert_eq!(pull_second.finish().ok(), format!("{}\n", second.digest()));
    assert_eq!((fetches(&slow, &shared), fetches(&quick, &shared)), (1, 0));
}

#[test]
fn who_waits_says_for_whom_and_takes_over_when_that_one_is_killed() {
    let image = image(&[1, 2]);
    let digests = image.layer_digests();
    let (registry, held) = FakeRegistry::holding(image.clone(), &digests[1]);
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = format!("{}/app:1", registry.host());
    let first = session.sarus(["pull", "--quiet", &reference]).start();
    held.wait_until_asked();
    let second = session.sarus(["pull", &reference]).after("exec 2>&1").start();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let whom = format!("process {} on {host}", first.pid());
    let line = line_without_notes(&second);
    assert!(line.contains(&format!("{reference}: waiting for {whom}")), "{line}");
    first.signal(Signal::KILL);
    let line = second.line();
    assert!(line.contains(&whom) && line.contains("going on with its pull"), "{line}");
    drop(held);
    assert_eq!(first.finish().code(), None, "killed");
    second.finish().ok();
    assert_eq!(fetches(&registry, &digests[0]), 1, "what was complete is not fetched again");
    assert_eq!(fetches(&registry, &digests[1]), 2);
}

#[test]
fn an_interrupted_pull_leaves_what_can_be_continued_and_no_more() {
    let image = image(&[1, 2]);
    let digests = image.layer_digests();
    let session = Session::new(Who::User);
    let store = session.home().join(".local/share/sarus");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (registry, held) = FakeRegistry::holding(image.clone(), &digests[1]);
        session.trust(&[registry.host()]);
        let reference = format!("{}/app:1", registry.host());
        let pull = session.sarus(["pull", "--quiet", &reference]).start();
        held.wait_until_asked();
        pull.signal(signal);
        let output = pull.finish();
        assert_eq!(output.signal(), Some(signal.as_raw()), "{output}");
        drop(held);
        let listed = |name: &str| names(&store.join(name));
        assert_eq!((listed("tmp"), listed("leases")), (vec![], vec![]), "{output}");
        assert!(listed("blobs").iter().all(|name| !name.contains(',')), "{:?}", listed("blobs"));
    }
    assert_eq!(names(&store.join("names")), [""; 0]);
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn who_waited_for_another_that_succeeds_says_so() {
    let image = image(&[1]);
    let digest = image.layer_digests().remove(0);
    let (registry, held) = FakeRegistry::holding(image.clone(), &digest);
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = format!("{}/app:1", registry.host());
    let first = session.sarus(["pull", "--quiet", &reference]).start();
    held.wait_until_asked();
    let second = session.sarus(["pull", &reference]).after("exec 2>&1").start();
    let line = line_without_notes(&second);
    assert!(line.contains("waiting for process"), "{line}");
    drop(held);
    let pid = first.pid();
    first.finish().ok();
    let output = second.finish();
    assert!(output.ok().contains(&format!("{reference}: pulled by process {pid} on ")), "{output}");
    assert!(output.ok().contains(&image.digest()), "{output}");
}

/// The command on a node of its own, as far as a store can see: other name, other processes. The
/// kernel's boot id is the same.
fn on_node(name: &str, command: Invocation) -> Invocation {
    let script = format!("hostname {name}; exec \"$@\"");
    command.under([
        "unshare",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-ec",
        &script,
        "sh",
    ])
}

#[test]
fn pulls_on_several_nodes_fetch_each_blob_once() {
    let nodes = ["one", "two", "three", "four"];
    pull_by_sixteen(Who::Root, |number, pull| on_node(nodes[number % nodes.len()], pull));
}

#[test]
fn a_lease_of_a_node_that_is_dead_expires_and_another_node_takes_over() {
    let image = image(&[1, 2]);
    let digests = image.layer_digests();
    let (registry, held) = FakeRegistry::holding(image.clone(), &digests[1]);
    let session = Session::new(Who::Root);
    session.trust(&[registry.host()]);
    let reference = format!("{}/app:1", registry.host());
    let first = on_node("one", session.sarus(["pull", "--quiet", &reference])).start();
    held.wait_until_asked();
    let second = session.sarus(["pull", &reference]).after("exec 2>&1");
    let second = on_node("two", second).start();
    let line = line_without_notes(&second);
    assert!(line.contains("waiting for process") && line.contains(" on one"), "{line}");
    first.signal(Signal::KILL);
    assert_eq!(first.finish().code(), None, "killed");
    // Nothing shows on another node that a process is dead, but that its lease stands still; who
    // waits for that says so from time to time.
    let line = std::iter::repeat_with(|| second.line()).find(|line| !line.contains("waiting for"));
    let line = line.unwrap();
    assert!(line.contains(" on one") && line.contains("going on with its pull"), "{line}");
    drop(held);
    second.finish().ok();
    assert_eq!((fetches(&registry, &digests[0]), fetches(&registry, &digests[1])), (1, 2));
}

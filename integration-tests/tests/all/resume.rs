//! What a second pull downloads after the first was killed, counted in the registry's log.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use sarus_integration_tests::{FakeRegistry, Image, Session, Tar, Who, answer, sha256};

/// Bytes that do not compress, different for each seed.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut block = sha256(&[seed]);
    while bytes.len() < length {
        block = sha256(block.as_bytes());
        bytes.extend(
            block.as_bytes()[7..]
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()),
        );
    }
    bytes.truncate(length);
    bytes
}

/// Blobs that are complete in the user's cache.
fn complete(blobs: &Path) -> usize {
    let names = fs_err::read_dir(blobs).into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.contains("partial")).count()
}

#[test]
fn after_a_kill_only_what_was_missing_is_downloaded() {
    let layer = |seed| Tar::new().file(format!("file{seed}"), noise(seed, 300_000));
    let image = (0..3).fold(Image::new(), |image, seed| image.layer(&layer(seed))).pack();
    let layers = image.layer_digests();
    let half = image.blobs[&layers[2]].len() / 2;
    // The last layer breaks off half-way; who asks for the rest waits until the pull is dead.
    let (asked, was_asked) = channel();
    let (go_on, told) = channel::<()>();
    let (told, count) = (Mutex::new(told), Arc::new(AtomicUsize::new(0)));
    let (served, last) = (image.clone(), layers[2].clone());
    let registry = FakeRegistry::serve(image.clone(), move |request| {
        if !request.path.ends_with(&last) {
            return None;
        }
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => Some(answer(&served, request).cut_at(half)),
            1 => {
                asked.send(()).unwrap();
                // An answer or the end of the test: both mean to go on.
                let _told_or_ended = told.lock().unwrap().recv();
                None
            }
            _ => None,
        }
    });
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = format!("{}/app:1", registry.host());
    let pull = session.sarus(["pull", "--quiet", &reference]).start();
    was_asked.recv().unwrap();
    let blobs = session.home().join(".local/share/sarus/blobs");
    while complete(&blobs) < 2 {
        std::thread::yield_now();
    }
    pull.signal(Signal::KILL);
    assert_eq!(pull.finish().code(), None, "killed");
    drop(go_on);
    let before = registry.requests().len();

    let output = session.sarus(["pull", "--quiet", &reference]).run();
    assert_eq!(output.ok(), format!("{}\n", image.digest()));
    let again: Vec<_> = registry.requests().split_off(before);
    let of = |digest: &str| {
        again.iter().filter(|request| request.path.ends_with(digest)).collect::<Vec<_>>()
    };
    assert!(of(&layers[0]).is_empty() && of(&layers[1]).is_empty(), "{again:?}");
    let [rest] = of(&layers[2])[..] else { panic!("once: {again:?}") };
    let from = rest.headers["range"].strip_prefix("bytes=").unwrap().trim_end_matches('-');
    assert_eq!(from.parse::<usize>().unwrap(), half, "all that had come is kept");
}

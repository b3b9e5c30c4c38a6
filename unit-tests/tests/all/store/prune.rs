//! What prune frees, what it says before, and that images are verified byte for byte.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sarus_oci::Digest;
use sarus_store::{Claim, Kind, Owner, Report, StoreError, Verified};

use super::{DAY, digest, make_old, put, snapshot, stored};
use crate::place::Place;

fn dead_writer() -> String {
    let me = Owner::current().label();
    let (process, _start) = me.rsplit_once(',').unwrap();
    format!("{process},1,0")
}

/// A store with something of each kind that can be freed, and as much that cannot.
fn full() -> Place {
    let place = Place::new();
    place.add_named(&digest(1), "kept:1");
    let over = place.add(&digest(2), b"nameless");
    place.add(&digest(3), b"young");
    place.store.sweep(DAY).unwrap();
    make_old(&over.squashfs.with_file_name("removed"), 2 * DAY);
    stored(&place, b"a blob");
    let blobs = place.root().join("blobs");
    let name = |content: &[u8]| format!("sha256-{}.partial", Digest::sha256_of(content).hex());
    put(&blobs.join(name(b"1")), b"given up");
    put(&blobs.join(format!("{},{}", name(b"2"), dead_writer())), b"dead");
    put(&blobs.join(format!("{},{},0", name(b"3"), Owner::current().label())), b"written");
    put(&place.root().join(format!("tmp/image,{}/image.squashfs", dead_writer())), b"half");
    place
}

#[test]
fn what_no_store_made_is_left_alone_and_stops_nothing() {
    let place = full();
    let name = format!("sha256-{}", Digest::sha256_of(b"a directory").hex());
    let foreign = place.root().join("blobs").join(name);
    put(&foreign.join("content"), b"somebody's");
    let pruned = place.store.prune(DAY, false).unwrap();
    assert_eq!(pruned.items.len(), 5);
    assert!(foreign.join("content").exists());
}

#[test]
fn a_dry_run_says_what_would_be_freed_and_changes_nothing() {
    let place = full();
    let before = snapshot(place.root());
    let told = place.store.prune(DAY, true).unwrap();
    assert_eq!(snapshot(place.root()), before);
    let counted: Vec<(Kind, u64)> = told.items.iter().map(|item| (item.kind, item.bytes)).collect();
    let want = [
        (Kind::Blob, 6),
        (Kind::Partial, 4),
        (Kind::Partial, 8),
        (Kind::Temporary, 4),
        (Kind::Image, 8),
    ];
    let mut counted_sorted = counted;
    counted_sorted.sort();
    assert_eq!(counted_sorted, want);
    assert_eq!(told.bytes(), 30);

    assert_eq!(place.store.prune(DAY, false).unwrap(), told, "what was said was done");
    assert_eq!(place.store.prune(DAY, true).unwrap().items, [], "nothing is left of it");
    assert_eq!(place.blobs().len(), 1, "what is being written: {:?}", place.blobs());
    assert_eq!(place.lookup("kept:1"), Some(digest(1)));
    assert!(place.store.image(&digest(3)).unwrap().is_some(), "its grace is not over");
    place.check();
}

#[test]
fn while_a_pull_goes_on_its_blobs_stay() {
    let place = full();
    let Claim::Held(lease) = place.store.claim(&digest(9), &Report::default()).unwrap() else {
        panic!("nobody else is there");
    };
    let pruned = place.store.prune(DAY, false).unwrap();
    assert!(pruned.pulling && pruned.items.iter().all(|item| item.kind != Kind::Blob));
    drop(lease);
    let pruned = place.store.prune(DAY, false).unwrap();
    assert_eq!(pruned.items.iter().map(|item| item.kind).collect::<Vec<_>>(), [Kind::Blob]);
}

#[test]
fn a_store_that_is_not_there_has_nothing_to_free_and_is_not_made() {
    let place = Place::new();
    assert_eq!(place.store.prune(Duration::ZERO, false).unwrap().bytes(), 0);
    assert!(!place.root().exists());
}

#[test]
fn an_altered_byte_is_found_by_the_digest_in_the_metadata() {
    let place = Place::new();
    let committed = place.add_named(&digest(1), "debian:12");
    let image = place.store.image(&digest(1)).unwrap().unwrap();
    assert_eq!(committed, image, "what commit says is what is stored");
    assert_eq!(image.verify().unwrap(), Verified::Digest);
    let got = image.metadata.conversion.squashfs_digest.clone();
    assert_eq!(got, Some(Digest::sha256_of(b"debian:12")));

    let file = fs::OpenOptions::new().write(true).open(&image.squashfs).unwrap();
    file.write_all_at(b"x", 3).unwrap();
    let error = image.verify().unwrap_err();
    assert!(matches!(error, StoreError::Digest { .. }) && error.is_damage(), "{error}");
    assert!(error.hint().unwrap().contains("sarus pull"));
    file.set_len(2).unwrap();
    assert!(matches!(image.verify().unwrap_err(), StoreError::Length { .. }));
}

#[test]
fn metadata_without_a_digest_are_read_and_only_the_length_is_compared() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    let path = place.image_directory(&digest(1)).join("image.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["conversion"].as_object_mut().unwrap().remove("squashfsDigest").unwrap();
    put(&path, json.to_string());
    let image = place.store.image(&digest(1)).unwrap().unwrap();
    assert_eq!(image.verify().unwrap(), Verified::Length);
}

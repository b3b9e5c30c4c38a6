//! Pulls that meet others: waiting, taking over, sharing a failure.

use std::fs;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use sarus_image::{ImageError, Observer, Other, Pulled, Store, Stores};
use sarus_oci::Digest;
use sarus_store::{Claim, Lease, Owner, Report};
use sarus_unit_tests::chain;

use super::{Fake, Fault, settings};
use crate::packed::Packed;
use crate::place::Place;

/// Passes on whom the pull waits for, and what it takes over.
#[derive(Default)]
struct Told {
    waiting: Mutex<Option<Sender<Other>>>,
    taken_over: Mutex<Vec<Other>>,
}

impl Observer for Told {
    fn waiting(&self, other: &Other) {
        if let Some(sender) = &*self.waiting.lock().unwrap() {
            // The test has heard enough.
            drop(sender.send(other.clone()));
        }
    }

    fn taking_over(&self, other: &Other) {
        self.taken_over.lock().unwrap().push(other.clone());
    }
}

impl Place {
    fn hold(&self, digest: &Digest) -> Lease {
        let report = Report { fetched: 3, total: 9, ..Report::default() };
        match self.store.claim(digest, &report).unwrap() {
            Claim::Held(lease) => lease,
            Claim::Taken(holder) => panic!("{holder:?} has it"),
        }
    }

    /// Pulls while somebody holds the image's lease, who does `then` once the pull waits.
    fn pull_waiting(
        &self,
        source: &Fake,
        then: impl FnOnce(Lease) + Send,
    ) -> (Result<Pulled, ImageError>, Told) {
        let lease = self.hold(&source.image.digest());
        let (sender, waits) = channel();
        let told = Told { waiting: Mutex::new(Some(sender)), ..Told::default() };
        let pulled = std::thread::scope(|scope| {
            let pull = scope.spawn(|| self.pull_with(source, "app:1", &settings(), &told));
            let other = waits.recv().unwrap();
            let host = Owner::current().host().to_owned();
            let pid = std::process::id();
            assert_eq!(other, Other { host, pid, fetched: 3, total: 9 });
            then(lease);
            pull.join().unwrap()
        });
        (pulled, told)
    }

    /// Writes the lease of a process that is dead.
    fn leave_lease(&self, digest: &Digest, record: &str) {
        let me = Owner::current().label();
        let (process, _start) = me.rsplit_once(',').unwrap();
        let directory = self.store.root().join(format!("leases/sha256-{}", digest.hex()));
        fs::DirBuilder::new().recursive(true).create(&directory).unwrap();
        fs::File::create(directory.join(format!("{process},1,0")))
            .and_then(|mut file| std::io::Write::write_all(&mut file, record.as_bytes()))
            .unwrap();
    }
}

#[test]
fn who_waits_finds_the_image_when_the_holder_has_made_it() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("x"));
    let elsewhere = Place::new();
    elsewhere.pull(&source, "app:1").unwrap();
    assert_eq!(source.downloads().len(), 1);
    let image = format!("images/v1/sha256-{}", source.image.digest().hex());
    let (pulled, told) = place.pull_waiting(&source, |lease| {
        let (from, to) = (elsewhere.store.root().join(&image), place.store.root().join(&image));
        fs::DirBuilder::new().recursive(true).create(to.parent().unwrap()).unwrap();
        fs::rename(from, to).unwrap();
        drop(lease);
    });
    assert!(pulled.unwrap().up_to_date);
    assert_eq!(source.downloads(), [], "nothing was fetched twice");
    assert_eq!(*told.taken_over.lock().unwrap(), []);
}

#[test]
fn who_waits_does_the_work_when_the_holder_gives_it_back_undone() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("x"));
    let (pulled, _) = place.pull_waiting(&source, drop);
    assert!(!pulled.unwrap().up_to_date);
    assert_eq!(source.downloads().len(), 1);
    assert_eq!(place.names_in("leases"), [""; 0]);
}

#[test]
fn a_dead_holders_pull_is_taken_over_and_its_beginning_is_used() {
    let place = Place::new();
    let source = Fake::new(super::large()).with(1, Fault::Cut(30_000));
    place.pull(&source, "app:1").unwrap_err();
    source.downloads();
    for digest in [source.image.digest(), source.image.layers[1].digest.clone()] {
        place.leave_lease(&digest, r#"{"renewal":4,"fetched":5,"total":6}"#);
    }
    let told = Told::default();
    place.pull_with(&source, "app:1", &settings(), &told).unwrap();
    let taken_over = told.taken_over.lock().unwrap();
    assert_eq!(taken_over.len(), 1);
    assert_eq!((taken_over[0].fetched, taken_over[0].total), (5, 6));
    let layer = &source.image.layers[1].digest;
    let downloads = source.downloads();
    let resumed = downloads.iter().find(|(digest, _)| digest == layer).unwrap();
    assert_eq!(resumed.1, 30_000, "{downloads:?}");
    assert_eq!(place.names_in("leases"), [""; 0]);
}

#[test]
fn a_failure_is_tried_again_by_who_waits_until_enough_have_tried() {
    let fail = |attempt| {
        move |lease: Lease| {
            let failed = Some("the registry is down".to_owned());
            lease.fail(&Report { failed, attempt, ..Report::default() });
        }
    };
    let place = Place::new();
    let source = Fake::new(Packed::simple("x"));
    let (pulled, _) = place.pull_waiting(&source, fail(2));
    pulled.unwrap();

    let place = Place::new();
    let (pulled, _) = place.pull_waiting(&source, fail(3));
    let error = pulled.unwrap_err();
    let host = Owner::current().host().to_owned();
    let who = format!("process {} on {host}", std::process::id());
    let want = format!(
        "the pull of `docker.io/library/app:1` that was waited for, by {who}, failed\nthe \
         registry is down"
    );
    assert_eq!(chain(&error), want);
    assert!(error.hint().unwrap().contains("run the command again"));
    // Who comes later did not wait for it, and tries.
    place.pull(&source, "app:1").unwrap();
    assert_eq!(place.names_in("leases"), [""; 0]);
}

#[test]
fn a_pull_that_fails_leaves_its_reason_for_who_waits() {
    for (fault, attempt) in [(Fault::Absent, 1), (Fault::Cut(100), 1)] {
        let place = Place::new();
        let source = Fake::new(super::large()).with(0, fault);
        let error = place.pull(&source, "app:1").unwrap_err();
        let holder = place.store.holder(&source.image.digest()).unwrap().unwrap();
        let told = holder.report.failed.unwrap();
        assert_eq!(told, chain(&error).replace('\n', ": "));
        assert_eq!(holder.report.attempt, attempt);
    }
}

#[test]
fn what_would_fail_everywhere_is_not_tried_by_each_who_waits() {
    let place = Place::new();
    let source = Fake::new(Packed::new(&[b"no archive".to_vec()], &serde_json::json!({})));
    place.pull(&source, "app:1").unwrap_err();
    let holder = place.store.holder(&source.image.digest()).unwrap().unwrap();
    assert_eq!(holder.report.attempt, 3);
}

#[test]
fn a_store_without_leases_is_pulled_to_all_the_same() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("x"));
    fs::DirBuilder::new().recursive(true).create(place.store.root()).unwrap();
    drop(fs::File::create(place.store.root().join("leases")).unwrap());
    place.pull(&source, "app:1").unwrap();
}

#[test]
fn an_image_is_looked_for_in_each_store_in_order() {
    let places = [Place::new(), Place::new(), Place::new()];
    let source = Fake::new(Packed::simple("x"));
    for place in &places[1..] {
        place.pull(&source, "app:1").unwrap();
    }
    places[2].pull(&Fake::new(Packed::simple("y")), "last:1").unwrap();
    let read_only = |place: &Place| Store::open_read_only(place.store.root());
    let own = places[0].store.clone();
    let stores = Stores::new(own, places[1..].iter().map(read_only));
    let found = |name: &str| {
        let image = stores.lookup(&super::reference(name), &super::amd64()).unwrap().unwrap();
        (0..3).find(|place| image.squashfs.starts_with(places[*place].store.root()))
    };
    assert_eq!(found("app:1"), Some(1));
    assert_eq!(found("last:1"), Some(2));
    assert_eq!(stores.find("last:1", &super::amd64()).unwrap().names.len(), 1);
    assert!(!places[0].store.root().exists(), "nothing is written by looking");
}

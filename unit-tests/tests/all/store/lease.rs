//! Leases: who gets them, who keeps them, and how a waiter tells the living from the dead.

use std::time::{Duration, Instant};

use sarus_store::{Claim, Holder, LEASE_EXPIRY, Lease, Owner, Report, Sign, Watch};

use super::{digest, names_in, put};
use crate::place::Place;

/// A label like this process's with one field changed: host, boot, namespace, process, start.
fn label(field: usize, value: &str) -> String {
    let me = Owner::current().label();
    let mut fields: Vec<&str> = me.split(',').collect();
    fields[field] = value;
    fields.join(",")
}

fn dead() -> String {
    label(4, "1")
}

fn on_another_node() -> String {
    label(0, "elsewhere")
}

impl Place {
    fn claim(&self) -> Claim {
        self.store.claim(&digest(1), &Report::default()).unwrap()
    }

    fn take(&self) -> Lease {
        match self.claim() {
            Claim::Held(lease) => lease,
            Claim::Taken(holder) => panic!("{holder:?} has it"),
        }
    }

    fn holder(&self) -> Option<Holder> {
        self.store.holder(&digest(1)).unwrap()
    }

    /// Another process's lease, with what it wrote last.
    fn held_by(&self, label: &str, record: &str) -> Holder {
        let name = format!("sha256-{}/{label},0", digest(1).hex());
        put(&self.root().join("leases").join(name), record);
        self.holder().unwrap()
    }

    fn leases(&self) -> Vec<String> {
        names_in(&self.root().join("leases"))
    }
}

#[test]
fn one_of_two_who_ask_gets_the_lease_and_the_other_learns_who_has_it() {
    let place = Place::new();
    let lease = place.take();
    lease.renew(&Report { fetched: 3, total: 9, ..Report::default() }).unwrap();
    let Claim::Taken(holder) = place.claim() else { panic!("two hold it") };
    assert_eq!(holder.owner, Some(Owner::current()));
    assert_eq!((holder.report.fetched, holder.report.total), (3, 9));
    assert_eq!(place.temporaries(), [""; 0], "of the one who was told no");
    drop(lease);
    assert_eq!(place.holder(), None);
    assert_eq!(place.leases(), [""; 0]);
    drop(place.take());
}

#[test]
fn of_many_who_ask_at_once_one_holds_the_lease_at_any_time() {
    let place = Place::new();
    let holding = std::sync::atomic::AtomicUsize::new(0);
    let taken = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    if let Claim::Held(lease) = place.claim() {
                        let before = holding.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0, "two hold it");
                        taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        holding.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(lease);
                    }
                }
            });
        }
    });
    assert!(taken.into_inner() > 0);
    assert_eq!((place.leases(), place.temporaries()), (vec![], vec![]));
}

#[test]
fn a_holder_lives_while_its_file_changes_by_the_waiters_clock() {
    let place = Place::new();
    let me = Owner::current();
    let start = Instant::now();
    let second = Duration::from_secs(1);
    // A record that was torn, or is of a newer version, shows no progress but life.
    let records = ["", "{", r#"{"renewal":1}"#, r#"{"renewal":2,"fetched":5,"news":true}"#];
    for label in [on_another_node(), "of-a-newer-version".to_owned()] {
        let mut watch = Watch::default();
        let mut now = start;
        for record in records {
            let holder = place.held_by(&label, record);
            assert_eq!(watch.look(Some(&holder), &me, now), Sign::Alive, "{record:?} is new");
            now += LEASE_EXPIRY - second;
            assert_eq!(watch.look(Some(&holder), &me, now), Sign::Alive, "{record:?} is young");
        }
        let last = place.holder().unwrap();
        assert_eq!(watch.look(Some(&last), &me, now + second), Sign::Dead, "{label}");
        assert_eq!(watch.look(None, &me, now), Sign::Free);
        last.evict().unwrap();
    }
}

#[test]
fn a_new_holder_has_its_own_time() {
    let place = Place::new();
    let (me, start) = (Owner::current(), Instant::now());
    let mut watch = Watch::default();
    let first = place.held_by(&on_another_node(), "{}");
    assert_eq!(watch.look(Some(&first), &me, start), Sign::Alive);
    first.evict().unwrap();
    let second = place.held_by(&label(0, "third"), "{}");
    assert_eq!(watch.look(Some(&second), &me, start + LEASE_EXPIRY), Sign::Alive);
    assert!(!second.is_same(&first));
}

#[test]
fn a_process_of_this_node_is_known_to_be_dead_at_once_also_one_that_stands_still() {
    let place = Place::new();
    let (me, now) = (Owner::current(), Instant::now());
    let gone = place.held_by(&dead(), r#"{"renewal":1}"#);
    assert_eq!(Watch::default().look(Some(&gone), &me, now), Sign::Dead);
    assert!(gone.owner.as_ref().unwrap().pidfd(&me).is_none());
    gone.evict().unwrap();

    let still = place.held_by(&me.label(), r#"{"renewal":1}"#);
    assert!(me.pidfd(&me).is_some(), "its end could be waited for");
    let mut watch = Watch::default();
    assert_eq!(watch.look(Some(&still), &me, now), Sign::Alive);
    assert_eq!(watch.look(Some(&still), &me, now + LEASE_EXPIRY), Sign::Dead);
}

#[test]
fn nothing_that_a_slow_holder_does_takes_away_the_lease_of_the_next() {
    let place = Place::new();
    let slow = place.take();
    let seen = place.holder().unwrap();
    seen.evict().unwrap();
    let next = place.take();
    let holder = place.holder().unwrap();
    assert!(!holder.is_same(&seen));
    // Another waiter that took the slow one for dead a moment later.
    seen.evict().unwrap();
    slow.renew(&Report { fetched: 7, ..Report::default() }).unwrap();
    drop(slow);
    assert_eq!(place.holder().unwrap(), holder, "untouched");
    drop(next);
    assert_eq!(place.leases(), [""; 0]);
}

#[test]
fn a_failure_stays_to_be_read_and_its_text_is_bounded() {
    let place = Place::new();
    let failed = Some("\u{1b}é\"".repeat(4000));
    place.take().fail(&Report { failed, attempt: 2, ..Report::default() });
    let holder = place.holder().unwrap();
    assert_eq!(holder.report.attempt, 2);
    let text = holder.report.failed.clone().unwrap();
    assert!(text.starts_with("\u{1b}é") && text.len() <= 800, "{}", text.len());
    let me = Owner::current();
    assert_eq!(Watch::default().look(Some(&holder), &me, Instant::now()), Sign::Failed);
    holder.evict().unwrap();
    drop(place.take());
}

#[test]
fn sweep_removes_the_leases_of_the_dead_only() {
    let place = Place::new();
    let leases = place.root().join("leases");
    let of = |number: u32| format!("sha256-{}", digest(number).hex());
    put(&leases.join(of(2)).join(format!("{},0", dead())), "{}");
    put(&leases.join(of(3)).join(format!("{},0", on_another_node())), "{}");
    put(&leases.join(of(4)).join("of-a-newer-version"), "{}");
    std::fs::DirBuilder::new().create(leases.join(of(5))).unwrap();
    let mine = place.take();
    assert!(place.store.is_in_use().unwrap());
    place.store.sweep(Duration::ZERO).unwrap();
    let mut kept = vec![of(1), of(3), of(4)];
    kept.sort();
    assert_eq!(place.leases(), kept);
    drop(mine);
    // What another node has not renewed for hours is left behind.
    for path in [of(3), of(4)] {
        let directory = leases.join(path);
        let name = names_in(&directory).remove(0);
        super::make_old(&directory.join(name), Duration::from_secs(4000));
    }
    assert!(!place.store.is_in_use().unwrap());
    place.store.sweep(Duration::ZERO).unwrap();
    assert_eq!(place.leases(), [""; 0]);
}

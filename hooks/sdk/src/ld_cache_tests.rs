use super::*;
use proptest::prelude::*;

fn library(name: &str, path: &str) -> (String, PathBuf) {
    (name.to_owned(), PathBuf::from(path))
}

/// A cache without entries.
fn empty() -> Vec<u8> {
    write(&[]).unwrap()
}

/// Looks a name up as the loader does (`_dl_load_cache_lookup`).
fn look_up(cache: &[u8], name: &str) -> Option<PathBuf> {
    let entries = entries(cache).unwrap();
    let (mut left, mut right) = (0, entries.len());
    while left < right {
        let mut middle = left + (right - left) / 2;
        match compare(name.as_bytes(), entries[middle].name.as_bytes()) {
            Ordering::Less => left = middle + 1,
            Ordering::Greater => right = middle,
            Ordering::Equal => {
                let is_it = |at: usize| {
                    compare(name.as_bytes(), entries[at].name.as_bytes()) == Ordering::Equal
                };
                while middle > 0 && is_it(middle - 1) {
                    middle -= 1;
                }
                return entries[middle..]
                    .iter()
                    .find(|entry| entry.is_native())
                    .map(|entry| entry.path.to_owned());
            }
        }
    }
    None
}

/// The cache as glibc before 2.32 wrote it: the old format, with the new one behind.
fn behind_old(new: &[u8]) -> Vec<u8> {
    let mut cache = Vec::from(OLD_MAGIC);
    cache.push(0);
    cache.extend(1_u32.to_ne_bytes());
    cache.extend([0; OLD_ENTRY_SIZE]);
    cache.resize(cache.len().next_multiple_of(8), 0);
    cache.extend(new);
    cache
}

#[test]
fn names_are_compared_as_the_loader_does() {
    for (one, other, want) in [
        ("libm.so.6", "libm.so.6", Ordering::Equal),
        ("libm.so.10", "libm.so.9", Ordering::Greater),
        ("libm.so.010", "libm.so.10", Ordering::Equal),
        ("libm.so", "libm.so.6", Ordering::Less),
        ("lib1", "liba", Ordering::Greater),
        ("lib1", "lib", Ordering::Greater),
        ("liba", "libB", Ordering::Greater),
    ] {
        assert_eq!(compare(one.as_bytes(), other.as_bytes()), want, "{one} {other}");
        assert_eq!(compare(other.as_bytes(), one.as_bytes()), want.reverse(), "{other} {one}");
    }
}

#[test]
fn what_is_added_is_found_first() {
    let old = add(&empty(), &[library("libmpi.so.12", "/usr/lib/libmpi.so.12")]).unwrap();
    let old = add(&old, &[library("libz.so.1", "/lib/libz.so.1")]).unwrap();
    let new = add(
        &old,
        &[library("libmpi.so.12", "/opt/libmpi.so.12"), library("liba.so", "/opt/liba.so")],
    )
    .unwrap();
    for (name, want) in [
        ("libmpi.so.12", Some("/opt/libmpi.so.12")),
        ("liba.so", Some("/opt/liba.so")),
        ("libz.so.1", Some("/lib/libz.so.1")),
        ("libc.so.6", None),
    ] {
        assert_eq!(look_up(&new, name), want.map(PathBuf::from), "{name}");
    }
    assert_eq!(entries(&new).unwrap().len(), 4);
    let again = add(&new, &[library("liba.so", "/opt/liba.so")]).unwrap();
    assert_eq!(again, new, "an entry that is there is not doubled");
}

#[test]
fn a_cache_behind_the_old_format_is_read_and_written_without_it() {
    let new = add(&empty(), &[library("libz.so.1", "/lib/libz.so.1")]).unwrap();
    let old = behind_old(&new);
    assert_eq!(entries(&old).unwrap(), entries(&new).unwrap());
    assert!(add(&old, &[]).unwrap().starts_with(MAGIC));
}

#[test]
fn libraries_for_some_processors_stay_what_they_are() {
    let entry = |path, hwcap| Entry {
        name: OsStr::new("libx.so.1"),
        path: Path::new(path),
        flags: NATIVE_FLAGS.unwrap_or(3),
        os_version: 0,
        hwcap,
    };
    let old = [
        entry("/lib/glibc-hwcaps/x86-64-v3/libx.so.1", Hwcap::Named(OsStr::new("x86-64-v3"))),
        entry("/lib/glibc-hwcaps/x86-64-v2/libx.so.1", Hwcap::Named(OsStr::new("x86-64-v2"))),
        entry("/lib/haswell/libx.so.1", Hwcap::Bits(1 << 51)),
        entry("/lib/libx.so.1", Hwcap::Bits(0)),
    ];
    let cache = write(&old).unwrap();
    assert_eq!(entries(&cache).unwrap(), old);
    let new = add(&cache, &[library("libx.so.1", "/opt/libx.so.1")]).unwrap();
    let read = entries(&new).unwrap();
    assert_eq!(read[0].path, Path::new("/opt/libx.so.1"));
    assert_eq!(read[1..], old);
}

#[test]
fn what_is_no_cache_is_refused() {
    let foreign = {
        let mut cache = empty();
        cache[28] = 5 - BYTE_ORDER;
        cache
    };
    let short = {
        let mut cache = empty();
        cache[20] = 1;
        cache
    };
    for (bytes, want) in [
        (&b""[..], "no `glibc-ld.so.cache1.1`"),
        (b"ld.so-1.7.0\0\xff\xff\xff\xff", "no `glibc-ld.so.cache1.1`"),
        (MAGIC, "cut short"),
        (&short, "1 entries"),
        (&foreign, "byte order"),
    ] {
        let refused = add(bytes, &[]).unwrap_err();
        assert!(refused.contains(want), "{refused}");
    }
}

#[test]
fn a_small_file_cannot_become_a_large_one() {
    // Each entry's strings are ends of one long string.
    let names: Vec<String> = (0..40_000).map(|n| "x".repeat(4000 - n % 4000)).collect();
    let list: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (format!("{n}{name}"), PathBuf::from("/x")))
        .collect();
    let refused = add(&empty(), &list).unwrap_err();
    assert!(refused.contains("larger than 64 MiB"), "{refused}");
}

#[test]
fn this_machines_own_cache_is_read_and_still_sorted_after_an_addition() {
    let own = std::fs::read("/etc/ld.so.cache").unwrap();
    let old = entries(&own).unwrap();
    assert!(old.iter().any(|entry| entry.name == "libc.so.6" && entry.is_native()));
    let new = add(&own, &[library("libzzz.so.3", "/opt/libzzz.so.3")]).unwrap();
    let read = entries(&new).unwrap();
    assert_eq!(read.len(), old.len() + 1);
    for entry in read.iter().filter(|entry| entry.is_native()) {
        assert!(look_up(&new, &entry.name.to_string_lossy()).is_some(), "{entry:?}");
    }
    assert_eq!(look_up(&new, "libzzz.so.3"), Some(PathBuf::from("/opt/libzzz.so.3")));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(tail in prop::collection::vec(any::<u8>(), 0..600), old: bool) {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(&tail);
        let bytes = if old { behind_old(&bytes) } else { bytes };
        let _either = add(&bytes, &[library("a", "/a")]);
    }

    #[test]
    fn a_damaged_cache_is_survived(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
        let list: Vec<_> = (0..6).map(|n| library(&format!("lib{n}.so"), "/lib/x")).collect();
        let mut cache = add(&empty(), &list).unwrap();
        if let Some(there) = cache.get_mut(at) {
            *there = byte;
        }
        cache.truncate(cache.len().saturating_sub(cut % 40));
        let _either = add(&cache, &list);
    }

    #[test]
    fn whatever_is_added_is_found(names in prop::collection::vec("[a-c0-9.é]{1,6}", 1..20)) {
        let old: Vec<_> = names.iter().map(|name| library(name, "/old")).collect();
        let cache = add(&empty(), &old).unwrap();
        let added = library(&names[0], "/new");
        let cache = add(&cache, &[added]).unwrap();
        prop_assert_eq!(look_up(&cache, &names[0]), Some(PathBuf::from("/new")));
        for name in &names {
            prop_assert!(look_up(&cache, name).is_some(), "{}", name);
        }
    }
}

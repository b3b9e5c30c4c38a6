//! Whether the host's C library can stand for the image's. No I/O.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sarus_hook::elf::{compare_versions, highest};

use crate::LIBC;
use crate::image::Image;

/// The C library of the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// The versions of symbols that it defines.
    pub(crate) versions: BTreeSet<String>,
    /// Its parts, by name.
    pub(crate) paths: BTreeMap<String, PathBuf>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, and why.
    Keep(String),
    /// Each file of the host is mounted over one of the image.
    Replace { files: Vec<(PathBuf, PathBuf)>, notes: Vec<String> },
}

/// Parts without which a newer C library does not work with what is left of the old one.
fn is_essential(soname: &str) -> bool {
    const OPTIONAL: [&str; 3] = ["libnsl", "libnss_", "libmemusage"];
    !OPTIONAL.iter().any(|stem| soname.starts_with(stem))
}

/// Decides.
pub(crate) fn decide(host: &Host, image: &Image) -> Decision {
    let keep = |reason: &str| Decision::Keep(reason.to_owned());
    let version = |versions| highest(versions, "GLIBC").map(str::to_owned);
    let Some(theirs) = version(&image.versions) else {
        return keep(match image.is_musl {
            true => "it is musl",
            false => "the image has no GNU C library for this machine",
        });
    };
    let Some(ours) = version(&host.versions) else {
        return keep("the host has no GNU C library for it");
    };
    match compare_versions(&ours, &theirs) {
        Ordering::Greater => {}
        Ordering::Equal => return Decision::Keep(format!("it is as new as the host's ({ours})")),
        Ordering::Less => {
            let reason = format!("it is newer ({theirs}) than the host's ({ours})");
            return Decision::Keep(reason);
        }
    }
    let is_public = |name: &&String| *name != "GLIBC_PRIVATE";
    if let Some(lost) = image.versions.difference(&host.versions).find(is_public) {
        return Decision::Keep(format!("the host's does not define its version `{lost}`"));
    }
    let mut files = Vec::new();
    let mut notes = vec![format!("the host's C library ({ours}) replaces the image's ({theirs})")];
    for file in &image.files {
        let path = file.path.display();
        match host.paths.get(&file.soname) {
            Some(source) => files.push((source.clone(), file.path.clone())),
            None if is_essential(&file.soname) => {
                return Decision::Keep(format!("the host has no `{}` for `{path}`", file.soname));
            }
            None => notes.push(format!("`{path}` stays: the host has none")),
        }
    }
    if !image.files.iter().any(|file| file.soname == LIBC) {
        return keep("it is in no directory that the loader searches");
    }
    Decision::Replace { files, notes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::File;

    fn versions(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn image(names: &[&str], files: &[&str]) -> Image {
        let file = |soname: &&str| File {
            soname: (*soname).to_owned(),
            path: PathBuf::from(format!("/lib/{soname}")),
        };
        Image { is_musl: false, files: files.iter().map(file).collect(), versions: versions(names) }
    }

    fn host(names: &[&str], files: &[&str]) -> Host {
        let path = |soname: &&str| ((*soname).to_owned(), PathBuf::from(format!("/host/{soname}")));
        Host { versions: versions(names), paths: files.iter().map(path).collect() }
    }

    const PARTS: [&str; 3] = ["ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6"];

    #[test]
    fn an_older_c_library_is_replaced_with_its_loader() {
        let host = host(&["GLIBC_2.2.5", "GLIBC_2.4", "GLIBC_2.36", "GLIBC_PRIVATE"], &PARTS);
        let mut parts = PARTS.to_vec();
        parts.push("libnss_nis.so.2");
        let image = image(&["GLIBC_2.2.5", "GLIBC_2.4"], &parts);
        let Decision::Replace { files, notes } = decide(&host, &image) else { panic!("kept") };
        let want = PARTS.map(|name| {
            (PathBuf::from(format!("/host/{name}")), PathBuf::from(format!("/lib/{name}")))
        });
        assert_eq!(files, want);
        assert!(notes[1].contains("libnss_nis.so.2"), "{notes:?}");
    }

    #[test]
    fn any_other_stays_and_the_reason_is_said() {
        let usual = host(&["GLIBC_2.4", "GLIBC_2.36"], &PARTS);
        for (host, image, want) in [
            (&usual, image(&["GLIBC_2.4", "GLIBC_2.36"], &PARTS), "as new as"),
            (&usual, image(&["GLIBC_2.4", "GLIBC_2.41"], &PARTS), "newer (GLIBC_2.41)"),
            (&usual, image(&["GLIBC_2.3", "GLIBC_2.4"], &PARTS), "`GLIBC_2.3`"),
            (&usual, image(&[], &[]), "no GNU C library"),
            (&usual, image(&["GLIBC_2.4"], &[]), "no directory"),
            (
                &host(&["GLIBC_2.4", "GLIBC_2.36"], &["libc.so.6"]),
                image(&["GLIBC_2.4"], &PARTS),
                "no `ld-linux",
            ),
            (&host(&[], &[]), image(&["GLIBC_2.4"], &PARTS), "the host has no GNU"),
        ] {
            let Decision::Keep(reason) = decide(host, &image) else { panic!("replaced: {want}") };
            assert!(reason.contains(want), "{reason}");
        }
        let musl = Image { is_musl: true, ..image(&[], &[]) };
        assert_eq!(decide(&usual, &musl), Decision::Keep("it is musl".to_owned()));
    }
}

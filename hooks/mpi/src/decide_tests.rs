use super::*;
use crate::host::Why;
use crate::image::{Command, ImageLibrary, Program};
use crate::settings::Stack;
use sarus_hook::elf::{Elf, Symbol};
use std::collections::BTreeMap;
use std::rc::Rc;

fn stack() -> Stack {
    serde_json::from_str(r#"{"type": "test", "libs": ["/x"]}"#).unwrap()
}

fn library(path: &str, symbols: &[&str], libc: &[&str]) -> Library {
    let name = path.rsplit('/').next().unwrap();
    let symbol = |name: &&str| Symbol { name: (*name).to_owned(), version: None };
    let versions = libc.iter().map(|name| (*name).to_owned()).collect();
    let elf = Elf {
        exported: symbols.iter().map(symbol).collect(),
        versions_needed: BTreeMap::from([("libc.so.6".to_owned(), versions)]),
        ..Elf::default()
    };
    Library {
        path: PathBuf::from(path),
        soname: name.to_owned(),
        kind: Kind::of(name, || false),
        version: version(name),
        why: Why::Mpi,
        elf: Rc::new(elf),
    }
}

fn host<'s>(stack: &'s Stack, libraries: &[Library]) -> Host<'s> {
    Host { stack, libraries: libraries.to_vec(), missing: Vec::new() }
}

fn image(libraries: &[&str], programs: Vec<Program>) -> Image {
    let library = |path: &&str| ImageLibrary {
        path: PathBuf::from(path),
        kind: Kind::of(path.rsplit('/').next().unwrap(), || false).unwrap(),
        directories: BTreeSet::new(),
    };
    Image {
        has_cache: true,
        is_musl: false,
        libc: BTreeSet::new(),
        libraries: libraries.iter().map(library).collect(),
        command: Command::Dynamic,
        programs,
    }
}

/// A program that needs symbols of `libmpich.so.12`.
fn program(is_command: bool, symbols: &[&str]) -> Program {
    let kind = Kind::of("libmpich.so.12", || false).unwrap();
    let symbols = symbols.iter().map(|name| (*name).to_owned()).collect();
    let need = Need {
        by: PathBuf::from("/bin/solver"),
        kind: None,
        symbols: vec![(kind.clone(), symbols)],
        versions: Vec::new(),
    };
    let (path, uses) = (PathBuf::from("/bin/solver"), BTreeSet::from([kind]));
    Program { path, is_command, uses, needs: vec![need] }
}

fn words(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_library_stands_for_all_of_its_kind_under_either_name() {
    let stack = stack();
    let host = host(&stack, &[library("/opt/libmpi.so.12.0.0", &["MPI_Init"], &[])]);
    let image = image(
        &["/a/libmpich.so.12.1.10", "/b/libmpi.so.12", "/a/libmpichfort.so.12"],
        vec![program(true, &["MPI_Init"])],
    );
    let fit = fit(&host, &image, None).unwrap();
    let want = ["/a/libmpich.so.12.1.10", "/b/libmpi.so.12"].map(PathBuf::from).to_vec();
    assert_eq!(fit.replaced, [(0, want)]);
    assert!(fit.notes[0].contains("`/a/libmpichfort.so.12` stays"), "{:?}", fit.notes);
}

#[test]
fn another_family_is_refused_and_both_are_named() {
    let stack = stack();
    let host = host(&stack, &[library("/opt/libmpi.so.12", &[], &[])]);
    let refused = words(&fit(&host, &image(&["/a/libmpi.so.40"], vec![]), None).unwrap_err());
    for word in ["Open MPI (`libmpi.so.40`)", "MPICH (`libmpi.so.12`, `libmpich.so.12`)"] {
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn what_the_command_uses_decides_where_the_image_has_several() {
    let stack = stack();
    let host = host(&stack, &[library("/opt/libmpi.so.40", &[], &[])]);
    let libraries = ["/a/libmpi.so.40", "/a/libmpich.so.12"];
    assert!(fit(&host, &image(&libraries, vec![]), None).is_ok());
    let uses_mpich = image(&libraries, vec![program(true, &[])]);
    assert!(fit(&host, &uses_mpich, None).is_err());
}

#[test]
fn a_missing_symbol_is_refused_for_the_command_and_noted_for_what_it_may_call() {
    let stack = stack();
    let host = host(&stack, &[library("/opt/libmpi.so.12", &["MPI_Init"], &[])]);
    let needs = ["MPI_Init", "MPI_A_c", "MPI_B_c", "MPI_C_c", "MPI_D_c"];
    let of = |is_command| image(&["/a/libmpich.so.12"], vec![program(is_command, &needs)]);
    let refused = words(&fit(&host, &of(true), None).unwrap_err());
    let want = "`/bin/solver` needs `MPI_A_c`, `MPI_B_c`, `MPI_C_c` and 1 more, which \
                `/opt/libmpi.so.12` lacks";
    assert_eq!(refused, want);
    let notes = fit(&host, &of(false), None).unwrap().notes;
    assert_eq!(notes, [format!("{want}, if it is ever called")]);
}

#[test]
fn a_missing_version_is_refused_if_the_library_has_versions_at_all() {
    let stack = stack();
    let plain = library("/opt/libmpi.so.12", &[], &[]);
    let mut versioned = plain.clone();
    let versions_defined = BTreeSet::from(["MPI_1".to_owned()]);
    versioned.elf = Rc::new(Elf { versions_defined, ..(*plain.elf).clone() });
    let mut asks = program(true, &[]);
    asks.needs[0].versions.push(("libmpich.so.12".to_owned(), "MPI_2".to_owned()));
    let image = image(&["/a/libmpich.so.12"], vec![asks]);
    assert!(fit(&host(&stack, &[plain]), &image, None).is_ok());
    let refused = words(&fit(&host(&stack, &[versioned]), &image, None).unwrap_err());
    assert!(refused.contains("version `MPI_2`"), "{refused}");
}

#[test]
fn file_names_decide_only_where_the_site_says_so() {
    let stack = stack();
    for (ours, theirs, mode, fits, notes) in [
        ("libmpi.so.12.0.0", "libmpich.so.12.1.10", None, true, 0),
        ("libmpi.so.12.0.0", "libmpich.so.12.1.10", Some(Compatibility::Major), true, 0),
        ("libmpi.so.12.0.0", "libmpich.so.12.1.10", Some(Compatibility::Full), true, 1),
        ("libmpi.so.12.2.0", "libmpich.so.12.1.10", Some(Compatibility::Full), true, 0),
        ("libmpi.so.12.0.0", "libmpich.so.12.1.10", Some(Compatibility::Strict), false, 0),
        ("libmpi.so.12.1.1", "libmpich.so.12.1.10", Some(Compatibility::Strict), true, 0),
        ("libmpi.so.12", "libmpich.so.12.0.0", Some(Compatibility::Strict), true, 0),
    ] {
        let host = host(&stack, &[library(&format!("/opt/{ours}"), &[], &[])]);
        let fit = fit(&host, &image(&[&format!("/a/{theirs}")], vec![]), mode);
        assert_eq!(fit.is_ok(), fits, "{ours} {theirs} {mode:?}");
        assert_eq!(fit.map_or(0, |fit| fit.notes.len()), notes, "{ours} {theirs} {mode:?}");
    }
}

#[test]
fn the_newest_version_that_the_images_c_library_lacks_is_named() {
    let libraries = [
        library("/opt/libmpi.so.12", &[], &["GLIBC_2.4", "GLIBC_2.33", "GLIBC_PRIVATE"]),
        library("/opt/libucp.so.0", &[], &["GLIBC_2.34"]),
        library("/opt/libz.so.1", &[], &["GLIBC_2.9"]),
    ];
    let defined = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let old = defined(&["GLIBC_2.4", "GLIBC_2.9", "GLIBC_2.30"]);
    let reason = compare_libc(libraries.iter(), &old).unwrap().to_string();
    let want = "the host's `/opt/libucp.so.0` needs `GLIBC_2.34`, and the image's C library ends at \
                `GLIBC_2.30`";
    assert_eq!(reason, want);
    let new = defined(&["GLIBC_2.4", "GLIBC_2.9", "GLIBC_2.33", "GLIBC_2.34"]);
    assert_eq!(compare_libc(libraries.iter(), &new), None);
}

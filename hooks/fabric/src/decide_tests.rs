use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sarus_hook::elf::{Elf, Format};

use crate::config::{self, Config, Replace};
use crate::decide::{Decision, Facts, Way, decide};
use crate::image::{Has, Image, Libfabric};
use crate::node::{Files, Library, Node, NodePlugin, NodeProvider};

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A library: its name, what it is linked with, and the versions of libfabric of the two.
fn library(name: &str, needed: &[&str], needs: &[&str], defines: &[&str]) -> Library {
    let elf = Elf {
        format: Format { machine: 62, is_64: true, is_little: true },
        interpreter: None,
        is_dynamic: true,
        soname: Some(name.to_owned()),
        needed: needed.iter().map(|name| (*name).to_owned()).collect(),
        rpath: Vec::new(),
        runpath: Vec::new(),
        no_default: false,
        exported: BTreeSet::new(),
        undefined: BTreeSet::new(),
        versions_needed: BTreeMap::from([("libfabric.so.1".to_owned(), set(needs))]),
        versions_defined: set(defines),
    };
    Library { name: name.to_owned(), path: Path::new("/site").join(name), elf: Rc::new(elf) }
}

fn files(libraries: Vec<Library>) -> Option<Files> {
    Some(Files { libraries, missing: Vec::new() })
}

fn config() -> Config {
    config::parse(
        r#"{"version": 1, "providers": [{"name": "cxi", "library": "/site/libcxi-fi.so"}],
            "awsOfiNccl": {"variants": {"cuda12": {"library": "/site/libnccl-net.so"}}}}"#,
    )
    .unwrap()
}

/// A node with provider `cxi`, which needs libcxi and version 1.6, and libfabric up to 1.7.
fn node(config: &Config) -> Node<'_> {
    let cxi = library("libcxi-fi.so", &["libcxi.so.1", "libfabric.so.1"], &["FABRIC_1.6"], &[]);
    Node {
        providers: vec![NodeProvider {
            config: &config.providers[0],
            devices: Vec::new(),
            files: files(vec![cxi, library("libcxi.so.1", &[], &[], &[])]),
        }],
        libfabric: files(vec![library(
            "libfabric.so.1",
            &[],
            &[],
            &["FABRIC_1.5", "FABRIC_1.6", "FABRIC_1.7"],
        )]),
        ..Node::default()
    }
}

fn image(versions: &[&str]) -> Image {
    Image {
        libc: Some("/lib64".into()),
        libfabric: Some(Libfabric {
            path: "/opt/lib/libfabric.so.1".into(),
            versions: set(versions),
        }),
        libraries: BTreeMap::from([("libcxi.so.1".to_owned(), Has::Nothing)]),
        lacks: BTreeMap::new(),
    }
}

fn facts<'f>(node: &'f Node<'f>, image: &'f Image) -> Facts<'f> {
    let replace = Replace::Auto;
    Facts { node, image, replace, provider_path: None, with_host_libc: false }
}

fn placed(decision: &Decision) -> Vec<(&str, &str)> {
    let of = |path: &PathBuf| -> &'static str { path.display().to_string().leak() };
    decision.files.iter().map(|file| (of(&file.source), of(&file.destination))).collect()
}

#[test]
fn a_provider_goes_beside_the_images_libfabric_and_its_libraries_where_the_loader_looks() {
    let config = config();
    let (node, image) = (node(&config), image(&["FABRIC_1.5", "FABRIC_1.6"]));
    let decision = decide(&facts(&node, &image));
    assert_eq!(decision.way, Some(Way::Injection));
    assert_eq!(
        placed(&decision),
        [
            ("/site/libcxi-fi.so", "/opt/lib/libfabric/libcxi-fi.so"),
            ("/site/libcxi.so.1", "/lib64/libcxi.so.1"),
        ]
    );
    assert_eq!(decision.files[1].name.as_deref(), Some("libcxi.so.1"));
    assert_eq!(decision.refused, Vec::<String>::new());
    let of_container = Facts { provider_path: Some(Path::new("/fi")), ..facts(&node, &image) };
    let decision = decide(&of_container);
    assert_eq!(placed(&decision)[0].1, "/fi/libcxi-fi.so");
}

#[test]
fn what_the_image_has_is_used_and_what_is_older_is_covered() {
    let config = config();
    let (node, mut image) = (node(&config), image(&["FABRIC_1.6"]));
    image.libraries.insert("libcxi.so.1".to_owned(), Has::Enough);
    assert_eq!(placed(&decide(&facts(&node, &image))).len(), 1);
    image.libraries.insert("libcxi.so.1".to_owned(), Has::Less("/usr/lib/libcxi.so.1".into()));
    let decision = decide(&facts(&node, &image));
    assert_eq!(placed(&decision)[1].1, "/usr/lib/libcxi.so.1");
    image.libraries.insert("libcxi.so.1".to_owned(), Has::Other("it clashes".into()));
    let never = Facts { replace: Replace::Never, ..facts(&node, &image) };
    assert_eq!(decide(&never).refused, ["provider `cxi`: it clashes"]);
}

#[test]
fn an_older_libfabric_is_replaced_with_all_that_the_sites_needs() {
    let config = config();
    let (node, image) = (node(&config), image(&["FABRIC_1.5"]));
    let decision = decide(&facts(&node, &image));
    assert_eq!(decision.way, Some(Way::Replacement));
    assert_eq!(
        placed(&decision)[..2],
        [
            ("/site/libfabric.so.1", "/opt/lib/libfabric.so.1"),
            ("/site/libcxi-fi.so", "/opt/lib/libfabric/libcxi-fi.so"),
        ]
    );
    let why =
        "provider `cxi`: `/site/libcxi-fi.so` needs FABRIC_1.6, libfabric ends with FABRIC_1.5";
    assert_eq!(decision.notes, [why]);
    let never = Facts { replace: Replace::Never, ..facts(&node, &image) };
    assert_eq!(decide(&never).refused, [why]);
    assert_eq!(placed(&decide(&never)), []);
}

#[test]
fn a_newer_libfabric_is_not_replaced() {
    let config = config();
    let (node, image) = (node(&config), image(&["FABRIC_1.6", "FABRIC_1.8"]));
    assert_eq!(decide(&facts(&node, &image)).way, Some(Way::Injection));
    let always = Facts { replace: Replace::Always, ..facts(&node, &image) };
    let decision = decide(&always);
    assert!(
        decision.refused[0].contains("`/site/libfabric.so.1` has no FABRIC_1.8"),
        "{decision:?}"
    );
    assert_eq!(placed(&decision), []);
}

#[test]
fn a_provider_that_is_part_of_libfabric_comes_with_it() {
    let config = config();
    let (mut node, image) = (node(&config), image(&["FABRIC_1.6"]));
    node.providers[0].files = None;
    let decision = decide(&facts(&node, &image));
    assert_eq!((decision.way, decision.providers), (Some(Way::Replacement), vec![0]));
    assert_eq!(decision.directory, None);
}

#[test]
fn an_older_c_library_is_named_and_no_obstacle_where_the_hosts_comes() {
    let config = config();
    let (node, mut image) = (node(&config), image(&["FABRIC_1.6"]));
    let lacks = "GLIBC_2.38 (the image's `libc.so.6` ends with GLIBC_2.31)";
    image.lacks.insert("/site/libcxi.so.1".into(), lacks.to_owned());
    let decision = decide(&facts(&node, &image));
    assert_eq!(placed(&decision), []);
    assert!(decision.refused[0].contains("`/site/libcxi.so.1` needs GLIBC_2.38"), "{decision:?}");
    let hosts = Facts { with_host_libc: true, ..facts(&node, &image) };
    assert_eq!(placed(&decide(&hosts)).len(), 2);
    let musl = Image { libc: None, ..image };
    let decision = decide(&facts(&node, &musl));
    assert!(decision.refused[0].contains("no GNU C library"), "{decision:?}");
}

#[test]
fn without_libfabric_in_the_image_a_provider_waits_for_one() {
    let config = config();
    let (node, image) = (node(&config), Image { libfabric: None, ..image(&[]) });
    let decision = decide(&facts(&node, &image));
    assert_eq!(placed(&decision)[0].1, "/usr/lib/libfabric/libcxi-fi.so");
    let always = Facts { replace: Replace::Always, ..facts(&node, &image) };
    assert_eq!(placed(&decide(&always))[0].1, "/lib64/libfabric.so.1");
}

#[test]
fn the_plug_in_of_nccl_comes_with_a_libfabric() {
    let config = config();
    let (mut node, mut image) = (node(&config), image(&["FABRIC_1.6"]));
    let plugin = library("libnccl-net.so", &["libfabric.so.1"], &["FABRIC_1.6"], &[]);
    node.plugin = Some(NodePlugin {
        name: "cuda12".to_owned(),
        variant: &config.aws_ofi_nccl.as_ref().unwrap().variants["cuda12"],
        files: files(vec![plugin]).unwrap(),
    });
    let decision = decide(&facts(&node, &image));
    assert_eq!((decision.way, decision.with_plugin), (Some(Way::Injection), true));
    assert!(placed(&decision).contains(&("/site/libnccl-net.so", "/lib64/libnccl-net.so")));
    image.libfabric = None;
    let decision = decide(&facts(&node, &image));
    assert_eq!((decision.way, decision.with_plugin), (Some(Way::Replacement), true));
    node.libfabric = None;
    let decision = decide(&facts(&node, &image));
    assert!(!decision.with_plugin && decision.refused[0].contains("cuda12"), "{decision:?}");
}

#[test]
fn a_node_without_the_fabric_changes_nothing() {
    let config = config();
    let (mut node, image) = (node(&config), image(&["FABRIC_1.5"]));
    node.providers.clear();
    let decision = decide(&facts(&node, &image));
    assert_eq!(placed(&decision), []);
    assert_eq!(decision.refused, Vec::<String>::new());
}

//! Conversion equals extraction of the layers in order: a kernel mount of what `sarus export`
//! wrote, against `umoci unpack` as root, entry by entry.

use std::process::Command;

use sarus_integration_tests::{Image, Packed, Registry, Session, Tar, Who, debian};

/// Runs a command of root's, which must succeed.
pub(crate) fn as_root(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) const LIST: &str = env!("CARGO_BIN_EXE_list-tree");

/// Lists an image as the kernel shows it, mounted where nobody else sees it.
pub(crate) fn list_squashfs(file: &str, at: &str) -> String {
    let script = r#"mkdir "$2" && mount -t squashfs -o loop,ro "$1" "$2" && exec "$3" "$2""#;
    as_root(&["unshare", "--mount", "sh", "-ec", script, "sh", file, at, LIST])
}

/// Pulls and exports an image; returns the session, whose home has it, and the listing.
fn list_ours(image: &Packed) -> (Session, String) {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("torture:1", image);
    session.sarus(["pull", "--quiet", &reference]).run().ok();
    let exported = session.home().join("image.squashfs");
    session.sarus(["export", &reference]).args([&exported]).run().ok();
    let exported = exported.to_str().unwrap();
    let superblock = as_root(&["unsquashfs", "-s", exported]);
    assert!(superblock.contains("Found a valid SQUASHFS 4:0 superblock"), "{superblock}");

    assert!(!as_root(&["unsquashfs", "-lls", exported]).is_empty());
    let at = session.directory().join("mounted");
    let listing = list_squashfs(exported, at.to_str().unwrap());
    (session, listing)
}

/// Asserts that Sarus and umoci make the same tree of an image; returns the listing.
fn compare(image: &Packed) -> String {
    let (session, ours) = list_ours(image);
    let below = |name: &str| session.directory().join(name).to_str().unwrap().to_owned();
    let layout = below("layout");
    image.write_layout(layout.as_ref());
    let bundle = below("bundle");
    as_root(&["umoci", "unpack", "--image", &format!("{layout}:latest"), &bundle]);
    let theirs = as_root(&[LIST, &format!("{bundle}/rootfs")]);
    let differences = differences(&ours, &theirs);
    assert!(differences.is_empty(), "- umoci, + sarus\n{differences}");
    ours
}

fn compare_layers(layers: &[Tar]) -> String {
    let image = layers.iter().fold(Image::new(), |image, layer| image.layer(layer));
    compare(&image.pack())
}

pub(crate) fn differences(ours: &str, theirs: &str) -> String {
    let of =
        |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (ours, theirs) = (of(ours), of(theirs));
    let mut lines: Vec<(String, char)> =
        theirs.difference(&ours).map(|l| (l.clone(), '-')).collect();
    lines.extend(ours.difference(&theirs).map(|line| (line.clone(), '+')));
    lines.sort();
    lines.iter().map(|(line, sign)| format!("{sign} {line}\n")).collect()
}

#[test]
fn whiteouts_and_opaque_directories_hide_lower_layers_only() {
    let base = Tar::new()
        .dir("a")
        .file("a/one", "1")
        .file("a/two", "2")
        .dir("a/sub")
        .file("a/sub/deep", "3")
        .dir("b")
        .file("b/old", "4")
        .dir("b/sub")
        .file("b/sub/old", "5")
        .file("top", "6")
        .dir("c")
        .file("c/x", "7");
    let upper = Tar::new()
        .dir("a")
        .whiteout("a/one")
        .whiteout("a/sub")
        .dir("b")
        .mode(0o700)
        .opaque("b")
        .file("b/new", "8")
        .whiteout("top")
        // The marker may stand after what the same layer puts there.
        .dir("c")
        .file("c/y", "9")
        .opaque("c")
        .whiteout("never-there");
    let again = Tar::new().dir("a/sub").file("a/sub/new", "10").file("top", "back");
    compare_layers(&[base, upper, again]);
}

#[test]
fn a_whiteout_and_a_new_entry_of_the_same_name_in_one_layer() {
    let base = Tar::new().dir("d").file("d/old", "1").file("f", "2");
    let upper = Tar::new().whiteout("d").dir("d").file("d/new", "3").whiteout("f").file("f", "new");
    compare_layers(&[base, upper]);
}

#[test]
fn hard_links_stay_one_file_within_and_across_layers() {
    let base = Tar::new()
        .dir("d")
        .file("d/a", "shared")
        .owner(5, 6)
        .hard_link("d/b", "d/a")
        .hard_link("c", "./d/b")
        .file("other", "alone")
        .symlink("soft", "d/a")
        .hard_link("soft2", "soft")
        .fifo("pipe")
        .hard_link("pipe2", "pipe");
    let upper = Tar::new()
        .hard_link("late", "d/a")
        .hard_link("d/later", "/late")
        .hard_link("other2", "other")
        // Replacing one name leaves the others what they were.
        .file("d/b", "now apart");
    let top = Tar::new().whiteout("d/a").hard_link("from-hidden", "late").hard_link("other", "c");
    compare_layers(&[base, upper, top]);
}

#[test]
fn a_name_changes_its_kind_from_layer_to_layer() {
    let base = Tar::new()
        .dir("dir-file")
        .file("dir-file/x", "1")
        .dir("dir-link")
        .file("dir-link/x", "2")
        .file("file-dir", "3")
        .symlink("link-dir", "dir-link")
        .symlink("link-file", "file-dir")
        .file("file-link", "4")
        .device("device-file", b'c', 1, 3)
        .dir("back");
    let middle = Tar::new()
        .file("dir-file", "now a file")
        .symlink("dir-link", "back")
        .dir("file-dir")
        .file("file-dir/x", "5")
        .dir("link-dir")
        .file("link-dir/own", "6")
        .file("link-file", "7")
        .symlink("file-link", "back")
        .file("device-file", "8")
        .symlink("back", "/nowhere");
    let top = Tar::new()
        .dir("dir-file")
        .file("dir-file/y", "9")
        .dir("dir-link")
        .mode(0o1750)
        .file("dir-link/y", "10")
        .file("file-dir", "11")
        .dir("back")
        .file("back/z", "12");
    compare_layers(&[base, middle, top]);
}

#[test]
fn the_last_of_duplicate_entries_counts() {
    let layer = Tar::new()
        .file("f", "first")
        .file("f", "second")
        .mode(0o600)
        .dir("d")
        .mode(0o700)
        .file("d/x", "1")
        .dir("d")
        .mode(0o755)
        .owner(7, 8)
        .file("g", "was a file")
        .dir("g")
        .file("g/x", "2")
        .symlink("s", "f")
        .symlink("s", "d")
        .file("a", "a")
        .hard_link("b", "a")
        .file("a", "other");
    compare_layers(&[layer]);
}

#[test]
fn an_entry_without_its_parent_gets_one() {
    let layer = Tar::new().file("x/y/z/file", "1").owner(9, 9).symlink("p/q", "r").dir("m/n/o");
    compare_layers(std::slice::from_ref(&layer));
    // Also when the parent comes later, or a lower layer had removed it.
    let late = Tar::new().file("k/file", "2").dir("k").mode(0o711).owner(3, 4);
    let gone = Tar::new().whiteout("x");
    compare_layers(&[layer, late, gone, Tar::new().file("x/new/file", "3")]);
}

#[test]
fn a_path_through_a_symbolic_link_stays_inside_the_root() {
    let base = Tar::new()
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/old", "1")
        .symlink("lib", "usr/lib")
        .symlink("absolute", "/usr/lib")
        .symlink("outside", "../../../../usr")
        .dir("deep")
        .symlink("deep/up", "../usr/lib")
        .symlink("chain", "deep/up");
    let upper = Tar::new()
        .file("lib/new", "2")
        .file("absolute/abs", "3")
        .file("outside/out", "4")
        .file("chain/linked", "5")
        .whiteout("lib/old")
        .dir("lib/made")
        .hard_link("hard", "lib/new");
    compare_layers(&[base, upper]);
}

#[test]
fn paths_are_cleaned_and_never_leave_the_root() {
    let layer = Tar::new()
        .dir("./")
        .mode(0o751)
        .dir("./dot")
        .file("./dot/./file", "1")
        .file("/absolute", "2")
        .dir("x")
        .file("x/../beside", "3")
        .file("../../escaped", "4")
        .file("dot//double", "5")
        .hard_link("link", "/../absolute");
    let listing = compare_layers(&[layer]);
    assert!(listing.contains("/escaped 0644"), "{listing}");
}

#[test]
fn names_are_any_bytes_of_any_allowed_length() {
    let longest = "n".repeat(255);
    let layer = Tar::new()
        .file(&longest, "1")
        .dir("d")
        .file(b"d/latin-\xe9", "2")
        .file(b"d/\xff\xfe\x01", "3")
        .file("d/new\nline", "4")
        .file("d/ leading and trailing ", "5")
        .file("d/back\\slash", "6")
        .file("d/..three-dots...", "7")
        .file("d/ünïcode/日本", "8")
        .symlink(b"d/link", b"\xe9t\xe9")
        .file("d/.wh", "no whiteout");
    compare_layers(&[layer]);
}

#[test]
fn long_paths_and_link_targets_in_pax_and_gnu_headers() {
    let step = "s".repeat(200);
    let deep = vec![step.as_str(); 18].join("/");
    let target = "t/".repeat(1500);
    let layer = Tar::new()
        .file(format!("{deep}/pax"), "1")
        .symlink("long-target-pax", &target)
        .symlink("long-target-gnu", &target)
        .gnu_names()
        .file(format!("gnu/{step}/{step}/file"), "2")
        .gnu_names()
        .hard_link("hard", format!("gnu/{step}/{step}/file"))
        .gnu_names()
        .hard_link("hard-pax", format!("{deep}/pax"));
    compare_layers(&[layer]);
}

#[test]
fn extended_attributes_and_file_capabilities_are_kept() {
    // cap_net_raw+ep, version 2.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Tar::new()
        .file("ping", "1")
        .mode(0o755)
        .xattr("security.capability", &capability)
        .file("user", "2")
        .xattr("user.one", b"value")
        .xattr("user.two", b"\x00\xff binary")
        .xattr("user.empty", b"")
        .dir("d")
        .xattr("user.dir", b"on a directory")
        .file("trusted", "3")
        .xattr("trusted.thing", b"t")
        .file("same", "4")
        .xattr("user.one", b"value")
        .hard_link("linked", "user");
    let upper = Tar::new().file("user", "replaced: without attributes").dir("d").mode(0o700);
    let listing = compare_layers(&[layer, upper]);
    assert!(listing.contains("security.capability="), "{listing}");
}

#[test]
fn devices_fifos_modes_and_owners_are_kept() {
    let layer = Tar::new()
        .device("null", b'c', 1, 3)
        .mode(0o666)
        .device("disk", b'b', 254, 700)
        .owner(0, 6)
        .fifo("pipe")
        .owner(1, 1)
        .file("setuid", "1")
        .mode(0o4755)
        .file("setgid", "2")
        .mode(0o2755)
        .owner(0, 43)
        .dir("sticky")
        .mode(0o1777)
        .file("unreadable", "3")
        .mode(0o000)
        .file("nobody", "4")
        .owner(65534, 65534)
        .file("large-id", "5")
        .owner(4_000_000_000, 3_000_000_000)
        .symlink("owned-link", "x")
        .owner(1000, 1000)
        .file("before-1980", "6")
        .mtime(1)
        .file("late", "7")
        .mtime(4_000_000_000);
    compare_layers(&[layer]);
}

#[test]
fn sparse_files_are_files_with_holes() {
    let megabyte = 1 << 20;
    // umoci refuses sparse entries: what they mean is written out for it.
    let sparse = Tar::new()
        .sparse_gnu("gnu", &[(0, b"start"), (megabyte, b"end")], megabyte + 3)
        .sparse_gnu("trailing-hole", &[(4096, b"x")], 300_000)
        .sparse_pax("pax", &[(512, b"one"), (2 * megabyte, b"two")], 3 * megabyte)
        .file("zeros", vec![0; 400_000]);
    let filled = |parts: &[(usize, &[u8])], size: usize| {
        let mut bytes = vec![0; size];
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    };
    let plain = Tar::new()
        .file("gnu", filled(&[(0, b"start"), (1 << 20, b"end")], (1 << 20) + 3))
        .file("trailing-hole", filled(&[(4096, b"x")], 300_000))
        .file("pax", filled(&[(512, b"one"), (2 << 20, b"two")], 3 << 20))
        .file("zeros", vec![0; 400_000]);
    let theirs = compare_layers(&[plain]);
    let (_session, ours) = list_ours(&Image::new().layer(&sparse).pack());
    let differences = differences(&ours, &theirs);
    assert!(differences.is_empty(), "- plain, + sparse\n{differences}");
}

#[test]
fn files_of_all_sizes_around_the_block_size_and_large_directories() {
    let block = 128 << 10;
    let mut layer = Tar::new();
    for size in [0, 1, block - 1, block, block + 1, 3 * block, 3 * block + 17] {
        let content: Vec<u8> = (0..size).map(|n: usize| (n * n / 7).to_le_bytes()[0]).collect();
        layer = layer.file(format!("size-{size}"), &content).file(format!("twin-{size}"), content);
    }
    for n in 0..3000 {
        layer = layer.file(format!("many/{:040}", n * 7919 % 3000), format!("{n}"));
    }
    compare_layers(&[layer]);
}

#[test]
fn an_image_without_layers_or_entries_is_an_empty_directory() {
    let listing = compare_layers(&[Tar::new()]);
    assert_eq!(listing, "/ 0755 0:0 directory\n");
}

#[test]
fn a_real_debian_image_has_no_difference() {
    let listing = compare(&debian());
    assert!(listing.lines().count() > 3000, "{}", listing.lines().count());
    assert!(listing.contains("security.capability="), "the image has a file with capabilities");
}
